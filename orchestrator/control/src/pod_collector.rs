//! Removal of pods that no node will ever remove.
//!
//! A node confirms the end of its pods by deleting them. Nobody does so for a pod that was never bound, or whose node is not in
//! the cluster any more: removing a Node object says that its pods do not run. Finished pods are kept for their logs and exit
//! codes until there are too many.

use std::time::Duration;

use podium_types::k8s::api::core::v1::{Node, Pod};
use podium_types::kind::resources;
use podium_types::{Now, ObjectKey};

use crate::controller::Controller;
use crate::object::Typed;
use crate::plan::{Plan, Propagation, Step};
use crate::pods;
use crate::world::{Change, World};

/// A pod may be made for a node that is only about to register. Kubernetes' value.
const NODE_MAY_COME: Duration = Duration::from_secs(40);

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct PodCollector {
    /// How many finished pods are kept.
    pub finished: usize,
}

impl PodCollector {
    /// The key of the count of finished pods.
    fn all() -> ObjectKey {
        ObjectKey::new(resources::PODS, "", "")
    }
}

impl Controller for PodCollector {
    fn name(&self) -> &'static str {
        "pod-garbage-collector"
    }

    fn keys_for(&self, world: &World, change: &Change) -> Vec<ObjectKey> {
        if change.key.resource == Node::RESOURCE && change.after.is_none() {
            return world.pods_on(&change.key.name).map(|(key, _)| (**key).clone()).collect();
        }
        let Some(pod) = change.after::<Pod>() else { return Vec::new() };
        let mut keys = Vec::new();
        if lost(world, pod) {
            keys.push((*change.key).clone());
        }
        if pods::finished(pod) && world.finished_pods().len() > self.finished {
            keys.push(Self::all());
        }
        keys
    }

    fn plan(&self, world: &World, key: &ObjectKey, now: Now) -> Plan {
        if *key == Self::all() {
            return self.thin_out(world);
        }
        match world.get::<Pod>(key) {
            Some(pod) if lost(world, pod) => remove_lost(key, pod, now),
            _ => Plan::nothing(),
        }
    }
}

/// Whether no node answers for a pod that one should answer for, and its removal has not begun.
fn lost(world: &World, pod: &Pod) -> bool {
    if pods::terminating(pod) && pod.metadata.deletion_grace_period_seconds == Some(0) {
        return false;
    }
    match pods::node_name(pod) {
        "" => pods::terminating(pod),
        node => world.named::<Node>("", node).is_none(),
    }
}

fn remove_lost(key: &ObjectKey, pod: &Pod, now: Now) -> Plan {
    let bound = !pods::node_name(pod).is_empty();
    let left = NODE_MAY_COME.checked_sub(pods::elapsed(pods::created(pod), now));
    match left.filter(|left| bound && !left.is_zero()) {
        Some(left) => Plan { steps: Vec::new(), wake_after: Some(left) },
        None => Plan { steps: vec![remove(key, pod)], wake_after: None },
    }
}

fn remove(key: &ObjectKey, pod: &Pod) -> Step {
    Step::Delete {
        key: key.clone(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        grace_seconds: Some(0),
        propagation: Propagation::Background,
    }
}

impl PodCollector {
    fn thin_out(&self, world: &World) -> Plan {
        let surplus = world.finished_pods().len().saturating_sub(self.finished);
        let oldest = world.finished_pods().take(surplus);
        let steps = oldest.filter_map(|key| Some(remove(key, world.get::<Pod>(key)?))).collect();
        Plan { steps, wake_after: None }
    }
}
