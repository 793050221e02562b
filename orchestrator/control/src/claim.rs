//! Which objects a controller object owns: those that name it as their controller and that its selector selects.
//!
//! Invariant: an object that names another controller is never touched, whatever its labels.

use std::sync::Arc;

use podium_types::ObjectKey;
use podium_types::k8s::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, ObjectMeta, OwnerReference,
};
use serde_json::json;

use crate::bugs::{self, Bug};
use crate::object::{Object, Typed};
use crate::plan::Step;
use crate::selector;
use crate::world::World;

/// The objects of one owner.
pub(crate) struct Claim<'a, T> {
    /// Owned now, or after the steps.
    pub(crate) owned: Vec<(&'a Arc<ObjectKey>, &'a Arc<T>)>,
    /// Adoptions of selected objects without a controller, and releases of owned objects that are not selected any more.
    pub(crate) steps: Vec<Step>,
}

/// The owner, as its references describe it.
pub(crate) struct Owner<'a> {
    pub(crate) api_version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) metadata: &'a ObjectMeta,
    pub(crate) selector: &'a LabelSelector,
}

impl Owner<'_> {
    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn terminating(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// The reference that makes an object this owner's.
    pub(crate) fn reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: self.api_version.to_owned(),
            kind: self.kind.to_owned(),
            name: self.metadata.name.clone().unwrap_or_default(),
            uid: self.uid().to_owned(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }
}

/// Sorts out the objects of kind `T` in the owner's namespace; `adoptable` says which of those without a controller may be
/// taken. An owner that is being deleted neither adopts nor releases.
pub(crate) fn claim<'a, T: Typed + 'static>(
    world: &'a World,
    owner: &Owner<'_>,
    adoptable: impl Fn(&T) -> bool,
) -> Claim<'a, T> {
    let mut claim = Claim { owned: Vec::new(), steps: Vec::new() };
    for object in candidates::<T>(world, owner) {
        let (metadata, Some(typed)) = (object.metadata(), T::of(&object.view)) else { continue };
        let selected = selector::selects(owner.selector, metadata.labels.as_ref());
        match controller(metadata) {
            Some(reference) if reference.uid == owner.uid() => {
                if selected || owner.terminating() {
                    claim.owned.push((&object.key, typed));
                } else if !object.terminating() {
                    claim.steps.push(release(&object.key, metadata, owner));
                }
            }
            foreign => {
                let free = foreign.is_none() || bugs::active(Bug::AdoptForeignPod);
                let staying = !owner.terminating() && !object.terminating();
                if selected && free && staying && adoptable(typed) {
                    claim.owned.push((&object.key, typed));
                    claim.steps.push(adopt(&object.key, metadata, owner));
                }
            }
        }
    }
    claim.owned.sort_by_key(|(key, _)| *key);
    claim
}

/// What names the owner as its controller, and what names none.
fn candidates<'a, T: Typed + 'static>(world: &'a World, owner: &Owner<'_>) -> Vec<&'a Object> {
    let namespace = owner.namespace();
    if bugs::active(Bug::AdoptForeignPod) {
        return world.range(&T::RESOURCE, Some(namespace)).collect();
    }
    let owned = world.dependents(owner.uid()).filter(|object| {
        object.key.namespace == namespace
            && controller(object.metadata()).is_some_and(|reference| reference.uid == owner.uid())
    });
    owned.chain(world.unowned::<T>(namespace)).collect()
}

/// The reference to the owner that manages an object.
pub(crate) fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

fn adopt(key: &ObjectKey, metadata: &ObjectMeta, owner: &Owner<'_>) -> Step {
    let mut references = metadata.owner_references.clone().unwrap_or_default();
    references
        .retain(|reference| reference.controller != Some(true) && reference.uid != owner.uid());
    references.push(owner.reference());
    replace_references(key, metadata, &references)
}

fn release(key: &ObjectKey, metadata: &ObjectMeta, owner: &Owner<'_>) -> Step {
    let mut references = metadata.owner_references.clone().unwrap_or_default();
    references.retain(|reference| reference.uid != owner.uid());
    replace_references(key, metadata, &references)
}

/// A patch that sets the owner references, if nobody changed the object since.
pub(crate) fn replace_references(
    key: &ObjectKey,
    metadata: &ObjectMeta,
    references: &[OwnerReference],
) -> Step {
    let references = if references.is_empty() { None } else { Some(references) };
    Step::Patch {
        key: key.clone(),
        subresource: None,
        patch: json!({"metadata": {
            "uid": metadata.uid, "resourceVersion": metadata.resource_version,
            "ownerReferences": references,
        }}),
    }
}
