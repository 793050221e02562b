//! How good a node that fits is for a pod: the larger the better.
//!
//! Each part is from 0 to `FULL`, fine enough that one small pod on a large node makes a difference. The weights follow
//! Kubernetes' defaults: what the node asks for itself (taints) counts most, then what the pod prefers and how well it
//! spreads, then how much room is left.

use podium_types::k8s::api::core::v1::PodSpec;

use super::filter::{self, Candidate};
use super::selector;
use super::spread::Spread;
use crate::resources::Resources;

const FULL: i64 = 10_000;
/// The largest weight of one preference of a pod.
const STRONGEST: i64 = 100;
const TAINT_WEIGHT: i64 = 3;
const AFFINITY_WEIGHT: i64 = 2;
const SPREAD_WEIGHT: i64 = 2;
const ROOM_WEIGHT: i64 = 1;

/// What does not change while pods are placed: taints and preferences.
pub(super) fn of_node(spec: &PodSpec, candidate: &Candidate<'_>) -> i64 {
    let taints = i64::try_from(filter::discouraging_taints(spec, candidate.node)).unwrap_or(FULL);
    let avoided = FULL / (1 + taints);
    let preferred = selector::preference(spec, candidate.node).clamp(-STRONGEST, STRONGEST);
    let preferred = preferred * (FULL / STRONGEST);
    TAINT_WEIGHT * avoided + AFFINITY_WEIGHT * preferred
}

/// What does: room and spreading.
pub(super) fn of_moment(
    candidate: &Candidate<'_>,
    requests: &Resources,
    spreads: &[Spread],
    node: usize,
) -> i64 {
    ROOM_WEIGHT * room(candidate, requests) + SPREAD_WEIGHT * apart(spreads, node)
}

/// The share of processors, memory and pods that would be free, on average.
fn room(candidate: &Candidate<'_>, requests: &Resources) -> i64 {
    let share =
        |free: i64, all: i64| if all > 0 { FULL.saturating_mul(free.max(0)) / all } else { 0 };
    let of = |resource: &str| {
        let free = candidate.free(resource) - requests.get(resource);
        share(free, candidate.allocatable.get(resource))
    };
    let most = candidate.allocatable.get("pods");
    let pods = i64::try_from(candidate.usage.pods).unwrap_or(i64::MAX);
    (of("cpu") + of("memory") + share(most.saturating_sub(pods).saturating_sub(1), most)) / 3
}

/// Full marks for the emptiest domain, none for the fullest; the average over all spreads.
fn apart(spreads: &[Spread], node: usize) -> i64 {
    let marks = spreads.iter().map(|spread| {
        let fullest = spread.fullest();
        if spread.outside(node) {
            0
        } else if fullest == 0 {
            FULL
        } else {
            FULL * (fullest - spread.like_pods(node)) / fullest
        }
    });
    let count = i64::try_from(spreads.len()).unwrap_or(1).max(1);
    marks.sum::<i64>() / count
}
