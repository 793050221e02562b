//! The component schemas of OpenAPI v3 documents, with the marks that clients rely on.
//!
//! kubectl reads them for `explain`, and to compute strategic merge patches: without the patch marks it would send
//! lists whole, and what was removed from them would stay. Documents are made on demand and kept by nobody here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::kind::Kind;
use crate::schema::{definition_name, merge_of};

const PACKED_REFERENCE: &str = "#/$defs/";
const REFERENCE: &str = "#/components/schemas/";
const LIST_METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// The name under which a kind's schema stands among the components.
#[must_use]
pub fn schema_name(kind: Kind) -> &'static str {
    definition_name(kind)
}

/// The name under which the schema of a list of a kind stands.
#[must_use]
pub fn list_schema_name(kind: Kind) -> String {
    format!("{}List", definition_name(kind))
}

/// What stands under `components.schemas` in the document of a group-version: its kinds, their lists, what travels with
/// them, and all that these refer to.
#[must_use]
pub fn schemas(group: &str, version: &str) -> Value {
    serde_json::from_str(&schemas_text(group, version)).expect("made of JSON")
}

/// The same as text, made definition by definition: all of them as values at once would take many times the room.
#[must_use]
pub fn schemas_text(group: &str, version: &str) -> String {
    let packed = include_bytes!(concat!(env!("OUT_DIR"), "/definitions.zst"));
    let text = zstd::decode_all(packed.as_slice()).expect("packed by the build script");
    let definitions: BTreeMap<&str, &RawValue> =
        serde_json::from_slice(&text).expect("packed by the build script");
    let own: Vec<Kind> = kinds(group, version).collect();
    let mut schemas = String::from("{");
    let mut add = |name: &str, schema: &Value| {
        let comma = if schemas.len() > 1 { "," } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(schemas, "{comma}{}:{schema}", Value::from(name));
    };
    let mut wanted: BTreeSet<String> = BTreeSet::from([LIST_METADATA.to_owned()]);
    let mut seen = BTreeSet::new();
    for kind in &own {
        wanted.insert(definition_name(*kind).to_owned());
        if kind.resource().is_some() {
            add(&list_schema_name(*kind), &list_schema(*kind));
        }
    }
    while let Some(name) = wanted.pop_first() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let Some(definition) = definitions.get(name.as_str()) else { continue };
        let mut schema =
            serde_json::from_str(definition.get()).expect("packed by the build script");
        finish(&name, &mut schema, &mut wanted);
        let kind = own.iter().find(|kind| definition_name(**kind) == name);
        if let (Some(kind), Some(schema)) = (kind, schema.as_object_mut()) {
            // Kinds of machinery belong to every group.
            let (group, version) =
                if machinery(*kind) { (group, version) } else { (kind.group(), kind.version()) };
            let mark = gvk(group, version, kind.name());
            schema.insert("x-kubernetes-group-version-kind".to_owned(), mark);
        }
        add(&name, &schema);
    }
    schemas.push('}');
    schemas
}

/// The kinds that stand in the document of a group-version.
fn kinds(group: &str, version: &str) -> impl Iterator<Item = Kind> {
    let travelling: &[Kind] = match (group, version) {
        ("", "v1") => &[Kind::Eviction],
        ("apps", "v1") => &[Kind::Scale],
        _ => &[],
    };
    let own: Vec<Kind> = Kind::ALL
        .into_iter()
        .filter(|kind| machinery(*kind) || (kind.group() == group && kind.version() == version))
        .chain(travelling.iter().copied())
        .collect();
    own.into_iter()
}

fn machinery(kind: Kind) -> bool {
    matches!(kind, Kind::Status | Kind::DeleteOptions)
}

fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!([{"group": group, "version": version, "kind": kind}])
}

fn list_schema(kind: Kind) -> Value {
    let name = format!("{}List", kind.name());
    json!({
        "description": format!("{name} is a list of {} objects.", kind.name()),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": "The version of this representation."},
            "kind": {"type": "string", "description": "The kind of this list."},
            "metadata": {"allOf": [{"$ref": format!("{REFERENCE}{LIST_METADATA}")}], "default": {}, "description": "Standard list metadata."},
            "items": {"type": "array", "description": "The objects.", "items": {"allOf": [{"$ref": format!("{REFERENCE}{}", definition_name(kind))}], "default": {}}},
        },
        "x-kubernetes-group-version-kind": gvk(kind.group(), kind.version(), &name),
    })
}

/// Brings one definition from the build script's form into that of a document, and notes what it refers to.
fn finish(name: &str, schema: &mut Value, wanted: &mut BTreeSet<String>) {
    let short = name.rsplit('.').next().unwrap_or(name);
    let Some(object) = schema.as_object_mut() else { return };
    if object.remove("x-kubernetes-int-or-string").is_some() {
        if short == "Quantity" {
            object.insert("oneOf".to_owned(), json!([{"type": "string"}, {"type": "number"}]));
        } else {
            object.insert("oneOf".to_owned(), json!([{"type": "integer"}, {"type": "string"}]));
            object.insert("format".to_owned(), json!("int-or-string"));
        }
    }
    if let Some(Value::Array(required)) = object.get_mut("required") {
        // Go can leave these out, and so can clients.
        required.retain(|field| field != "metadata" || short == "Binding");
        if required.is_empty() {
            object.remove("required");
        }
    }
    let Some(Value::Object(properties)) = object.get_mut("properties") else { return };
    for (field, schema) in properties {
        refer(schema, wanted);
        if let (Some(merge), Some(schema)) = (merge_of(short, field), schema.as_object_mut()) {
            if let Some(key) = merge.key {
                schema.insert("x-kubernetes-patch-merge-key".to_owned(), key.into());
            }
            let strategy = match (merge.merge, merge.retain_keys) {
                (true, true) => "merge,retainKeys",
                (true, false) => "merge",
                (false, true) => "retainKeys",
                (false, false) => "replace",
            };
            schema.insert("x-kubernetes-patch-strategy".to_owned(), strategy.into());
        }
    }
}

/// Rewrites a reference, here or in the items or values below.
fn refer(schema: &mut Value, wanted: &mut BTreeSet<String>) {
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(Value::String(reference)) = object.remove("$ref") {
        let name = reference.strip_prefix(PACKED_REFERENCE).unwrap_or(&reference);
        wanted.insert(name.to_owned());
        object.insert("allOf".to_owned(), json!([{"$ref": format!("{REFERENCE}{name}")}]));
    }
    for below in ["items", "additionalProperties"] {
        if let Some(schema) = object.get_mut(below) {
            refer(schema, wanted);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{schema_name, schemas};
    use crate::kind::Kind;

    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    match (key.as_str(), value.as_str()) {
                        ("$ref", Some(reference)) => found.push(reference),
                        _ => references(value, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_kind_stands_in_the_document_of_its_group_and_refers_to_nothing_missing() {
        for kind in Kind::ALL {
            let document = schemas(kind.group(), kind.version());
            let schema = &document[schema_name(kind)];
            assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], kind.name());
            let mut found = Vec::new();
            references(&document, &mut found);
            for reference in found {
                let name = reference
                    .strip_prefix("#/components/schemas/")
                    .expect("a reference to a component");
                assert!(document.get(name).is_some(), "{name} is missing");
            }
        }
    }

    #[test]
    fn lists_carry_the_marks_that_patches_need() {
        let core = schemas("", "v1");
        let containers = &core["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
        assert_eq!(
            containers["items"],
            json!({"allOf": [{"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"}]})
        );
        assert_eq!(
            core["io.k8s.api.core.v1.PodSpec"]["properties"]["volumes"]["x-kubernetes-patch-strategy"],
            "merge,retainKeys"
        );
        let apps = schemas("apps", "v1");
        assert_eq!(
            apps["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"]["x-kubernetes-patch-strategy"],
            "retainKeys"
        );
        assert!(apps.get("io.k8s.api.core.v1.Node").is_none(), "only what the group needs");
        let description =
            core["io.k8s.api.core.v1.Pod"]["properties"]["spec"]["description"].as_str();
        assert!(description.is_some_and(|text| !text.is_empty()), "explain needs descriptions");
    }
}
