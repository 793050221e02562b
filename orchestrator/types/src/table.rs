//! Objects as rows of a table, as `kubectl get` shows them.
//!
//! Columns of priority above 0 are only shown with `-o wide`. Cells are numbers, booleans or texts, one per column.

mod age;
mod cluster;
mod columns;
mod network;
mod pod;
mod workload;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::kind::Kind;
use crate::object;

pub use age::age;
pub use columns::columns;

const NONE: &str = "<none>";
const UNKNOWN: &str = "<unknown>";
const UNSET: &str = "<unset>";

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Its heading; clients write it in capitals.
    pub name: &'static str,
    /// `string`, `integer` or `boolean`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// `name` for the column that names the object, else empty.
    pub format: &'static str,
    /// What it shows.
    pub description: &'static str,
    /// 0: always shown.
    pub priority: i32,
}

/// The cells of an object's row, one for each of [`columns`].
#[must_use]
pub fn cells(kind: Kind, object: &Value, now: Timestamp) -> Vec<Value> {
    match kind {
        Kind::Pod => pod::cells(object, now),
        Kind::Deployment => workload::deployment(object, now),
        Kind::ReplicaSet => workload::replica_set(object, now),
        Kind::Service => network::service(object, now),
        Kind::EndpointSlice => network::endpoint_slice(object, now),
        Kind::Node => cluster::node(object, now),
        Kind::Machine => cluster::machine(object, now),
        Kind::CoreEvent => cluster::event(object, now),
        Kind::Event => cluster::event(&crate::event::to_core(object), now),
        Kind::Namespace => {
            vec![name(object), text(object, &["status", "phase"], ""), since_creation(object, now)]
        }
        Kind::ConfigMap => {
            vec![name(object), count(object, &["data", "binaryData"]), since_creation(object, now)]
        }
        Kind::Secret => {
            vec![
                name(object),
                text(object, &["type"], ""),
                count(object, &["data"]),
                since_creation(object, now),
            ]
        }
        Kind::Lease => vec![
            name(object),
            text(object, &["spec", "holderIdentity"], ""),
            since_creation(object, now),
        ],
        Kind::ServiceAccount
        | Kind::Scale
        | Kind::Binding
        | Kind::Eviction
        | Kind::Status
        | Kind::DeleteOptions => vec![name(object), since_creation(object, now)],
    }
}

fn name(object: &Value) -> Value {
    Value::from(object::name(object))
}

/// The text at a path, or what stands for its absence.
fn text(object: &Value, path: &[&str], otherwise: &str) -> Value {
    Value::from(object::str_at(object, path).filter(|text| !text.is_empty()).unwrap_or(otherwise))
}

fn number(object: &Value, path: &[&str]) -> Value {
    Value::from(object::i64_at(object, path).unwrap_or_default())
}

/// How many entries some maps have together.
fn count(object: &Value, fields: &[&str]) -> Value {
    Value::from(
        fields
            .iter()
            .filter_map(|field| object.get(field)?.as_object())
            .map(serde_json::Map::len)
            .sum::<usize>(),
    )
}

fn since_creation(object: &Value, now: Timestamp) -> Value {
    Value::from(since(object::creation_timestamp(object), now))
}

fn since(time: Option<Timestamp>, now: Timestamp) -> String {
    time.map_or_else(|| UNKNOWN.to_owned(), |time| age::between(time, now))
}

/// `a=b,c=d`
fn pairs(labels: &Value) -> String {
    let labels = labels.as_object().into_iter().flatten();
    let pairs: Vec<String> = labels
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    or_none(&pairs.join(","))
}

fn or_none(text: &str) -> String {
    if text.is_empty() { NONE.to_owned() } else { text.to_owned() }
}

/// Whether a condition of the object has status `True`; `None` when it has no such condition.
fn condition(object: &Value, name: &str) -> Option<bool> {
    let conditions = object::list_at(object, &["status", "conditions"]);
    let condition = conditions
        .iter()
        .find(|condition| condition.get("type").is_some_and(|kind| kind == name))?;
    Some(condition.get("status").is_some_and(|status| status == "True"))
}

#[cfg(test)]
mod tests;
