//! The ReplicaSet controller: as many pods as the spec says.
//!
//! Finished and terminating pods do not count, so a replacement is made as soon as a pod is deleted. Pods are created under
//! names that are a function of the ReplicaSet's uid and revision and of the pods it has: the same shortage gives the same
//! names. Which pods go first when there are too many is in [`ranking`].
//!
//! Deliberately elsewhere: restarting containers (the node's), removing the pods of a deleted ReplicaSet (the collector's).

use std::sync::Arc;

use podium_types::k8s::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetStatus};
use podium_types::k8s::api::core::v1::Pod;
use podium_types::kind::resources;
use podium_types::{Now, ObjectKey};
use serde_json::{Value, json};

use crate::claim::{self, Claim, Owner};
use crate::controller::Controller;
use crate::object::{Object, Typed};
use crate::plan::{EventKind, EventStep, Plan, Propagation, Step};
use crate::tally::Tally;
use crate::world::{Change, World};
use crate::{name, pods, selector};

pub mod ranking;

/// The most pods that one plan creates or deletes. The rest follows when these are seen, so that one ReplicaSet cannot keep
/// the store from all others.
const BURST: usize = 500;

const COMPONENT: &str = "replicaset-controller";

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReplicaSetController;

impl Controller for ReplicaSetController {
    fn name(&self) -> &'static str {
        COMPONENT
    }

    fn keys_for(&self, world: &World, change: &Change) -> Vec<ObjectKey> {
        if change.key.resource == resources::REPLICA_SETS {
            return vec![(*change.key).clone()];
        }
        change
            .sides()
            .filter(|object| Pod::of(&object.view).is_some())
            .flat_map(|pod| keys_of_pod(world, pod))
            .collect()
    }

    fn plan(&self, world: &World, key: &ObjectKey, now: Now) -> Plan {
        match world.get::<ReplicaSet>(key) {
            Some(set) => plan(world, key, set, now),
            None => Plan::nothing(),
        }
    }

    /// A Deployment and its ReplicaSets share its surge.
    fn family(&self, world: &World, key: &ObjectKey) -> ObjectKey {
        let owner = world.object(key).and_then(crate::world::controller_of);
        match owner {
            Some(owner) if owner.kind == "Deployment" => {
                ObjectKey::new(Deployment::RESOURCE, key.namespace.clone(), owner.name.clone())
            }
            _ => key.clone(),
        }
    }

    fn refused(
        &self,
        world: &World,
        key: &ObjectKey,
        step: &Step,
        message: &str,
    ) -> Option<EventStep> {
        let reason = match step {
            Step::Create { .. } => "FailedCreate",
            Step::Delete { .. } => "FailedDelete",
            Step::Update { .. } | Step::Patch { .. } | Step::Bind { .. } | Step::Event(_) => {
                return None;
            }
        };
        let set = world.object(key)?;
        let verb = if reason == "FailedCreate" { "creating" } else { "deleting" };
        let message = format!("Error {verb}: {message}");
        Some(report(set, EventKind::Warning, reason, message, None))
    }
}

/// The ReplicaSet that owns a pod, or those that may adopt it.
fn keys_of_pod(world: &World, pod: &Object) -> Vec<ObjectKey> {
    let namespace = &pod.key.namespace;
    if let Some(owner) = crate::world::controller_of(pod) {
        let key = ObjectKey::new(ReplicaSet::RESOURCE, namespace.clone(), owner.name.clone());
        return if owner.kind == "ReplicaSet" { vec![key] } else { Vec::new() };
    }
    let labels = pod.metadata().labels.as_ref();
    world
        .in_namespace::<ReplicaSet>(namespace)
        .filter(|(_, set)| selector::selects(&set.spec.selector, labels))
        .map(|(key, _)| (**key).clone())
        .collect()
}

fn plan(world: &World, key: &ObjectKey, set: &ReplicaSet, now: Now) -> Plan {
    let (Some(object), spec) = (world.object(key), &set.spec) else { return Plan::nothing() };
    if selector::is_empty(&spec.selector) {
        return Plan::nothing();
    }
    let owner = owner(set, &spec.selector);
    let Claim { owned, steps } = claim::claim(world, &owner, pods::active);
    let mut plan = Plan { steps, wake_after: None };
    if !object.terminating() {
        scale(world, object, set, &owned, &mut plan);
    }
    let labels = spec.template.as_ref().and_then(|template| {
        template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref())
    });
    let pods = owned.iter().map(|(_, pod)| &***pod);
    let tally = Tally::of(pods, labels, spec.min_ready_seconds.unwrap_or_default(), now);
    if let Some(next) = tally.next {
        plan.wake(next);
    }
    plan.steps.extend(report_status(key, set, tally));
    plan
}

fn owner<'a>(
    set: &'a ReplicaSet,
    selector: &'a podium_types::k8s::apimachinery::pkg::apis::meta::v1::LabelSelector,
) -> Owner<'a> {
    Owner { api_version: "apps/v1", kind: "ReplicaSet", metadata: &set.metadata, selector }
}

fn scale(
    world: &World,
    object: &Object,
    set: &ReplicaSet,
    owned: &[(&Arc<ObjectKey>, &Arc<Pod>)],
    plan: &mut Plan,
) {
    let wanted = set.spec.replicas.unwrap_or(1);
    let wanted = usize::try_from(wanted).unwrap_or_default();
    let active: Vec<_> = owned.iter().copied().filter(|(_, pod)| pods::active(pod)).collect();
    if active.len() < wanted {
        let missing = (wanted - active.len()).min(BURST);
        for pod in new_pods(world, object, set, owned, missing) {
            let message = format!("Created pod: {}", podium_types::object::name(&pod));
            let step = plan.push(Step::Create { resource: resources::PODS, object: pod });
            let event = report(object, EventKind::Normal, "SuccessfulCreate", message, Some(step));
            plan.push(Step::Event(event));
        }
    } else {
        let surplus = (active.len() - wanted).min(BURST);
        for (key, pod) in ranking::first_to_go(world, set, active).into_iter().take(surplus) {
            let step = plan.push(Step::Delete {
                key: (**key).clone(),
                uid: pod.metadata.uid.clone().unwrap_or_default(),
                grace_seconds: None,
                propagation: Propagation::Background,
            });
            let message = format!("Deleted pod: {}", key.name);
            let event = report(object, EventKind::Normal, "SuccessfulDelete", message, Some(step));
            plan.push(Step::Event(event));
        }
    }
}

/// `count` pods from the template, under names that no pod has and that this very shortage always gives.
fn new_pods(
    world: &World,
    object: &Object,
    set: &ReplicaSet,
    owned: &[(&Arc<ObjectKey>, &Arc<Pod>)],
    count: usize,
) -> Vec<Value> {
    let template = set.spec.template.as_ref();
    let Some(template) = template.and_then(|template| podium_types::to_value(template).ok()) else {
        return Vec::new();
    };
    let revision = object.revision.to_string();
    let mut parts = vec![object.uid(), &revision];
    parts.extend(owned.iter().map(|(key, _)| key.name.as_str()));
    let shortage = name::digest(&parts);
    let base = object.key.name.as_str();
    (0..)
        .map(|index: usize| name::digest(&[&shortage, &index.to_string()]))
        .map(|digest| name::join(base, '-', &digest, 5))
        .filter(|name| world.named::<Pod>(&object.key.namespace, name).is_none())
        .take(count)
        .map(|name| new_pod(object, &template, &name))
        .collect()
}

fn new_pod(set: &Object, template: &Value, name: &str) -> Value {
    let mut metadata = json!({
        "name": name, "namespace": set.key.namespace, "generateName": format!("{}-", set.key.name),
        "ownerReferences": [{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set.key.name, "uid": set.uid(),
            "controller": true, "blockOwnerDeletion": true,
        }],
    });
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template.get("metadata").and_then(|metadata| metadata.get(field)) {
            metadata[field] = value.clone();
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template.get("spec")})
}

fn report_status(key: &ObjectKey, set: &ReplicaSet, tally: Tally) -> Option<Step> {
    let some = |count: i32| Some(count).filter(|count| *count != 0);
    let before = set.status.clone().unwrap_or_default();
    let status = ReplicaSetStatus {
        replicas: tally.active,
        fully_labeled_replicas: some(tally.fully_labeled),
        ready_replicas: some(tally.ready),
        available_replicas: some(tally.available),
        terminating_replicas: Some(tally.terminating),
        observed_generation: set.metadata.generation,
        conditions: before.conditions.clone(),
    };
    if status == before {
        return None;
    }
    let mut set = set.clone();
    set.status = Some(status);
    let object = podium_types::to_value(&set).ok()?;
    Some(Step::Update { key: key.clone(), subresource: Some("status"), object })
}

fn report(
    set: &Object,
    kind: EventKind,
    reason: &str,
    message: String,
    reports: Option<usize>,
) -> EventStep {
    EventStep {
        regarding: set.regarding(),
        kind,
        reason: reason.to_owned(),
        message,
        action: "",
        component: COMPONENT,
        reports,
    }
}
