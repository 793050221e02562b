//! The scheduler: which node each pending pod runs on.
//!
//! All pending pods are placed in one pass, the most important and then the oldest first, on a copy of the nodes' books that
//! each placement is entered in. Pods that ask for the same are a [`group`]: what does not depend on placements is found
//! once for all of them, and when one does not fit, the rest are not tried.
//!
//! ```text
//!   pending pod ─► filters, each with its reason ─► scores ─► best node ─► Bind
//!                       │ no node is left
//!                       ▼
//!        condition PodScheduled=False and one event, when the message is new
//! ```
//!
//! Nothing is remembered between passes. A pass is made again when a pod or a node changes in a way that matters
//! ([`Controller::keys_for`]), on a world that has all bindings of the pass before.
//!
//! Deliberately elsewhere: preemption and affinity between pods are not here yet; pods of other `schedulerName`s are left
//! alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use podium_types::k8s::api::core::v1::{Node, Pod};
use podium_types::kind::resources;
use podium_types::{Now, ObjectKey};
use serde_json::json;

use crate::bugs::{self, Bug};
use crate::controller::Controller;
use crate::object::{Object, Typed};
use crate::plan::{EventKind, EventStep, Plan, Step};
use crate::pods;
use crate::world::{Change, World};

pub mod filter;
mod group;
mod score;
pub mod selector;
mod spread;
mod verdict;

use filter::Candidate;
use group::{Group, Signature};

const COMPONENT: &str = "default-scheduler";

/// The most pods placed in one pass, so that the first are bound before the last are thought about.
const BATCH: usize = 1000;

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scheduler;

impl Scheduler {
    /// The one key of this controller.
    #[must_use]
    pub fn key() -> ObjectKey {
        ObjectKey::new(resources::PODS, "", "")
    }
}

impl Controller for Scheduler {
    fn name(&self) -> &'static str {
        COMPONENT
    }

    fn keys_for(&self, world: &World, change: &Change) -> Vec<ObjectKey> {
        let matters = match &change.after {
            Some(after) if Node::of(&after.view).is_some() => node_changed(change),
            Some(after) => Pod::of(&after.view).is_some(),
            None => change.before::<Pod>().is_some() || change.before::<Node>().is_some(),
        };
        let pending = matters && world.unbound_pods().next().is_some();
        if pending { vec![Self::key()] } else { Vec::new() }
    }

    fn plan(&self, world: &World, _: &ObjectKey, now: Now) -> Plan {
        let mut pass = Pass::new(world, now);
        for (key, pod) in pending(world) {
            if pass.placed >= BATCH {
                break;
            }
            pass.take(key, pod);
        }
        pass.finish()
    }
}

/// Whether a node changed in a way that a filter looks at. (Statuses are written for other reasons too.)
fn node_changed(change: &Change) -> bool {
    let (Some(before), Some(after)) = (change.before::<Node>(), change.after::<Node>()) else {
        return true;
    };
    before.spec != after.spec
        || before.metadata.labels != after.metadata.labels
        || crate::resources::allocatable(before) != crate::resources::allocatable(after)
        || filter::ready(before) != filter::ready(after)
}

/// The pods to place, in the order in which they are.
fn pending(world: &World) -> Vec<(&Arc<ObjectKey>, &Arc<Pod>)> {
    let mut pending: Vec<_> = world.unbound_pods().filter(|(_, pod)| is_ours(pod)).collect();
    if bugs::active(Bug::DoubleBind) {
        pending.extend(world.all::<Pod>().filter(|(_, pod)| pods::active(pod)));
    }
    pending.sort_by_cached_key(|(key, pod)| {
        let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or_default();
        (std::cmp::Reverse(priority), pods::created(pod), Arc::clone(key))
    });
    pending
}

fn is_ours(pod: &Pod) -> bool {
    let scheduler = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref());
    pods::active(pod) && matches!(scheduler, None | Some("" | COMPONENT))
}

type Placed<'a> = (&'a Arc<ObjectKey>, &'a Arc<Pod>);

struct Pass<'a> {
    world: &'a World,
    now: Now,
    nodes: Vec<Candidate<'a>>,
    groups: BTreeMap<Signature, Group>,
    /// By index of the node.
    bindings: BTreeMap<usize, Vec<Placed<'a>>>,
    placed: usize,
    plan: Plan,
}

impl<'a> Pass<'a> {
    fn new(world: &'a World, now: Now) -> Self {
        Self {
            world,
            now,
            nodes: world.nodes().map(|node| Candidate::new(world, node)).collect(),
            groups: BTreeMap::new(),
            bindings: BTreeMap::new(),
            placed: 0,
            plan: Plan::nothing(),
        }
    }

    fn take(&mut self, key: &'a Arc<ObjectKey>, pod: &'a Arc<Pod>) {
        let gates = pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref());
        if gates.is_some_and(|gates| !gates.is_empty()) {
            let message = "Scheduling is blocked due to non-empty scheduling gates".to_owned();
            let verdict = verdict::condition(pod, "SchedulingGated", &message, self.now);
            self.plan.steps.extend(verdict);
            return;
        }
        let signature = Signature::of(pod);
        let (world, nodes) = (self.world, &self.nodes);
        let group = self.groups.entry(signature).or_insert_with(|| Group::new(world, pod, nodes));
        match group.place(&self.nodes) {
            Ok(node) => {
                self.nodes[node].usage.add(pod);
                for group in self.groups.values_mut() {
                    group.placed(pod, node);
                }
                self.bindings.entry(node).or_default().push((key, pod));
                self.placed += 1;
            }
            Err(message) => self.refuse(key, pod, &message),
        }
    }

    /// Tells the user, once for each new message.
    fn refuse(&mut self, key: &ObjectKey, pod: &Pod, message: &str) {
        let Some(step) = verdict::condition(pod, "Unschedulable", message, self.now) else {
            return;
        };
        let step = self.plan.push(step);
        if let Some(object) = self.world.object(key) {
            let (kind, message) = (EventKind::Warning, message.to_owned());
            let event = report(object, kind, "FailedScheduling", message, Some(step));
            self.plan.push(Step::Event(event));
        }
    }

    fn finish(mut self) -> Plan {
        for (node, placed) in self.bindings {
            let node = self.nodes[node].name().to_owned();
            let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
            let pods = placed.iter().map(|(key, pod)| ((***key).clone(), uid(pod))).collect();
            let step = self.plan.push(Step::Bind { pods, node: node.clone() });
            for (key, _) in placed {
                let Some(object) = self.world.object(key) else { continue };
                let (namespace, name) = (&key.namespace, &key.name);
                let message = format!("Successfully assigned {namespace}/{name} to {node}");
                let event = report(object, EventKind::Normal, "Scheduled", message, Some(step));
                self.plan.push(Step::Event(event));
            }
        }
        self.plan
    }
}

fn report(
    pod: &Object,
    kind: EventKind,
    reason: &str,
    message: String,
    reports: Option<usize>,
) -> EventStep {
    EventStep {
        regarding: pod.regarding(),
        kind,
        reason: reason.to_owned(),
        message,
        action: if kind == EventKind::Normal { "Binding" } else { "Scheduling" },
        component: COMPONENT,
        reports,
    }
}

/// The condition patch shared by all verdicts.
pub(crate) fn status_patch(pod: &Pod, conditions: &serde_json::Value) -> Step {
    let metadata = &pod.metadata;
    Step::Patch {
        key: ObjectKey::new(
            resources::PODS,
            metadata.namespace.clone().unwrap_or_default(),
            metadata.name.clone().unwrap_or_default(),
        ),
        subresource: Some("status"),
        patch: json!({
            "metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version},
            "status": {"conditions": conditions},
        }),
    }
}
