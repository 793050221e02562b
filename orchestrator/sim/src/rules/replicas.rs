//! No ReplicaSet has more pods than it was ever asked for lately, and no Deployment more than its surge allows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use podium_types::ObjectKey;
use serde_json::Value;

use super::{Change, MEMORY, controller, is_deleting, is_over, number, text};

/// A bound that a user may change at any time, and its recent values.
#[derive(Default)]
struct Bound {
    /// Since when it has been which value; the last is now's.
    values: VecDeque<(Duration, i64)>,
}

impl Bound {
    fn set(&mut self, at: Duration, value: i64) {
        if self.values.back().is_some_and(|(_, last)| *last == value) {
            return;
        }
        self.values.push_back((at, value));
        while self.values.get(1).is_some_and(|(since, _)| *since + MEMORY < at) {
            self.values.pop_front();
        }
    }

    /// The highest value that was in force within the memory before `at`.
    fn highest(&mut self, at: Duration) -> i64 {
        while self.values.get(1).is_some_and(|(since, _)| *since + MEMORY < at) {
            self.values.pop_front();
        }
        self.values.iter().map(|(_, value)| *value).max().unwrap_or(0)
    }
}

#[derive(Default)]
pub(super) struct Replicas {
    /// By uid of a ReplicaSet: how many pods it may have.
    sets: BTreeMap<String, Bound>,
    /// By uid of a Deployment: how many replicas all its sets may have.
    deployments: BTreeMap<String, Bound>,
    /// By uid of the controller: its pods that live.
    pods: BTreeMap<String, BTreeSet<ObjectKey>>,
    /// By uid of the Deployment: what each of its sets asks for.
    asked: BTreeMap<String, BTreeMap<ObjectKey, i64>>,
}

impl Replicas {
    pub(super) fn judge(&mut self, change: &Change<'_>) -> Result<(), String> {
        match &*change.key.resource.resource {
            "deployments" => self.deployment(change),
            "replicasets" => return self.replica_set(change),
            "pods" => return self.pod(change),
            _ => {}
        }
        Ok(())
    }

    fn deployment(&mut self, change: &Change<'_>) {
        let Some(deployment) = change.after else { return };
        let replicas = number(deployment, "/spec/replicas").unwrap_or(1);
        let surge = match text(deployment, "/spec/strategy/type") {
            "Recreate" => 0,
            _ => surge_of(deployment, replicas),
        };
        let bound =
            self.deployments.entry(text(deployment, "/metadata/uid").to_owned()).or_default();
        bound.set(change.at, replicas + surge);
    }

    fn replica_set(&mut self, change: &Change<'_>) -> Result<(), String> {
        let Some(set) = change.after.or(change.before) else { return Ok(()) };
        let owner = controller(set).unwrap_or_default().to_owned();
        let asked = self.asked.entry(owner.clone()).or_default();
        if change.after.is_none() {
            asked.remove(change.key);
            return Ok(());
        }
        let replicas = number(set, "/spec/replicas").unwrap_or(1);
        asked.insert(change.key.clone(), replicas);
        let total: i64 = asked.values().sum();
        self.sets
            .entry(text(set, "/metadata/uid").to_owned())
            .or_default()
            .set(change.at, replicas);
        let Some(bound) = self.deployments.get_mut(&owner) else { return Ok(()) };
        let most = bound.highest(change.at);
        // A set that changes hands is not scaled: its new owner will scale it.
        let kept = change.before.is_none_or(|before| controller(before) == Some(&*owner));
        let before = change.before.and_then(|before| number(before, "/spec/replicas")).unwrap_or(0);
        if kept && replicas > before && total > most {
            let name = &change.key.name;
            return Err(format!(
                "{name} was scaled from {before} to {replicas}: its Deployment has {total}, at most {most} are allowed"
            ));
        }
        Ok(())
    }

    fn pod(&mut self, change: &Change<'_>) -> Result<(), String> {
        let Some(pod) = change.after.or(change.before) else { return Ok(()) };
        let Some(owner) = controller(pod).map(str::to_owned) else { return Ok(()) };
        let lives = change.after.is_some_and(|pod| !is_deleting(pod) && !is_over(pod));
        let pods = self.pods.entry(owner.clone()).or_default();
        if !lives {
            pods.remove(change.key);
            return Ok(());
        }
        pods.insert(change.key.clone());
        let count = i64::try_from(pods.len()).unwrap_or(i64::MAX);
        let Some(bound) = self.sets.get_mut(&owner) else { return Ok(()) };
        let most = bound.highest(change.at);
        if change.before.is_none() && count > most {
            let others: Vec<&str> = pods.iter().map(|key| &*key.name).collect();
            return Err(format!(
                "pod {} is one of {count} of its ReplicaSet, which may have {most}: {others:?}",
                change.key.name
            ));
        }
        Ok(())
    }
}

/// `maxSurge` as a number: a percentage is rounded up; 25 % where nothing is said.
fn surge_of(deployment: &Value, replicas: i64) -> i64 {
    let surge = deployment.pointer("/spec/strategy/rollingUpdate/maxSurge");
    let percent = |text: &str| text.strip_suffix('%').and_then(|number| number.parse::<i64>().ok());
    match surge {
        Some(Value::Number(number)) => number.as_i64().unwrap_or(0),
        Some(Value::String(text)) => percent(text)
            .map_or_else(|| text.parse().unwrap_or(0), |percent| (replicas * percent + 99) / 100),
        _ => (replicas * 25 + 99) / 100,
    }
}
