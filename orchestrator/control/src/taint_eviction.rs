//! Eviction by taints: pods leave a node whose `NoExecute` taints they do not tolerate, or no longer tolerate.
//!
//! No toleration is added to pods that have none, so what a dead node ran is replaced at once. The old pod stays, terminating,
//! until its node confirms that it has ended or the Node is removed: nobody else can know.
//!
//! `tolerationSeconds` are counted by both clocks, and both have to agree: on the leader's monotonic clock since it knows of
//! the taint, so that no clock that is set evicts anybody; and since the pod was made, so that a pod that came to a tainted
//! node knowingly gets its time. A new leader counts anew.

use std::time::Duration;

use podium_types::k8s::api::core::v1::{Node, Pod, Taint, Toleration};
use podium_types::{Now, ObjectKey};

use crate::controller::Controller;
use crate::node_lifecycle::taint;
use crate::object::Typed;
use crate::plan::{EventKind, EventStep, Plan, Propagation, Step};
use crate::pods;
use crate::scheduler::filter::covers;
use crate::world::{Change, World};

const COMPONENT: &str = "taint-eviction-controller";

/// See the module. Its keys are Nodes.
#[derive(Debug, Clone, Copy, Default)]
pub struct TaintEviction;

impl Controller for TaintEviction {
    fn name(&self) -> &'static str {
        COMPONENT
    }

    fn keys_for(&self, world: &World, change: &Change) -> Vec<ObjectKey> {
        let expels = |node: &Node| taint::no_execute(node).next().is_some();
        if let Some(node) = change.after::<Node>() {
            return expels(node).then(|| (*change.key).clone()).into_iter().collect();
        }
        let Some(pod) = change.after::<Pod>().filter(|pod| pods::active(pod)) else {
            return Vec::new();
        };
        let node = world.named::<Node>("", pods::node_name(pod)).filter(|node| expels(node));
        let name = node.and_then(|node| node.metadata.name.clone());
        name.map(|name| ObjectKey::new(Node::RESOURCE, "", name)).into_iter().collect()
    }

    fn keys_for_judgement(&self, node: &str) -> Vec<ObjectKey> {
        vec![ObjectKey::new(Node::RESOURCE, "", node)]
    }

    fn plan(&self, world: &World, key: &ObjectKey, now: Now) -> Plan {
        let mut plan = Plan::nothing();
        let Some(node) = world.get::<Node>(key) else { return plan };
        let taints: Vec<&Taint> = taint::no_execute(node).collect();
        if taints.is_empty() {
            return plan;
        }
        let here = world.pods_on(&key.name).filter(|(_, pod)| pods::active(pod));
        for (pod_key, pod) in here {
            let since = |taint: &Taint| since(world, &key.name, taint, now);
            match remaining(pod, &taints, since, now) {
                None => {}
                Some(Duration::ZERO) => evict(world, pod_key, pod, &mut plan),
                Some(left) => plan.wake(left),
            }
        }
        plan
    }
}

/// For how long a node has had a taint.
fn since(world: &World, node: &str, taint: &Taint, now: Now) -> Duration {
    match world.judgement(node) {
        Some(judgement) => {
            let at = judgement.tainted.get(&taint.key).copied();
            at.map_or(Duration::ZERO, |at| now.monotonic.saturating_sub(at))
        }
        // Nobody keeps time here; the taint says when it was set.
        None => taint.time_added.as_ref().map_or(Duration::ZERO, |at| pods::elapsed(at.0, now)),
    }
}

/// How long a pod may still stay under these taints; `None` for ever.
fn remaining(
    pod: &Pod,
    taints: &[&Taint],
    since: impl Fn(&Taint) -> Duration,
    now: Now,
) -> Option<Duration> {
    let spec = pod.spec.as_ref();
    let tolerations = spec.and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let age = pods::elapsed(pods::created(pod), now);
    let left = |taint: &&Taint| -> Option<Duration> {
        let covering = tolerations.iter().filter(|toleration| covers(toleration, taint));
        let Some(limit) = covering.map(seconds).max_by_key(|limit| limit.unwrap_or(Duration::MAX))
        else {
            return Some(Duration::ZERO);
        };
        limit.map(|limit| limit.saturating_sub(since(taint).min(age)))
    };
    taints.iter().filter_map(left).min()
}

/// `tolerationSeconds`; `None` for ever.
fn seconds(toleration: &Toleration) -> Option<Duration> {
    let seconds = toleration.toleration_seconds?;
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}

fn evict(world: &World, key: &ObjectKey, pod: &Pod, plan: &mut Plan) {
    let step = plan.push(Step::Delete {
        key: key.clone(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        grace_seconds: None,
        propagation: Propagation::Background,
    });
    let Some(object) = world.object(key) else { return };
    plan.push(Step::Event(EventStep {
        regarding: object.regarding(),
        kind: EventKind::Normal,
        reason: "TaintManagerEviction".to_owned(),
        message: format!("Marking for deletion Pod {}/{}", key.namespace, key.name),
        action: "",
        component: COMPONENT,
        reports: Some(step),
    }));
}
