//! Containers of a pod.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::report::{Path, Report, entries, items, text};
use super::{environment, foreign, identity, probe, profile, volume};
use crate::names;
use crate::object::{at, bool_at, i64_at};
use crate::quantity::{self, Quantity};

/// Names of resources without a prefix that containers may ask for.
const STANDARD_RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// All containers of a pod: each for itself, and what must be unique among them.
pub(super) fn containers(
    report: &mut Report,
    path: &Path<'_>,
    spec: &Value,
    volumes: &BTreeSet<&str>,
) {
    let list = path.child("containers");
    let containers = items(spec, "containers");
    if containers.is_empty() {
        report.required(&list, "");
    }
    let mut named: Vec<&str> = Vec::new();
    let host_network = bool_at(spec, &["hostNetwork"]);
    for (index, item) in containers.iter().enumerate() {
        let path = list.index(index);
        unique_name(report, &path, item, &mut named);
        container(report, &path, item, volumes, host_network);
        for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
            probe::probe(report, &path.child(field), &item[field], field != "readinessProbe");
        }
        probe::lifecycle(report, &path.child("lifecycle"), &item["lifecycle"]);
    }
    host_ports(report, &list, containers);
    let list = path.child("initContainers");
    for (index, item) in items(spec, "initContainers").iter().enumerate() {
        let path = list.index(index);
        unique_name(report, &path, item, &mut named);
        container(report, &path, item, volumes, host_network);
        if text(item, "restartPolicy").is_empty() {
            for field in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
                if !item[field].is_null() {
                    let detail = "may not be set for init containers without restartPolicy=Always";
                    report.forbidden(&path.child(field), detail);
                }
            }
        }
    }
    host_ports(report, &list, items(spec, "initContainers"));
}

fn unique_name<'a>(
    report: &mut Report,
    path: &Path<'_>,
    container: &'a Value,
    named: &mut Vec<&'a str>,
) {
    let name = text(container, "name");
    let path = path.child("name");
    if name.is_empty() {
        report.required(&path, "");
    } else {
        report.reasons(&path, name, names::dns_label(name));
    }
    if !name.is_empty() && named.contains(&name) {
        report.duplicate(&path, name);
    }
    named.push(name);
}

fn container(
    report: &mut Report,
    path: &Path<'_>,
    item: &Value,
    volumes: &BTreeSet<&str>,
    host_network: bool,
) {
    let image = text(item, "image");
    if image.is_empty() {
        report.required(&path.child("image"), "");
    } else if image.trim() != image {
        report.invalid(&path.child("image"), image, "must not have leading or trailing whitespace");
    }
    let policies = ["Always", "IfNotPresent", "Never"];
    report.one_of(&path.child("imagePullPolicy"), &item["imagePullPolicy"], &policies);
    let policies = ["FallbackToLogsOnError", "File"];
    report.one_of(
        &path.child("terminationMessagePolicy"),
        &item["terminationMessagePolicy"],
        &policies,
    );
    ports(report, &path.child("ports"), item, host_network);
    environment::variables(report, &path.child("env"), item);
    environment::sources(report, &path.child("envFrom"), item);
    volume::mounts(report, &path.child("volumeMounts"), item, volumes);
    resources(report, &path.child("resources"), &item["resources"]);
    security(report, &path.child("securityContext"), &item["securityContext"]);
    for field in ["restartPolicy", "restartPolicyRules", "volumeDevices"] {
        let value = &item[field];
        if !value.is_null() && value != "" && value.as_array().is_none_or(|list| !list.is_empty()) {
            report.not_yet(&path.child(field));
        }
    }
}

fn ports(report: &mut Report, list: &Path<'_>, container: &Value, host_network: bool) {
    let mut named: Vec<&str> = Vec::new();
    for (index, port) in items(container, "ports").iter().enumerate() {
        let path = list.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            report.reasons(&path.child("name"), name, names::port_name(name));
            if named.contains(&name) {
                report.duplicate(&path.child("name"), name);
            }
            named.push(name);
        }
        let number = i64_at(port, &["containerPort"]).unwrap_or_default();
        if number == 0 {
            report.required(&path.child("containerPort"), "");
        } else {
            for reason in names::port_number(number) {
                report.invalid(&path.child("containerPort"), number, &reason);
            }
        }
        let on_host = i64_at(port, &["hostPort"]).unwrap_or_default();
        if on_host != 0 {
            for reason in names::port_number(on_host) {
                report.invalid(&path.child("hostPort"), on_host, &reason);
            }
            if !host_network {
                // Only the host's own network has its ports yet.
                report.not_yet(&path.child("hostPort"));
            } else if on_host != number {
                let detail = "must match `hostPort` when `hostNetwork` is true";
                report.invalid(&path.child("containerPort"), number, detail);
            }
        }
        report.one_of(&path.child("protocol"), &port["protocol"], &["SCTP", "TCP", "UDP"]);
    }
}

/// A port of the host can be taken once.
fn host_ports(report: &mut Report, list: &Path<'_>, containers: &[Value]) {
    let mut taken: Vec<String> = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        for (port_index, port) in items(container, "ports").iter().enumerate() {
            let number = i64_at(port, &["hostPort"]).unwrap_or_default();
            if number == 0 {
                continue;
            }
            let name = format!("{}/{}/{number}", text(port, "protocol"), text(port, "hostIP"));
            if taken.contains(&name) {
                let path = list.index(index);
                let path = path.child("ports");
                report.duplicate(&path.index(port_index).child("hostPort"), name);
            } else {
                taken.push(name);
            }
        }
    }
}

fn resources(report: &mut Report, path: &Path<'_>, resources: &Value) {
    for list in ["limits", "requests"] {
        let path = path.child(list);
        for (name, amount) in entries(resources, list) {
            let path = path.key(name);
            resource_name(report, &path, name);
            if let Some(amount) = quantity::of(amount) {
                if amount.is_negative() {
                    report.invalid(&path, amount.to_string(), "must be greater than or equal to 0");
                }
                if name.contains('/') && !amount.is_whole() {
                    report.invalid(&path, amount.to_string(), "must be an integer");
                }
            }
        }
    }
    for (name, request) in entries(resources, "requests") {
        let limit = quantity::of(at(resources, &["limits", name]));
        let (Some(request), Some(limit)) = (quantity::of(request), limit) else { continue };
        exceeds(report, &path.child("requests"), name, request, limit);
    }
    if !items(resources, "claims").is_empty() {
        report.not_yet(&path.child("claims"));
    }
}

fn exceeds(report: &mut Report, path: &Path<'_>, name: &str, request: Quantity, limit: Quantity) {
    // What is handed out in whole pieces cannot be promised to more than one.
    if name.contains('/') && request != limit {
        let detail = format!("must be equal to {name} limit of {limit}");
        report.invalid(path, request.to_string(), &detail);
    } else if request > limit {
        let detail = format!("must be less than or equal to {name} limit of {limit}");
        report.invalid(path, request.to_string(), &detail);
    }
}

fn resource_name(report: &mut Report, path: &Path<'_>, name: &str) {
    report.reasons(path, name, names::qualified_name(name));
    if name.starts_with("hugepages-") {
        report.not_yet(path);
    } else if !name.contains('/') && !STANDARD_RESOURCES.contains(&name) {
        report.invalid(path, name, "must be a standard resource type or fully qualified");
        report.invalid(path, name, "must be a standard resource for containers");
    }
}

fn security(report: &mut Report, path: &Path<'_>, context: &Value) {
    for field in ["runAsUser", "runAsGroup"] {
        identity(report, &path.child(field), &context[field]);
    }
    profile(report, &path.child("seccompProfile"), &context["seccompProfile"]);
    let privileged = bool_at(context, &["privileged"]);
    if context["allowPrivilegeEscalation"] == false {
        if privileged {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            report.invalid(path, context.clone(), detail);
        }
        let added = items(&context["capabilities"], "add");
        if added.iter().any(|capability| capability == "CAP_SYS_ADMIN" || capability == "SYS_ADMIN")
        {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            report.invalid(path, context.clone(), detail);
        }
    }
    foreign(report, path, context);
    if text(context, "procMount") == "Unmasked" {
        report.not_yet(&path.child("procMount"));
    }
}
