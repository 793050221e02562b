//! The world's indexes: each maps something a controller asks by to the keys of the objects that have it.
//!
//! Invariant: inserting and then removing an object leaves an index as it was, with no empty sets behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use podium_types::k8s::api::core::v1::Pod;
use podium_types::{GroupResource, ObjectKey};

use crate::claim;
use crate::object::{Object, View};
use crate::pods;
use crate::resources::Usage;

/// The label by which an EndpointSlice names its service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

type Keys = BTreeSet<Arc<ObjectKey>>;

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Index {
    pub(super) by_uid: BTreeMap<String, Arc<ObjectKey>>,
    pub(super) dependents: BTreeMap<String, Keys>,
    pub(super) unowned: BTreeMap<(GroupResource, String), Keys>,
    pub(super) content: BTreeMap<String, Keys>,
    pub(super) pods_by_node: BTreeMap<String, Keys>,
    pub(super) usage: BTreeMap<String, Usage>,
    pub(super) finished_pods: BTreeSet<(Timestamp, Arc<ObjectKey>)>,
    pub(super) slices_by_service: BTreeMap<(String, String), Keys>,
}

impl Index {
    pub(super) fn insert(&mut self, object: &Object) {
        let key = &object.key;
        if !object.uid().is_empty() {
            self.by_uid.insert(object.uid().to_owned(), Arc::clone(key));
        }
        for owner in object.metadata().owner_references.iter().flatten() {
            self.dependents.entry(owner.uid.clone()).or_default().insert(Arc::clone(key));
        }
        if !key.namespace.is_empty() {
            self.content.entry(key.namespace.clone()).or_default().insert(Arc::clone(key));
        }
        if let Some(place) = unowned_place(object) {
            self.unowned.entry(place).or_default().insert(Arc::clone(key));
        }
        if let Some(place) = slice_place(object) {
            self.slices_by_service.entry(place).or_default().insert(Arc::clone(key));
        }
        if let View::Pod(pod) = &object.view {
            self.insert_pod(key, pod);
        }
    }

    pub(super) fn remove(&mut self, object: &Object) {
        let key = &object.key;
        if self.by_uid.get(object.uid()) == Some(key) {
            self.by_uid.remove(object.uid());
        }
        for owner in object.metadata().owner_references.iter().flatten() {
            take(&mut self.dependents, &owner.uid, key);
        }
        take(&mut self.content, &key.namespace, key);
        if let Some(place) = unowned_place(object) {
            take(&mut self.unowned, &place, key);
        }
        if let Some(place) = slice_place(object) {
            take(&mut self.slices_by_service, &place, key);
        }
        if let View::Pod(pod) = &object.view {
            self.remove_pod(key, pod);
        }
    }

    fn insert_pod(&mut self, key: &Arc<ObjectKey>, pod: &Pod) {
        let node = pods::node_name(pod);
        self.pods_by_node.entry(node.to_owned()).or_default().insert(Arc::clone(key));
        if pods::finished(pod) {
            self.finished_pods.insert((pods::created(pod), Arc::clone(key)));
        } else if !node.is_empty() {
            self.usage.entry(node.to_owned()).or_default().add(pod);
        }
    }

    fn remove_pod(&mut self, key: &Arc<ObjectKey>, pod: &Pod) {
        let node = pods::node_name(pod);
        take(&mut self.pods_by_node, node, key);
        if pods::finished(pod) {
            self.finished_pods.remove(&(pods::created(pod), Arc::clone(key)));
        } else if let Some(usage) = self.usage.get_mut(node) {
            usage.subtract(pod);
            if usage.pods == 0 {
                self.usage.remove(node);
            }
        }
    }
}

/// Pods and ReplicaSets without a controller: those that one may adopt.
fn unowned_place(object: &Object) -> Option<(GroupResource, String)> {
    let adoptable = matches!(object.view, View::Pod(_) | View::ReplicaSet(_));
    (adoptable && claim::controller(object.metadata()).is_none())
        .then(|| (object.key.resource.clone(), object.key.namespace.clone()))
}

fn slice_place(object: &Object) -> Option<(String, String)> {
    let View::EndpointSlice(slice) = &object.view else { return None };
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some((object.key.namespace.clone(), service.clone()))
}

fn take<K: Ord + std::borrow::Borrow<Q>, Q: Ord + ?Sized>(
    map: &mut BTreeMap<K, Keys>,
    at: &Q,
    key: &Arc<ObjectKey>,
) {
    if let Some(keys) = map.get_mut(at) {
        keys.remove(key);
        if keys.is_empty() {
            map.remove(at);
        }
    }
}
