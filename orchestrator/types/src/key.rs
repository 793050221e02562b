//! Where an object lives: its resource, its namespace and its name, and the storage key made of them.
//!
//! A storage key is `/registry/{group or "core"}/{resource}/{namespace or "_"}/{name}`. Names, namespaces, groups and
//! resources never contain a slash (validation sees to it), so keys and [`ObjectKey`]s map one to one.

use std::borrow::Cow;
use std::fmt;

use crate::kind::{Kind, resources};

const ROOT: &str = "/registry";
const CORE: &str = "core";
const CLUSTER: &str = "_";

/// A resource of the API: a plural name within a group.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct GroupResource {
    /// The API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// The plural, lower-case name: `pods`.
    pub resource: Cow<'static, str>,
}

impl GroupResource {
    /// A resource whose names are known at compile time; `group` is empty for the core group.
    #[must_use]
    pub const fn new(group: &'static str, resource: &'static str) -> Self {
        Self { group: Cow::Borrowed(group), resource: Cow::Borrowed(resource) }
    }

    /// A resource by its names; those that the program knows are borrowed from it.
    #[must_use]
    pub fn named(group: &str, resource: &str) -> Self {
        let known = Kind::ALL.into_iter().filter_map(Kind::resource);
        let mut same = known.filter(|known| known.resource == resource && known.group == group);
        same.next().unwrap_or_else(|| Self {
            group: Cow::Owned(group.to_owned()),
            resource: Cow::Owned(resource.to_owned()),
        })
    }
}

/// `pods`, `deployments.apps`: the form of error messages.
impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        Ok(())
    }
}

/// The identity of an object within the cluster at one moment (its uid tells apart objects that reuse a name).
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct ObjectKey {
    /// The resource it belongs to.
    pub resource: GroupResource,
    /// Its namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// Joins the three parts; `namespace` is empty for cluster-scoped objects.
    pub fn new(
        resource: GroupResource,
        namespace: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        Self { resource, namespace: namespace.into(), name: name.into() }
    }

    /// A namespace itself.
    pub fn of_namespace(name: impl Into<String>) -> Self {
        Self::new(resources::NAMESPACES, "", name)
    }

    /// The key of this object in the store.
    #[must_use]
    pub fn storage_key(&self) -> String {
        let mut key = Self::prefix(&self.resource, Some(&self.namespace));
        key.push_str(&self.name);
        key
    }

    /// Reads a storage key back; `None` for keys that are not of an object.
    #[must_use]
    pub fn parse(storage_key: &str) -> Option<Self> {
        let mut parts = storage_key.strip_prefix(ROOT)?.strip_prefix('/')?.split('/');
        let (group, resource) = (parts.next()?, parts.next()?);
        let (namespace, name) = (parts.next()?, parts.next()?);
        if parts.next().is_some()
            || group.is_empty()
            || resource.is_empty()
            || name.is_empty()
            || namespace.is_empty()
        {
            return None;
        }
        let group = if group == CORE { "" } else { group };
        let namespace = if namespace == CLUSTER { "" } else { namespace };
        Some(Self::new(GroupResource::named(group, resource), namespace, name))
    }

    /// The storage keys of a resource start with this: of all its objects, or (`Some("")`: cluster scope) of those in one
    /// namespace. Ends in a slash, so that no other resource or namespace shares it.
    #[must_use]
    pub fn prefix(resource: &GroupResource, namespace: Option<&str>) -> String {
        let group = if resource.group.is_empty() { CORE } else { &resource.group };
        let resource = &resource.resource;
        match namespace {
            None => format!("{ROOT}/{group}/{resource}/"),
            Some("") => format!("{ROOT}/{group}/{resource}/{CLUSTER}/"),
            Some(namespace) => format!("{ROOT}/{group}/{resource}/{namespace}/"),
        }
    }
}

/// `pods default/web`, `nodes n1`: for people.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.resource)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{GroupResource, ObjectKey};
    use crate::kind::resources;

    #[test]
    fn storage_keys_have_the_documented_form() {
        let pod = ObjectKey::new(resources::PODS, "default", "web");
        assert_eq!(pod.storage_key(), "/registry/core/pods/default/web");
        let machine = ObjectKey::new(resources::MACHINES, "", "m1");
        assert_eq!(machine.storage_key(), "/registry/podium.dev/machines/_/m1");
        assert_eq!(ObjectKey::prefix(&resources::DEPLOYMENTS, None), "/registry/apps/deployments/");
        assert_eq!(ObjectKey::prefix(&resources::PODS, Some("a")), "/registry/core/pods/a/");
    }

    #[test]
    fn keys_of_other_things_are_not_objects() {
        for key in [
            "",
            "/registry",
            "/registry/core/pods/default",
            "/registry/core/pods/default/a/b",
            "/other/core/pods/_/a",
        ] {
            assert_eq!(ObjectKey::parse(key), None, "{key}");
        }
    }

    proptest! {
        #[test]
        fn parsing_a_storage_key_gives_the_object_back(
            group in "([a-z]{1,8}\\.[a-z]{1,8})?", resource in "[a-z]{1,12}", namespace in "([a-z0-9-]{1,20})?", name in "[a-z0-9.-]{1,30}",
        ) {
            let resource = GroupResource { group: group.into(), resource: resource.into() };
            let key = ObjectKey::new(resource, namespace, name);
            prop_assert_eq!(ObjectKey::parse(&key.storage_key()), Some(key));
        }
    }
}
