//! The taints that a node's state gives it. Pods that tolerate them may say so; that is why they are taints.

use podium_types::k8s::api::core::v1::{Node, Taint};
use podium_types::k8s::apimachinery::pkg::apis::meta::v1::Time;
use podium_types::{Now, ObjectKey};
use serde_json::json;

use super::condition;
use crate::health::{Judgement, Life};
use crate::plan::Step;

/// The node is not heard.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// The node says that it cannot run pods.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// The node is cordoned.
pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that keep new pods away while they are true.
const PRESSURES: [(&str, &str); 3] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
];

const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

type Mark = (&'static str, &'static str);

/// The taints that pods have to leave for.
pub fn no_execute(node: &Node) -> impl Iterator<Item = &Taint> {
    all(node).filter(|taint| taint.effect == NO_EXECUTE)
}

fn all(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten())
}

fn is_ours(taint: &Taint) -> bool {
    let key = taint.key.as_str();
    let known = key == UNREACHABLE || key == NOT_READY || key == UNSCHEDULABLE;
    (known || PRESSURES.iter().any(|(_, pressure)| *pressure == key))
        && matches!(taint.effect.as_str(), NO_SCHEDULE | NO_EXECUTE)
}

/// The step that gives a node the taints that it has to have, if it has others of ours.
pub(super) fn correct(
    key: &ObjectKey,
    node: &Node,
    judgement: Option<&Judgement>,
    now: Now,
) -> Option<Step> {
    let wanted = wanted(node, judgement);
    let is = |taint: &Taint, mark: &Mark| taint.key == mark.0 && taint.effect == mark.1;
    let surplus = |taint: &Taint| is_ours(taint) && !wanted.iter().any(|mark| is(taint, mark));
    let missing = |mark: &&Mark| !all(node).any(|taint| is(taint, mark));
    let missing: Vec<&Mark> = wanted.iter().filter(missing).collect();
    if missing.is_empty() && !all(node).any(surplus) {
        return None;
    }
    let mut taints: Vec<Taint> = all(node).filter(|taint| !surplus(taint)).cloned().collect();
    taints.extend(missing.into_iter().map(|(key, effect)| Taint {
        key: (*key).to_owned(),
        effect: (*effect).to_owned(),
        time_added: Some(Time(now.wall)),
        value: None,
    }));
    let taints = if taints.is_empty() { None } else { Some(taints) };
    Some(super::patch(key, node, None, ("spec", &json!({"taints": taints}))))
}

fn wanted(node: &Node, judgement: Option<&Judgement>) -> Vec<Mark> {
    let mut wanted = Vec::new();
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    if cordoned {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    match judgement.map(|judgement| judgement.life) {
        Some(Life::Dead | Life::Returning) => {
            wanted.extend([(UNREACHABLE, NO_SCHEDULE), (UNREACHABLE, NO_EXECUTE)]);
        }
        Some(Life::Doubted) => wanted.push((UNREACHABLE, NO_SCHEDULE)),
        Some(Life::Alive) | None => {
            let long = judgement.is_some_and(|judgement| judgement.long_unready);
            // Nobody judges: what an earlier leader found stands.
            let unjudged = judgement.is_none() && condition::is(node, "Ready", "Unknown");
            let stays =
                all(node).any(|taint| taint.key == UNREACHABLE && taint.effect == NO_EXECUTE);
            match condition::ready(node).map(|ready| ready.status.as_str()) {
                Some("True") => {}
                Some("Unknown") if unjudged => {
                    wanted.push((UNREACHABLE, NO_SCHEDULE));
                    wanted.extend(stays.then_some((UNREACHABLE, NO_EXECUTE)));
                }
                // It is heard, and its condition is about to say so.
                Some("Unknown") => {}
                Some(_) | None => {
                    wanted.push((NOT_READY, NO_SCHEDULE));
                    wanted.extend(long.then_some((NOT_READY, NO_EXECUTE)));
                }
            }
        }
    }
    let pressed = PRESSURES.iter().filter(|(kind, _)| condition::is(node, kind, "True"));
    wanted.extend(pressed.map(|(_, key)| (*key, NO_SCHEDULE)));
    wanted
}
