//! The rows of nodes, machines and events.

use jiff::Timestamp;
use serde_json::Value;

use super::{UNKNOWN, condition, name, or_none, since, since_creation, text};
use crate::object::{self, bool_at, i64_at, list_at, str_at};
use crate::time;

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";

pub(super) fn node(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut status = match condition(object, "Ready") {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if bool_at(object, &["spec", "unschedulable"]) {
        status.push_str(",SchedulingDisabled");
    }
    let info = |field: &str| text(object, &["status", "nodeInfo", field], UNKNOWN);
    vec![
        name(object),
        Value::from(status),
        Value::from(roles(object)),
        since_creation(object, now),
        text(object, &["status", "nodeInfo", "kubeletVersion"], ""),
        Value::from(address(object, "InternalIP")),
        Value::from(address(object, "ExternalIP")),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn roles(node: &Value) -> String {
    let role = |(key, value): (&str, &str)| match key.strip_prefix(ROLE_PREFIX) {
        Some(role) if !role.is_empty() => Some(role.to_owned()),
        None if key == "kubernetes.io/role" && !value.is_empty() => Some(value.to_owned()),
        _ => None,
    };
    let mut roles: Vec<String> = object::labels(node).filter_map(role).collect();
    roles.sort();
    roles.dedup();
    or_none(&roles.join(","))
}

fn address(node: &Value, kind: &str) -> String {
    let mut addresses = list_at(node, &["status", "addresses"]).iter();
    let found = addresses.find(|address| str_at(address, &["type"]) == Some(kind));
    or_none(found.and_then(|address| str_at(address, &["address"])).unwrap_or_default())
}

pub(super) fn machine(object: &Value, now: Timestamp) -> Vec<Value> {
    let ready = match condition(object, "Ready") {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let first = list_at(object, &["status", "addresses"])
        .first()
        .and_then(|address| str_at(address, &["address"]));
    let phases = list_at(object, &["status", "phases"]);
    let milliseconds: i64 =
        phases.iter().filter_map(|phase| i64_at(phase, &["durationMilliseconds"])).sum();
    let boot = if phases.is_empty() { UNKNOWN.to_owned() } else { format!("{milliseconds}ms") };
    let booted = str_at(object, &["status", "bootedAt"]).and_then(time::parse_time);
    vec![
        name(object),
        Value::from(ready),
        Value::from(bool_at(object, &["status", "voter"])),
        text(object, &["status", "version"], UNKNOWN),
        Value::from(or_none(first.unwrap_or_default())),
        Value::from(since(booted, now)),
        since_creation(object, now),
        Value::from(boot),
        text(object, &["status", "kernel"], UNKNOWN),
    ]
}

pub(super) fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    let moment = |path: &[&str]| str_at(object, path).and_then(time::parse_time);
    let made = moment(&["eventTime"]);
    let first = moment(&["firstTimestamp"]).or(made);
    let last =
        moment(&["series", "lastObservedTime"]).or_else(|| moment(&["lastTimestamp"])).or(first);
    let count = i64_at(object, &["series", "count"])
        .or_else(|| i64_at(object, &["count"]))
        .filter(|count| *count != 0);
    let kind = str_at(object, &["involvedObject", "kind"]).unwrap_or_default().to_lowercase();
    let about = match str_at(object, &["involvedObject", "name"]).unwrap_or_default() {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    vec![
        Value::from(since(last, now)),
        text(object, &["type"], ""),
        text(object, &["reason"], ""),
        Value::from(about),
        text(object, &["involvedObject", "fieldPath"], ""),
        Value::from(source(object)),
        Value::from(str_at(object, &["message"]).unwrap_or_default().trim()),
        Value::from(since(first, now)),
        Value::from(count.unwrap_or(1)),
        name(object),
    ]
}

/// `kubelet, node1`
fn source(event: &Value) -> String {
    let either = |path: &[&str], other: &str| {
        let given = str_at(event, path).filter(|text| !text.is_empty());
        given.or_else(|| str_at(event, &[other])).unwrap_or_default().to_owned()
    };
    let component = either(&["source", "component"], "reportingComponent");
    let host = either(&["source", "host"], "reportingInstance");
    if host.is_empty() { component } else { format!("{component}, {host}") }
}
