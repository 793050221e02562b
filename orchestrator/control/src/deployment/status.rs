//! The status of a Deployment: the counts and conditions that `kubectl rollout status` reads.

use std::time::Duration;

use podium_types::Now;
use podium_types::k8s::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use podium_types::k8s::apimachinery::pkg::apis::meta::v1::Time;

use super::rollout::Limits;
use super::sets::{Set, Sets};
use crate::object::Object;
use crate::plan::{Plan, Step};
use crate::pods;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// Whether all pods there are come from the template as it is now, and serve.
pub(super) fn complete(deployment: &Deployment, sets: &Sets) -> bool {
    let desired = deployment.spec.replicas.unwrap_or(1);
    let updated = sets.new.as_ref().map_or(0, |new| new.pods.active);
    let all = sets.sum(|set| set.pods.active);
    let available = sets.sum(|set| set.pods.available);
    updated == desired && all == desired && available == desired
}

/// Adds the step that brings the status up to date, and the wake time of the progress deadline.
pub(super) fn report(
    object: &Object,
    deployment: &Deployment,
    sets: &Sets,
    collisions: Option<i32>,
    now: Now,
    plan: &mut Plan,
) {
    let before = deployment.status.clone().unwrap_or_default();
    let mut status = counts(deployment, sets, &before);
    status.collision_count = collisions.or(before.collision_count);
    set_available(deployment, &mut status, now);
    if let Some(deadline) = deadline(deployment).filter(|_| !object.terminating()) {
        if deployment.spec.paused == Some(true) {
            pause(&mut status, now);
        } else {
            let progress = Progress { deployment, sets, before: &before, deadline, now };
            if let Some(wake) = progress.judge(&mut status) {
                plan.wake(wake);
            }
        }
    }
    if status == before {
        return;
    }
    let mut deployment = deployment.clone();
    deployment.status = Some(status);
    if let Ok(value) = podium_types::to_value(&deployment) {
        let key = (*object.key).clone();
        plan.push(Step::Update { key, subresource: Some("status"), object: value });
    }
}

fn counts(deployment: &Deployment, sets: &Sets, before: &DeploymentStatus) -> DeploymentStatus {
    let some = |count: i32| Some(count).filter(|count| *count > 0);
    let available = sets.sum(|set| set.pods.available);
    DeploymentStatus {
        replicas: some(sets.sum(|set| set.pods.active)),
        updated_replicas: some(sets.new.as_ref().map_or(0, |new| new.pods.active)),
        ready_replicas: some(sets.sum(|set| set.pods.ready)),
        available_replicas: some(available),
        unavailable_replicas: some(sets.sum(|set| set.replicas) - available),
        terminating_replicas: Some(sets.sum(|set| set.pods.terminating)),
        observed_generation: deployment.metadata.generation,
        collision_count: None,
        conditions: before.conditions.clone(),
    }
}

fn set_available(deployment: &Deployment, status: &mut DeploymentStatus, now: Now) {
    let least = Limits::of(deployment).least_available();
    let condition = if status.available_replicas.unwrap_or_default() >= least {
        condition(
            AVAILABLE,
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.".to_owned(),
            now,
        )
    } else {
        condition(
            AVAILABLE,
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.".to_owned(),
            now,
        )
    };
    set(status, condition);
}

fn pause(status: &mut DeploymentStatus, now: Now) {
    let reason = find(status, PROGRESSING).and_then(|condition| condition.reason.as_deref());
    if reason != Some(TIMED_OUT) && reason != Some(PAUSED) {
        let message = "Deployment is paused".to_owned();
        set(status, condition(PROGRESSING, "Unknown", PAUSED, message, now));
    }
}

/// `None` where the user wants no deadline.
fn deadline(deployment: &Deployment) -> Option<Duration> {
    let seconds = deployment.spec.progress_deadline_seconds.unwrap_or(600);
    (seconds != i32::MAX).then(|| Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}

struct Progress<'a> {
    deployment: &'a Deployment,
    sets: &'a Sets,
    before: &'a DeploymentStatus,
    deadline: Duration,
    now: Now,
}

impl Progress<'_> {
    /// Sets the condition `Progressing`. Gives the time until the deadline if the rollout is under way.
    fn judge(&self, status: &mut DeploymentStatus) -> Option<Duration> {
        self.begin(status);
        let current = find(status, PROGRESSING).cloned();
        let reason = current.as_ref().and_then(|condition| condition.reason.as_deref());
        if status.replicas == status.updated_replicas && reason == Some(COMPLETE) {
            return None;
        }
        if complete(self.deployment, self.sets) {
            let message = format!("{} has successfully progressed.", self.subject());
            set(status, condition(PROGRESSING, "True", COMPLETE, message, self.now));
            return None;
        }
        if self.moved(status) {
            let message = format!("{} is progressing.", self.subject());
            let mut moved = condition(PROGRESSING, "True", "ReplicaSetUpdated", message, self.now);
            if let Some(current) = current.filter(|current| current.status == moved.status) {
                moved.last_transition_time = current.last_transition_time;
            }
            put(status, moved);
            return Some(self.deadline);
        }
        self.expire(status)
    }

    /// A rollout that begins, is found under way, or is resumed starts the clock.
    fn begin(&self, status: &mut DeploymentStatus) {
        let Some(new) = &self.sets.new else { return };
        let name = &new.key.name;
        let current = find(status, PROGRESSING).and_then(|condition| condition.reason.as_deref());
        if new.before.is_none() {
            let message = format!("Created new replica set \"{name}\"");
            put(status, condition(PROGRESSING, "True", "NewReplicaSetCreated", message, self.now));
        } else if current.is_none() {
            let message = format!("Found new replica set \"{name}\"");
            put(status, condition(PROGRESSING, "True", "FoundNewReplicaSet", message, self.now));
        } else if current == Some(PAUSED) {
            let message = "Deployment is resumed".to_owned();
            put(status, condition(PROGRESSING, "Unknown", "DeploymentResumed", message, self.now));
        }
    }

    fn moved(&self, status: &DeploymentStatus) -> bool {
        let number = |count: Option<i32>| count.unwrap_or_default();
        let old =
            |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
        let before = self.before;
        number(status.updated_replicas) > number(before.updated_replicas)
            || old(status) < old(before)
            || number(status.ready_replicas) > number(before.ready_replicas)
            || number(status.available_replicas) > number(before.available_replicas)
    }

    fn expire(&self, status: &mut DeploymentStatus) -> Option<Duration> {
        let current = find(status, PROGRESSING)?;
        if matches!(current.reason.as_deref(), Some(TIMED_OUT | COMPLETE)) {
            return None;
        }
        let since = current.last_update_time.as_ref()?.0;
        let left = self.deadline.checked_sub(pods::elapsed(since, self.now));
        if let Some(left) = left.filter(|left| !left.is_zero()) {
            return Some(left);
        }
        let message = format!("{} has timed out progressing.", self.subject());
        set(status, condition(PROGRESSING, "False", TIMED_OUT, message, self.now));
        None
    }

    fn subject(&self) -> String {
        let set: Option<&Set> = self.sets.new.as_ref();
        let deployment = self.deployment.metadata.name.as_deref().unwrap_or_default();
        set.map_or_else(
            || format!("Deployment \"{deployment}\""),
            |set| format!("ReplicaSet \"{}\"", set.key.name),
        )
    }
}

fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Now,
) -> DeploymentCondition {
    let time = Some(Time(now.wall));
    DeploymentCondition {
        type_: Some(kind.to_owned()),
        status: Some(status.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: time.clone(),
        last_update_time: time,
    }
}

fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_.as_deref() == Some(kind))
}

/// Sets a condition unless status and reason are as they were; the transition time moves with the status only.
fn set(status: &mut DeploymentStatus, mut condition: DeploymentCondition) {
    let kind = condition.type_.as_deref().unwrap_or_default();
    if let Some(current) = find(status, kind) {
        if current.status == condition.status && current.reason == condition.reason {
            return;
        }
        if current.status == condition.status {
            condition.last_transition_time = current.last_transition_time.clone();
        }
    }
    put(status, condition);
}

fn put(status: &mut DeploymentStatus, condition: DeploymentCondition) {
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|present| present.type_ == condition.type_) {
        Some(present) => *present = condition,
        None => conditions.push(condition),
    }
}
