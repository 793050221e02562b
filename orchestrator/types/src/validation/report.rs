//! Collecting causes.

use std::fmt;

use serde_json::Value;

use super::{Cause, CauseReason};

/// Where a field is. Made on the way down, written out only if something is wrong.
#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    Root,
    Child(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
    Key(&'a Path<'a>, &'a str),
}

impl<'a> Path<'a> {
    pub(super) fn child(&'a self, name: &'a str) -> Path<'a> {
        Path::Child(self, name)
    }

    pub(super) fn index(&'a self, index: usize) -> Path<'a> {
        Path::Index(self, index)
    }

    pub(super) fn key(&'a self, key: &'a str) -> Path<'a> {
        Path::Key(self, key)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Child(Path::Root, name) => f.write_str(name),
            Path::Child(parent, name) => write!(f, "{parent}.{name}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
            Path::Key(parent, key) => write!(f, "{parent}[{key}]"),
        }
    }
}

/// The causes found so far.
#[derive(Default)]
pub(super) struct Report {
    pub(super) causes: Vec<Cause>,
}

impl Report {
    fn push(&mut self, reason: CauseReason, path: &Path<'_>, message: String) {
        self.causes.push(Cause { reason, field: path.to_string(), message });
    }

    pub(super) fn required(&mut self, path: &Path<'_>, detail: &str) {
        self.push(CauseReason::Required, path, with("Required value", detail));
    }

    pub(super) fn forbidden(&mut self, path: &Path<'_>, detail: &str) {
        self.push(CauseReason::Forbidden, path, with("Forbidden", detail));
    }

    pub(super) fn invalid(&mut self, path: &Path<'_>, value: impl Into<Value>, detail: &str) {
        let value: Value = value.into();
        self.push(CauseReason::Invalid, path, with(&format!("Invalid value: {value}"), detail));
    }

    pub(super) fn duplicate(&mut self, path: &Path<'_>, value: impl Into<Value>) {
        let value: Value = value.into();
        self.push(CauseReason::Duplicate, path, format!("Duplicate value: {value}"));
    }

    pub(super) fn not_found(&mut self, path: &Path<'_>, value: &str) {
        self.push(CauseReason::NotFound, path, format!("Not found: {value:?}"));
    }

    pub(super) fn not_supported(&mut self, path: &Path<'_>, value: &Value, supported: &[&str]) {
        let supported: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        let detail = format!("supported values: {}", supported.join(", "));
        self.push(
            CauseReason::NotSupported,
            path,
            with(&format!("Unsupported value: {value}"), &detail),
        );
    }

    pub(super) fn too_long(&mut self, path: &Path<'_>, detail: &str) {
        self.push(CauseReason::TooLong, path, with("Too long", detail));
    }

    pub(super) fn too_many(&mut self, path: &Path<'_>, actual: usize, most: usize) {
        self.push(
            CauseReason::TooMany,
            path,
            format!("Too many: {actual}: must have at most {most} items"),
        );
    }

    /// Something of Kubernetes that Podium does not do yet.
    pub(super) fn not_yet(&mut self, path: &Path<'_>) {
        self.forbidden(path, "not supported by Podium yet");
    }

    /// One cause for each reason against a value.
    pub(super) fn reasons(&mut self, path: &Path<'_>, value: &str, reasons: Vec<String>) {
        for reason in reasons {
            self.invalid(path, value, &reason);
        }
    }

    /// A number that is there must not be below zero.
    pub(super) fn not_negative(&mut self, path: &Path<'_>, value: &Value) {
        if value.as_i64().is_some_and(|number| number < 0) {
            self.invalid(path, value.clone(), "must be greater than or equal to 0");
        }
    }

    /// A text that is there must be one of these.
    pub(super) fn one_of(&mut self, path: &Path<'_>, value: &Value, supported: &[&str]) {
        if !value.is_null() && !value.as_str().is_some_and(|text| supported.contains(&text)) {
            self.not_supported(path, value, supported);
        }
    }

    /// A value must be what it was.
    pub(super) fn immutable(&mut self, path: &Path<'_>, new: &Value, old: &Value) {
        if new != old {
            self.invalid(path, new.clone(), "field is immutable");
        }
    }
}

fn with(message: &str, detail: &str) -> String {
    if detail.is_empty() { message.to_owned() } else { format!("{message}: {detail}") }
}

/// The text in a field; empty when absent.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The items of the list in a field.
pub(super) fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The entries of the map in a field.
pub(super) fn entries<'a>(
    value: &'a Value,
    field: &str,
) -> impl Iterator<Item = (&'a str, &'a Value)> {
    value
        .get(field)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value))
}
