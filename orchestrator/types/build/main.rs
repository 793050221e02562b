//! Derives the schema of the served kinds from k8s-openapi, so that nothing of it is copied into the repository.
//!
//! Two files are made, both zstd: `structure.zst` (what fields there are and what shape each has: needed to decode every
//! request, so small and quick to read) and `definitions.zst` (JSON with descriptions: needed for OpenAPI documents only).
//!
//! The structure is text, one line per type (`io.k8s.api.apps.v1.DeploymentSpec`), each followed by a line per field: a
//! space, the name, a space, the shape. Shapes are one letter (see `shape`), `[` before that of a list's items, `{` before
//! that of a map's values, or `@` and a type's name.

mod machine;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use k8s_openapi::api::{apps, autoscaling, coordination, core, discovery, events, policy};
use k8s_openapi::apimachinery::pkg::apis::meta;
use k8s_openapi::schemars::SchemaGenerator;
use k8s_openapi::schemars::generate::SchemaSettings;
use serde_json::Value;

const COMPRESSION_LEVEL: i32 = 19;
const REFERENCE: &str = "#/$defs/";

fn main() {
    println!("cargo::rerun-if-changed=build");
    let definitions = definitions();
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    write(Path::new(&out), "structure.zst", structure(&definitions).as_bytes());
    write(Path::new(&out), "definitions.zst", &serde_json::to_vec(&definitions).expect("JSON"));
}

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    let compressed = zstd::encode_all(bytes, COMPRESSION_LEVEL).expect("compressing to memory");
    fs::write(folder.join(name), compressed).expect("OUT_DIR is writable");
}

/// The JSON schema of every served kind and of all they refer to, by definition name.
fn definitions() -> BTreeMap<String, Value> {
    let mut generator = SchemaGenerator::new(SchemaSettings::draft2020_12());
    generator.subschema_for::<core::v1::Namespace>();
    generator.subschema_for::<core::v1::Node>();
    generator.subschema_for::<core::v1::Pod>();
    generator.subschema_for::<core::v1::Service>();
    generator.subschema_for::<core::v1::ConfigMap>();
    generator.subschema_for::<core::v1::Secret>();
    generator.subschema_for::<core::v1::ServiceAccount>();
    generator.subschema_for::<core::v1::Event>();
    generator.subschema_for::<core::v1::Binding>();
    generator.subschema_for::<events::v1::Event>();
    generator.subschema_for::<apps::v1::Deployment>();
    generator.subschema_for::<apps::v1::ReplicaSet>();
    generator.subschema_for::<discovery::v1::EndpointSlice>();
    generator.subschema_for::<coordination::v1::Lease>();
    generator.subschema_for::<autoscaling::v1::Scale>();
    generator.subschema_for::<policy::v1::Eviction>();
    generator.subschema_for::<meta::v1::Status>();
    generator.subschema_for::<meta::v1::DeleteOptions>();
    generator.subschema_for::<meta::v1::Condition>();
    let mut definitions: BTreeMap<_, _> = generator.take_definitions(true).into_iter().collect();
    definitions.extend(machine::definitions());
    definitions
}

fn structure(definitions: &BTreeMap<String, Value>) -> String {
    let mut text = String::new();
    for (name, schema) in definitions {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            continue;
        };
        writeln!(text, "{name}").expect("writing to memory");
        for (field, schema) in properties {
            writeln!(text, " {field} {}", shape(schema, definitions)).expect("writing to memory");
        }
    }
    text
}

fn shape(schema: &Value, definitions: &BTreeMap<String, Value>) -> String {
    let text = |key: &str| schema.get(key).and_then(Value::as_str);
    if let Some(name) = text("$ref").and_then(|reference| reference.strip_prefix(REFERENCE)) {
        return named_shape(name, definitions);
    }
    match (text("type"), text("format")) {
        (Some("string"), Some("byte")) => "y".to_owned(),
        (Some("string"), None) => "s".to_owned(),
        (Some("boolean"), None) => "b".to_owned(),
        (Some("integer"), Some("int32")) => "i".to_owned(),
        (Some("integer"), Some("int64")) => "l".to_owned(),
        (Some("number"), _) => "d".to_owned(),
        (Some("array"), None) => format!("[{}", shape(&schema["items"], definitions)),
        (Some("object"), None) => match schema.get("additionalProperties") {
            Some(values) => format!("{{{}", shape(values, definitions)),
            None => "*".to_owned(),
        },
        _ => panic!("a shape that the schema module does not know: {schema}"),
    }
}

fn named_shape(name: &str, definitions: &BTreeMap<String, Value>) -> String {
    match name.rsplit('.').next().unwrap_or(name) {
        "Time" => "t".to_owned(),
        "MicroTime" => "T".to_owned(),
        "Quantity" => "q".to_owned(),
        "IntOrString" => "o".to_owned(),
        _ if definitions.get(name).is_some_and(|schema| schema.get("properties").is_some()) => {
            format!("@{name}")
        }
        _ => "*".to_owned(),
    }
}
