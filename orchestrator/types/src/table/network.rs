//! The rows of services and their endpoints.

use jiff::Timestamp;
use serde_json::Value;

use super::{NONE, UNSET, name, or_none, pairs, since_creation, text};
use crate::object::{at, i64_at, list_at, str_at};

/// More than this many addresses or ports are counted, not shown.
const SHOWN: usize = 3;

pub(super) fn service(object: &Value, now: Timestamp) -> Vec<Value> {
    let first = list_at(object, &["spec", "clusterIPs"]).first().and_then(Value::as_str);
    let address = first.or_else(|| str_at(object, &["spec", "clusterIP"])).unwrap_or_default();
    vec![
        name(object),
        text(object, &["spec", "type"], ""),
        Value::from(or_none(address)),
        Value::from(external_address(object)),
        Value::from(ports(object)),
        since_creation(object, now),
        Value::from(pairs(at(object, &["spec", "selector"]))),
    ]
}

fn external_address(service: &Value) -> String {
    let given: Vec<&str> =
        list_at(service, &["spec", "externalIPs"]).iter().filter_map(Value::as_str).collect();
    match str_at(service, &["spec", "type"]) {
        Some("ExternalName") => {
            str_at(service, &["spec", "externalName"]).unwrap_or_default().to_owned()
        }
        Some("LoadBalancer") => {
            let points = list_at(service, &["status", "loadBalancer", "ingress"]);
            let balanced = points.iter().filter_map(|point| {
                str_at(point, &["ip"]).or_else(|| str_at(point, &["hostname"]))
            });
            let all: Vec<&str> = balanced.chain(given).collect();
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        _ => or_none(&given.join(",")),
    }
}

fn ports(service: &Value) -> String {
    let print = |port: &Value| {
        let number = i64_at(port, &["port"]).unwrap_or_default();
        let protocol = str_at(port, &["protocol"]).unwrap_or_default();
        match i64_at(port, &["nodePort"]).unwrap_or_default() {
            0 => format!("{number}/{protocol}"),
            on_node => format!("{number}:{on_node}/{protocol}"),
        }
    };
    let ports: Vec<String> = list_at(service, &["spec", "ports"]).iter().map(print).collect();
    or_none(&ports.join(","))
}

pub(super) fn endpoint_slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports = list_at(object, &["ports"]).iter();
    let ports: Vec<String> = ports
        .map(|port| {
            i64_at(port, &["port"]).map_or_else(|| "*".to_owned(), |number| number.to_string())
        })
        .collect();
    let endpoints = list_at(object, &["endpoints"]).iter();
    let addresses: Vec<String> = endpoints
        .flat_map(|endpoint| list_at(endpoint, &["addresses"]))
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    vec![
        name(object),
        text(object, &["addressType"], NONE),
        Value::from(first_few(&ports)),
        Value::from(first_few(&addresses)),
        since_creation(object, now),
    ]
}

fn first_few(texts: &[String]) -> String {
    if texts.is_empty() {
        return UNSET.to_owned();
    }
    let shown = texts[..texts.len().min(SHOWN)].join(",");
    match texts.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}
