//! The node lifecycle controller: what a node's state means for its Node object and for its pods.
//!
//! [`crate::health`] judges who lives; this makes objects of it. Which pods have to leave is [`crate::taint_eviction`]'s.
//!
//! | the node | condition Ready | its taints | its pods |
//! |---|---|---|---|
//! | lives, ready | True, the node's own word | none of ours | as they say |
//! | lives, not ready | False, the node's own word | not-ready; after 300 s also `NoExecute` | as they say |
//! | is silent as most are | Unknown | unreachable | as they were |
//! | is dead | Unknown | unreachable, also `NoExecute` | not Ready |
//! | returns | its own word again | unreachable, also `NoExecute`, until its probation is over | as they say |
//!
//! A Machine's condition Ready is Unknown while its node's is, and otherwise the machine's own word.
//!
//! A cordoned node and one under pressure have their taints too, as in Kubernetes.
//!
//! # Invariants
//!
//! - Taints that are not ours stay as they are, whoever set them.
//! - Pods of a node that is only doubted stay in their Services: it may be the leader that is deaf.

use podium_types::k8s::api::core::v1::{Node, Pod, PodCondition};
use podium_types::k8s::apimachinery::pkg::apis::meta::v1::Time;
use podium_types::{Machine, Now, ObjectKey};
use serde_json::json;

use crate::controller::Controller;
use crate::health::{Judgement, Life};
use crate::object::{Object, Typed};
use crate::plan::{EventKind, EventStep, Plan, Step};
use crate::scheduler::status_patch;
use crate::world::{Change, World};
use crate::{object, pods};

pub mod condition;
pub mod taint;

const COMPONENT: &str = "node-controller";

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeLifecycle;

impl Controller for NodeLifecycle {
    fn name(&self) -> &'static str {
        "node-lifecycle-controller"
    }

    fn keys_for(&self, world: &World, change: &Change) -> Vec<ObjectKey> {
        if change.key.resource == Node::RESOURCE || change.key.resource == Machine::RESOURCE {
            return vec![key_of(&change.key.name)];
        }
        let on_dead =
            |pod: &&std::sync::Arc<Pod>| life(world, pods::node_name(pod)) == Some(Life::Dead);
        let pod = change.after::<Pod>().filter(|pod| serves(pod)).filter(on_dead);
        pod.map(|pod| key_of(pods::node_name(pod))).into_iter().collect()
    }

    fn keys_for_judgement(&self, node: &str) -> Vec<ObjectKey> {
        vec![key_of(node)]
    }

    fn plan(&self, world: &World, key: &ObjectKey, now: Now) -> Plan {
        let (Some(object), Some(node)) = (world.object(key), world.get::<Node>(key)) else {
            return Plan::nothing();
        };
        if object.terminating() {
            return Plan::nothing();
        }
        let judgement = world.judgement(&key.name);
        let mut plan = Plan::nothing();
        // Both would be written on what was there before: the taints first, since pods leave by them.
        if let Some(step) = taint::correct(key, node, judgement, now) {
            plan.push(step);
        } else if let Some(step) = condition::correct(key, node, judgement, now) {
            let step = plan.push(step);
            plan.push(Step::Event(report(object, judgement, step)));
        }
        plan.steps.extend(condition::machine_unknown(world, &key.name, judgement, now));
        if judgement.is_some_and(|judgement| judgement.life == Life::Dead) {
            let serving = world.pods_on(&key.name).filter(|(_, pod)| serves(pod));
            plan.steps.extend(serving.filter_map(|(_, pod)| withdraw(pod, now)));
        }
        plan
    }
}

fn key_of(node: &str) -> ObjectKey {
    ObjectKey::new(Node::RESOURCE, "", node)
}

fn life(world: &World, node: &str) -> Option<Life> {
    world.judgement(node).map(|judgement| judgement.life)
}

/// Whether a pod of a dead node still has to be taken out of its Services, or to be kept out for good.
fn serves(pod: &Pod) -> bool {
    let ready = pods::condition(pod, "Ready");
    let may_return =
        ready.is_some_and(|ready| ready.reason.as_deref() == Some(pods::NODE_NOT_READY));
    !pods::finished(pod) && (pods::ready(pod) || (may_return && pods::terminating(pod)))
}

fn withdraw(pod: &Pod, now: Now) -> Option<Step> {
    let mut all = pod.status.as_ref()?.conditions.clone()?;
    let ready = all.iter_mut().find(|condition| condition.type_ == "Ready")?;
    let reason = if pods::terminating(pod) { pods::NODE_LOST } else { pods::NODE_NOT_READY };
    *ready = PodCondition {
        status: "False".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some("The node of this pod does not answer.".to_owned()),
        last_transition_time: Some(Time(now.wall)),
        ..ready.clone()
    };
    Some(status_patch(pod, &podium_types::to_value(&all).ok()?))
}

fn report(node: &Object, judgement: Option<&Judgement>, step: usize) -> EventStep {
    let lost =
        judgement.is_some_and(|judgement| matches!(judgement.life, Life::Dead | Life::Doubted));
    let reason = if lost { "NodeNotReady" } else { "NodeReady" };
    EventStep {
        regarding: object::Object::regarding(node),
        kind: EventKind::Normal,
        reason: reason.to_owned(),
        message: format!("Node {} status is now: {reason}", node.key.name),
        action: "",
        component: COMPONENT,
        reports: Some(step),
    }
}

/// A patch of the node, if nobody has changed it since.
fn patch(
    key: &ObjectKey,
    node: &Node,
    subresource: Option<&'static str>,
    (field, value): (&str, &serde_json::Value),
) -> Step {
    Step::Patch {
        key: key.clone(),
        subresource,
        patch: json!({
            "metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
            field: value,
        }),
    }
}
