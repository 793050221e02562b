//! Pods, and templates of pods.

mod container;
mod environment;
mod probe;
mod scheduling;
mod update;
mod volume;

use std::net::IpAddr;

use serde_json::Value;

use super::metadata;
use super::report::{Path, Report, items, text};
use crate::names;
use crate::object::{at, i64_at};

pub(super) use update::update;

const DEADLINE_SECONDS: i64 = i32::MAX as i64;
const DNS_POLICIES: [&str; 4] = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];

pub(super) fn pod(report: &mut Report, object: &Value) {
    let root = Path::Root;
    spec(report, &root.child("spec"), at(object, &["spec"]));
    if !items(at(object, &["spec"]), "ephemeralContainers").is_empty() {
        report.not_yet(&root.child("spec").child("ephemeralContainers"));
    }
}

/// The spec of a pod or of a template.
pub(super) fn spec(report: &mut Report, path: &Path<'_>, spec: &Value) {
    let volumes = volume::volumes(report, &path.child("volumes"), spec);
    container::containers(report, path, spec, &volumes);
    report.one_of(
        &path.child("restartPolicy"),
        &spec["restartPolicy"],
        &["Always", "OnFailure", "Never"],
    );
    report.one_of(&path.child("dnsPolicy"), &spec["dnsPolicy"], &DNS_POLICIES);
    metadata::labels(report, &path.child("nodeSelector"), &spec["nodeSelector"]);
    names_of(report, path, spec);
    times(report, path, spec);
    scheduling::tolerations(report, &path.child("tolerations"), spec);
    scheduling::affinity(report, &path.child("affinity"), &spec["affinity"]);
    scheduling::spread(report, &path.child("topologySpreadConstraints"), spec);
    for (index, alias) in items(spec, "hostAliases").iter().enumerate() {
        let list = path.child("hostAliases");
        let path = list.index(index);
        if text(alias, "ip").parse::<IpAddr>().is_err() {
            report.invalid(&path.child("ip"), text(alias, "ip"), "must be a valid IP address");
        }
        for hostname in items(alias, "hostnames").iter().filter_map(Value::as_str) {
            report.reasons(&path.child("hostnames"), hostname, names::dns_subdomain(hostname));
        }
    }
    for (index, secret) in items(spec, "imagePullSecrets").iter().enumerate() {
        if text(secret, "name").is_empty() {
            report.required(&path.child("imagePullSecrets").index(index).child("name"), "");
        }
    }
    dns(report, path, spec);
    security(report, &path.child("securityContext"), &spec["securityContext"]);
    not_yet(report, path, spec);
}

fn names_of(report: &mut Report, path: &Path<'_>, spec: &Value) {
    for field in ["serviceAccountName", "nodeName", "priorityClassName"] {
        let name = text(spec, field);
        if !name.is_empty() {
            report.reasons(&path.child(field), name, names::dns_subdomain(name));
        }
    }
    for field in ["hostname", "subdomain"] {
        let name = text(spec, field);
        if !name.is_empty() {
            report.reasons(&path.child(field), name, names::dns_label(name));
        }
    }
    let scheduler = text(spec, "schedulerName");
    if !scheduler.is_empty() {
        report.reasons(&path.child("schedulerName"), scheduler, names::dns_subdomain(scheduler));
    }
}

fn times(report: &mut Report, path: &Path<'_>, spec: &Value) {
    report.not_negative(
        &path.child("terminationGracePeriodSeconds"),
        &spec["terminationGracePeriodSeconds"],
    );
    if let Some(seconds) = i64_at(spec, &["activeDeadlineSeconds"])
        && !(1..=DEADLINE_SECONDS).contains(&seconds)
    {
        let detail = format!("must be between 1 and {DEADLINE_SECONDS}, inclusive");
        report.invalid(&path.child("activeDeadlineSeconds"), seconds, &detail);
    }
}

fn dns(report: &mut Report, path: &Path<'_>, spec: &Value) {
    let path = path.child("dnsConfig");
    let config = &spec["dnsConfig"];
    let servers = items(config, "nameservers");
    if text(spec, "dnsPolicy") == "None" && servers.is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        report.required(&path.child("nameservers"), detail);
    }
    if servers.len() > 3 {
        let path = path.child("nameservers");
        report.invalid(&path, servers.to_vec(), "must not have more than 3 nameservers");
    }
    for (index, server) in servers.iter().filter_map(Value::as_str).enumerate() {
        if server.parse::<IpAddr>().is_err() {
            report.invalid(
                &path.child("nameservers").index(index),
                server,
                "must be valid IP address",
            );
        }
    }
    let searches = items(config, "searches");
    if searches.len() > 32 {
        report.invalid(
            &path.child("searches"),
            searches.to_vec(),
            "must not have more than 32 search paths",
        );
    }
}

/// Ids of the users and groups that containers run as.
fn security(report: &mut Report, path: &Path<'_>, context: &Value) {
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        identity(report, &path.child(field), &context[field]);
    }
    for (index, group) in items(context, "supplementalGroups").iter().enumerate() {
        identity(report, &path.child("supplementalGroups").index(index), group);
    }
    report.one_of(
        &path.child("fsGroupChangePolicy"),
        &context["fsGroupChangePolicy"],
        &["Always", "OnRootMismatch"],
    );
    profile(report, &path.child("seccompProfile"), &context["seccompProfile"]);
    foreign(report, path, context);
}

/// Ways of confinement that our kernel and nodes do not have. Empty ones ask for nothing.
fn foreign(report: &mut Report, path: &Path<'_>, context: &Value) {
    for field in ["seLinuxOptions", "windowsOptions"] {
        if context[field].as_object().is_some_and(|options| !options.is_empty()) {
            report.not_yet(&path.child(field));
        }
    }
    if text(&context["appArmorProfile"], "type") == "Localhost" {
        report.not_yet(&path.child("appArmorProfile").child("type"));
    }
}

fn identity(report: &mut Report, path: &Path<'_>, id: &Value) {
    if id.as_i64().is_some_and(|id| !(0..=i64::from(u32::MAX)).contains(&id)) {
        report.invalid(path, id.clone(), &format!("must be between 0 and {}, inclusive", u32::MAX));
    }
}

fn profile(report: &mut Report, path: &Path<'_>, profile: &Value) {
    if profile.is_null() {
        return;
    }
    match text(profile, "type") {
        "" => report.required(&path.child("type"), "type is required when seccompProfile is set"),
        "Localhost" => report.not_yet(&path.child("type")),
        "RuntimeDefault" | "Unconfined" => {}
        _ => {
            let supported = ["Localhost", "RuntimeDefault", "Unconfined"];
            report.not_supported(&path.child("type"), &profile["type"], &supported);
        }
    }
}

/// What would change how the pod runs, and is not done yet.
fn not_yet(report: &mut Report, path: &Path<'_>, spec: &Value) {
    for field in
        ["runtimeClassName", "resourceClaims", "resources", "schedulingGroup", "evictionResponders"]
    {
        let value = &spec[field];
        let empty = value.is_null() || value == "" || value.as_array().is_some_and(Vec::is_empty);
        if !empty && value.as_object().is_none_or(|object| !object.is_empty()) {
            report.not_yet(&path.child(field));
        }
    }
    if spec["shareProcessNamespace"] == true {
        report.not_yet(&path.child("shareProcessNamespace"));
    }
    if spec["hostUsers"] == false {
        report.not_yet(&path.child("hostUsers"));
    }
    if text(&spec["os"], "name") == "windows" {
        report.not_yet(&path.child("os").child("name"));
    }
}
