//! Promises that controllers must keep at every moment, checked after every write.

use std::collections::BTreeMap;

use podium_types::k8s::api::apps::v1::{Deployment, ReplicaSet};
use podium_types::k8s::api::core::v1::{Node, Pod};
use podium_types::kind::resources;
use podium_types::{Now, ObjectKey, object};

use super::api::Api;
use crate::driver::Call;
use crate::plan::Step;
use crate::pods::{self, Availability};
use crate::resources::{Usage, allocatable};

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Promise {
    /// A pod that is bound was to be bound again.
    BoundOnce(ObjectKey),
    /// A node got more than it offers.
    NodeNotOverfull(String),
    /// A Deployment got more pods than its size and surge.
    WithinSurge(ObjectKey),
    /// A Deployment's rollout took an available pod that it had to keep.
    StaysAvailable(ObjectKey),
    /// An object went from one controller to another.
    OwnerStays(ObjectKey),
    /// A controller asked again for what had been done for it already.
    NotRepeated(ObjectKey),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Checks {
    broken: Vec<Promise>,
    /// What was done in the last run of each key.
    done: BTreeMap<(&'static str, ObjectKey), Vec<Step>>,
    pub(super) availability: bool,
}

impl Checks {
    pub(super) fn broken(&self) -> &[Promise] {
        &self.broken
    }

    /// A controller asks for these calls.
    pub(super) fn asked(
        &mut self,
        (controller, key): (&'static str, &ObjectKey),
        calls: &[Call],
        api: &Api,
    ) {
        let done = self.done.remove(&(controller, key.clone())).unwrap_or_default();
        // What was created may be deleted by somebody else, and wanted again.
        let holds = |step: &Step| match step {
            Step::Create { resource, object } => {
                api.get(&object::key_of(resource.clone(), object)).is_some()
            }
            Step::Update { .. } | Step::Patch { .. } => false,
            Step::Delete { .. } | Step::Bind { .. } | Step::Event(_) => true,
        };
        if calls.iter().any(|call| done.contains(&call.step) && holds(&call.step)) {
            self.broken.push(Promise::NotRepeated(key.clone()));
        }
    }

    /// These of its calls have been done. Events are left out: they repeat.
    pub(super) fn done(&mut self, controller: &'static str, key: ObjectKey, steps: Vec<Step>) {
        let lasting = |step: &Step| match step {
            Step::Create { resource, .. } => *resource != resources::EVENTS,
            Step::Update { .. } | Step::Patch { .. } => false,
            Step::Delete { .. } | Step::Bind { .. } | Step::Event(_) => true,
        };
        let steps = steps.into_iter().filter(lasting).collect();
        self.done.insert((controller, key), steps);
    }

    /// What has to be known before `step` is made, to judge it afterwards.
    pub(super) fn before(&self, step: &Step, api: &Api, now: Now) -> Before {
        let mut before = Before::default();
        match step {
            Step::Bind { pods, .. } => {
                let bound = |key: &ObjectKey| {
                    let pod = api.get(key);
                    pod.is_some_and(|pod| object::str_at(pod, &["spec", "nodeName"]).is_some())
                };
                let keys = pods.iter().map(|(key, _)| key);
                before.bound = keys.filter(|key| bound(key)).cloned().collect();
            }
            Step::Delete { key, .. } if key.resource == resources::PODS && self.availability => {
                before.available = available(api, now);
            }
            Step::Patch { key, .. } | Step::Update { key, .. } => before.owner = owner(key, api),
            Step::Create { .. } | Step::Delete { .. } | Step::Event(_) => {}
        }
        before
    }

    /// `step` has been made, or refused.
    pub(super) fn after(&mut self, step: &Step, before: &Before, api: &Api, now: Now) {
        match step {
            Step::Bind { node, .. } => {
                self.broken.extend(before.bound.iter().cloned().map(Promise::BoundOnce));
                self.node(node, api);
            }
            Step::Create { resource, .. } if *resource == resources::PODS => self.surge(api),
            Step::Delete { .. } => {
                let after = available(api, now);
                for (key, (had, least)) in &before.available {
                    let has = after.get(key).map_or(0, |(has, _)| *has);
                    if has < *had && has < *least {
                        self.broken.push(Promise::StaysAvailable(key.clone()));
                    }
                }
            }
            Step::Patch { key, .. } | Step::Update { key, .. } => {
                let after = owner(key, api);
                if before.owner.is_some() && after.is_some() && before.owner != after {
                    self.broken.push(Promise::OwnerStays(key.clone()));
                }
            }
            Step::Create { .. } | Step::Event(_) => {}
        }
    }

    fn node(&mut self, name: &str, api: &Api) {
        let Some(node) = api.world().named::<Node>("", name) else { return };
        let mut usage = Usage::default();
        let pods = api.world().pods_on(name).filter(|(_, pod)| !pods::finished(pod));
        pods.for_each(|(_, pod)| usage.add(pod));
        let offered = allocatable(node);
        let over = usage.requests.iter().any(|(what, amount)| amount > offered.get(what));
        let pods = i64::try_from(usage.pods).unwrap_or(i64::MAX);
        if over || pods > offered.get("pods") {
            self.broken.push(Promise::NodeNotOverfull(name.to_owned()));
        }
    }

    fn surge(&mut self, api: &Api) {
        for (key, deployment) in api.world().all::<Deployment>() {
            let active = pods_of(deployment, api).filter(|pod| pods::active(pod)).count();
            if i64::try_from(active).unwrap_or(i64::MAX) > bound(deployment, "maxSurge", 1) {
                self.broken.push(Promise::WithinSurge((**key).clone()));
            }
        }
    }
}

/// What was so before a step.
#[derive(Debug, Default)]
pub(super) struct Before {
    bound: Vec<ObjectKey>,
    owner: Option<String>,
    available: Available,
}

/// Of each Deployment: how many pods are available, and how many have to be.
type Available = BTreeMap<ObjectKey, (i64, i64)>;

fn available(api: &Api, now: Now) -> Available {
    let of = |deployment: &Deployment| {
        let ready = |pod: &&Pod| pods::availability(pod, 0, now) == Availability::Available;
        let available = pods_of(deployment, api).filter(|pod| pods::active(pod)).filter(ready);
        let available = i64::try_from(available.count()).unwrap_or(i64::MAX);
        (available, bound(deployment, "maxUnavailable", -1))
    };
    api.world().all::<Deployment>().map(|(key, found)| ((**key).clone(), of(found))).collect()
}

fn owner(key: &ObjectKey, api: &Api) -> Option<String> {
    object::controller_of(api.get(key)?).map(|owner| owner.uid.to_owned())
}

/// `spec.replicas` plus or minus an absolute bound of the rolling update; a quarter where none is given.
fn bound(deployment: &Deployment, field: &str, sign: i64) -> i64 {
    let value = serde_json::to_value(&deployment.spec.strategy).unwrap_or_default();
    let bound = value["rollingUpdate"][field].as_i64();
    let replicas = i64::from(deployment.spec.replicas.unwrap_or(1));
    let quarter = if sign > 0 { (replicas + 3) / 4 } else { replicas / 4 };
    replicas + sign * bound.unwrap_or(quarter)
}

/// The pods of all ReplicaSets of a Deployment.
fn pods_of<'a>(deployment: &Deployment, api: &'a Api) -> impl Iterator<Item = &'a Pod> + use<'a> {
    let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
    let sets = api.world().dependents_of::<ReplicaSet>(uid);
    let sets: Vec<&str> = sets.filter_map(|(_, set)| set.metadata.uid.as_deref()).collect();
    sets.into_iter().flat_map(|uid| api.world().dependents_of::<Pod>(uid)).map(|(_, pod)| &**pod)
}
