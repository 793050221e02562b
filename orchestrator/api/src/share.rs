//! The part of the state that a node without a replica follows: what it needs for its work, and no more.
//!
//! Services, EndpointSlices, Namespaces, Nodes and Machines, all of them; pods that are bound to the node; and the ConfigMaps
//! and Secrets that those pods refer to, as long as they do. A voter keeps one [`Share`] per node that follows and says
//! what it returns, piece by piece ([`Feed`]); the node keeps a [`podium_store::Mirror`].
//!
//! A share is pure: views and events in, changes out. Invariant: what the node holds is exactly `held`; a record never goes back to
//! an older one, although a view may be ahead of the event that is looked at.

mod feed;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use feed::{Feed, FeedError, PATIENCE, REMINDER, RETRY};
use podium_store::{MirrorChange, Record, Revision, View, WatchEvent};
use podium_types::kind::resources;
use podium_types::{GroupResource, ObjectKey, References, object};
use serde_json::Value;

/// Followed by every node, whole.
const COMMON: [GroupResource; 5] = [
    resources::NAMESPACES,
    resources::NODES,
    resources::MACHINES,
    resources::SERVICES,
    resources::ENDPOINT_SLICES,
];

/// See the module.
#[derive(Debug)]
pub struct Share {
    node: String,
    common: Vec<String>,
    pods_prefix: String,
    /// The storage keys that each pod of the node refers to, by the pod's.
    pods: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// What the node has been sent, and of which revision.
    held: BTreeMap<Arc<str>, Revision>,
}

impl Share {
    /// The share of the node of this name; nothing has been sent.
    #[must_use]
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            common: COMMON.iter().map(|resource| ObjectKey::prefix(resource, None)).collect(),
            pods_prefix: ObjectKey::prefix(&resources::PODS, None),
            pods: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }

    /// Everything that the node follows, as of a view; it is to forget whatever else it has.
    pub fn start(&mut self, view: &View) -> Vec<Arc<Record>> {
        self.pods.clear();
        self.held.clear();
        let mut records: Vec<Arc<Record>> =
            self.common.iter().flat_map(|prefix| view.range(prefix)).cloned().collect();
        for record in view.range(&self.pods_prefix) {
            if let Some(references) = self.mine(record) {
                records.push(Arc::clone(record));
                self.pods.insert(Arc::clone(&record.key), references);
            }
        }
        let referred: BTreeSet<&Arc<str>> = self.pods.values().flatten().collect();
        records.extend(referred.into_iter().filter_map(|key| view.get(key)).cloned());
        self.held =
            records.iter().map(|record| (Arc::clone(&record.key), record.mod_revision)).collect();
        records
    }

    /// What an event means to the node. `view` is the state at the event, or a later one.
    pub fn changes(&mut self, event: &WatchEvent, view: &View) -> Vec<MirrorChange> {
        if event.key.starts_with(&self.pods_prefix) {
            return self.pod(event, view);
        }
        let followed = self.common.iter().any(|prefix| event.key.starts_with(prefix))
            || self.pods.values().any(|references| references.contains(&event.key));
        match &event.record {
            Some(record) if followed => self.put(record).into_iter().collect(),
            Some(_) => Vec::new(),
            None => self.delete(&event.key, event.revision).into_iter().collect(),
        }
    }

    /// A pod comes with what it refers to, and what nobody else refers to goes with it.
    fn pod(&mut self, event: &WatchEvent, view: &View) -> Vec<MirrorChange> {
        let mine = event.record.as_ref().and_then(|record| Some((record, self.mine(record)?)));
        let before = self.pods.remove(&event.key).unwrap_or_default();
        let mut changes = Vec::new();
        let mut now = BTreeSet::new();
        match mine {
            Some((record, references)) => {
                // What the pod needs is there before the pod is.
                let new = references.iter().filter_map(|key| view.get(key));
                changes.extend(new.filter_map(|record| self.put(record)));
                changes.extend(self.put(record));
                now = references.clone();
                self.pods.insert(Arc::clone(&event.key), references);
            }
            None => changes.extend(self.delete(&event.key, event.revision)),
        }
        for key in before.difference(&now) {
            if !self.pods.values().any(|references| references.contains(key)) {
                changes.extend(self.forget(key));
            }
        }
        changes
    }

    fn put(&mut self, record: &Arc<Record>) -> Option<MirrorChange> {
        let known = self.held.get(&record.key);
        if known.is_some_and(|known| *known >= record.mod_revision) {
            return None;
        }
        self.held.insert(Arc::clone(&record.key), record.mod_revision);
        Some(MirrorChange::Put(Arc::clone(record)))
    }

    fn delete(&mut self, key: &Arc<str>, revision: Revision) -> Option<MirrorChange> {
        // A later one of the same key may have been sent already.
        let known = self.held.get(key)?;
        if *known > revision { None } else { self.forget(key) }
    }

    fn forget(&mut self, key: &Arc<str>) -> Option<MirrorChange> {
        self.held.remove(key).map(|_| MirrorChange::Delete(Arc::clone(key)))
    }

    /// The storage keys that a pod refers to, if it is bound to the node.
    fn mine(&self, record: &Record) -> Option<BTreeSet<Arc<str>>> {
        let pod: Value = serde_json::from_slice(&record.value).ok()?;
        if object::str_at(&pod, &["spec", "nodeName"]) != Some(self.node.as_str()) {
            return None;
        }
        let namespace = object::namespace(&pod);
        let References { config_maps, secrets } = References::of(&pod["spec"]);
        let key = |resource: GroupResource, name: String| -> Arc<str> {
            ObjectKey::new(resource, namespace, name).storage_key().into()
        };
        let config_maps = config_maps.into_iter().map(|name| key(resources::CONFIG_MAPS, name));
        let secrets = secrets.into_iter().map(|name| key(resources::SECRETS, name));
        Some(config_maps.chain(secrets).collect())
    }
}

#[cfg(test)]
mod tests;
