//! Tests that the field tree, the merge marks and the typed views agree.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::tree::{Shape, Tree};
use super::{FieldValidation, check, merge_of};
use crate::k8s::DeepMerge;
use crate::k8s::api::{apps, autoscaling, coordination, core, discovery, events, policy};
use crate::k8s::apimachinery::pkg::apis::meta;
use crate::kind::Kind;
use crate::machine::Machine;
use crate::object::{from_value, to_value};

/// A value in every field; `text` distinguishes one full value from another.
fn full(shape: &Shape, text: &str) -> Value {
    match shape {
        Shape::Any => json!({"any": text}),
        Shape::String => json!(text),
        Shape::Bool => json!(true),
        Shape::Int32 | Shape::Int64 => json!(text.len()),
        Shape::Double => json!(0.5),
        Shape::Bytes => json!("AAAA"),
        Shape::Time => json!("2026-11-21T10:00:00Z"),
        Shape::MicroTime => json!("2026-11-21T10:00:00.000000Z"),
        Shape::Quantity => json!("500m"),
        Shape::IntOrString => json!(text),
        Shape::List(items) => json!([full(items, text)]),
        Shape::Map(values) => json!({text: full(values, text)}),
        Shape::Object(index) => {
            let fields = Tree::get().ty(*index).fields();
            Value::Object(
                fields
                    .iter()
                    .map(|(name, shape)| ((*name).to_owned(), full(shape, text)))
                    .collect(),
            )
        }
    }
}

fn full_object(kind: Kind) -> Value {
    let mut object = full(Tree::get().root(kind), "a");
    object["apiVersion"] = json!(kind.api_version());
    object["kind"] = json!(kind.name());
    object
}

fn through<T: Serialize + DeserializeOwned>(object: &Value) -> Value {
    to_value(&from_value::<T>(object).expect("the typed view takes the object")).expect("JSON")
}

fn through_view(kind: Kind, object: &Value) -> Value {
    match kind {
        Kind::Namespace => through::<core::v1::Namespace>(object),
        Kind::Node => through::<core::v1::Node>(object),
        Kind::Pod => through::<core::v1::Pod>(object),
        Kind::Service => through::<core::v1::Service>(object),
        Kind::ConfigMap => through::<core::v1::ConfigMap>(object),
        Kind::Secret => through::<core::v1::Secret>(object),
        Kind::ServiceAccount => through::<core::v1::ServiceAccount>(object),
        Kind::CoreEvent => through::<core::v1::Event>(object),
        Kind::Event => through::<events::v1::Event>(object),
        Kind::Deployment => through::<apps::v1::Deployment>(object),
        Kind::ReplicaSet => through::<apps::v1::ReplicaSet>(object),
        Kind::EndpointSlice => through::<discovery::v1::EndpointSlice>(object),
        Kind::Lease => through::<coordination::v1::Lease>(object),
        Kind::Machine => through::<Machine>(object),
        Kind::Scale => through::<autoscaling::v1::Scale>(object),
        Kind::Binding => through::<core::v1::Binding>(object),
        Kind::Eviction => through::<policy::v1::Eviction>(object),
        Kind::Status => through::<meta::v1::Status>(object),
        Kind::DeleteOptions => through::<meta::v1::DeleteOptions>(object),
    }
}

#[test]
fn an_object_with_every_field_survives_decoding_and_its_typed_view() {
    for kind in Kind::ALL {
        let object = full_object(kind);
        let decoded = check(kind, object.clone(), FieldValidation::Strict)
            .unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        assert_eq!(decoded.object, object, "{kind:?}");
        let mut viewed = through_view(kind, &object);
        if kind == Kind::DeleteOptions {
            // The type leaves these to its caller.
            viewed["apiVersion"] = object["apiVersion"].clone();
            viewed["kind"] = object["kind"].clone();
        }
        assert_eq!(viewed, object, "{kind:?}");
    }
}

/// How two values of a list are put together.
#[derive(Debug, PartialEq, Eq)]
enum Put {
    Replaced,
    Merged,
}

fn merged<T: DeepMerge + Serialize + DeserializeOwned>(first: &Value, second: &Value) -> Value {
    let mut object: T = from_value(first).expect("a typed view");
    object.merge_from(from_value(second).expect("a typed view"));
    to_value(&object).expect("JSON")
}

/// Every list below a type, as the path of fields that leads to it.
fn lists(index: usize, path: &[&'static str], found: &mut Vec<(Vec<&'static str>, usize)>) {
    for (name, shape) in Tree::get().ty(index).fields() {
        let below: Vec<&'static str> = path.iter().copied().chain([*name]).collect();
        if let Shape::List(_) = shape {
            found.push((below.clone(), index));
        }
        if let Shape::Object(index) = shape {
            lists(*index, &below, found);
        }
        // One item of a list that is merged by key holds the lists below; others are replaced with all that is in them.
        if let Shape::List(items) = shape
            && let Shape::Object(item) = items.as_ref()
            && merge_of(Tree::get().ty(index).name(), name).is_some_and(|merge| merge.key.is_some())
        {
            lists(*item, &below, found);
        }
    }
}

/// An object of nested fields down to a list. Lists on the way have one item, of the same key.
fn object_with(root: usize, path: &[&'static str], list: Value) -> Value {
    let ty = Tree::get().ty(root);
    let (first, rest) = path.split_first().expect("a path");
    let (_, shape) = ty.field(first).expect("a field");
    let value = match (rest.is_empty(), shape) {
        (true, _) => list,
        (false, Shape::Object(index)) => object_with(*index, rest, list),
        (false, Shape::List(items)) => {
            let Shape::Object(item) = items.as_ref() else { panic!("a list of objects") };
            let mut item = object_with(*item, rest, list);
            if let Some(key) = merge_of(ty.name(), first).and_then(|merge| merge.key) {
                item[key] =
                    if key == "containerPort" || key == "port" { json!(1) } else { json!("same") };
            }
            json!([item])
        }
        (false, _) => panic!("an object or a list of objects"),
    };
    Value::Object(Map::from_iter([((*first).to_owned(), value)]))
}

fn compare<T: DeepMerge + Serialize + DeserializeOwned>(kind: Kind, different: &mut Vec<String>) {
    let Shape::Object(root) = Tree::get().root(kind) else { panic!("an object") };
    let mut found = Vec::new();
    lists(*root, &[], &mut found);
    for (path, owner) in found {
        let owner = Tree::get().ty(owner);
        let field = path.last().expect("a field");
        let Some((_, shape)) = owner.field(field) else { panic!("a field") };
        let object = |text: &str| {
            let mut object = object_with(*root, &path, full(shape, text));
            object["apiVersion"] = json!(kind.api_version());
            object["kind"] = json!(kind.name());
            object
        };
        let both = merged::<T>(&object("a"), &object("bb"));
        let mut place = &both;
        for name in &path {
            place = &place[*name];
            if name != field || place.as_array().is_some_and(|list| list.len() == 1) {
                place = if place.is_array() { &place[0] } else { place };
            }
        }
        let put = if place.as_array().is_some_and(|list| list.len() == 2) {
            Put::Merged
        } else {
            Put::Replaced
        };
        let marked = if merge_of(owner.name(), field).is_some_and(|merge| merge.merge) {
            Put::Merged
        } else {
            Put::Replaced
        };
        if put != marked {
            let line = format!("{}.{field}: marked {marked:?}, typed {put:?}", owner.name());
            if !different.contains(&line) {
                different.push(line);
            }
        }
    }
}

/// k8s-openapi also merges lists that are maps or sets for server-side apply alone; a strategic patch replaces those.
const APPLY_ONLY: [&str; 5] = [
    "NodePodPreemptionPolicy.disableResizePreemption",
    "PodStatus.nodeAllocatableResourceClaimStatuses",
    "PodStatus.volumeHealth",
    "ResourceRequirements.claims",
    "VolumeMount.bindMountOptions",
];

#[test]
fn merge_marks_agree_with_the_typed_merge() {
    let mut different = Vec::new();
    compare::<core::v1::Pod>(Kind::Pod, &mut different);
    compare::<core::v1::Node>(Kind::Node, &mut different);
    compare::<core::v1::Service>(Kind::Service, &mut different);
    compare::<core::v1::ServiceAccount>(Kind::ServiceAccount, &mut different);
    compare::<core::v1::Namespace>(Kind::Namespace, &mut different);
    compare::<apps::v1::Deployment>(Kind::Deployment, &mut different);
    compare::<apps::v1::ReplicaSet>(Kind::ReplicaSet, &mut different);
    compare::<discovery::v1::EndpointSlice>(Kind::EndpointSlice, &mut different);
    compare::<core::v1::Event>(Kind::CoreEvent, &mut different);
    compare::<coordination::v1::Lease>(Kind::Lease, &mut different);
    different.retain(|line| !APPLY_ONLY.iter().any(|list| line.starts_with(list)));
    assert_eq!(different, Vec::<String>::new());
}
