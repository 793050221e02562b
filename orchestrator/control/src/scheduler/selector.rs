//! Whether a pod wants to be on a node: `nodeSelector` and node affinity.

use podium_types::k8s::api::core::v1::{Node, NodeSelectorTerm, PodSpec};

use crate::selector::{Labels, includes, requirement};

/// Whether a node has the labels and names that a pod requires.
#[must_use]
pub fn wants(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let by_label = spec.node_selector.as_ref().is_none_or(|wanted| includes(labels, wanted));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    by_label
        && required.is_none_or(|required| {
            required.node_selector_terms.iter().any(|term| matches(term, node))
        })
}

/// The sum of the weights of the preferences that a node meets.
#[must_use]
pub fn preference(spec: &PodSpec, node: &Node) -> i64 {
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let preferred = affinity.and_then(|affinity| {
        affinity.preferred_during_scheduling_ignored_during_execution.as_ref()
    });
    preferred
        .into_iter()
        .flatten()
        .filter(|term| matches(&term.preference, node))
        .map(|term| i64::from(term.weight))
        .sum()
}

/// A term without expressions matches nothing, as Kubernetes has it.
fn matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let name = node.metadata.name.clone().unwrap_or_default();
    let of_fields = Labels::from([("metadata.name".to_owned(), name)]);
    let meets =
        |labels: Option<&Labels>, key: &str, operator: &str, values: Option<&Vec<String>>| {
            requirement(labels, key, operator, values.map(Vec::as_slice).unwrap_or_default())
        };
    expressions
        .iter()
        .all(|r| meets(node.metadata.labels.as_ref(), &r.key, &r.operator, r.values.as_ref()))
        && fields.iter().all(|r| meets(Some(&of_fields), &r.key, &r.operator, r.values.as_ref()))
}
