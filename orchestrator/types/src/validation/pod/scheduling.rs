//! Where a pod may run.

use serde_json::Value;

use super::super::report::{Path, Report, items, text};
use super::super::workload;
use crate::names;
use crate::object::{at, i64_at};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) fn tolerations(report: &mut Report, list: &Path<'_>, spec: &Value) {
    for (index, toleration) in items(spec, "tolerations").iter().enumerate() {
        let path = list.index(index);
        let (key, operator, effect) =
            (text(toleration, "key"), text(toleration, "operator"), text(toleration, "effect"));
        if !key.is_empty() {
            report.reasons(&path.child("key"), key, names::qualified_name(key));
        } else if operator != "Exists" {
            let detail = r#"operator must be Exists when `key` is empty, which means "match all values and all keys""#;
            report.invalid(&path.child("operator"), operator, detail);
        }
        if !toleration["tolerationSeconds"].is_null() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            report.invalid(&path.child("effect"), effect, detail);
        }
        let value = text(toleration, "value");
        match operator {
            "" | "Equal" => {
                report.reasons(&path.child("operator"), value, names::label_value(value));
            }
            "Exists" if !value.is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                report.invalid(&path.child("operator"), toleration.clone(), detail);
            }
            "Exists" => {}
            _ => report.not_supported(
                &path.child("operator"),
                &toleration["operator"],
                &["Equal", "Exists"],
            ),
        }
        if !effect.is_empty() {
            report.one_of(&path.child("effect"), &toleration["effect"], &EFFECTS);
        }
    }
}

pub(super) fn affinity(report: &mut Report, path: &Path<'_>, affinity: &Value) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let node = path.child("nodeAffinity");
    let required = at(affinity, &["nodeAffinity", REQUIRED]);
    if !required.is_null() {
        let path = node.child(REQUIRED);
        let path = path.child("nodeSelectorTerms");
        let terms = items(required, "nodeSelectorTerms");
        if terms.is_empty() {
            report.required(&path, "must have at least one node selector term");
        }
        for (index, term) in terms.iter().enumerate() {
            node_term(report, &path.index(index), term);
        }
    }
    // A preference for company can be passed over, a demand cannot.
    for kind in ["podAffinity", "podAntiAffinity"] {
        if !items(at(affinity, &[kind]), REQUIRED).is_empty() {
            report.not_yet(&path.child(kind).child(REQUIRED));
        }
    }
}

fn node_term(report: &mut Report, path: &Path<'_>, term: &Value) {
    for field in ["matchExpressions", "matchFields"] {
        for (index, requirement) in items(term, field).iter().enumerate() {
            let list = path.child(field);
            let path = list.index(index);
            let values = items(requirement, "values").len();
            match text(requirement, "operator") {
                "In" | "NotIn" if values == 0 => {
                    report.required(
                        &path.child("values"),
                        "must be specified when `operator` is 'In' or 'NotIn'",
                    );
                }
                "Exists" | "DoesNotExist" if values > 0 => {
                    let detail =
                        "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    report.forbidden(&path.child("values"), detail);
                }
                "Gt" | "Lt" if values != 1 => {
                    let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                    report.required(&path.child("values"), detail);
                }
                "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
                other => {
                    report.invalid(&path.child("operator"), other, "not a valid selector operator");
                }
            }
            let key = text(requirement, "key");
            if field == "matchExpressions" {
                report.reasons(&path.child("key"), key, names::qualified_name(key));
            } else if key != "metadata.name" {
                report.invalid(&path.child("key"), key, "not a valid field selector key");
            }
        }
    }
}

pub(super) fn spread(report: &mut Report, list: &Path<'_>, spec: &Value) {
    for (index, constraint) in items(spec, "topologySpreadConstraints").iter().enumerate() {
        let path = list.index(index);
        let skew = i64_at(constraint, &["maxSkew"]).unwrap_or_default();
        if skew <= 0 {
            report.invalid(&path.child("maxSkew"), skew, "must be greater than zero");
        }
        let key = text(constraint, "topologyKey");
        if key.is_empty() {
            report.required(&path.child("topologyKey"), "can not be empty");
        } else {
            report.reasons(&path.child("topologyKey"), key, names::qualified_name(key));
        }
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        report.one_of(&path.child("whenUnsatisfiable"), &constraint["whenUnsatisfiable"], &actions);
        if constraint["whenUnsatisfiable"].is_null() {
            report.not_supported(&path.child("whenUnsatisfiable"), &Value::from(""), &actions);
        }
        workload::label_selector(
            report,
            &path.child("labelSelector"),
            &constraint["labelSelector"],
        );
    }
}
