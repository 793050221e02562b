//! The number of replicas of an object, as an object of its own.

use podium_types::object;
use podium_types::selector::LabelSelector;
use serde_json::{Value, json};

use crate::registry::Resource;

/// The Scale of a stored object with its resourceVersion.
pub(super) fn of(resource: &Resource, object: &Value) -> Value {
    debug_assert!(!resource.subresources.is_empty(), "a resource with a scale");
    let mut metadata =
        json!({"name": object::name(object), "namespace": object::namespace(object)});
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        let value = object::at(object, &["metadata", field]);
        if !value.is_null() {
            metadata[field] = value.clone();
        }
    }
    let selector = LabelSelector::from_object(object::at(object, &["spec", "selector"]));
    let selector = selector.map(|selector| selector.to_string()).unwrap_or_default();
    let wanted = object::i64_at(object, &["spec", "replicas"]).unwrap_or_default();
    let present = object::i64_at(object, &["status", "replicas"]).unwrap_or_default();
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": wanted}, "status": {"replicas": present, "selector": selector},
    })
}

/// The object with the number of replicas of a Scale.
pub(super) fn put(stored: &Value, scale: &Value) -> Value {
    let mut object = stored.clone();
    let replicas = object::i64_at(scale, &["spec", "replicas"]).unwrap_or_default();
    object::child_mut(object::map_of(&mut object), "spec")
        .insert("replicas".to_owned(), json!(replicas));
    object
}
