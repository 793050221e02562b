//! What a terminating namespace still waits for, as its conditions say it.

use std::collections::BTreeMap;

use podium_types::Now;
use podium_types::k8s::api::core::v1::NamespaceCondition;
use podium_types::k8s::apimachinery::pkg::apis::meta::v1::Time;

use crate::object::Object;

/// The conditions of a namespace with this content. The first three are about errors that cannot happen here, and are always
/// false; clients look for them.
pub(super) fn conditions(
    before: Option<&[NamespaceCondition]>,
    content: &[&Object],
    now: Now,
) -> Vec<NamespaceCondition> {
    let mut conditions = before.unwrap_or_default().to_vec();
    let resources = count(content.iter().map(|object| object.key.resource.to_string()));
    let finalizers = content.iter().filter(|object| object.terminating());
    let finalizers = finalizers.flat_map(|object| object.metadata().finalizers.iter().flatten());
    let finalizers = count(finalizers.cloned());
    let discovered = ("ResourcesDiscovered", "All resources successfully discovered".to_owned());
    let parsed = ("ParsedGroupVersions", "All legacy kube types successfully parsed".to_owned());
    let deleted = ("ContentDeleted", content_deleted(content));
    put(&mut conditions, "NamespaceDeletionDiscoveryFailure", false, discovered, now);
    put(&mut conditions, "NamespaceDeletionGroupVersionParsingFailure", false, parsed, now);
    put(&mut conditions, "NamespaceDeletionContentFailure", false, deleted, now);
    let remain = if resources.is_empty() {
        ("ContentRemoved", "All content successfully removed".to_owned())
    } else {
        ("SomeResourcesRemain", remaining(&resources))
    };
    put(&mut conditions, "NamespaceContentRemaining", !resources.is_empty(), remain, now);
    let held = if finalizers.is_empty() {
        ("ContentHasNoFinalizers", "All content-preserving finalizers finished".to_owned())
    } else {
        ("SomeFinalizersRemain", held(&finalizers))
    };
    put(&mut conditions, "NamespaceFinalizersRemaining", !finalizers.is_empty(), held, now);
    conditions
}

fn content_deleted(content: &[&Object]) -> String {
    let rest = if content.is_empty() { "" } else { ", may be waiting on finalization" };
    format!("All content successfully deleted{rest}")
}

fn count(names: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    names.for_each(|name| *counts.entry(name).or_default() += 1);
    counts
}

fn remaining(resources: &BTreeMap<String, usize>) -> String {
    // Kubernetes writes `pods.` for the core group.
    let part = |(name, count): (&String, &usize)| {
        let dot = if name.contains('.') { "" } else { "." };
        format!("{name}{dot} has {count} resource instances")
    };
    let parts: Vec<String> = resources.iter().map(part).collect();
    format!("Some resources are remaining: {}", parts.join(", "))
}

fn held(finalizers: &BTreeMap<String, usize>) -> String {
    let part = |(name, count): (&String, &usize)| format!("{name} in {count} resource instances");
    let parts: Vec<String> = finalizers.iter().map(part).collect();
    format!("Some content in the namespace has finalizers remaining: {}", parts.join(", "))
}

fn put(
    conditions: &mut Vec<NamespaceCondition>,
    kind: &str,
    holds: bool,
    (reason, message): (&str, String),
    now: Now,
) {
    let status = if holds { "True" } else { "False" };
    let mut condition = NamespaceCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(Time(now.wall)),
    };
    match conditions.iter_mut().find(|present| present.type_ == kind) {
        Some(present) => {
            if present.status == condition.status {
                condition.last_transition_time = present.last_transition_time.clone();
            }
            *present = condition;
        }
        None => conditions.push(condition),
    }
}
