//! OpenAPI v3 documents: what fields the kinds have, and what paths there are.
//!
//! Made from the registry and the schema when asked for, and not kept: a client keeps each under its hash.
//!
//! The patch operations name the query parameter `fieldValidation`, by which kubectl knows that this server checks fields
//! itself. They do not list strategic merge patches, although the server takes them: kubectl would compute these from the
//! documents, and with what it has built in it computes better ones.

use std::sync::OnceLock;

use http::HeaderValue;
use podium_types::openapi::{list_schema_name, schema_name, schemas_text};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::Context;
use super::health::GIT_VERSION;
use super::reply::{self, Reply};
use crate::registry::{self, Resource, Verb};
use crate::status::Status;

/// Where the documents are.
pub(super) fn index() -> Reply {
    let mut paths = Map::new();
    for (group, version, hash) in hashes() {
        let path = path_of(group, version);
        let url = format!("/openapi/v3/{path}?hash={hash}");
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    reply::json(&json!({"paths": paths}))
}

/// One document; under another hash than its own, the client is sent to the right one.
pub(super) fn document(group: &str, version: &str, context: &Context<'_>) -> Result<Reply, Status> {
    let Some((_, _, hash)) = hashes().iter().find(|(g, v, _)| *g == group && *v == version) else {
        return Ok(reply::nowhere());
    };
    if let Some(asked) = context.query.get("hash")
        && asked != hash
    {
        let mut moved = reply::empty(301);
        let url = format!("/openapi/v3/{}?hash={hash}", path_of(group, version));
        let location = HeaderValue::from_str(&url).map_err(Status::internal)?;
        moved.headers_mut().insert(http::header::LOCATION, location);
        return Ok(moved);
    }
    let json = HeaderValue::from_static("application/json");
    let mut reply = reply::bytes(json, build(group, version));
    let keep = HeaderValue::from_static("public, immutable");
    reply.headers_mut().insert(http::header::CACHE_CONTROL, keep);
    Ok(reply)
}

fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// Group, version and hash of every document, computed once.
fn hashes() -> &'static [(&'static str, &'static str, String)] {
    static HASHES: OnceLock<Vec<(&'static str, &'static str, String)>> = OnceLock::new();
    HASHES.get_or_init(|| {
        let hash = |(group, version)| {
            let digest = Sha256::digest(build(group, version).as_bytes());
            (group, version, digest.iter().map(|byte| format!("{byte:02X}")).collect())
        };
        registry::group_versions().map(hash).collect()
    })
}

/// The whole document. As text from the beginning: a tree of it would take many times the room.
fn build(group: &str, version: &str) -> String {
    let mut paths = Map::new();
    for row in registry::of_group_version(group, version) {
        paths_of(row, &mut paths);
    }
    let info = json!({"title": "Podium", "version": GIT_VERSION});
    let (paths, schemas) = (Value::Object(paths), schemas_text(group, version));
    format!(
        r#"{{"openapi":"3.0.0","info":{info},"paths":{paths},"components":{{"schemas":{schemas}}}}}"#
    )
}

fn paths_of(row: &Resource, paths: &mut Map<String, Value>) {
    let root = format!("/{}", path_of(row.kind.group(), row.version()));
    let plural = &row.names.resource;
    let collection = if row.namespaced {
        paths.insert(format!("{root}/{plural}"), item(row, &[("get", Verb::List)], &[]));
        format!("{root}/namespaces/{{namespace}}/{plural}")
    } else {
        format!("{root}/{plural}")
    };
    let scope: &[&str] = if row.namespaced { &["namespace"] } else { &[] };
    let on_all = [("get", Verb::List), ("post", Verb::Create), ("delete", Verb::DeleteCollection)];
    paths.insert(collection.clone(), item(row, &on_all, scope));
    let on_one = [
        ("get", Verb::Get),
        ("put", Verb::Update),
        ("patch", Verb::Patch),
        ("delete", Verb::Delete),
    ];
    let names = [scope, &["name"]].concat();
    paths.insert(format!("{collection}/{{name}}"), item(row, &on_one, &names));
}

/// One path: its operations, and the parts of the path that have to be filled in.
fn item(row: &Resource, operations: &[(&str, Verb)], parameters: &[&str]) -> Value {
    let mut item = Map::new();
    for (method, verb) in operations.iter().filter(|(_, verb)| row.has(*verb)) {
        item.insert((*method).to_owned(), operation(row, *verb));
    }
    let parameter = |name: &&str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}});
    if !parameters.is_empty() {
        item.insert("parameters".to_owned(), parameters.iter().map(parameter).collect());
    }
    Value::Object(item)
}

fn operation(row: &Resource, verb: Verb) -> Value {
    let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    let content = |name: &str| json!({"application/json": {"schema": reference(name)}});
    let whole = schema_name(row.kind);
    let list = list_schema_name(row.kind);
    let (action, answer) = match verb {
        Verb::List => ("list", list.as_str()),
        Verb::Create => ("post", whole),
        Verb::Update => ("put", whole),
        Verb::Patch => ("patch", whole),
        Verb::Delete => ("delete", whole),
        Verb::DeleteCollection => ("deletecollection", list.as_str()),
        Verb::Get | Verb::Watch => ("get", whole),
    };
    let mut operation = json!({
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": row.kind.group(), "version": row.version(), "kind": row.kind.name()},
        "responses": {"200": {"description": "OK", "content": content(answer)}},
    });
    match verb {
        Verb::Create | Verb::Update => {
            operation["requestBody"] = json!({"content": content(whole)});
        }
        Verb::Patch => {
            let any = json!({"schema": {"type": "object"}});
            operation["requestBody"] = json!({"content": {
                "application/json-patch+json": {"schema": {"type": "array", "items": {"type": "object"}}},
                "application/merge-patch+json": any,
            }});
        }
        Verb::Delete | Verb::DeleteCollection | Verb::Get | Verb::List | Verb::Watch => {}
    }
    if matches!(verb, Verb::Create | Verb::Update | Verb::Patch) {
        let names = ["dryRun", "fieldManager", "fieldValidation"];
        let parameter = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
        operation["parameters"] = names.map(parameter).into_iter().collect();
    }
    operation
}
