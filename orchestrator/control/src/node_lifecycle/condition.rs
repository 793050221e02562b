//! The conditions of a Node that the cluster writes for it: when it is not heard it cannot.

use podium_types::k8s::api::core::v1::{Node, NodeCondition};
use podium_types::k8s::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use podium_types::{Machine, Now, ObjectKey};
use serde_json::json;

use crate::health::{Judgement, Life};
use crate::object::Typed;
use crate::plan::Step;
use crate::world::World;

/// What a node says of itself; nobody knows while it is silent.
const OWN_WORD: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
const REASON: &str = "NodeStatusUnknown";
const MESSAGE: &str = "Kubelet stopped posting node status.";

/// One condition of a node.
#[must_use]
pub fn of<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// Its condition `Ready`.
#[must_use]
pub fn ready(node: &Node) -> Option<&NodeCondition> {
    of(node, "Ready")
}

/// Whether a condition has this status.
#[must_use]
pub fn is(node: &Node, kind: &str, status: &str) -> bool {
    of(node, kind).is_some_and(|condition| condition.status == status)
}

/// The step that makes the conditions say what the judgement does, if they do not.
pub(super) fn correct(
    key: &ObjectKey,
    node: &Node,
    judgement: Option<&Judgement>,
    now: Now,
) -> Option<Step> {
    let judgement = judgement?;
    let mut all =
        node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    match judgement.life {
        Life::Dead | Life::Doubted if is(node, "Ready", "Unknown") => return None,
        Life::Dead | Life::Doubted => {
            if ready(node).is_none() {
                all.push(NodeCondition { type_: "Ready".to_owned(), ..NodeCondition::default() });
            }
            all.iter_mut()
                .filter(|condition| OWN_WORD.contains(&condition.type_.as_str()))
                .for_each(|condition| set(condition, "Unknown", (REASON, MESSAGE), now));
        }
        Life::Alive | Life::Returning if !is(node, "Ready", "Unknown") => return None,
        // The rest of its word follows from the node itself.
        Life::Alive | Life::Returning => {
            let ready = all.iter_mut().find(|condition| condition.type_ == "Ready")?;
            if judgement.ready {
                set(ready, "True", ("KubeletReady", "the node runs pods"), now);
            } else {
                set(ready, "False", ("KubeletNotReady", "the node cannot run pods"), now);
            }
        }
    }
    Some(super::patch(key, node, Some("status"), ("status", &json!({"conditions": all}))))
}

/// The step that takes the word of a silent machine that it is ready, if it says so. When it is heard again it says so anew.
pub(super) fn machine_unknown(
    world: &World,
    name: &str,
    judgement: Option<&Judgement>,
    now: Now,
) -> Option<Step> {
    if !matches!(judgement?.life, Life::Dead | Life::Doubted) {
        return None;
    }
    let key = ObjectKey::new(Machine::RESOURCE, "", name);
    let machine = world.get::<Machine>(&key)?;
    let mut all = machine.status.as_ref()?.conditions.clone();
    let ready = all.iter_mut().find(|it| it.type_ == "Ready" && it.status != "Unknown")?;
    *ready = Condition {
        status: "Unknown".to_owned(),
        reason: REASON.to_owned(),
        message: "The machine is silent.".to_owned(),
        last_transition_time: Time(now.wall),
        ..ready.clone()
    };
    let of = json!({
        "uid": machine.metadata.uid, "resourceVersion": machine.metadata.resource_version,
    });
    let patch = json!({"metadata": of, "status": {"conditions": all}});
    Some(Step::Patch { key, subresource: Some("status"), patch })
}

fn set(condition: &mut NodeCondition, status: &str, (reason, message): (&str, &str), now: Now) {
    if condition.status != status {
        condition.last_transition_time = Some(Time(now.wall));
    }
    condition.status = status.to_owned();
    condition.reason = Some(reason.to_owned());
    condition.message = Some(message.to_owned());
}
