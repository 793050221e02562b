//! The Deployment controller: from one pod template to the next, without losing too many pods or having too many.
//!
//! A Deployment owns ReplicaSets, one for each template it has had; the one that matches its template now is the *new* one,
//! the others are *old*. A plan moves replicas from the old ones to the new one:
//!
//! ```text
//!   paused, or spec.replicas changed ──► scale every ReplicaSet in proportion, start nothing
//!   Recreate ──────────────────────────► old ones to 0; when no old pod is left, the new one up
//!   RollingUpdate ─────────────────────► new one up within the surge; old ones down within availability
//! ```
//!
//! # Invariants
//!
//! - Upwards: the active pods of all ReplicaSets never exceed `spec.replicas + maxSurge`. Room is counted by what each
//!   ReplicaSet has or wants, whichever is more, so a pod that is still to be deleted takes up its place.
//! - Downwards: a plan never lets the available pods fall below `spec.replicas − maxUnavailable`.
//! - Both hold because plans of a Deployment and of its ReplicaSets are made one after the other (their family).
//!
//! Pods are counted in the world itself, not in the ReplicaSets' statuses, which lag.
//!
//! `sets` holds the ReplicaSets of one plan, `rollout` does the arithmetic, `revision` names and numbers, `status`
//! reports.

use podium_types::k8s::api::apps::v1::{Deployment, ReplicaSet};
use podium_types::k8s::api::core::v1::Pod;
use podium_types::{Now, ObjectKey};
use serde_json::json;

use crate::controller::Controller;
use crate::object::{Object, Typed};
use crate::plan::{EventKind, EventStep, Plan, Propagation, Step};
use crate::world::{Change, World};
use crate::{claim, selector};

mod revision;
mod rollout;
mod sets;
mod status;

use sets::Sets;

pub(crate) const COMPONENT: &str = "deployment-controller";

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeploymentController;

impl Controller for DeploymentController {
    fn name(&self) -> &'static str {
        COMPONENT
    }

    fn keys_for(&self, world: &World, change: &Change) -> Vec<ObjectKey> {
        if Deployment::RESOURCE == change.key.resource {
            return vec![(*change.key).clone()];
        }
        change
            .sides()
            .flat_map(|object| {
                if ReplicaSet::of(&object.view).is_some() {
                    keys_of_set(world, object)
                } else if Pod::of(&object.view).is_some() {
                    let set = crate::world::controller_of(object);
                    let set = set.and_then(|owner| world.by_uid(&owner.uid));
                    set.map(|set| keys_of_set(world, set)).unwrap_or_default()
                } else {
                    Vec::new()
                }
            })
            .collect()
    }

    fn plan(&self, world: &World, key: &ObjectKey, now: Now) -> Plan {
        match (world.object(key), world.get::<Deployment>(key)) {
            (Some(object), Some(deployment)) => plan(world, object, deployment, now),
            _ => Plan::nothing(),
        }
    }
}

/// The Deployment that owns a ReplicaSet, or those that may adopt it.
fn keys_of_set(world: &World, set: &Object) -> Vec<ObjectKey> {
    let namespace = &set.key.namespace;
    if let Some(owner) = crate::world::controller_of(set) {
        let key = ObjectKey::new(Deployment::RESOURCE, namespace.clone(), owner.name.clone());
        return if owner.kind == "Deployment" { vec![key] } else { Vec::new() };
    }
    let labels = set.metadata().labels.as_ref();
    world
        .in_namespace::<Deployment>(namespace)
        .filter(|(_, deployment)| selector::selects(&deployment.spec.selector, labels))
        .map(|(key, _)| (**key).clone())
        .collect()
}

fn plan(world: &World, object: &Object, deployment: &Deployment, now: Now) -> Plan {
    if selector::is_empty(&deployment.spec.selector) {
        return Plan::nothing();
    }
    let owner = claim::Owner {
        api_version: "apps/v1",
        kind: "Deployment",
        metadata: &deployment.metadata,
        selector: &deployment.spec.selector,
    };
    let claim = claim::claim::<ReplicaSet>(world, &owner, |_| true);
    let mut plan = Plan { steps: claim.steps, wake_after: None };
    let mut sets = Sets::new(world, deployment, &claim.owned, now);
    let mut collisions = None;
    let mut cleanup = Vec::new();
    if !object.terminating() {
        collisions = advance(world, deployment, &mut sets);
        if deployment.spec.paused == Some(true) || status::complete(deployment, &sets) {
            cleanup = revision::surplus(deployment, &sets);
        }
    }
    emit(object, deployment, &sets, &mut plan);
    for (key, uid) in cleanup {
        let propagation = Propagation::Background;
        plan.push(Step::Delete { key, uid, grace_seconds: None, propagation });
    }
    status::report(object, deployment, &sets, collisions, now, &mut plan);
    if !object.terminating() {
        plan.steps.extend(number(object, deployment, &sets));
    }
    if let Some(next) = sets.next_available() {
        plan.wake(next);
    }
    plan
}

/// Decides how many replicas each ReplicaSet shall have. Gives the new collision count if that changed.
fn advance(world: &World, deployment: &Deployment, sets: &mut Sets) -> Option<i32> {
    revision::sync(deployment, sets);
    let limits = rollout::Limits::of(deployment);
    if deployment.spec.paused == Some(true) || rollout::scaled(sets, &limits) {
        rollout::scale_in_proportion(sets, &limits);
        return None;
    }
    let mut collisions = None;
    let may_start = !limits.recreate || sets.old_pods() == 0;
    if sets.new.is_none() && may_start {
        collisions = revision::create(world, deployment, sets);
    }
    if limits.recreate {
        rollout::recreate(sets, &limits);
    } else {
        rollout::roll(sets, &limits);
    }
    collisions
}

/// One step, and a report where the number of replicas changes, for each ReplicaSet that shall be different.
fn emit(object: &Object, deployment: &Deployment, sets: &Sets, plan: &mut Plan) {
    let limits = rollout::Limits::of(deployment);
    for set in sets.all() {
        let from = set.before.as_ref().map_or(0, |before| before.spec.replicas.unwrap_or(1));
        let Some(step) = set.step(object, deployment, &limits) else { continue };
        let step = plan.push(step);
        if from != set.replicas {
            let direction = if from < set.replicas { "up" } else { "down" };
            let message = format!(
                "Scaled {direction} replica set {} from {from} to {}",
                set.key.name, set.replicas
            );
            plan.push(Step::Event(EventStep {
                regarding: object.regarding(),
                kind: EventKind::Normal,
                reason: "ScalingReplicaSet".to_owned(),
                message,
                action: "",
                component: COMPONENT,
                reports: Some(step),
            }));
        }
    }
}

/// Writes the new ReplicaSet's revision on the Deployment. It comes after the status, and without resourceVersion, so that
/// both can be in one plan.
fn number(object: &Object, deployment: &Deployment, sets: &Sets) -> Option<Step> {
    let revision = sets.new.as_ref()?.annotations.get(revision::REVISION)?;
    let notes = deployment.metadata.annotations.as_ref();
    if notes.and_then(|notes| notes.get(revision::REVISION)) == Some(revision) {
        return None;
    }
    let patch = json!({"metadata": {
        "uid": object.uid(), "annotations": {revision::REVISION: revision},
    }});
    Some(Step::Patch { key: (*object.key).clone(), subresource: None, patch })
}
