//! The ReplicaSet of a template: which one it is, what it is called, and which revision it has.
//!
//! A revision is a number that grows with every change of the template. Going back to an earlier template takes that
//! template's old ReplicaSet and gives it the next number; its earlier numbers stay in its history.

use podium_types::k8s::api::apps::v1::{Deployment, ReplicaSet};
use podium_types::k8s::api::core::v1::PodTemplateSpec;
use podium_types::{ObjectKey, canonical};
use serde_json::{Value, json};

use super::sets::{Set, Sets};
use crate::name;
use crate::object::{Object, Typed};
use crate::selector::Labels;
use crate::tally::Tally;
use crate::world::World;

/// The revision of a ReplicaSet, and of the Deployment that it is the new one of.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// The revisions that a ReplicaSet had before, separated by commas.
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The label that keeps the pods of one template apart from those of another.
const HASH: &str = "pod-template-hash";
/// Annotations of a Deployment that are its own business.
const NOT_COPIED: [&str; 5] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
];
/// How many letters of the hash are used. Kubernetes has as many at most.
const HASH_LENGTH: usize = 10;

/// Whether a ReplicaSet makes the pods that the Deployment asks for.
pub(super) fn matches(set: &ReplicaSet, deployment: &Deployment) -> bool {
    let Some(template) = &set.spec.template else { return false };
    bare(template) == bare(&deployment.spec.template)
}

/// A template without the label that tells it from others, and without the metadata that says nothing.
fn bare(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let mut metadata = template.metadata.unwrap_or_default();
    metadata.creation_timestamp = None;
    if let Some(labels) = &mut metadata.labels {
        labels.remove(HASH);
    }
    metadata.labels = metadata.labels.filter(|labels| !labels.is_empty());
    metadata.annotations = metadata.annotations.filter(|notes| !notes.is_empty());
    template.metadata = Some(metadata);
    template
}

/// Gives the new ReplicaSet, if there is one, the Deployment's annotations and the highest revision.
pub(super) fn sync(deployment: &Deployment, sets: &mut Sets) {
    let next = highest(&sets.old) + 1;
    let Some(new) = &mut sets.new else { return };
    copy_annotations(deployment, &mut new.annotations);
    let current = number(&new.annotations);
    if current >= next {
        return;
    }
    if let Some(current) = new.annotations.insert(REVISION.to_owned(), next.to_string()) {
        let history = new.annotations.entry(HISTORY.to_owned()).or_default();
        if !history.is_empty() {
            history.push(',');
        }
        history.push_str(&current);
    }
}

/// Adds the ReplicaSet that the template still lacks, with no replicas yet. If another object has its name, the name is made
/// with the next collision count; gives that count if it changed.
pub(super) fn create(world: &World, deployment: &Deployment, sets: &mut Sets) -> Option<i32> {
    let metadata = &deployment.metadata;
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let base = metadata.name.as_deref().unwrap_or_default();
    let before = deployment.status.as_ref().and_then(|status| status.collision_count);
    let mut collisions = before.unwrap_or_default();
    let key = loop {
        let name = name::join(base, '-', &hash(deployment, collisions), HASH_LENGTH);
        let key = ObjectKey::new(ReplicaSet::RESOURCE, namespace.clone(), name);
        if world.object(&key).is_none() {
            break key;
        }
        collisions += 1;
    };
    let mut annotations = Labels::new();
    copy_annotations(deployment, &mut annotations);
    annotations.insert(REVISION.to_owned(), (highest(&sets.old) + 1).to_string());
    let pods = Tally::default();
    sets.new = Some(Set { key, before: None, replicas: 0, annotations, pods });
    (collisions != before.unwrap_or_default()).then_some(collisions)
}

/// The API object of a ReplicaSet that [`create`] added.
pub(super) fn object(
    owner: &Object,
    deployment: &Deployment,
    set: &Set,
    annotations: &Labels,
) -> Option<Value> {
    let (_, hash) = set.key.name.rsplit_once('-')?;
    let mut template = podium_types::to_value(&deployment.spec.template).ok()?;
    template["metadata"]["labels"][HASH] = json!(hash);
    let mut selector = podium_types::to_value(&deployment.spec.selector).ok()?;
    selector["matchLabels"][HASH] = json!(hash);
    Some(json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": set.key.name, "namespace": set.key.namespace,
            "labels": template["metadata"]["labels"], "annotations": annotations,
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "Deployment",
                "name": owner.key.name, "uid": owner.uid(),
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "replicas": set.replicas, "selector": selector, "template": template,
            "minReadySeconds": deployment.spec.min_ready_seconds.unwrap_or_default(),
        },
    }))
}

/// Old ReplicaSets beyond the history that the user wants to keep, lowest revision first, with their uids. One that still has
/// pods, or shall have some, stays.
pub(super) fn surplus(deployment: &Deployment, sets: &Sets) -> Vec<(ObjectKey, String)> {
    let keep = deployment.spec.revision_history_limit.unwrap_or(10);
    let keep = usize::try_from(keep).unwrap_or_default();
    let mut old: Vec<&Set> = sets.old.iter().filter(|set| !terminating(set)).collect();
    old.sort_by_key(|set| (number(&set.annotations), set.key.clone()));
    let too_many = old.len().saturating_sub(keep);
    old.into_iter()
        .take(too_many)
        .filter(|set| set.replicas == 0 && set.pods.active == 0)
        .filter_map(|set| Some((set.key.clone(), set.before.as_ref()?.metadata.uid.clone()?)))
        .collect()
}

fn terminating(set: &Set) -> bool {
    set.before.as_ref().is_some_and(|before| before.metadata.deletion_timestamp.is_some())
}

fn copy_annotations(deployment: &Deployment, annotations: &mut Labels) {
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
}

fn number(annotations: &Labels) -> i64 {
    annotations.get(REVISION).and_then(|number| number.parse().ok()).unwrap_or_default()
}

fn highest(sets: &[Set]) -> i64 {
    sets.iter().map(|set| number(&set.annotations)).max().unwrap_or_default()
}

/// A hash of the template, different for each collision count.
fn hash(deployment: &Deployment, collisions: i32) -> String {
    let template = podium_types::to_value(&bare(&deployment.spec.template)).unwrap_or_default();
    let template = String::from_utf8_lossy(&canonical::encode_value(&template)).into_owned();
    name::digest(&[&template, &collisions.to_string()])
}
