//! Which pods go first when there are too many: those whose loss is felt least.
//!
//! The order is Kubernetes': not on a node before placed; pending before running; not ready before ready; lower
//! `pod-deletion-cost` first; from nodes with more of the same workload first; ready for a shorter time first; more
//! restarts first; younger first. The name decides what is left, so the order is total.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use podium_types::ObjectKey;
use podium_types::k8s::api::apps::v1::ReplicaSet;
use podium_types::k8s::api::core::v1::Pod;

use crate::claim;
use crate::pods;
use crate::world::World;

/// The annotation by which a user says what deleting a pod would cost.
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The pods of `set`, those to delete first at the front.
#[must_use]
pub fn first_to_go<'a>(
    world: &World,
    set: &ReplicaSet,
    mut active: Vec<(&'a Arc<ObjectKey>, &'a Arc<Pod>)>,
) -> Vec<(&'a Arc<ObjectKey>, &'a Arc<Pod>)> {
    let related = related_by_node(world, set);
    active.sort_by_cached_key(|(key, pod)| {
        let related = related.get(pods::node_name(pod)).copied().unwrap_or_default();
        (rank(pod, related), key.name.clone())
    });
    active
}

/// Smaller goes first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    placed: bool,
    phase: u8,
    ready: bool,
    cost: i64,
    related_on_node: Reverse<usize>,
    ready_since: Reverse<Option<Timestamp>>,
    restarts: Reverse<i64>,
    created: Reverse<Timestamp>,
}

fn rank(pod: &Pod, related_on_node: usize) -> Rank {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_deref());
    let restarts = containers.unwrap_or_default().iter().map(|c| i64::from(c.restart_count)).sum();
    let cost = pod.metadata.annotations.as_ref().and_then(|notes| notes.get(COST)?.parse().ok());
    Rank {
        placed: !pods::node_name(pod).is_empty(),
        phase: match pods::phase(pod) {
            "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        },
        ready: pods::ready(pod),
        cost: cost.unwrap_or_default(),
        related_on_node: Reverse(related_on_node),
        ready_since: Reverse(pods::ready_since(pod)),
        restarts: Reverse(restarts),
        created: Reverse(pods::created(pod)),
    }
}

/// How many active pods of the same workload (all ReplicaSets of the owner of `set`, or `set` alone) each node has.
fn related_by_node(world: &World, set: &ReplicaSet) -> BTreeMap<String, usize> {
    let own = set.metadata.uid.as_deref().unwrap_or_default();
    let mut sets = vec![own];
    if let Some(owner) = claim::controller(&set.metadata) {
        let siblings = world.dependents_of::<ReplicaSet>(&owner.uid);
        sets.extend(siblings.filter_map(|(_, set)| set.metadata.uid.as_deref()));
        sets.sort_unstable();
        sets.dedup();
    }
    let mut nodes = BTreeMap::new();
    for uid in sets {
        for (_, pod) in world.dependents_of::<Pod>(uid).filter(|(_, pod)| pods::active(pod)) {
            *nodes.entry(pods::node_name(pod).to_owned()).or_default() += 1;
        }
    }
    nodes
}
