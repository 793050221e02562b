//! Services.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::metadata;
use super::report::{Path, Report, items, text};
use crate::names;
use crate::object::{at, i64_at};

const HEADLESS: &str = "None";
const ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const DAY_SECONDS: i64 = 86_400;

pub(super) fn service(report: &mut Report, object: &Value) {
    let root = Path::Root;
    let path = root.child("spec");
    let spec = at(object, &["spec"]);
    let kind = text(spec, "type");
    report.one_of(
        &path.child("type"),
        &spec["type"],
        &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
    );
    report.one_of(&path.child("sessionAffinity"), &spec["sessionAffinity"], &["ClientIP", "None"]);
    affinity(report, spec);
    metadata::labels(report, &path.child("selector"), &spec["selector"]);
    addresses(report, &path, kind, spec);
    ports(report, &path, kind, spec);
    if kind == "ExternalName" {
        let name = text(spec, "externalName");
        let bare = name.strip_suffix('.').unwrap_or(name);
        if bare.is_empty() {
            report.required(&path.child("externalName"), "");
        } else {
            report.reasons(&path.child("externalName"), name, names::dns_subdomain(bare));
        }
    }
    let policies = ["Cluster", "Local"];
    report.one_of(&path.child("externalTrafficPolicy"), &spec["externalTrafficPolicy"], &policies);
    report.one_of(&path.child("internalTrafficPolicy"), &spec["internalTrafficPolicy"], &policies);
    let families = ["SingleStack", "PreferDualStack", "RequireDualStack"];
    report.one_of(&path.child("ipFamilyPolicy"), &spec["ipFamilyPolicy"], &families);
    if kind == "NodePort" {
        report.not_yet(&path.child("type"));
    }
    if spec["sessionAffinity"] == "ClientIP" {
        report.not_yet(&path.child("sessionAffinity"));
    }
    if !items(spec, "externalIPs").is_empty() {
        report.not_yet(&path.child("externalIPs"));
    }
    if spec["ipFamilyPolicy"] == "RequireDualStack"
        || items(spec, "ipFamilies").iter().any(|family| family != "IPv4")
    {
        report.not_yet(&path.child("ipFamilies"));
    }
}

fn affinity(report: &mut Report, spec: &Value) {
    let root = Path::Root;
    let path = root.child("spec");
    let Some(seconds) = i64_at(spec, &["sessionAffinityConfig", "clientIP", "timeoutSeconds"])
    else {
        return;
    };
    if !(1..=DAY_SECONDS).contains(&seconds) {
        let path = path.child("sessionAffinityConfig");
        let path = path.child("clientIP");
        report.invalid(
            &path.child("timeoutSeconds"),
            seconds,
            "must be greater than 0 and less than 86400",
        );
    }
}

fn addresses(report: &mut Report, path: &Path<'_>, kind: &str, spec: &Value) {
    let list = items(spec, "clusterIPs");
    let single = text(spec, "clusterIP");
    if kind == "ExternalName" {
        if !single.is_empty() || !list.is_empty() {
            report.forbidden(&path.child("clusterIPs"), "may not be set for ExternalName services");
        }
    } else {
        let one = [Value::from(single)];
        let given = if list.is_empty() && !single.is_empty() { &one[..] } else { list };
        for (index, address) in given.iter().filter_map(Value::as_str).enumerate() {
            let list = path.child("clusterIPs");
            if address != HEADLESS && address.parse::<IpAddr>().is_err() {
                report.invalid(&list.index(index), address, ADDRESS);
            }
        }
        if !list.is_empty() && list[0] != single {
            report.invalid(
                &path.child("clusterIPs"),
                list.to_vec(),
                "first value must match `clusterIP`",
            );
        }
    }
    if single == HEADLESS && matches!(kind, "LoadBalancer" | "NodePort") {
        let detail = format!("may not be set to 'None' for {kind} services");
        report.invalid(&path.child("clusterIPs").index(0), single, &detail);
    }
    for (index, address) in items(spec, "externalIPs").iter().filter_map(Value::as_str).enumerate()
    {
        if address.parse::<IpAddr>().is_err() {
            report.invalid(&path.child("externalIPs").index(index), address, ADDRESS);
        }
    }
}

fn ports(report: &mut Report, path: &Path<'_>, kind: &str, spec: &Value) {
    let list = path.child("ports");
    let ports = items(spec, "ports");
    let headless = text(spec, "clusterIP") == HEADLESS;
    if ports.is_empty() && !headless && kind != "ExternalName" {
        report.required(&list, "");
    }
    for (index, port) in ports.iter().enumerate() {
        let path = list.index(index);
        one_port(report, &path, ports.len() > 1, port);
        let earlier = &ports[..index];
        let name = text(port, "name");
        if !name.is_empty() && earlier.iter().any(|other| text(other, "name") == name) {
            report.duplicate(&path.child("name"), name);
        }
        let taken = |field: &str| {
            earlier
                .iter()
                .any(|other| other[field] == port[field] && other["protocol"] == port["protocol"])
        };
        if taken("port") {
            report.duplicate(&path, json!({"protocol": port["protocol"], "port": port["port"]}));
        }
        if i64_at(port, &["nodePort"]).unwrap_or_default() != 0 {
            if kind == "ClusterIP" {
                report.forbidden(
                    &path.child("nodePort"),
                    "may not be used when `type` is 'ClusterIP'",
                );
            } else if taken("nodePort") {
                report.duplicate(&path.child("nodePort"), port["nodePort"].clone());
            }
        }
    }
}

fn one_port(report: &mut Report, path: &Path<'_>, name_required: bool, port: &Value) {
    let name = text(port, "name");
    if !name.is_empty() {
        report.reasons(&path.child("name"), name, names::dns_label(name));
    } else if name_required {
        report.required(&path.child("name"), "");
    }
    let number = i64_at(port, &["port"]).unwrap_or_default();
    for reason in names::port_number(number) {
        report.invalid(&path.child("port"), number, &reason);
    }
    if text(port, "protocol").is_empty() {
        report.required(&path.child("protocol"), "");
    } else {
        report.one_of(&path.child("protocol"), &port["protocol"], &["SCTP", "TCP", "UDP"]);
    }
    port_or_name(report, &path.child("targetPort"), &port["targetPort"]);
}

/// A port of a container, by number or by name.
pub(super) fn port_or_name(report: &mut Report, path: &Path<'_>, port: &Value) {
    match port {
        Value::String(name) => report.reasons(path, name, names::port_name(name)),
        Value::Number(number) => {
            for reason in names::port_number(number.as_i64().unwrap_or_default()) {
                report.invalid(path, port.clone(), &reason);
            }
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            report.required(path, "");
        }
    }
}

/// Addresses that a Service has been given stay, as long as it has a type that uses them.
pub(super) fn update(report: &mut Report, new: &Value, old: &Value) {
    let root = Path::Root;
    let kind = |object| text(at(object, &["spec"]), "type").to_owned();
    if kind(new) == "ExternalName" || kind(old) == "ExternalName" {
        return;
    }
    let first = |object| text(at(object, &["spec"]), "clusterIP").to_owned();
    let (now, before) = (first(new), first(old));
    if !before.is_empty() && now != before {
        let path = root.child("spec");
        let path = path.child("clusterIPs");
        report.invalid(&path.index(0), json!([now]), "may not change once set");
    }
    let class = |object| at(object, &["spec", "loadBalancerClass"]).clone();
    if kind(new) == "LoadBalancer" && kind(old) == "LoadBalancer" && class(new) != class(old) {
        report.invalid(
            &root.child("spec").child("loadBalancerClass"),
            class(new),
            "may not change once set",
        );
    }
}
