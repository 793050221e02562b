//! Deployments and ReplicaSets.

use serde_json::Value;

use super::report::{Path, Report, items, text};
use super::{metadata, pod};
use crate::int_or_string::{self, Rounding};
use crate::names;
use crate::object::{at, i64_at};
use crate::selector::LabelSelector;

pub(super) fn deployment(report: &mut Report, object: &Value) {
    let root = Path::Root;
    let path = root.child("spec");
    let spec = at(object, &["spec"]);
    shared(report, "deployment", spec);
    strategy(report, &path.child("strategy"), &spec["strategy"]);
    report.not_negative(&path.child("revisionHistoryLimit"), &spec["revisionHistoryLimit"]);
    if let Some(deadline) = i64_at(spec, &["progressDeadlineSeconds"]) {
        report
            .not_negative(&path.child("progressDeadlineSeconds"), &spec["progressDeadlineSeconds"]);
        if deadline <= i64_at(spec, &["minReadySeconds"]).unwrap_or_default() {
            report.invalid(
                &path.child("progressDeadlineSeconds"),
                deadline,
                "must be greater than minReadySeconds",
            );
        }
    }
}

pub(super) fn replica_set(report: &mut Report, object: &Value) {
    shared(report, "replica set", at(object, &["spec"]));
}

fn shared(report: &mut Report, what: &str, spec: &Value) {
    let root = Path::Root;
    let path = root.child("spec");
    report.not_negative(&path.child("replicas"), &spec["replicas"]);
    report.not_negative(&path.child("minReadySeconds"), &spec["minReadySeconds"]);
    let selected = selector(report, &path.child("selector"), what, &spec["selector"]);
    template(report, &path.child("template"), selected.as_ref(), &spec["template"]);
}

/// The selector, if it can be one.
fn selector(
    report: &mut Report,
    path: &Path<'_>,
    what: &str,
    object: &Value,
) -> Option<LabelSelector> {
    if object.is_null() {
        report.required(path, "");
        return None;
    }
    let before = report.causes.len();
    label_selector(report, path, object);
    let selector = LabelSelector::from_object(object).ok()?;
    if selector.is_everything() {
        report.invalid(path, object.clone(), &format!("empty selector is invalid for {what}"));
    }
    (report.causes.len() == before).then_some(selector)
}

/// A LabelSelector object, wherever it stands.
pub(super) fn label_selector(report: &mut Report, path: &Path<'_>, object: &Value) {
    metadata::labels(report, &path.child("matchLabels"), &object["matchLabels"]);
    for (index, expression) in items(object, "matchExpressions").iter().enumerate() {
        let list = path.child("matchExpressions");
        let path = list.index(index);
        let key = text(expression, "key");
        report.reasons(&path.child("key"), key, names::qualified_name(key));
        let values = items(expression, "values");
        match text(expression, "operator") {
            "In" | "NotIn" if values.is_empty() => {
                report.required(
                    &path.child("values"),
                    "must be specified when `operator` is 'In' or 'NotIn'",
                );
            }
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                report.forbidden(&path.child("values"), detail);
            }
            "Exists" | "DoesNotExist" => {}
            other => {
                report.invalid(&path.child("operator"), other, "not a valid selector operator");
            }
        }
        for (index, value) in values.iter().filter_map(Value::as_str).enumerate() {
            report.reasons(&path.child("values").index(index), value, names::label_value(value));
        }
    }
}

fn template(
    report: &mut Report,
    path: &Path<'_>,
    selector: Option<&LabelSelector>,
    template: &Value,
) {
    if template.is_null() {
        report.required(path, "");
        return;
    }
    let labels = at(template, &["metadata", "labels"]);
    if selector.is_some_and(|selector| !selector.matches(template)) {
        let labels =
            if labels.is_null() { Value::Object(serde_json::Map::new()) } else { labels.clone() };
        let detail = "`selector` does not match template `labels`";
        report.invalid(&path.child("metadata").child("labels"), labels, detail);
    }
    let metadata_path = path.child("metadata");
    metadata::labels(report, &metadata_path.child("labels"), labels);
    metadata::annotations(report, &metadata_path.child("annotations"), at(template, &["metadata"]));
    let (path, spec) = (path.child("spec"), at(template, &["spec"]));
    pod::spec(report, &path, spec);
    if text(spec, "restartPolicy") != "Always" {
        report.not_supported(&path.child("restartPolicy"), &spec["restartPolicy"], &["Always"]);
    }
    if !spec["activeDeadlineSeconds"].is_null() {
        report.forbidden(
            &path.child("activeDeadlineSeconds"),
            "activeDeadlineSeconds in ReplicaSet is not Supported",
        );
    }
}

fn strategy(report: &mut Report, path: &Path<'_>, strategy: &Value) {
    let rolling = &strategy["rollingUpdate"];
    match text(strategy, "type") {
        "Recreate" if !rolling.is_null() => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            report.forbidden(&path.child("rollingUpdate"), detail);
        }
        "Recreate" => {}
        "RollingUpdate" if rolling.is_null() => {
            report.required(
                &path.child("rollingUpdate"),
                "this should be defaulted and never be nil",
            );
        }
        "RollingUpdate" => rolling_update(report, &path.child("rollingUpdate"), rolling),
        _ => report.not_supported(
            &path.child("type"),
            &strategy["type"],
            &["Recreate", "RollingUpdate"],
        ),
    }
}

fn rolling_update(report: &mut Report, path: &Path<'_>, rolling: &Value) {
    for field in ["maxUnavailable", "maxSurge"] {
        amount(report, &path.child(field), &rolling[field]);
    }
    let none = |field: &str| int_or_string::resolve(&rolling[field], 100, Rounding::Up) == Some(0);
    if none("maxUnavailable") && none("maxSurge") {
        let value = rolling["maxUnavailable"].clone();
        report.invalid(&path.child("maxUnavailable"), value, "may not be 0 when `maxSurge` is 0");
    }
    if int_or_string::percentage(&rolling["maxUnavailable"]).is_some_and(|percent| percent > 100) {
        let value = rolling["maxUnavailable"].clone();
        report.invalid(&path.child("maxUnavailable"), value, "must not be greater than 100%");
    }
}

/// A count or a percentage.
fn amount(report: &mut Report, path: &Path<'_>, value: &Value) {
    report.not_negative(path, value);
    if value.is_string() && int_or_string::percentage(value).is_none() {
        let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
        report.invalid(path, value.clone(), detail);
    }
}

pub(super) fn update(report: &mut Report, new: &Value, old: &Value) {
    let root = Path::Root;
    let (new, old) = (at(new, &["spec", "selector"]), at(old, &["spec", "selector"]));
    report.immutable(&root.child("spec").child("selector"), new, old);
}

pub(super) fn status(report: &mut Report, object: &Value) {
    let root = Path::Root;
    let path = root.child("status");
    for field in
        ["replicas", "readyReplicas", "availableReplicas", "updatedReplicas", "unavailableReplicas"]
    {
        report.not_negative(&path.child(field), at(object, &["status", field]));
    }
}
