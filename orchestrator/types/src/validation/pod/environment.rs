//! Environment variables of a container.

use serde_json::Value;

use super::super::report::{Path, Report, items, text};
use crate::names;

/// Fields of a pod that can stand in a variable.
const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Resources of a container that can stand in a variable.
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

pub(super) fn variables(report: &mut Report, list: &Path<'_>, container: &Value) {
    for (index, variable) in items(container, "env").iter().enumerate() {
        let path = list.index(index);
        let name = text(variable, "name");
        if name.is_empty() {
            report.required(&path.child("name"), "");
        } else {
            report.reasons(&path.child("name"), name, names::environment_variable(name));
        }
        let source = &variable["valueFrom"];
        if !source.is_null() {
            value_from(report, &path.child("valueFrom"), text(variable, "value"), source);
        }
    }
}

fn value_from(report: &mut Report, path: &Path<'_>, value: &str, source: &Value) {
    let known = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef"];
    let given: Vec<&str> = known.into_iter().filter(|field| !source[*field].is_null()).collect();
    if !source["fileKeyRef"].is_null() {
        report.not_yet(&path.child("fileKeyRef"));
        return;
    }
    if given.is_empty() {
        let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        report.invalid(path, "", detail);
    } else if !value.is_empty() {
        report.invalid(path, "", "may not be specified when `value` is not empty");
    } else if given.len() > 1 {
        report.invalid(path, "", "may not have more than one field specified at a time");
    }
    for field in given {
        let (path, source) = (path.child(field), &source[field]);
        match field {
            "fieldRef" => field_reference(report, &path, source, &["annotations", "labels"]),
            "resourceFieldRef" => resource_reference(report, &path, source),
            _ => key_reference(report, &path, source),
        }
    }
}

/// A field of the pod; `subscripts` are the maps of which one entry can be named: `metadata.labels['a']`.
pub(super) fn field_reference(
    report: &mut Report,
    path: &Path<'_>,
    source: &Value,
    subscripts: &[&str],
) {
    let field = text(source, "fieldPath");
    let path = path.child("fieldPath");
    if field.is_empty() {
        report.required(&path, "");
        return;
    }
    let Some((map, key)) =
        field.split_once("['").and_then(|(map, key)| Some((map, key.strip_suffix("']")?)))
    else {
        if !FIELDS.contains(&field) {
            if ["metadata.labels", "metadata.annotations"].contains(&field) {
                report.not_supported(&path, &source["fieldPath"], &FIELDS);
            } else {
                report.invalid(
                    &path,
                    field,
                    &format!("error converting fieldPath: field label not supported: {field}"),
                );
            }
        }
        return;
    };
    match map.strip_prefix("metadata.").filter(|map| subscripts.contains(map)) {
        Some("labels") => report.reasons(&path, key, names::qualified_name(key)),
        Some(_) => report.reasons(&path, key, names::qualified_name(&key.to_lowercase())),
        None => report.invalid(&path, map, "does not support subscript"),
    }
}

pub(super) fn resource_reference(report: &mut Report, path: &Path<'_>, source: &Value) {
    let resource = text(source, "resource");
    if resource.is_empty() {
        report.required(&path.child("resource"), "");
    } else {
        report.one_of(&path.child("resource"), &source["resource"], &RESOURCES);
    }
}

fn key_reference(report: &mut Report, path: &Path<'_>, source: &Value) {
    if text(source, "name").is_empty() {
        report.required(&path.child("name"), "");
    }
    let key = text(source, "key");
    if key.is_empty() {
        report.required(&path.child("key"), "");
    } else {
        report.reasons(&path.child("key"), key, names::config_key(key));
    }
}

pub(super) fn sources(report: &mut Report, list: &Path<'_>, container: &Value) {
    for (index, source) in items(container, "envFrom").iter().enumerate() {
        let path = list.index(index);
        let prefix = text(source, "prefix");
        if !prefix.is_empty() {
            report.reasons(&path.child("prefix"), prefix, names::environment_variable(prefix));
        }
        let given: Vec<&str> = ["configMapRef", "secretRef"]
            .into_iter()
            .filter(|field| !source[*field].is_null())
            .collect();
        match given.as_slice() {
            [] => report.invalid(&path, "", "must specify one of: `configMapRef` or `secretRef`"),
            [field] if text(&source[*field], "name").is_empty() => {
                report.required(&path.child(field).child("name"), "");
            }
            [_] => {}
            _ => report.invalid(&path, "", "may not have more than one field specified at a time"),
        }
    }
}
