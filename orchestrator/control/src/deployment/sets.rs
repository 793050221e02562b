//! The ReplicaSets of one plan: as they are, and as they shall be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use podium_types::k8s::api::apps::v1::{Deployment, ReplicaSet};
use podium_types::k8s::api::core::v1::Pod;
use podium_types::{Now, ObjectKey};
use serde_json::{Map, Value, json};

use super::{revision, rollout};
use crate::object::{Object, Typed};
use crate::plan::Step;
use crate::selector::Labels;
use crate::tally::Tally;
use crate::world::World;

/// One ReplicaSet.
#[derive(Debug, Clone)]
pub(super) struct Set {
    pub(super) key: ObjectKey,
    /// As it is; `None` if this plan creates it.
    pub(super) before: Option<Arc<ReplicaSet>>,
    /// `spec.replicas` as it shall be.
    pub(super) replicas: i32,
    /// All annotations as they shall be.
    pub(super) annotations: Labels,
    /// The pods it has.
    pub(super) pods: Tally,
}

/// The ReplicaSets of a Deployment.
#[derive(Debug, Clone)]
pub(super) struct Sets {
    /// The one that matches the template.
    pub(super) new: Option<Set>,
    /// The others, oldest first.
    pub(super) old: Vec<Set>,
}

impl Set {
    /// The pods that it has or will have, whichever is more: those that take up room.
    pub(super) fn room(&self) -> i32 {
        self.replicas.max(self.pods.active)
    }

    /// The pods that serve and that will still be there once it has the replicas it shall have (it deletes others first).
    pub(super) fn available(&self) -> i32 {
        self.pods.available.min(self.replicas)
    }

    /// The step that makes it what it shall be, if it is not.
    pub(super) fn step(
        &self,
        owner: &Object,
        deployment: &Deployment,
        limits: &rollout::Limits,
    ) -> Option<Step> {
        let mut annotations = self.annotations.clone();
        let Some(before) = &self.before else {
            limits.annotate(&mut annotations);
            let object = revision::object(owner, deployment, self, &annotations)?;
            return Some(Step::Create { resource: ReplicaSet::RESOURCE, object });
        };
        let rescaled = before.spec.replicas != Some(self.replicas);
        if rescaled || self.replicas > 0 {
            limits.annotate(&mut annotations);
        }
        let mut spec = Map::new();
        if rescaled {
            spec.insert("replicas".to_owned(), json!(self.replicas));
        }
        let is_new = revision::matches(before, deployment);
        if is_new && before.spec.min_ready_seconds != deployment.spec.min_ready_seconds {
            spec.insert("minReadySeconds".to_owned(), json!(deployment.spec.min_ready_seconds));
        }
        let changed = changes(before.metadata.annotations.as_ref(), &annotations);
        if spec.is_empty() && changed.is_empty() {
            return None;
        }
        let mut patch = json!({"metadata": {
            "uid": before.metadata.uid, "resourceVersion": before.metadata.resource_version,
        }});
        if !changed.is_empty() {
            patch["metadata"]["annotations"] = Value::Object(changed);
        }
        if !spec.is_empty() {
            patch["spec"] = Value::Object(spec);
        }
        Some(Step::Patch { key: self.key.clone(), subresource: None, patch })
    }
}

/// The merge patch from one map of strings to another.
fn changes(before: Option<&Labels>, after: &Labels) -> Map<String, Value> {
    let empty = BTreeMap::new();
    let before = before.unwrap_or(&empty);
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    let gone = gone.map(|key| (key.clone(), Value::Null));
    let set = after.iter().filter(|(key, value)| before.get(*key) != Some(value));
    gone.chain(set.map(|(key, value)| (key.clone(), json!(value)))).collect()
}

impl Sets {
    pub(super) fn new(
        world: &World,
        deployment: &Deployment,
        owned: &[(&Arc<ObjectKey>, &Arc<ReplicaSet>)],
        now: Now,
    ) -> Self {
        let mut owned = owned.to_vec();
        owned.sort_by_key(|(key, set)| (set.metadata.creation_timestamp.clone(), *key));
        let mut sets = Self { new: None, old: Vec::new() };
        let min_ready = deployment.spec.min_ready_seconds.unwrap_or_default();
        for (key, before) in owned {
            let uid = before.metadata.uid.as_deref().unwrap_or_default();
            let pods = world.dependents_of::<Pod>(uid).map(|(_, pod)| &**pod);
            let pods = pods.filter(|pod| {
                crate::claim::controller(&pod.metadata).is_some_and(|owner| owner.uid == uid)
            });
            let set = Set {
                key: (**key).clone(),
                before: Some(Arc::clone(before)),
                replicas: before.spec.replicas.unwrap_or(1),
                annotations: before.metadata.annotations.clone().unwrap_or_default(),
                pods: Tally::of(pods, None, min_ready, now),
            };
            if sets.new.is_none() && revision::matches(before, deployment) {
                sets.new = Some(set);
            } else {
                sets.old.push(set);
            }
        }
        sets
    }

    /// The new one first, then the old ones from the oldest.
    pub(super) fn all(&self) -> impl Iterator<Item = &Set> {
        self.new.iter().chain(&self.old)
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Set> {
        self.new.iter_mut().chain(&mut self.old)
    }

    pub(super) fn sum(&self, count: impl Fn(&Set) -> i32) -> i32 {
        self.all().map(count).fold(0, i32::saturating_add)
    }

    /// Pods of old templates that have not finished, terminating ones included.
    pub(super) fn old_pods(&self) -> i32 {
        self.old.iter().map(|set| set.pods.active + set.pods.terminating).sum()
    }

    pub(super) fn next_available(&self) -> Option<Duration> {
        self.all().filter_map(|set| set.pods.next).min()
    }
}
