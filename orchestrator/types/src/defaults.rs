//! What fields hold when nobody says: as Kubernetes sets them while it decodes an object.
//!
//! Applied to every object that is written, after decoding and before admission. Idempotent. What only happens when an
//! object is made (its first status, its generation) is in [`crate::strategy`]; what needs other objects (cluster
//! addresses, service accounts) is the API's.

mod pod;
mod service;

use base64::Engine as _;
use serde_json::{Map, Value, json};

use crate::kind::Kind;
use crate::object::{self, child_mut, map_of};

/// Fills in the defaults of a kind.
pub fn apply(kind: Kind, object: &mut Value) {
    match kind {
        Kind::Pod => pod::pod(object),
        Kind::Deployment => deployment(object),
        Kind::ReplicaSet => replica_set(object),
        Kind::Service => service::service(object),
        Kind::Namespace => namespace(object),
        Kind::Node => node(object),
        Kind::Secret => secret(object),
        Kind::EndpointSlice => endpoint_slice(object),
        Kind::ConfigMap
        | Kind::ServiceAccount
        | Kind::CoreEvent
        | Kind::Event
        | Kind::Lease
        | Kind::Machine
        | Kind::Scale
        | Kind::Binding
        | Kind::Eviction
        | Kind::Status
        | Kind::DeleteOptions => {}
    }
}

/// Sets a text that is absent or empty.
fn text(map: &mut Map<String, Value>, field: &str, default: &str) {
    if map.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
        map.insert(field.to_owned(), default.into());
    }
}

/// Sets a field that is absent.
fn absent(map: &mut Map<String, Value>, field: &str, default: impl Into<Value>) {
    if map.get(field).is_none_or(Value::is_null) {
        map.insert(field.to_owned(), default.into());
    }
}

/// Sets a number that is absent or zero.
fn nonzero(map: &mut Map<String, Value>, field: &str, default: i64) {
    if map.get(field).and_then(Value::as_i64).unwrap_or_default() == 0 {
        map.insert(field.to_owned(), default.into());
    }
}

/// The objects in a list that is there.
fn each<'a>(
    map: &'a mut Map<String, Value>,
    field: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    map.get_mut(field)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

fn deployment(object: &mut Value) {
    let spec = child_mut(map_of(object), "spec");
    absent(spec, "replicas", 1);
    absent(spec, "revisionHistoryLimit", 10);
    absent(spec, "progressDeadlineSeconds", 600);
    let strategy = child_mut(spec, "strategy");
    text(strategy, "type", "RollingUpdate");
    if strategy.get("type").is_some_and(|kind| kind == "RollingUpdate") {
        let rolling = child_mut(strategy, "rollingUpdate");
        absent(rolling, "maxUnavailable", "25%");
        absent(rolling, "maxSurge", "25%");
    }
    pod::template(child_mut(spec, "template"));
}

fn replica_set(object: &mut Value) {
    let spec = child_mut(map_of(object), "spec");
    absent(spec, "replicas", 1);
    if spec.contains_key("template") {
        pod::template(child_mut(spec, "template"));
    }
}

fn namespace(object: &mut Value) {
    let name = object::name(object).to_owned();
    if !name.is_empty() {
        object::set_label(object, "kubernetes.io/metadata.name", Some(&name));
    }
    text(child_mut(map_of(object), "status"), "phase", "Active");
}

fn node(object: &mut Value) {
    let capacity = object.get("status").and_then(|status| status.get("capacity")).cloned();
    if let Some(capacity) = capacity {
        absent(child_mut(map_of(object), "status"), "allocatable", capacity);
    }
}

/// `stringData` is another way to write `data`, and wins.
fn secret(object: &mut Value) {
    let secret = map_of(object);
    text(secret, "type", "Opaque");
    if let Some(Value::Object(strings)) = secret.remove("stringData") {
        if strings.is_empty() {
            return;
        }
        let data = child_mut(secret, "data");
        for (key, value) in strings {
            let encoded = base64::engine::general_purpose::STANDARD
                .encode(value.as_str().unwrap_or_default());
            data.insert(key, Value::from(encoded));
        }
    }
}

fn endpoint_slice(object: &mut Value) {
    for port in each(map_of(object), "ports") {
        absent(port, "name", json!(""));
        text(port, "protocol", "TCP");
    }
}

#[cfg(test)]
mod tests;
