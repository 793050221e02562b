//! What the server itself sets or keeps when an object is made or changed, before validation.
//!
//! The main path of an object writes its spec, `/status` its status; the other half is always the stored one.
//! `metadata.generation` counts the changes that someone has to act upon.

mod quality;

use serde_json::{Map, Value, json};

use crate::kind::Kind;
use crate::object::{self, at, child_mut, map_of, metadata_mut};

pub use quality::qos_class;

/// Brings a new object into its first state: no status but the initial one, generation 1.
pub fn prepare_create(kind: Kind, object: &mut Value) {
    if counts_generations(kind) {
        object::set_metadata(object, "generation", Some(1.into()));
    } else {
        object::set_metadata(object, "generation", None);
    }
    match kind {
        Kind::Pod => {
            let status = json!({"phase": "Pending", "qosClass": qos_class(object)});
            map_of(object).insert("status".to_owned(), status);
        }
        Kind::Namespace => {
            map_of(object).insert("status".to_owned(), json!({"phase": "Active"}));
            keep_namespace_finalizer(object);
        }
        Kind::Deployment => {
            map_of(object).insert("status".to_owned(), json!({}));
        }
        Kind::ReplicaSet => {
            map_of(object).insert("status".to_owned(), json!({"replicas": 0}));
        }
        Kind::Service => {
            map_of(object).insert("status".to_owned(), json!({"loadBalancer": {}}));
        }
        // Nodes and machines are made by themselves, with what they know.
        Kind::Node | Kind::Machine => {}
        Kind::ConfigMap
        | Kind::Secret
        | Kind::ServiceAccount
        | Kind::CoreEvent
        | Kind::Event
        | Kind::EndpointSlice
        | Kind::Lease
        | Kind::Scale
        | Kind::Binding
        | Kind::Eviction
        | Kind::Status
        | Kind::DeleteOptions => {}
    }
}

/// Combines a changed object with the stored one: on the main path (`None`) the status is kept, on `Some("status")` all but
/// the status. Other subresources are the API's own and leave the object as it is.
pub fn prepare_update(kind: Kind, new: &mut Value, old: &Value, subresource: Option<&str>) {
    match subresource {
        None => update_main(kind, new, old),
        Some("status") => update_status(new, old),
        Some(_) => {}
    }
}

/// Whether objects of this kind have a status, served apart.
#[must_use]
pub fn has_status(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Namespace
            | Kind::Node
            | Kind::Pod
            | Kind::Service
            | Kind::Deployment
            | Kind::ReplicaSet
            | Kind::Machine
    )
}

fn counts_generations(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Pod | Kind::Deployment | Kind::ReplicaSet | Kind::EndpointSlice | Kind::Machine
    )
}

fn update_main(kind: Kind, new: &mut Value, old: &Value) {
    if has_status(kind) {
        keep(map_of(new), old, "status");
    }
    match kind {
        Kind::Namespace => {
            // Finalizers of a namespace change on /finalize only.
            keep(map_of(new), old, "spec");
            keep_namespace_finalizer(new);
        }
        Kind::Service => keep_allocated(new, old),
        _ => {}
    }
    if counts_generations(kind) {
        let generation = object::generation(old).max(1) + i64::from(needs_action(kind, new, old));
        object::set_metadata(new, "generation", Some(generation.into()));
    } else {
        let generation = at(old, &["metadata", "generation"]);
        object::set_metadata(
            new,
            "generation",
            (!generation.is_null()).then(|| generation.clone()),
        );
    }
}

fn needs_action(kind: Kind, new: &Value, old: &Value) -> bool {
    let changed = |path: &[&str]| at(new, path) != at(old, path);
    match kind {
        Kind::Deployment => changed(&["spec"]) || changed(&["metadata", "annotations"]),
        Kind::EndpointSlice => {
            ["addressType", "endpoints", "ports"].iter().any(|field| changed(&[field]))
                || changed(&["metadata", "labels"])
        }
        _ => changed(&["spec"]),
    }
}

/// All of the stored object but the status, and what a client notes in annotations.
fn update_status(new: &mut Value, old: &Value) {
    let mut combined = old.clone();
    let source = map_of(new);
    keep(map_of(&mut combined), &Value::Object(source.clone()), "status");
    let metadata = at(new, &["metadata"]).clone();
    for field in ["annotations", "managedFields", "resourceVersion"] {
        keep(metadata_mut(&mut combined), &metadata, field);
    }
    *new = combined;
}

/// Makes a field what it is in another object, or takes it away if it is not there.
fn keep(map: &mut Map<String, Value>, other: &Value, field: &str) {
    match other.get(field) {
        Some(value) => {
            map.insert(field.to_owned(), value.clone());
        }
        None => {
            map.remove(field);
        }
    }
}

fn keep_namespace_finalizer(object: &mut Value) {
    let spec = child_mut(map_of(object), "spec");
    let has = spec
        .get("finalizers")
        .and_then(Value::as_array)
        .is_some_and(|list| list.iter().any(|name| name == "kubernetes"));
    if !has && object::deletion_timestamp(object).is_none() {
        let spec = child_mut(map_of(object), "spec");
        match spec.get_mut("finalizers") {
            Some(Value::Array(list)) => list.push("kubernetes".into()),
            _ => {
                spec.insert("finalizers".to_owned(), json!(["kubernetes"]));
            }
        }
    }
}

/// What the server gave to a Service stays, if the client leaves it out: its cluster addresses and node ports.
fn keep_allocated(new: &mut Value, old: &Value) {
    let kind = |object| object::str_at(object, &["spec", "type"]).unwrap_or_default().to_owned();
    let (new_kind, old_kind) = (kind(new), kind(old));
    let spec = child_mut(map_of(new), "spec");
    let old_spec = at(old, &["spec"]);
    let empty = |value: Option<&Value>| {
        value.is_none_or(|value| value.is_null() || value == "" || value == &json!([]))
    };
    if new_kind == "ExternalName" {
        for field in ["clusterIP", "clusterIPs"] {
            if spec.get(field) == old_spec.get(field) {
                spec.remove(field);
            }
        }
    } else if old_kind != "ExternalName" {
        for field in ["clusterIP", "clusterIPs"] {
            if empty(spec.get(field)) {
                keep(spec, old_spec, field);
            }
        }
    }
    let has_ports = |kind: &str| matches!(kind, "NodePort" | "LoadBalancer");
    if has_ports(&new_kind) && has_ports(&old_kind) {
        keep_node_ports(spec, object::list_at(old, &["spec", "ports"]));
    } else if has_ports(&old_kind) {
        drop_old_node_ports(spec, object::list_at(old, &["spec", "ports"]));
        spec.remove("externalTrafficPolicy");
    }
}

fn same_port(a: &Value, b: &Value) -> bool {
    ["port", "protocol"].iter().all(|field| a.get(field) == b.get(field))
}

fn keep_node_ports(spec: &mut Map<String, Value>, old: &[Value]) {
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let given = port.get("nodePort").and_then(Value::as_i64).unwrap_or_default();
        let before =
            old.iter().find(|old| same_port(port, old)).and_then(|old| old.get("nodePort"));
        if let (0, Some(number)) = (given, before) {
            map_of(port).insert("nodePort".to_owned(), number.clone());
        }
    }
}

fn drop_old_node_ports(spec: &mut Map<String, Value>, old: &[Value]) {
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let number = port.get("nodePort");
        if old.iter().any(|old| old.get("nodePort") == number) {
            map_of(port).remove("nodePort");
        }
    }
}

#[cfg(test)]
mod tests;
