//! What the API serves: one row per resource.
//!
//! A row says how a resource is called, what can be done with it, where it is stored, and where its kind departs from the
//! rule. Everything that handles requests reads the row; nothing matches on a resource's name. Fields, defaults,
//! validation and table columns hang on the row's [`Kind`] in `podium-types`.

mod rows;

use podium_types::{GroupResource, Kind};
use serde_json::Value;

pub use rows::RESOURCES;

/// What can be asked of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// POST.
    Create,
    /// DELETE of one.
    Delete,
    /// DELETE of all.
    DeleteCollection,
    /// GET of one.
    Get,
    /// GET of all.
    List,
    /// PATCH.
    Patch,
    /// PUT.
    Update,
    /// GET that goes on.
    Watch,
}

impl Verb {
    /// As discovery and the authorizer spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

/// What stands below an object's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subresource {
    /// As in the path.
    pub name: &'static str,
    /// What bodies and answers are.
    pub kind: Kind,
    /// What can be asked.
    pub verbs: &'static [Verb],
    /// What it does.
    pub action: Action,
}

/// What a subresource does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Reads and writes one part of the object: `status`, `finalize`.
    Part,
    /// Reads and writes the number of replicas.
    Scale,
    /// Puts a pod on a node.
    Bind,
    /// Deletes a pod if nothing is against it.
    Evict,
    /// Sends a container's log.
    Log,
    /// Runs a program in a container.
    Exec,
    /// Joins a container's program.
    Attach,
}

/// How deletions of a kind go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// At once, unless there are finalizers.
    Immediate,
    /// A pod that runs gets time to end.
    Grace,
    /// A namespace is emptied first, and says so in its phase.
    Namespace,
}

/// A served form that is not the stored one.
#[derive(Debug, Clone, Copy)]
pub struct Conversion {
    /// From the stored form to this one.
    pub from_storage: fn(&Value) -> Value,
    /// From this form to the stored one.
    pub to_storage: fn(&Value) -> Value,
}

/// One resource.
#[derive(Debug)]
pub struct Resource {
    /// What its objects are.
    pub kind: Kind,
    /// Its group and plural name.
    pub names: &'static GroupResource,
    /// For one.
    pub singular: &'static str,
    /// For people in a hurry.
    pub short_names: &'static [&'static str],
    /// `all`.
    pub categories: &'static [&'static str],
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What can be asked of it.
    pub verbs: &'static [Verb],
    /// What stands below its objects.
    pub subresources: &'static [Subresource],
    /// Under which name it is stored.
    pub stored_as: &'static GroupResource,
    /// How to get from one form to the other, if they differ.
    pub conversion: Option<Conversion>,
    /// How deletions go.
    pub deletion: Deletion,
    /// Whether an update may leave out the resourceVersion.
    pub unconditional_update: bool,
    /// Whether a deletion is answered with the object instead of a Status.
    pub returns_deleted: bool,
}

impl Resource {
    /// The served version.
    #[must_use]
    pub fn version(&self) -> &'static str {
        self.kind.version()
    }

    /// `apps/v1`
    #[must_use]
    pub fn api_version(&self) -> &'static str {
        self.kind.api_version()
    }

    /// The kind of what is stored.
    #[must_use]
    pub fn stored_kind(&self) -> Kind {
        Kind::of_resource(self.stored_as).unwrap_or(self.kind)
    }

    /// Whether a verb can be asked.
    #[must_use]
    pub fn has(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }

    /// A subresource by its name.
    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }
}

/// The row of a resource.
#[must_use]
pub fn find(names: &GroupResource) -> Option<&'static Resource> {
    RESOURCES.iter().find(|resource| *resource.names == *names)
}

/// The row of a resource by the parts of a path; the core group is empty.
#[must_use]
pub fn lookup(group: &str, version: &str, resource: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|row| {
        row.names.group == group && row.version() == version && row.names.resource == resource
    })
}

/// Every group-version that is served, in the order of discovery; the core group first.
pub fn group_versions() -> impl Iterator<Item = (&'static str, &'static str)> {
    let mut seen = Vec::new();
    RESOURCES.iter().filter_map(move |row| {
        let pair = (row.kind.group(), row.version());
        let new = !seen.contains(&pair);
        seen.push(pair);
        new.then_some(pair)
    })
}

/// The rows of a group-version.
pub fn of_group_version(group: &str, version: &str) -> impl Iterator<Item = &'static Resource> {
    RESOURCES.iter().filter(move |row| row.kind.group() == group && row.version() == version)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{RESOURCES, find, group_versions, lookup};

    #[test]
    fn rows_agree_with_their_kinds() {
        for row in &RESOURCES {
            assert_eq!(row.kind.resource().as_ref(), Some(row.names), "{}", row.names);
            assert_eq!(row.kind.namespaced(), row.namespaced, "{}", row.names);
            assert_eq!(row.stored_as == row.names, row.conversion.is_none(), "{}", row.names);
            assert_eq!(find(row.names).map(|row| row.kind), Some(row.kind));
            let found = lookup(&row.names.group, row.version(), &row.names.resource);
            assert_eq!(found.map(|row| row.kind), Some(row.kind));
        }
        assert!(find(&podium_types::GroupResource::new("", "gadgets")).is_none());
    }

    #[test]
    fn no_two_resources_share_a_short_name_in_a_group() {
        let mut seen = BTreeSet::new();
        for row in &RESOURCES {
            for name in row.short_names.iter().chain([&row.singular]) {
                assert!(seen.insert((&row.names.group, *name)), "{name}");
            }
        }
    }

    #[test]
    fn the_core_group_is_discovered_first() {
        assert_eq!(group_versions().next(), Some(("", "v1")));
        assert_eq!(group_versions().count(), 6);
    }
}
