//! The rows of what keeps pods running.

use jiff::Timestamp;
use serde_json::Value;

use super::{name, number, since_creation};
use crate::object::{i64_at, list_at, str_at};
use crate::selector::LabelSelector;

pub(super) fn deployment(object: &Value, now: Timestamp) -> Vec<Value> {
    let count = |path: &[&str]| i64_at(object, path).unwrap_or_default();
    let mut cells = vec![
        name(object),
        Value::from(format!(
            "{}/{}",
            count(&["status", "readyReplicas"]),
            count(&["spec", "replicas"])
        )),
        number(object, &["status", "updatedReplicas"]),
        number(object, &["status", "availableReplicas"]),
        since_creation(object, now),
    ];
    cells.extend(template_cells(object));
    cells
}

pub(super) fn replica_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![
        name(object),
        number(object, &["spec", "replicas"]),
        number(object, &["status", "replicas"]),
        number(object, &["status", "readyReplicas"]),
        since_creation(object, now),
    ];
    cells.extend(template_cells(object));
    cells
}

fn template_cells(object: &Value) -> [Value; 3] {
    let containers = list_at(object, &["spec", "template", "spec", "containers"]);
    let each = |field: &str| {
        let texts =
            containers.iter().map(|container| str_at(container, &[field]).unwrap_or_default());
        Value::from(texts.collect::<Vec<_>>().join(","))
    };
    let selector = object.get("spec").and_then(|spec| spec.get("selector"));
    let selector = match selector.map(LabelSelector::from_object) {
        Some(Ok(selector)) if selector.is_everything() => super::NONE.to_owned(),
        Some(Ok(selector)) => selector.to_string(),
        Some(Err(_)) => "<error>".to_owned(),
        None => super::NONE.to_owned(),
    };
    [each("name"), each("image"), Value::from(selector)]
}
