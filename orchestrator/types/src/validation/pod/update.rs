//! What may change in a pod that exists: the images of its containers, and little else.

use serde_json::{Map, Value};

use super::super::report::{Path, Report, items, text};
use crate::object::{at, i64_at};

const UPDATES: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Named this many at most; one is enough to find the mistake.
const NAMED: usize = 10;

pub(in super::super) fn update(report: &mut Report, new: &Value, old: &Value) {
    let root = Path::Root;
    let path = root.child("spec");
    let (new, old) = (at(new, &["spec"]), at(old, &["spec"]));
    for list in ["containers", "initContainers"] {
        if items(new, list).len() != items(old, list).len() {
            report.forbidden(&path.child(list), "pod updates may not add or remove containers");
            return;
        }
    }
    deadline(report, &path, new, old);
    tolerations(report, &path, new, old);
    for gate in items(new, "schedulingGates") {
        if !items(old, "schedulingGates").contains(gate) {
            let name = text(gate, "name");
            let detail =
                format!("only deletion is allowed, but found new scheduling gate '{name}'");
            report.forbidden(&path.child("schedulingGates"), &detail);
        }
    }
    let mut changed = Vec::new();
    differences("spec", &fixed_part(new), &fixed_part(old), &mut changed);
    if !changed.is_empty() {
        changed.truncate(NAMED);
        report.forbidden(&path, &format!("{UPDATES}\nchanged: {}", changed.join(", ")));
    }
}

/// Tolerations may come, and may be tolerated for another time, but not go.
fn tolerations(report: &mut Report, path: &Path<'_>, new: &Value, old: &Value) {
    let untimed = |spec| {
        items(spec, "tolerations").iter().cloned().map(|mut toleration| {
            if let Some(toleration) = toleration.as_object_mut() {
                toleration.remove("tolerationSeconds");
            }
            toleration
        })
    };
    let now: Vec<Value> = untimed(new).collect();
    if untimed(old).any(|toleration| !now.contains(&toleration)) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        report.forbidden(&path.child("tolerations"), detail);
    }
}

fn deadline(report: &mut Report, path: &Path<'_>, new: &Value, old: &Value) {
    let field = "activeDeadlineSeconds";
    let path = path.child(field);
    match (i64_at(new, &[field]), i64_at(old, &[field])) {
        (Some(new), Some(old)) if new > old => {
            report.invalid(&path, new, "must be less than or equal to previous value");
        }
        (None, Some(_)) => report.invalid(
            &path,
            Value::Null,
            "must not update from a positive integer to nil value",
        ),
        _ => {}
    }
}

/// The spec without what may change.
fn fixed_part(spec: &Value) -> Value {
    let mut spec = spec.as_object().cloned().unwrap_or_default();
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        spec.remove(field);
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(container) = container.as_object_mut() {
                container.remove("image");
            }
        }
    }
    Value::Object(spec)
}

/// The deepest fields that differ.
fn differences(path: &str, new: &Value, old: &Value, found: &mut Vec<String>) {
    match (new, old) {
        _ if new == old => {}
        (Value::Object(new), Value::Object(old)) => {
            let missing = Value::Null;
            for key in keys(new, old) {
                let value = |map: &Map<String, Value>| {
                    map.get(key).cloned().unwrap_or_else(|| missing.clone())
                };
                differences(&format!("{path}.{key}"), &value(new), &value(old), found);
            }
        }
        (Value::Array(new), Value::Array(old)) if new.len() == old.len() => {
            for (index, (new, old)) in new.iter().zip(old).enumerate() {
                differences(&format!("{path}[{index}]"), new, old, found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}

fn keys<'a>(
    new: &'a Map<String, Value>,
    old: &'a Map<String, Value>,
) -> impl Iterator<Item = &'a String> {
    new.keys().chain(old.keys().filter(|key| !new.contains_key(*key)))
}
