//! What must hold of the objects of the API at every revision, whoever wrote them.
//!
//! Job: follow the established history, revision by revision, and judge each change of each object against what was
//! before it. Rules that only concern one object and its past are in `life`, those about bindings in `binding`, about
//! replicas in `replicas`, about addresses in `address`. What a transaction may do to keys is the ledger's.
//!
//! A controller may act on a world that is a little old. Bounds that a user can lower at any moment (replicas, surge) are
//! therefore compared with their highest value within [`MEMORY`].

mod address;
mod binding;
mod life;
mod replicas;

use std::collections::BTreeMap;
use std::time::Duration;

use podium_types::ObjectKey;
use serde_json::Value;

use crate::ledger::{Fact, Violation};

/// How long a plan may be under way: a call's own limit, and the driver's fence behind it.
pub(crate) const MEMORY: Duration = Duration::from_secs(45);

/// One change of one object.
pub(crate) struct Change<'a> {
    pub(crate) key: &'a ObjectKey,
    pub(crate) before: Option<&'a Value>,
    pub(crate) after: Option<&'a Value>,
    pub(crate) at: Duration,
}

/// All objects at one revision, and what the rules remember of the past.
#[derive(Default)]
pub struct Rules {
    objects: BTreeMap<ObjectKey, Value>,
    bindings: binding::Bindings,
    replicas: replicas::Replicas,
    addresses: address::Addresses,
}

impl Rules {
    /// Takes in one revision; `at` is the virtual time.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn deliver(
        &mut self,
        revision: u64,
        facts: &[Fact],
        at: Duration,
    ) -> Result<(), Violation> {
        for fact in facts {
            let Some(key) = ObjectKey::parse(&fact.key) else { continue };
            let after: Option<Value> = match &fact.value {
                None => None,
                Some(bytes) => match serde_json::from_slice(bytes) {
                    Ok(value) => Some(value),
                    Err(error) => {
                        return Err(rule(revision, format!("{key:?} is not JSON: {error}")));
                    }
                },
            };
            let before = match after {
                Some(after) => self.objects.insert(key.clone(), after),
                None => self.objects.remove(&key),
            };
            self.judge(&key, before.as_ref(), at).map_err(|what| rule(revision, what))?;
        }
        Ok(())
    }

    fn judge(
        &mut self,
        key: &ObjectKey,
        before: Option<&Value>,
        at: Duration,
    ) -> Result<(), String> {
        let change = &Change { key, before, after: self.objects.get(key), at };
        life::judge(change, &self.objects)?;
        self.bindings.judge(change, &self.objects)?;
        self.replicas.judge(change)?;
        self.addresses.judge(change)
    }

    /// Every object, by key.
    #[must_use]
    pub fn objects(&self) -> &BTreeMap<ObjectKey, Value> {
        &self.objects
    }

    /// All objects of one resource.
    pub fn of<'a>(&'a self, resource: &'a str) -> impl Iterator<Item = (&'a ObjectKey, &'a Value)> {
        self.objects.iter().filter(move |(key, _)| key.resource.resource == resource)
    }
}

fn rule(revision: u64, what: String) -> Violation {
    Violation::Rule(format!("revision {revision}: {what}"))
}

/// The text at a JSON pointer; empty if there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a JSON pointer.
pub(crate) fn number(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

/// The uid of the object that controls this one.
pub(crate) fn controller(object: &Value) -> Option<&str> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    owners.iter().find(|owner| owner["controller"] == true).map(|owner| text(owner, "/uid"))
}

/// Whether the object is marked for deletion.
pub(crate) fn is_deleting(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null())
}

/// Whether a pod has come to its end.
pub(crate) fn is_over(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}
