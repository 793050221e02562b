//! ConfigMaps and Secrets.

use serde_json::Value;

use super::report::{Path, Report, entries, text};
use crate::names;
use crate::object::{annotation, at, bool_at};

/// What fits into one object of the store.
const CONTENT_BYTES: usize = 1024 * 1024;

pub(super) fn config_map(report: &mut Report, object: &Value) {
    let root = Path::Root;
    let mut bytes = 0;
    for (key, value) in entries(object, "data") {
        report.reasons(&root.child("data").key(key), key, names::config_key(key));
        if object.get("binaryData").is_some_and(|binary| binary.get(key).is_some()) {
            report.invalid(
                &root.child("data").key(key),
                key,
                "duplicate of key present in binaryData",
            );
        }
        bytes += value.as_str().map_or(0, str::len);
    }
    for (key, value) in entries(object, "binaryData") {
        report.reasons(&root.child("binaryData").key(key), key, names::config_key(key));
        bytes += decoded_bytes(value);
    }
    if bytes > CONTENT_BYTES {
        report.too_long(&root, &format!("may not be more than {CONTENT_BYTES} bytes"));
    }
}

pub(super) fn secret(report: &mut Report, object: &Value) {
    let root = Path::Root;
    let data = root.child("data");
    let mut bytes = 0;
    for (key, value) in entries(object, "data") {
        report.reasons(&data.key(key), key, names::config_key(key));
        bytes += decoded_bytes(value);
    }
    if bytes > CONTENT_BYTES {
        report.too_long(&data, &format!("may not be more than {CONTENT_BYTES} bytes"));
    }
    let has = |key: &str| object.get("data").is_some_and(|data| data.get(key).is_some());
    let needed: &[&str] = match text(object, "type") {
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            report.required(&data.key("username"), "");
            &["password"]
        }
        "kubernetes.io/service-account-token" => {
            let name = "kubernetes.io/service-account.name";
            if annotation(object, name).is_none_or(str::is_empty) {
                report.required(&root.child("metadata").child("annotations").key(name), "");
            }
            &[]
        }
        _ => &[],
    };
    for key in needed.iter().filter(|key| !has(key)) {
        report.required(&data.key(key), "");
    }
}

/// Types never change; nothing of what was declared immutable does.
pub(super) fn update(report: &mut Report, new: &Value, old: &Value) {
    let root = Path::Root;
    report.immutable(&root.child("type"), at(new, &["type"]), at(old, &["type"]));
    if !bool_at(old, &["immutable"]) {
        return;
    }
    if !bool_at(new, &["immutable"]) {
        report.forbidden(&root.child("immutable"), "field is immutable when `immutable` is set");
    }
    for field in ["data", "binaryData"] {
        if entries(new, field).ne(entries(old, field)) {
            report.forbidden(&root.child(field), "field is immutable when `immutable` is set");
        }
    }
}

/// How many bytes base64 stands for.
fn decoded_bytes(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    text.trim_end_matches('=').len() * 3 / 4
}
