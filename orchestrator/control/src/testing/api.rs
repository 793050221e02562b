//! The API as far as controllers can tell: optimistic updates, subresources, finalizers, grace, binding.

use std::collections::BTreeMap;

use podium_types::{GroupResource, Now, ObjectKey, canonical, object};
use serde_json::{Map, Value, json};

use crate::object::Typed;
use crate::plan::{Propagation, Step};
use crate::world::{ObjectEvent, World};

/// All objects, their revisions, and the events that have not been taken yet.
#[derive(Debug, Clone, Default)]
pub struct Api {
    objects: BTreeMap<ObjectKey, Value>,
    /// The same objects, typed and indexed.
    world: World,
    events: Vec<ObjectEvent>,
    revision: u64,
    uids: u64,
}

impl Api {
    /// The revision of the last write.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// An object.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<&Value> {
        self.objects.get(key)
    }

    /// The uid of an object; empty if there is none.
    #[must_use]
    pub fn uid(&self, key: &ObjectKey) -> String {
        self.get(key).map(|object| object::uid(object).to_owned()).unwrap_or_default()
    }

    /// All objects of a resource.
    pub fn list(&self, resource: &GroupResource) -> impl Iterator<Item = (&ObjectKey, &Value)> {
        self.objects.iter().filter(move |(key, _)| key.resource == *resource)
    }

    /// All objects, typed and indexed.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// All objects of a kind, as that kind.
    #[must_use]
    pub fn typed<T: Typed + Clone + 'static>(&self) -> Vec<(ObjectKey, T)> {
        self.world.all::<T>().map(|(key, object)| ((**key).clone(), (**object).clone())).collect()
    }

    pub(super) fn take_events(&mut self) -> Vec<ObjectEvent> {
        std::mem::take(&mut self.events)
    }

    /// Makes one call; gives the revision that it wrote.
    ///
    /// # Errors
    /// The message of the refusal.
    pub fn call(&mut self, step: &Step, now: Now) -> Result<u64, String> {
        match step {
            Step::Create { resource, object } => self.create(resource, object, now)?,
            Step::Update { key, subresource, object } => {
                let current = self.checked(key, object)?;
                let next = updated(&current, object.clone(), *subresource);
                self.write(key, next);
            }
            Step::Patch { key, subresource, patch } => {
                let current = self.checked(key, patch)?;
                let mut patched = current.clone();
                merge(&mut patched, patch);
                let next = updated(&current, patched, *subresource);
                self.write(key, next);
            }
            Step::Delete { key, uid, grace_seconds, propagation } => {
                let current = self.found(key)?;
                if object::uid(&current) != uid {
                    return Err(format!("{key}: uid differs"));
                }
                self.delete(key, current, *grace_seconds, *propagation, now);
            }
            Step::Bind { pods, node } => {
                let results = pods.iter().map(|(key, uid)| self.bind(key, uid, node, now));
                results.collect::<Vec<_>>().into_iter().collect::<Result<Vec<()>, _>>()?;
            }
            Step::Event(_) => return Err("an event is not a call".to_owned()),
        }
        Ok(self.revision)
    }

    fn found(&self, key: &ObjectKey) -> Result<Value, String> {
        self.get(key).cloned().ok_or_else(|| format!("{key} not found"))
    }

    /// The object, if the uid and resourceVersion that `change` carries are its own.
    fn checked(&self, key: &ObjectKey, change: &Value) -> Result<Value, String> {
        let current = self.found(key)?;
        let uid = object::uid(change);
        if !uid.is_empty() && uid != object::uid(&current) {
            return Err(format!("{key}: uid differs"));
        }
        let version = object::resource_version(change);
        if version.is_some() && version != object::resource_version(&current) {
            return Err(format!("{key}: the object has been modified"));
        }
        Ok(current)
    }

    fn create(&mut self, resource: &GroupResource, new: &Value, now: Now) -> Result<(), String> {
        let key = object::key_of(resource.clone(), new);
        if self.objects.contains_key(&key) {
            return Err(format!("{key} already exists"));
        }
        let namespace = super::objects::namespace_key(&key.namespace);
        let home = self.get(&namespace);
        if !key.namespace.is_empty()
            && home.is_none_or(|ns| object::deletion_timestamp(ns).is_some())
        {
            return Err(format!("{key}: there is no such namespace, or it is terminating"));
        }
        let mut new = new.clone();
        self.uids += 1;
        object::set_metadata(&mut new, "uid", Some(json!(format!("uid-{}", self.uids))));
        object::set_metadata(&mut new, "creationTimestamp", Some(json!(now.time())));
        object::set_metadata(&mut new, "generation", Some(json!(1)));
        if *resource == podium_types::kind::resources::NAMESPACES {
            new["spec"] = json!({"finalizers": ["kubernetes"]});
            new["status"] = json!({"phase": "Active"});
        }
        self.write(&key, new);
        Ok(())
    }

    /// Stores an object, unless it is being deleted and nothing holds it any more: then it is gone.
    fn write(&mut self, key: &ObjectKey, mut new: Value) {
        let current = self.get(key);
        let mut bare = new.clone();
        object::set_resource_version(&mut bare, None);
        if current.is_some_and(|current| canonical::encode(current) == canonical::encode(&bare)) {
            return;
        }
        self.revision += 1;
        let held = object::finalizers(&new).next().is_some()
            || object::deletion_grace_period_seconds(&new).is_some_and(|grace| grace > 0)
            || object::at(&new, &["spec", "finalizers"]).as_array().is_some_and(|f| !f.is_empty());
        if object::deletion_timestamp(&new).is_some() && !held {
            self.objects.remove(key);
            self.tell(ObjectEvent::delete(key.clone(), self.revision));
            return;
        }
        let stored = canonical::encode(&new);
        object::set_resource_version(&mut new, Some(self.revision));
        self.objects.insert(key.clone(), new);
        self.tell(ObjectEvent::put(key.clone(), self.revision, &stored));
    }

    fn tell(&mut self, event: ObjectEvent) {
        self.world.apply(&event);
        self.world.complete(event.revision);
        self.events.push(event);
    }

    fn delete(
        &mut self,
        key: &ObjectKey,
        mut current: Value,
        grace_seconds: Option<i64>,
        propagation: Propagation,
        now: Now,
    ) {
        match propagation {
            Propagation::Background => {}
            Propagation::Foreground => {
                object::add_finalizer(&mut current, crate::collector::FOREGROUND);
            }
            Propagation::Orphan => object::add_finalizer(&mut current, crate::collector::ORPHAN),
        }
        if object::deletion_timestamp(&current).is_none() {
            object::set_metadata(&mut current, "deletionTimestamp", Some(json!(now.time())));
        }
        let runs = object::str_at(&current, &["spec", "nodeName"]).is_some()
            && !matches!(
                object::str_at(&current, &["status", "phase"]),
                Some("Succeeded" | "Failed")
            );
        let grace = if runs { grace_seconds.unwrap_or(30) } else { 0 };
        object::set_metadata(&mut current, "deletionGracePeriodSeconds", Some(json!(grace)));
        if key.resource == podium_types::kind::resources::NAMESPACES {
            current["status"]["phase"] = json!("Terminating");
        }
        self.write(key, current);
    }

    fn bind(&mut self, key: &ObjectKey, uid: &str, node: &str, now: Now) -> Result<(), String> {
        let mut pod = self.found(key)?;
        if object::uid(&pod) != uid || object::deletion_timestamp(&pod).is_some() {
            return Err(format!("{key}: not the pod, or terminating"));
        }
        if object::str_at(&pod, &["spec", "nodeName"]).is_some() {
            return Err(format!("{key} is already assigned to a node"));
        }
        pod["spec"]["nodeName"] = json!(node);
        let scheduled = json!({
            "type": "PodScheduled", "status": "True", "lastTransitionTime": now.time(),
        });
        pod["status"]["conditions"] = json!([scheduled]);
        self.write(key, pod);
        Ok(())
    }
}

/// What a write to the object or a subresource makes of it.
fn updated(current: &Value, new: Value, subresource: Option<&str>) -> Value {
    let mut result = match subresource {
        None => {
            let mut result = new;
            result["status"] = current["status"].clone();
            result["metadata"]["deletionTimestamp"] =
                current["metadata"]["deletionTimestamp"].clone();
            if result["spec"] != current["spec"] {
                let generation = object::generation(current) + 1;
                object::set_metadata(&mut result, "generation", Some(json!(generation)));
            }
            result
        }
        Some(part) => {
            let field = if part == "finalize" { "spec" } else { "status" };
            let mut result = current.clone();
            result[field] = new[field].clone();
            result
        }
    };
    for field in ["uid", "creationTimestamp"] {
        result["metadata"][field] = current["metadata"][field].clone();
    }
    drop_nulls(&mut result);
    result
}

fn drop_nulls(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(drop_nulls);
    }
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}
