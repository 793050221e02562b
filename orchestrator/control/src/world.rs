//! What is known about the cluster: every object, typed and indexed, at one revision.
//!
//! A world is built by [`World::apply`] from the store's watch stream. The only thing in it that no object says is what the leader
//! makes of the nodes that it hears ([`World::judgement`]). Every index is exact after
//! every call: it is changed together with the objects. Everything is ordered, so iteration is the same on every node.
//!
//! # Revision
//!
//! A transaction may write several objects at one revision. [`World::revision`] is the last revision of which *all* events
//! have been applied; whoever feeds the world says so by [`World::complete`]. Plans are made between such marks only.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use podium_types::k8s::api::core::v1::{Node, Pod};
use podium_types::k8s::apimachinery::pkg::apis::meta::v1::OwnerReference;
use podium_types::{GroupResource, ObjectKey};

use crate::health::Judgement;
use crate::object::{Object, Typed};

mod index;

pub(crate) use index::SERVICE_NAME;

use index::Index;

/// A write to one object, as the store's watch reports it.
#[derive(Debug, Clone)]
pub struct ObjectEvent {
    /// The revision of the transaction.
    pub revision: u64,
    /// The object.
    pub key: ObjectKey,
    /// What it is now; `None` if it was deleted.
    pub object: Option<Object>,
}

impl ObjectEvent {
    /// The object was created or changed; `json` is the stored form.
    #[must_use]
    pub fn put(key: ObjectKey, revision: u64, json: &[u8]) -> Self {
        let object = Object::decode(&key, revision, json);
        Self { revision, key, object: Some(object) }
    }

    /// The object is gone.
    #[must_use]
    pub fn delete(key: ObjectKey, revision: u64) -> Self {
        Self { revision, key, object: None }
    }
}

/// What applying an event changed.
#[derive(Debug, Clone)]
pub struct Change {
    /// The object.
    pub key: Arc<ObjectKey>,
    /// The revision of the event.
    pub revision: u64,
    /// The object before; `None` if it was not known.
    pub before: Option<Object>,
    /// The object after; `None` if it is gone.
    pub after: Option<Object>,
}

impl Change {
    /// The object before, if it was of this kind.
    #[must_use]
    pub fn before<T: Typed>(&self) -> Option<&Arc<T>> {
        self.before.as_ref().and_then(|object| T::of(&object.view))
    }

    /// The object after, if it is of this kind.
    #[must_use]
    pub fn after<T: Typed>(&self) -> Option<&Arc<T>> {
        self.after.as_ref().and_then(|object| T::of(&object.view))
    }

    /// Before and after, whichever exist.
    pub fn sides(&self) -> impl Iterator<Item = &Object> {
        self.before.iter().chain(&self.after)
    }

    /// Before and after, whichever exist and are of this kind.
    pub fn sides_of<T: Typed + 'static>(&self) -> impl Iterator<Item = &Arc<T>> {
        self.sides().filter_map(|object| T::of(&object.view))
    }
}

/// All objects at one revision. Cloning it is as dear as its maps are large; tests do, the driver does not.
#[derive(Debug, Clone, Default)]
pub struct World {
    revision: u64,
    objects: BTreeMap<Arc<ObjectKey>, Object>,
    index: Index,
    judgements: BTreeMap<String, Judgement>,
}

impl World {
    /// An empty world, before the first event.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The last revision of which all events are in.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Says that all events up to and including this revision have been applied. Never goes back.
    pub fn complete(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    /// Takes in one event. Events come in order of revision; one that is not newer than what is known of its object is
    /// ignored (a snapshot and the watch that follows it may overlap), and gives `None`.
    pub fn apply(&mut self, event: &ObjectEvent) -> Option<Change> {
        let before = self.objects.get(&event.key).cloned();
        if before.as_ref().is_some_and(|before| before.revision >= event.revision) {
            return None;
        }
        if before.is_none() && event.object.is_none() {
            return None;
        }
        if let Some(before) = &before {
            self.index.remove(before);
        }
        let key = match &event.object {
            Some(after) => {
                let mut after = after.clone();
                if let Some(before) = &before {
                    after.key = Arc::clone(&before.key);
                }
                self.index.insert(&after);
                let key = Arc::clone(&after.key);
                self.objects.insert(Arc::clone(&key), after);
                key
            }
            None => {
                self.objects.remove(&event.key);
                Arc::new(event.key.clone())
            }
        };
        self.complete(event.revision.saturating_sub(1));
        Some(Change { key, revision: event.revision, before, after: event.object.clone() })
    }

    /// An object of any kind.
    #[must_use]
    pub fn object(&self, key: &ObjectKey) -> Option<&Object> {
        self.objects.get(key)
    }

    /// An object of a kind that controllers see whole.
    #[must_use]
    pub fn get<T: Typed>(&self, key: &ObjectKey) -> Option<&Arc<T>> {
        if key.resource == T::RESOURCE { T::of(&self.objects.get(key)?.view) } else { None }
    }

    /// The object of that kind, namespace (empty: cluster scope) and name.
    #[must_use]
    pub fn named<T: Typed>(&self, namespace: &str, name: &str) -> Option<&Arc<T>> {
        self.get(&ObjectKey::new(T::RESOURCE, namespace, name))
    }

    /// Every object, in key order.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.values()
    }

    /// All objects of a kind, by namespace and name.
    pub fn all<T: Typed + 'static>(&self) -> impl Iterator<Item = (&Arc<ObjectKey>, &Arc<T>)> {
        self.range(&T::RESOURCE, None)
            .filter_map(|object| Some((&object.key, T::of(&object.view)?)))
    }

    /// All objects of a kind in one namespace, by name.
    pub fn in_namespace<T: Typed + 'static>(
        &self,
        namespace: &str,
    ) -> impl Iterator<Item = (&Arc<ObjectKey>, &Arc<T>)> {
        self.range(&T::RESOURCE, Some(namespace))
            .filter_map(|object| Some((&object.key, T::of(&object.view)?)))
    }

    /// Objects of any resource, all of them or those in one namespace, by namespace and name.
    pub fn range<'a>(
        &'a self,
        resource: &GroupResource,
        namespace: Option<&str>,
    ) -> impl Iterator<Item = &'a Object> + use<'a> {
        let start = ObjectKey::new(resource.clone(), namespace.unwrap_or_default(), "");
        let (resource, namespace) = (resource.clone(), namespace.map(str::to_owned));
        self.objects
            .range::<ObjectKey, _>((Bound::Included(&start), Bound::Unbounded))
            .map(|(_, object)| object)
            .take_while(move |object| {
                object.key.resource == resource
                    && namespace.as_ref().is_none_or(|namespace| object.key.namespace == *namespace)
            })
    }

    /// The object with a uid.
    #[must_use]
    pub fn by_uid(&self, uid: &str) -> Option<&Object> {
        self.objects.get(self.index.by_uid.get(uid)?)
    }

    /// Objects of any kind that name this uid as an owner.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = &Object> {
        self.keyed(self.index.dependents.get(uid))
    }

    /// Objects of one kind that name this uid as an owner.
    pub fn dependents_of<T: Typed + 'static>(
        &self,
        uid: &str,
    ) -> impl Iterator<Item = (&Arc<ObjectKey>, &Arc<T>)> {
        self.dependents(uid).filter_map(|object| Some((&object.key, T::of(&object.view)?)))
    }

    /// Pods or ReplicaSets of a namespace that no controller manages.
    pub fn unowned<T: Typed>(&self, namespace: &str) -> impl Iterator<Item = &Object> {
        self.keyed(self.index.unowned.get(&(T::RESOURCE, namespace.to_owned())))
    }

    /// Everything in a namespace, of any resource.
    pub fn content(&self, namespace: &str) -> impl Iterator<Item = &Object> {
        self.keyed(self.index.content.get(namespace))
    }

    /// Pods bound to a node, whatever their phase.
    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = (&Arc<ObjectKey>, &Arc<Pod>)> {
        self.keyed(self.index.pods_by_node.get(node)).filter_map(as_pod)
    }

    /// Pods that are not bound to a node.
    pub fn unbound_pods(&self) -> impl Iterator<Item = (&Arc<ObjectKey>, &Arc<Pod>)> {
        self.keyed(self.index.pods_by_node.get("")).filter_map(as_pod)
    }

    /// Names that bound pods have in `spec.nodeName`, whether such nodes exist or not.
    pub fn bound_node_names(&self) -> impl Iterator<Item = &str> {
        self.index.pods_by_node.keys().map(String::as_str).filter(|name| !name.is_empty())
    }

    /// Pods that have finished (`Succeeded`, `Failed`), oldest first.
    pub fn finished_pods(&self) -> impl ExactSizeIterator<Item = &Arc<ObjectKey>> {
        self.index.finished_pods.iter().map(|(_, key)| key)
    }

    /// EndpointSlices that carry a service's name.
    pub fn slices_of(&self, namespace: &str, service: &str) -> impl Iterator<Item = &Object> {
        self.keyed(self.index.slices_by_service.get(&(namespace.to_owned(), service.to_owned())))
    }

    /// What the pods of a node ask for together.
    #[must_use]
    pub fn usage(&self, node: &str) -> Option<&crate::resources::Usage> {
        self.index.usage.get(node)
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.all::<Node>().map(|(_, node)| node)
    }

    /// What the leader makes of a node; `None` where nobody judges.
    #[must_use]
    pub fn judgement(&self, node: &str) -> Option<&Judgement> {
        self.judgements.get(node)
    }

    /// Notes what the leader makes of a node.
    pub fn judge(&mut self, node: &str, judgement: Option<Judgement>) {
        match judgement {
            Some(judgement) => self.judgements.insert(node.to_owned(), judgement),
            None => self.judgements.remove(node),
        };
    }

    fn keyed<'a>(
        &'a self,
        keys: Option<&'a BTreeSet<Arc<ObjectKey>>>,
    ) -> impl Iterator<Item = &'a Object> {
        keys.into_iter().flatten().filter_map(|key| self.objects.get(key))
    }
}

/// The owner that manages an object, if it has one.
#[must_use]
pub fn controller_of(object: &Object) -> Option<&OwnerReference> {
    object.metadata().owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

fn as_pod(object: &Object) -> Option<(&Arc<ObjectKey>, &Arc<Pod>)> {
    Some((&object.key, Pod::of(&object.view)?))
}
