//! Namespaces, nodes, machines, endpoint slices, leases and events.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use super::metadata;
use super::report::{Path, Report, items, text};
use crate::kind::Kind;
use crate::object::{at, i64_at, namespace as namespace_of};
use crate::{names, namespace};

const ENDPOINTS: usize = 1000;
const ENDPOINT_ADDRESSES: usize = 100;
const SLICE_PORTS: usize = 20_000;
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "PreferNoSchedule"];

pub(super) fn namespace(report: &mut Report, object: &Value) {
    let root = Path::Root;
    let path = root.child("spec");
    let path = path.child("finalizers");
    for finalizer in items(at(object, &["spec"]), "finalizers").iter().filter_map(Value::as_str) {
        report.reasons(&path, finalizer, names::qualified_name(finalizer));
    }
}

pub(super) fn node(report: &mut Report, object: &Value) {
    let root = Path::Root;
    let path = root.child("spec");
    let spec = at(object, &["spec"]);
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (index, taint) in items(spec, "taints").iter().enumerate() {
        let list = path.child("taints");
        let path = list.index(index);
        let (key, effect) = (text(taint, "key"), text(taint, "effect"));
        report.reasons(&path.child("key"), key, names::qualified_name(key));
        let value = text(taint, "value");
        report.reasons(&path.child("value"), value, names::label_value(value));
        if effect.is_empty() {
            report.required(&path.child("effect"), "");
        } else {
            report.one_of(&path.child("effect"), &taint["effect"], &EFFECTS);
        }
        if seen.contains(&(key, effect)) {
            report.duplicate(&path, taint.clone());
        }
        seen.push((key, effect));
    }
    for (index, range) in items(spec, "podCIDRs").iter().filter_map(Value::as_str).enumerate() {
        if !is_range(range) {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            report.invalid(&path.child("podCIDRs").index(index), range, detail);
        }
    }
}

pub(super) fn machine(report: &mut Report, object: &Value) {
    let root = Path::Root;
    let path = root.child("spec");
    let spec = at(object, &["spec"]);
    let endpoint = text(spec, "endpoint");
    if !endpoint.is_empty() && endpoint.parse::<SocketAddr>().is_err() {
        report.invalid(
            &path.child("endpoint"),
            endpoint,
            "must be an address and a port, (e.g. 10.9.8.7:51820)",
        );
    }
    for (index, range) in items(spec, "podCIDRs").iter().filter_map(Value::as_str).enumerate() {
        if !is_range(range) {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            report.invalid(&path.child("podCIDRs").index(index), range, detail);
        }
    }
}

pub(super) fn endpoint_slice(report: &mut Report, object: &Value) {
    let root = Path::Root;
    let kind = text(object, "addressType");
    if kind.is_empty() {
        report.required(&root.child("addressType"), "");
    } else {
        report.one_of(
            &root.child("addressType"),
            &object["addressType"],
            &["FQDN", "IPv4", "IPv6"],
        );
    }
    let endpoints = items(object, "endpoints");
    if endpoints.len() > ENDPOINTS {
        report.too_many(&root.child("endpoints"), endpoints.len(), ENDPOINTS);
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let list = root.child("endpoints");
        let path = list.index(index);
        let addresses = items(endpoint, "addresses");
        if addresses.is_empty() {
            report.required(&path.child("addresses"), "must contain at least 1 address");
        } else if addresses.len() > ENDPOINT_ADDRESSES {
            report.too_many(&path.child("addresses"), addresses.len(), ENDPOINT_ADDRESSES);
        }
        for (index, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
            let path = path.child("addresses");
            slice_address(report, &path.index(index), kind, address);
        }
        let hostname = text(endpoint, "hostname");
        if !hostname.is_empty() {
            report.reasons(&path.child("hostname"), hostname, names::dns_label(hostname));
        }
    }
    slice_ports(report, object);
}

fn slice_address(report: &mut Report, path: &Path<'_>, kind: &str, address: &str) {
    match (kind, address.parse::<IpAddr>()) {
        ("IPv4", Ok(IpAddr::V4(_))) | ("IPv6", Ok(IpAddr::V6(_))) => {}
        ("IPv4", _) => report.invalid(path, address, "must be a valid IPv4 address"),
        ("IPv6", _) => report.invalid(path, address, "must be a valid IPv6 address"),
        _ => report.reasons(path, address, names::dns_subdomain(address)),
    }
}

fn slice_ports(report: &mut Report, object: &Value) {
    let root = Path::Root;
    let list = root.child("ports");
    let ports = items(object, "ports");
    if ports.len() > SLICE_PORTS {
        report.too_many(&list, ports.len(), SLICE_PORTS);
    }
    let mut seen: Vec<&str> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let path = list.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            report.reasons(&path.child("name"), name, names::dns_label(name));
        }
        if seen.contains(&name) {
            report.duplicate(&path.child("name"), name);
        }
        seen.push(name);
        report.one_of(&path.child("protocol"), &port["protocol"], &["SCTP", "TCP", "UDP"]);
        if let Some(number) = i64_at(port, &["port"]) {
            for reason in names::port_number(number) {
                report.invalid(&path.child("port"), number, &reason);
            }
        }
    }
}

pub(super) fn lease(report: &mut Report, object: &Value) {
    let root = Path::Root;
    let path = root.child("spec");
    let spec = at(object, &["spec"]);
    if i64_at(spec, &["leaseDurationSeconds"]).is_some_and(|seconds| seconds <= 0) {
        report.invalid(
            &path.child("leaseDurationSeconds"),
            spec["leaseDurationSeconds"].clone(),
            "must be greater than 0",
        );
    }
    report.not_negative(&path.child("leaseTransitions"), &spec["leaseTransitions"]);
}

/// Old clients write core events in many ways, so those have only to be about something in their own namespace.
pub(super) fn event(report: &mut Report, kind: Kind, object: &Value) {
    let root = Path::Root;
    let about = if kind == Kind::Event { "regarding" } else { "involvedObject" };
    let path = root.child(about);
    let about = text(&object[about], "namespace");
    let own = namespace_of(object);
    if about.is_empty() {
        if own != namespace::DEFAULT && own != namespace::SYSTEM {
            report.invalid(&path.child("namespace"), about, "does not match event.namespace");
        }
    } else if about != own {
        report.invalid(&path.child("namespace"), about, "does not match event.namespace");
    }
    if kind == Kind::Event {
        for field in ["reportingController", "reportingInstance", "action", "reason"] {
            if text(object, field).is_empty() {
                report.required(&root.child(field), "");
            }
        }
        if object.get("eventTime").is_none_or(Value::is_null) {
            report.required(&root.child("eventTime"), "");
        }
        report.one_of(&root.child("type"), &object["type"], &["Normal", "Warning"]);
    }
}

pub(super) fn update(report: &mut Report, kind: Kind, new: &Value, old: &Value) {
    let root = Path::Root;
    if kind == Kind::EndpointSlice {
        report.immutable(
            &root.child("addressType"),
            at(new, &["addressType"]),
            at(old, &["addressType"]),
        );
        return;
    }
    let spec = root.child("spec");
    for field in ["podCIDRs", "podCIDR", "providerID"] {
        let (new, old) = (at(new, &["spec", field]), at(old, &["spec", field]));
        let set = !old.is_null() && old != "" && old.as_array().is_none_or(|list| !list.is_empty());
        if set && new != old {
            let detail = format!("node updates may not change {field} except from \"\" to valid");
            report.forbidden(&spec.child(field), &detail);
        }
    }
    metadata::labels(report, &root.child("metadata").child("labels"), &new["metadata"]["labels"]);
}

fn is_range(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let (Ok(address), Ok(bits)) = (address.parse::<IpAddr>(), bits.parse::<u8>()) else {
        return false;
    };
    bits <= if address.is_ipv4() { 32 } else { 128 }
}
