//! Spreading: keeping pods that are alike apart, over nodes, zones, or whatever a label names.
//!
//! A [`Spread`] counts the like pods of each domain (the nodes that share a label's value). A hard one keeps a pod off a domain
//! that would get too far ahead of the emptiest; a soft one is only a score. Pods of a workload that says nothing are spread
//! softly over nodes and zones.

use std::collections::BTreeMap;

use podium_types::k8s::api::core::v1::{Pod, PodSpec, TopologySpreadConstraint};
use podium_types::k8s::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement,
};

use super::filter::{self, Candidate};
use super::selector;
use crate::selector::{is_empty, selects};
use crate::world::World;
use crate::{claim, pods};

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Which pods are alike.
#[derive(Debug, Clone)]
enum Like {
    /// Those with the same controller.
    Owner(String),
    /// Those in a namespace that are selected.
    Selected { namespace: String, selector: LabelSelector },
}

impl Like {
    fn includes(&self, pod: &Pod) -> bool {
        match self {
            Self::Owner(uid) => {
                claim::controller(&pod.metadata).is_some_and(|owner| owner.uid == *uid)
            }
            Self::Selected { namespace, selector } => {
                pod.metadata.namespace.as_deref() == Some(namespace)
                    && !is_empty(selector)
                    && selects(selector, pod.metadata.labels.as_ref())
            }
        }
    }
}

/// The like pods of each domain.
#[derive(Debug, Clone)]
pub(super) struct Spread {
    like: Like,
    /// The domain of each candidate; `None` for nodes that are not counted.
    domains: Vec<Option<String>>,
    /// Of each candidate: whether it lacks the label.
    unlabelled: Vec<bool>,
    counts: BTreeMap<String, i64>,
    /// The most a domain may be ahead of the emptiest; `None` if this is only a wish.
    max_skew: Option<i64>,
    /// With fewer domains than this the emptiest counts as empty.
    min_domains: usize,
    counts_itself: bool,
}

/// The spreads that a pod asks for, or those of its workload.
pub(super) fn of(world: &World, pod: &Pod, nodes: &[Candidate<'_>]) -> Vec<Spread> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let constraints = spec.topology_spread_constraints.as_deref().unwrap_or_default();
    if constraints.is_empty() {
        let Some(owner) = claim::controller(&pod.metadata) else { return Vec::new() };
        let like = Like::Owner(owner.uid.clone());
        return [HOSTNAME, ZONE]
            .map(|key| {
                let domains = nodes.iter().map(|node| domain(node, key)).collect();
                Spread::count(world, pod, nodes, like.clone(), domains)
            })
            .to_vec();
    }
    constraints.iter().map(|constraint| constrained(world, pod, spec, nodes, constraint)).collect()
}

fn constrained(
    world: &World,
    pod: &Pod,
    spec: &PodSpec,
    nodes: &[Candidate<'_>],
    constraint: &TopologySpreadConstraint,
) -> Spread {
    let like = Like::Selected {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        selector: with_label_keys(constraint, pod),
    };
    let counted = |node: &Candidate<'_>| {
        let by_affinity = constraint.node_affinity_policy.as_deref() == Some("Ignore")
            || selector::wants(spec, node.node);
        let by_taints = constraint.node_taints_policy.as_deref() != Some("Honor")
            || filter::by_node(spec, node.node).is_none();
        by_affinity && by_taints
    };
    let domain = |node: &Candidate<'_>| domain(node, &constraint.topology_key);
    let domains = nodes.iter().map(|node| domain(node).filter(|_| counted(node))).collect();
    let mut spread = Spread::count(world, pod, nodes, like, domains);
    spread.unlabelled = nodes.iter().map(|node| domain(node).is_none()).collect();
    spread.min_domains =
        constraint.min_domains.and_then(|n| usize::try_from(n).ok()).unwrap_or_default();
    if constraint.when_unsatisfiable == "DoNotSchedule" {
        spread.max_skew = Some(i64::from(constraint.max_skew));
    }
    spread
}

/// The selector, narrowed to the pod's own values of the labels that the constraint names.
fn with_label_keys(constraint: &TopologySpreadConstraint, pod: &Pod) -> LabelSelector {
    let mut selector = constraint.label_selector.clone().unwrap_or_default();
    for key in constraint.match_label_keys.iter().flatten() {
        let value = pod.metadata.labels.as_ref().and_then(|labels| labels.get(key));
        if let Some(value) = value {
            selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
                key: key.clone(),
                operator: "In".to_owned(),
                values: Some(vec![value.clone()]),
            });
        }
    }
    selector
}

/// A node that does not say its host name is a domain by its own name.
fn domain(node: &Candidate<'_>, key: &str) -> Option<String> {
    let label = node.label(key);
    let label = if key == HOSTNAME { label.or(Some(node.name())) } else { label };
    label.map(str::to_owned)
}

impl Spread {
    fn count(
        world: &World,
        pod: &Pod,
        nodes: &[Candidate<'_>],
        like: Like,
        domains: Vec<Option<String>>,
    ) -> Self {
        let mut counts = BTreeMap::new();
        for (node, domain) in nodes.iter().zip(&domains) {
            let Some(domain) = domain else { continue };
            let alike = world
                .pods_on(node.name())
                .filter(|(_, pod)| pods::active(pod) && like.includes(pod))
                .count();
            *counts.entry(domain.clone()).or_default() += i64::try_from(alike).unwrap_or(i64::MAX);
        }
        Self {
            counts_itself: like.includes(pod),
            like,
            unlabelled: vec![false; domains.len()],
            domains,
            counts,
            max_skew: None,
            min_domains: 0,
        }
    }

    /// A pod has been placed on a candidate.
    pub(super) fn placed(&mut self, pod: &Pod, node: usize) {
        if !self.like.includes(pod) {
            return;
        }
        if let Some(domain) = self.domains.get(node).and_then(Option::as_ref) {
            *self.counts.entry(domain.clone()).or_default() += 1;
        }
    }

    /// Why this keeps the pod off a candidate; `None` if it does not.
    pub(super) fn objection(&self, node: usize) -> Option<&'static str> {
        let max_skew = self.max_skew?;
        if self.unlabelled[node] {
            return Some(
                "node(s) didn't match pod topology spread constraints (missing required label)",
            );
        }
        let emptiest = if self.counts.len() < self.min_domains {
            0
        } else {
            self.counts.values().min().copied().unwrap_or_default()
        };
        let after = self.like_pods(node) + i64::from(self.counts_itself);
        (after - emptiest > max_skew)
            .then_some("node(s) didn't match pod topology spread constraints")
    }

    /// How many like pods the domain of a candidate has.
    pub(super) fn like_pods(&self, node: usize) -> i64 {
        let domain = self.domains.get(node).and_then(Option::as_ref);
        domain.and_then(|domain| self.counts.get(domain)).copied().unwrap_or_default()
    }

    /// Like pods of the fullest domain.
    pub(super) fn fullest(&self) -> i64 {
        self.counts.values().max().copied().unwrap_or_default()
    }

    /// Whether a candidate is in no domain, which counts as full in a score.
    pub(super) fn outside(&self, node: usize) -> bool {
        self.domains.get(node).is_none_or(Option::is_none)
    }
}
