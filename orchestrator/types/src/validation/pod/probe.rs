//! Probes and lifecycle hooks of a container.

use serde_json::Value;

use super::super::report::{Path, Report, items, text};
use super::super::service::port_or_name;
use crate::names;
use crate::object::i64_at;

/// `fails_once`: a probe that ends the container succeeds after one success.
pub(super) fn probe(report: &mut Report, path: &Path<'_>, probe: &Value, fails_once: bool) {
    if probe.is_null() {
        return;
    }
    handler(report, path, probe, &["exec", "httpGet", "tcpSocket", "grpc"]);
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        report.not_negative(&path.child(field), &probe[field]);
    }
    let successes = i64_at(probe, &["successThreshold"]).unwrap_or(1);
    if fails_once && successes != 1 {
        report.invalid(&path.child("successThreshold"), successes, "must be 1");
    }
    if let Some(seconds) = i64_at(probe, &["terminationGracePeriodSeconds"]) {
        let path = path.child("terminationGracePeriodSeconds");
        if !fails_once {
            report.invalid(&path, seconds, "must not be set for readinessProbes");
        } else if seconds <= 0 {
            report.invalid(&path, seconds, "must be greater than 0");
        }
    }
}

pub(super) fn lifecycle(report: &mut Report, path: &Path<'_>, lifecycle: &Value) {
    for hook in ["postStart", "preStop"] {
        if !lifecycle[hook].is_null() {
            handler(
                report,
                &path.child(hook),
                &lifecycle[hook],
                &["exec", "httpGet", "tcpSocket", "sleep"],
            );
        }
    }
    if !lifecycle["stopSignal"].is_null() {
        report.not_yet(&path.child("stopSignal"));
    }
}

/// Exactly one of the given ways to ask.
fn handler(report: &mut Report, path: &Path<'_>, object: &Value, kinds: &[&str]) {
    let mut found = false;
    for kind in kinds {
        let (path, handler) = (path.child(kind), &object[*kind]);
        if handler.is_null() {
            continue;
        }
        if found {
            report.forbidden(&path, "may not specify more than 1 handler type");
            continue;
        }
        found = true;
        match *kind {
            "exec" if items(handler, "command").is_empty() => {
                report.required(&path.child("command"), "");
            }
            "exec" => {}
            "httpGet" => http(report, &path, handler),
            "tcpSocket" => port_or_name(report, &path.child("port"), &handler["port"]),
            "sleep" => report.not_negative(&path.child("seconds"), &handler["seconds"]),
            _ => report.not_yet(&path),
        }
    }
    if !found {
        report.required(path, "must specify a handler type");
    }
}

fn http(report: &mut Report, path: &Path<'_>, request: &Value) {
    if text(request, "path").is_empty() {
        report.required(&path.child("path"), "");
    }
    port_or_name(report, &path.child("port"), &request["port"]);
    report.one_of(&path.child("scheme"), &request["scheme"], &["HTTP", "HTTPS"]);
    for (index, header) in items(request, "httpHeaders").iter().enumerate() {
        let name = text(header, "name");
        let path = path.child("httpHeaders");
        report.reasons(&path.index(index).child("name"), name, names::http_header(name));
    }
}
