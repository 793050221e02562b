//! Why a pod is not placed, as it is told to the user.

use std::collections::BTreeMap;

use podium_types::Now;
use podium_types::k8s::api::core::v1::{Pod, PodCondition};
use podium_types::k8s::apimachinery::pkg::apis::meta::v1::Time;

use crate::plan::Step;
use crate::pods;

const SCHEDULED: &str = "PodScheduled";

/// `0/3 nodes are available: 1 node(s) had untolerated taint {k: v}, 2 Insufficient cpu.`
pub(super) fn message(nodes: usize, reasons: &BTreeMap<String, usize>) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let mut parts: Vec<String> =
        reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    format!("0/{nodes} nodes are available: {}.", parts.join(", "))
}

/// The step that sets `PodScheduled` to false with this reason and message, unless the pod says so already.
pub(super) fn condition(pod: &Pod, reason: &str, message: &str, now: Now) -> Option<Step> {
    let present = pods::condition(pod, SCHEDULED);
    let same = present.is_some_and(|present| {
        present.status == "False"
            && present.reason.as_deref() == Some(reason)
            && present.message.as_deref() == Some(message)
    });
    if same {
        return None;
    }
    let since = present.filter(|present| present.status == "False");
    let since = since.and_then(|present| present.last_transition_time.clone());
    let condition = PodCondition {
        type_: SCHEDULED.to_owned(),
        status: "False".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(since.unwrap_or(Time(now.wall))),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    };
    let all = pod.status.as_ref().and_then(|status| status.conditions.clone());
    let mut all = all.unwrap_or_default();
    all.retain(|condition| condition.type_ != SCHEDULED);
    all.push(condition);
    Some(super::status_patch(pod, &podium_types::to_value(&all).ok()?))
}
