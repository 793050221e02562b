//! Metadata of any object, read and written in its JSON form, and typed views of whole objects.
//!
//! Readers are lenient: a field of the wrong type reads as absent. (Decoding has refused such objects before they get
//! here.) Writers leave no empty maps or lists behind.

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::key::{GroupResource, ObjectKey};
use crate::time;

/// An object that does not have the shape of the type it was to be seen as.
#[derive(Debug, thiserror::Error)]
#[error("an object does not have the shape of its kind")]
pub struct ViewError(#[from] serde_json::Error);

/// A typed view (a copy) of an object.
///
/// # Errors
/// When a field does not fit the type.
pub fn from_value<T: DeserializeOwned>(object: &Value) -> Result<T, ViewError> {
    Ok(T::deserialize(object)?)
}

/// The JSON form of a typed view.
///
/// # Errors
/// Only for types whose maps have keys that are not strings; no API type is one.
pub fn to_value<T: Serialize>(view: &T) -> Result<Value, ViewError> {
    Ok(serde_json::to_value(view)?)
}

/// `metadata.name`; empty when absent.
#[must_use]
pub fn name(object: &Value) -> &str {
    text(object, "name").unwrap_or_default()
}

/// `metadata.namespace`; empty when absent (cluster scope).
#[must_use]
pub fn namespace(object: &Value) -> &str {
    text(object, "namespace").unwrap_or_default()
}

/// `metadata.uid`; empty when absent.
#[must_use]
pub fn uid(object: &Value) -> &str {
    text(object, "uid").unwrap_or_default()
}

/// `metadata.generateName`.
#[must_use]
pub fn generate_name(object: &Value) -> Option<&str> {
    text(object, "generateName")
}

/// `metadata.resourceVersion`; `None` when absent or empty.
#[must_use]
pub fn resource_version(object: &Value) -> Option<&str> {
    text(object, "resourceVersion")
}

/// `metadata.generation`; 0 when absent.
#[must_use]
pub fn generation(object: &Value) -> i64 {
    metadata(object).and_then(|metadata| metadata.get("generation")?.as_i64()).unwrap_or_default()
}

/// `metadata.creationTimestamp`.
#[must_use]
pub fn creation_timestamp(object: &Value) -> Option<Timestamp> {
    text(object, "creationTimestamp").and_then(time::parse_time)
}

/// `metadata.deletionTimestamp`: when set, the object is going.
#[must_use]
pub fn deletion_timestamp(object: &Value) -> Option<Timestamp> {
    text(object, "deletionTimestamp").and_then(time::parse_time)
}

/// `metadata.deletionGracePeriodSeconds`.
#[must_use]
pub fn deletion_grace_period_seconds(object: &Value) -> Option<i64> {
    metadata(object)?.get("deletionGracePeriodSeconds")?.as_i64()
}

/// All labels, in key order.
pub fn labels(object: &Value) -> impl Iterator<Item = (&str, &str)> {
    strings(object, "labels")
}

/// One label.
#[must_use]
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    metadata(object)?.get("labels")?.get(key)?.as_str()
}

/// All annotations, in key order.
pub fn annotations(object: &Value) -> impl Iterator<Item = (&str, &str)> {
    strings(object, "annotations")
}

/// One annotation.
#[must_use]
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    metadata(object)?.get("annotations")?.get(key)?.as_str()
}

/// `metadata.finalizers`, in order.
pub fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    list(object, "finalizers").iter().filter_map(Value::as_str)
}

/// One entry of `metadata.ownerReferences`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerReference<'a> {
    /// `group/version` of the owner.
    pub api_version: &'a str,
    /// Kind of the owner.
    pub kind: &'a str,
    /// Name of the owner, which is in the same namespace or cluster-scoped.
    pub name: &'a str,
    /// Uid of the owner.
    pub uid: &'a str,
    /// Whether the owner is the one that manages this object.
    pub controller: bool,
    /// Whether a foreground deletion of the owner waits for this object.
    pub block_owner_deletion: bool,
}

/// `metadata.ownerReferences`, in order.
pub fn owner_references(object: &Value) -> impl Iterator<Item = OwnerReference<'_>> {
    list(object, "ownerReferences").iter().map(|reference| {
        let text = |field: &str| reference.get(field).and_then(Value::as_str).unwrap_or_default();
        let flag = |field: &str| reference.get(field).and_then(Value::as_bool).unwrap_or_default();
        OwnerReference {
            api_version: text("apiVersion"),
            kind: text("kind"),
            name: text("name"),
            uid: text("uid"),
            controller: flag("controller"),
            block_owner_deletion: flag("blockOwnerDeletion"),
        }
    })
}

/// The owner that manages this object, if it has one.
#[must_use]
pub fn controller_of(object: &Value) -> Option<OwnerReference<'_>> {
    owner_references(object).find(|owner| owner.controller)
}

/// The key of an object of a resource.
#[must_use]
pub fn key_of(resource: GroupResource, object: &Value) -> ObjectKey {
    ObjectKey::new(resource, namespace(object), name(object))
}

/// `metadata`, made if it is missing or not an object. Does nothing useful if `object` itself is not an object: it becomes one.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    child_mut(map_of(object), "metadata")
}

/// The object in a field of a map, made if it is missing or of another type.
pub fn child_mut<'a>(map: &'a mut Map<String, Value>, field: &str) -> &'a mut Map<String, Value> {
    map_of(map.entry(field).or_insert(Value::Null))
}

/// A value as a map; anything else than an object becomes an empty one.
pub fn map_of(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            unreachable!("made an object above")
        }
    }
}

/// Sets or takes away `metadata.resourceVersion`.
pub fn set_resource_version(object: &mut Value, revision: Option<u64>) {
    set_metadata(
        object,
        "resourceVersion",
        revision.map(|revision| Value::from(revision.to_string())),
    );
}

/// Sets (`Some`) or takes away (`None`) one field of `metadata`.
pub fn set_metadata(object: &mut Value, field: &str, value: Option<Value>) {
    let metadata = metadata_mut(object);
    match value {
        Some(value) => {
            metadata.insert(field.to_owned(), value);
        }
        None => {
            metadata.remove(field);
        }
    }
}

/// Sets (`Some`) or takes away (`None`) one label.
pub fn set_label(object: &mut Value, key: &str, value: Option<&str>) {
    set_string(object, "labels", key, value);
}

/// Sets (`Some`) or takes away (`None`) one annotation.
pub fn set_annotation(object: &mut Value, key: &str, value: Option<&str>) {
    set_string(object, "annotations", key, value);
}

/// Adds a finalizer unless it is there.
pub fn add_finalizer(object: &mut Value, finalizer: &str) {
    if finalizers(object).any(|present| present == finalizer) {
        return;
    }
    let list = metadata_mut(object).entry("finalizers").or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(list) = list {
        list.push(Value::from(finalizer));
    } else {
        *list = Value::Array(vec![Value::from(finalizer)]);
    }
}

/// Takes a finalizer away; says whether it was there.
pub fn remove_finalizer(object: &mut Value, finalizer: &str) -> bool {
    let metadata = metadata_mut(object);
    let Some(Value::Array(list)) = metadata.get_mut("finalizers") else { return false };
    let before = list.len();
    list.retain(|present| present != finalizer);
    let removed = list.len() < before;
    if list.is_empty() {
        metadata.remove("finalizers");
    }
    removed
}

/// Walks down by field names; [`Value::Null`] when something on the way is missing.
#[must_use]
pub fn at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().try_fold(value, |value, field| value.get(field)).unwrap_or(&Value::Null)
}

/// The string at a path of field names.
#[must_use]
pub fn str_at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    at(value, path).as_str()
}

/// The integer at a path of field names.
#[must_use]
pub fn i64_at(value: &Value, path: &[&str]) -> Option<i64> {
    at(value, path).as_i64()
}

/// The boolean at a path of field names; false when absent.
#[must_use]
pub fn bool_at(value: &Value, path: &[&str]) -> bool {
    at(value, path).as_bool().unwrap_or_default()
}

/// The items of the list at a path of field names; none when absent.
#[must_use]
pub fn list_at<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path).as_array().map_or(&[], Vec::as_slice)
}

fn metadata(object: &Value) -> Option<&Map<String, Value>> {
    object.get("metadata")?.as_object()
}

fn text<'a>(object: &'a Value, field: &str) -> Option<&'a str> {
    metadata(object)?.get(field)?.as_str().filter(|text| !text.is_empty())
}

fn list<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    metadata(object).and_then(|metadata| metadata.get(field)?.as_array()).map_or(&[], Vec::as_slice)
}

fn strings<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let map = metadata(object).and_then(|metadata| metadata.get(field)?.as_object());
    map.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

fn set_string(object: &mut Value, field: &str, key: &str, value: Option<&str>) {
    let metadata = metadata_mut(object);
    match value {
        Some(value) => {
            child_mut(metadata, field).insert(key.to_owned(), Value::from(value));
        }
        None => {
            if let Some(Value::Object(map)) = metadata.get_mut(field) {
                map.remove(key);
                if map.is_empty() {
                    metadata.remove(field);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_reads_leniently_and_writes_without_leftovers() {
        let mut object = json!({"metadata": {"name": "a", "namespace": "b", "labels": {"x": "1", "bad": 2}, "generation": 3}});
        assert_eq!(
            (name(&object), namespace(&object), uid(&object), generation(&object)),
            ("a", "b", "", 3)
        );
        assert_eq!(labels(&object).collect::<Vec<_>>(), [("x", "1")]);
        set_annotation(&mut object, "k", Some("v"));
        assert_eq!(annotation(&object, "k"), Some("v"));
        set_annotation(&mut object, "k", None);
        add_finalizer(&mut object, "f");
        add_finalizer(&mut object, "f");
        assert_eq!(finalizers(&object).collect::<Vec<_>>(), ["f"]);
        assert!(remove_finalizer(&mut object, "f"));
        assert!(!remove_finalizer(&mut object, "f"));
        set_resource_version(&mut object, Some(12));
        assert_eq!(resource_version(&object), Some("12"));
        set_resource_version(&mut object, None);
        assert_eq!(
            object,
            json!({"metadata": {"name": "a", "namespace": "b", "labels": {"x": "1", "bad": 2}, "generation": 3}})
        );
    }

    #[test]
    fn the_managing_owner_is_the_one_marked_controller() {
        let object = json!({"metadata": {"ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "1"},
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "2", "controller": true, "blockOwnerDeletion": true},
        ]}});
        let owner = controller_of(&object).expect("an owner");
        assert_eq!(
            (owner.kind, owner.name, owner.uid, owner.block_owner_deletion),
            ("ReplicaSet", "r", "2", true)
        );
    }
}
