//! An object on its way out.

use std::sync::Arc;

use bytes::Bytes;
use podium_store::{Record, Revision};
use podium_types::object;
use serde_json::Value;

use super::splice;
use crate::registry::Resource;

/// An object of a resource in its served form: read only when somebody has to look into it.
#[derive(Debug, Clone)]
pub struct Served {
    resource: &'static Resource,
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    /// As stored, to be shown at this revision.
    Stored(Arc<Record>, Revision),
    /// Made here.
    Made(Arc<Value>),
}

impl Served {
    /// What a record holds, at its own revision.
    #[must_use]
    pub(super) fn record(resource: &'static Resource, record: Arc<Record>) -> Self {
        let revision = record.mod_revision;
        Self { resource, form: Form::Stored(record, revision) }
    }

    /// What a record held when it was removed, or left a selection, at that revision.
    pub(super) fn at(resource: &'static Resource, record: Arc<Record>, revision: Revision) -> Self {
        Self { resource, form: Form::Stored(record, revision) }
    }

    /// An object that is already in its served form.
    #[must_use]
    pub fn made(resource: &'static Resource, object: Value) -> Self {
        Self { resource, form: Form::Made(Arc::new(object)) }
    }

    /// The row it is of.
    #[must_use]
    pub fn resource(&self) -> &'static Resource {
        self.resource
    }

    /// The object. Empty if the stored bytes are not JSON, which only a damaged store has.
    #[must_use]
    pub fn value(&self) -> Value {
        match &self.form {
            Form::Made(value) => Value::clone(value),
            Form::Stored(record, revision) => {
                let mut stored = parse(record);
                object::set_resource_version(&mut stored, Some(revision.0));
                match self.resource.conversion {
                    Some(conversion) => (conversion.from_storage)(&stored),
                    None => stored,
                }
            }
        }
    }

    /// The object as JSON; copied, not read, where the stored form is the served one.
    #[must_use]
    pub fn json(&self) -> Bytes {
        if let (Form::Stored(record, revision), None) = (&self.form, self.resource.conversion)
            && let Some(bytes) = splice::with_resource_version(&record.value, revision.0)
        {
            return bytes.into();
        }
        self.value().to_string().into()
    }
}

/// The stored object, without a resourceVersion.
pub(super) fn parse(record: &Record) -> Value {
    serde_json::from_slice(&record.value).unwrap_or_default()
}
