//! Which objects may be stored.
//!
//! Each rule that an object breaks is a [`Cause`]: where, why, and a message in Kubernetes' words, so that people find in
//! the usual places what to do about it. Objects come here decoded (fields have their types), defaulted and prepared.
//! What Podium does not do yet is refused here by name, rather than taken and ignored.

mod cluster;
mod config;
mod metadata;
mod pod;
mod report;
mod service;
mod workload;

use std::fmt;

use serde_json::Value;

use crate::kind::Kind;
use report::{Path, Report};

/// Why a value is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are Kubernetes' and say it")]
pub enum CauseReason {
    Invalid,
    Required,
    NotSupported,
    NotFound,
    Duplicate,
    Forbidden,
    TooLong,
    TooMany,
}

impl CauseReason {
    /// As it stands in `details.causes[].reason` of a Status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "FieldValueInvalid",
            Self::Required => "FieldValueRequired",
            Self::NotSupported => "FieldValueNotSupported",
            Self::NotFound => "FieldValueNotFound",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
        }
    }
}

/// One rule that an object breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The sort of rule.
    pub reason: CauseReason,
    /// The field: `spec.containers[0].name`.
    pub field: String,
    /// What is wrong with it, without the field: `Required value`.
    pub message: String,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// What speaks against making this object.
#[must_use]
pub fn create(kind: Kind, object: &Value) -> Vec<Cause> {
    let mut report = Report::default();
    metadata::create(&mut report, kind, object);
    content(&mut report, kind, object, None);
    report.causes
}

/// What speaks against this object in the place of the stored one.
#[must_use]
pub fn update(kind: Kind, new: &Value, old: &Value) -> Vec<Cause> {
    let mut report = Report::default();
    metadata::update(&mut report, new, old);
    content(&mut report, kind, new, Some(old));
    match kind {
        Kind::Pod => pod::update(&mut report, new, old),
        Kind::Deployment | Kind::ReplicaSet => workload::update(&mut report, new, old),
        Kind::Service => service::update(&mut report, new, old),
        Kind::ConfigMap | Kind::Secret => config::update(&mut report, new, old),
        Kind::Node | Kind::EndpointSlice => cluster::update(&mut report, kind, new, old),
        _ => {}
    }
    report.causes
}

/// What speaks against this status in the place of the stored object's. (Statuses are written by the system, which is
/// trusted with their content.)
#[must_use]
pub fn update_status(kind: Kind, new: &Value, old: &Value) -> Vec<Cause> {
    let mut report = Report::default();
    metadata::update(&mut report, new, old);
    if kind == Kind::Deployment || kind == Kind::ReplicaSet {
        workload::status(&mut report, new);
    }
    report.causes
}

/// The message of a Status: `Pod "x" is invalid: spec.containers: Required value`.
#[must_use]
pub fn invalid_message(kind: Kind, name: &str, causes: &[Cause]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for cause in causes {
        let line = cause.to_string();
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    let group = if kind.group().is_empty() { String::new() } else { format!(".{}", kind.group()) };
    let all = match lines.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    format!("{}{group} {name:?} is invalid: {all}", kind.name())
}

fn content(report: &mut Report, kind: Kind, object: &Value, old: Option<&Value>) {
    let root = Path::Root;
    match kind {
        Kind::Pod => pod::pod(report, object),
        Kind::Deployment => workload::deployment(report, object),
        Kind::ReplicaSet => workload::replica_set(report, object),
        Kind::Service => service::service(report, object),
        Kind::ConfigMap => config::config_map(report, object),
        Kind::Secret => config::secret(report, object),
        Kind::Namespace => cluster::namespace(report, object),
        Kind::Node => cluster::node(report, object),
        Kind::Machine => cluster::machine(report, object),
        Kind::EndpointSlice => cluster::endpoint_slice(report, object),
        Kind::Lease => cluster::lease(report, object),
        Kind::CoreEvent | Kind::Event if old.is_none() => cluster::event(report, kind, object),
        Kind::Scale => {
            let replicas = &object["spec"]["replicas"];
            report.not_negative(&root.child("spec").child("replicas"), replicas);
        }
        Kind::ServiceAccount
        | Kind::CoreEvent
        | Kind::Event
        | Kind::Binding
        | Kind::Eviction
        | Kind::Status
        | Kind::DeleteOptions => {}
    }
}

#[cfg(test)]
mod tests;
