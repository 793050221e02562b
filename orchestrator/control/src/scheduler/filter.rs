//! What keeps a pod off a node, each filter with the reason that it gives to the user.
//!
//! For each node the first filter that objects is reported, in Kubernetes' order: cordoned, taints, not ready, selector and
//! affinity, host ports, resources (each one that is short), spreading.

use podium_types::k8s::api::core::v1::{Node, Pod, PodSpec, Taint, Toleration};

use super::selector;
use crate::bugs::{self, Bug};
use crate::node_lifecycle::condition;
use crate::node_lifecycle::taint::{NOT_READY, UNSCHEDULABLE};
use crate::pods;
use crate::resources::{HostPort, Resources, Usage, allocatable};
use crate::world::World;

/// A node, and its books during one pass.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// The node.
    pub node: &'a Node,
    /// What it offers.
    pub allocatable: Resources,
    /// What is taken, with what this pass has placed.
    pub usage: Usage,
}

impl<'a> Candidate<'a> {
    /// The node as the world has it.
    #[must_use]
    pub fn new(world: &World, node: &'a Node) -> Self {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let mut usage = world.usage(name).cloned().unwrap_or_default();
        if bugs::active(Bug::ForgetTerminatingPods) {
            let going = |pod: &Pod| pods::terminating(pod) && !pods::finished(pod);
            world.pods_on(name).filter(|(_, pod)| going(pod)).for_each(|(_, p)| usage.subtract(p));
        }
        Self { node, allocatable: allocatable(node), usage }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    /// The value of one of its labels.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.node.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }

    /// What is left of a resource; below zero if the node is overcommitted.
    #[must_use]
    pub fn free(&self, resource: &str) -> i64 {
        self.allocatable.get(resource).saturating_sub(self.usage.requests.get(resource))
    }
}

/// Why a node is out for a pod, whatever else runs there; `None` if it is not.
#[must_use]
pub fn by_node(spec: &PodSpec, node: &Node) -> Option<String> {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let node_spec = node.spec.as_ref();
    let cordoned = node_spec.is_some_and(|spec| spec.unschedulable == Some(true));
    if cordoned && !tolerated(tolerations, &taint(UNSCHEDULABLE)) {
        return Some("node(s) were unschedulable".to_owned());
    }
    let taints = node_spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let hard = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    if let Some(taint) = taints.iter().filter(hard).find(|taint| !tolerated(tolerations, taint)) {
        let value = taint.value.as_deref().unwrap_or_default();
        return Some(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key));
    }
    if !ready(node) && !tolerated(tolerations, &taint(NOT_READY)) {
        return Some("node(s) were not ready".to_owned());
    }
    if !selector::wants(spec, node) {
        return Some("node(s) didn't match Pod's node affinity/selector".to_owned());
    }
    None
}

/// Why a pod does not fit beside what is on the node; empty if it does.
#[must_use]
pub fn by_room(candidate: &Candidate<'_>, requests: &Resources, ports: &[HostPort]) -> Vec<String> {
    let taken = &candidate.usage.host_ports;
    if ports.iter().any(|port| taken.keys().any(|taken| taken.conflicts(port))) {
        return vec!["node(s) didn't have free ports for the requested pod ports".to_owned()];
    }
    let mut reasons = Vec::new();
    let pods = i64::try_from(candidate.usage.pods).unwrap_or(i64::MAX);
    if pods >= candidate.allocatable.get("pods") {
        reasons.push("Too many pods".to_owned());
    }
    for (resource, amount) in requests.iter() {
        if amount > candidate.free(resource) {
            reasons.push(format!("Insufficient {resource}"));
        }
    }
    reasons
}

/// How many taints of a node ask pods like this to stay away if they can.
#[must_use]
pub fn discouraging_taints(spec: &PodSpec, node: &Node) -> usize {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let soft = taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    soft.filter(|taint| !tolerated(tolerations, taint)).count()
}

/// Whether the node reports that it can run pods.
#[must_use]
pub fn ready(node: &Node) -> bool {
    condition::is(node, "Ready", "True")
}

fn taint(key: &str) -> Taint {
    Taint { key: key.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() }
}

/// Whether one of the tolerations covers a taint. An empty key with `Exists` covers every key, an empty effect every effect.
#[must_use]
pub fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| covers(toleration, taint))
}

/// Whether a toleration covers a taint, for however long.
#[must_use]
pub fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let value = toleration.value.as_deref().unwrap_or_default();
    let covers = match toleration.operator.as_deref() {
        Some("Exists") => key.is_empty() || key == taint.key,
        _ => key == taint.key && value == taint.value.as_deref().unwrap_or_default(),
    };
    covers && (effect.is_empty() || effect == taint.effect)
}
