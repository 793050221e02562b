//! The garbage collector: what happens to an object when its owners go.
//!
//! Each object is looked at by itself. Its owners are *solid* (there, and not waiting for it), *waiting* (being deleted in the
//! foreground) or *gone* (no object with that uid where the reference can point). It keeps its life to one solid owner:
//!
//! ```text
//!   some solid ───────────────────────► references to the others are taken away
//!   none solid, some waiting ─────────► deleted; in the foreground if it has dependents of its own
//!   none solid, none waiting ─────────► deleted, as its own finalizers ask
//!   being deleted, finalizer orphan ──► references of its dependents are taken away, then the finalizer
//!   being deleted, foreground ────────► when no blocking dependent is left, the finalizer is taken away
//! ```
//!
//! The world holds every object, so a uid that it does not know is gone: a dependent that is visible was written after its
//! owner. All resources count, also those that nothing else here knows.

use podium_types::k8s::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use podium_types::{Now, ObjectKey};
use serde_json::json;

use crate::claim::replace_references;
use crate::controller::Controller;
use crate::object::Object;
use crate::plan::{Plan, Propagation, Step};
use crate::world::{Change, World};

/// The finalizer of a deletion in the foreground.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of a deletion that leaves the dependents.
pub const ORPHAN: &str = "orphan";

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct Collector;

impl Controller for Collector {
    fn name(&self) -> &'static str {
        "generic-garbage-collector"
    }

    fn keys_for(&self, world: &World, change: &Change) -> Vec<ObjectKey> {
        let mut keys = Vec::new();
        if change.after.as_ref().is_some_and(concerns) {
            keys.push((*change.key).clone());
        }
        for side in change.sides().filter(|side| !side.uid().is_empty()) {
            let gone = world.by_uid(side.uid()).is_none_or(Object::terminating);
            if gone {
                keys.extend(world.dependents(side.uid()).map(|object| (*object.key).clone()));
            }
            let owners = side.metadata().owner_references.iter().flatten();
            let owners = owners.filter_map(|owner| world.by_uid(&owner.uid));
            keys.extend(owners.filter(|o| o.terminating()).map(|o| (*o.key).clone()));
        }
        keys.sort();
        keys.dedup();
        keys
    }

    fn plan(&self, world: &World, key: &ObjectKey, _: Now) -> Plan {
        let Some(object) = world.object(key) else { return Plan::nothing() };
        let steps = if has(object.metadata(), ORPHAN) && object.terminating() {
            orphan(world, object)
        } else if has(object.metadata(), FOREGROUND) && object.terminating() {
            finish_foreground(world, object)
        } else if object.terminating() {
            Vec::new()
        } else {
            collect(world, object)
        };
        Plan { steps, wake_after: None }
    }
}

fn concerns(object: &Object) -> bool {
    let metadata = object.metadata();
    let owned = metadata.owner_references.as_ref().is_some_and(|owners| !owners.is_empty());
    owned || (object.terminating() && (has(metadata, ORPHAN) || has(metadata, FOREGROUND)))
}

fn has(metadata: &ObjectMeta, finalizer: &str) -> bool {
    metadata.finalizers.iter().flatten().any(|present| present == finalizer)
}

/// The object that a reference of `object` points to. Namespaced owners are in the namespace of what they own.
fn owner<'a>(world: &'a World, object: &Object, reference: &OwnerReference) -> Option<&'a Object> {
    let owner = world.by_uid(&reference.uid)?;
    let reachable = owner.key.namespace.is_empty() || owner.key.namespace == object.key.namespace;
    reachable.then_some(owner)
}

fn collect(world: &World, object: &Object) -> Vec<Step> {
    let references = object.metadata().owner_references.as_deref().unwrap_or_default();
    if references.is_empty() {
        return Vec::new();
    }
    let (mut solid, mut waiting) = (Vec::new(), 0);
    for reference in references {
        match owner(world, object, reference) {
            Some(owner) if owner.terminating() && has(owner.metadata(), FOREGROUND) => waiting += 1,
            Some(_) => solid.push(reference.clone()),
            None => {}
        }
    }
    if solid.len() == references.len() {
        return Vec::new();
    }
    if !solid.is_empty() {
        return vec![replace_references(&object.key, object.metadata(), &solid)];
    }
    let has_dependents = world.dependents(object.uid()).next().is_some();
    let propagation = if waiting > 0 && has_dependents || has(object.metadata(), FOREGROUND) {
        Propagation::Foreground
    } else if has(object.metadata(), ORPHAN) {
        Propagation::Orphan
    } else {
        Propagation::Background
    };
    vec![Step::Delete {
        key: (*object.key).clone(),
        uid: object.uid().to_owned(),
        grace_seconds: None,
        propagation,
    }]
}

/// Takes the references of all dependents away; the finalizer follows when none is left.
fn orphan(world: &World, object: &Object) -> Vec<Step> {
    let steps: Vec<Step> = world
        .dependents(object.uid())
        .map(|dependent| {
            let references = dependent.metadata().owner_references.iter().flatten();
            let others: Vec<OwnerReference> =
                references.filter(|owner| owner.uid != object.uid()).cloned().collect();
            replace_references(&dependent.key, dependent.metadata(), &others)
        })
        .collect();
    if steps.is_empty() { vec![remove_finalizer(object, ORPHAN)] } else { steps }
}

fn finish_foreground(world: &World, object: &Object) -> Vec<Step> {
    let blocks = |dependent: &Object| {
        let references = dependent.metadata().owner_references.iter().flatten();
        references
            .filter(|owner| owner.uid == object.uid())
            .any(|owner| owner.block_owner_deletion == Some(true))
    };
    if world.dependents(object.uid()).any(blocks) {
        return Vec::new();
    }
    vec![remove_finalizer(object, FOREGROUND)]
}

fn remove_finalizer(object: &Object, finalizer: &str) -> Step {
    let metadata = object.metadata();
    let left = metadata.finalizers.iter().flatten().filter(|present| *present != finalizer);
    let left: Vec<&String> = left.collect();
    let left = if left.is_empty() { None } else { Some(left) };
    Step::Patch {
        key: (*object.key).clone(),
        subresource: None,
        patch: json!({"metadata": {
            "uid": metadata.uid, "resourceVersion": metadata.resource_version,
            "finalizers": left,
        }}),
    }
}
