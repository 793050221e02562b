//! From a path to what it is about.

use crate::pipeline::Target;
use crate::registry::{self, Action, Resource, Subresource};

use super::query::decode;

/// What a path is about.
#[derive(Debug, PartialEq)]
pub(super) enum Route {
    Root,
    Api,
    Apis,
    Group(String),
    /// Group (empty: core) and version.
    GroupVersion(String, String),
    Resource(ResourcePath),
    OpenApi,
    OpenApiDocument {
        group: String,
        version: String,
    },
    Version,
    /// `livez` and what comes after it.
    Health(String),
    /// A group-version that is served, and a resource in it that is not.
    NoResource,
    Nowhere,
}

/// A path of a resource.
#[derive(Debug)]
pub(super) struct ResourcePath {
    pub(super) resource: &'static Resource,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) subresource: Option<&'static Subresource>,
}

impl PartialEq for ResourcePath {
    fn eq(&self, other: &Self) -> bool {
        let key = |path: &Self| {
            (
                path.resource.kind,
                path.namespace.clone(),
                path.name.clone(),
                path.subresource.copied(),
            )
        };
        key(self) == key(other)
    }
}

impl ResourcePath {
    pub(super) fn target(&self) -> Target<'_> {
        Target {
            resource: self.resource,
            namespace: &self.namespace,
            name: &self.name,
            subresource: self.subresource,
        }
    }

    /// Whether it is about a pod's streams.
    pub(super) fn streams(&self) -> bool {
        let action = self.subresource.map(|part| part.action);
        matches!(action, Some(Action::Log | Action::Exec | Action::Attach))
    }
}

impl Route {
    pub(super) fn parse(path: &str) -> Self {
        let parts: Vec<String> = path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(|part| decode(part, false))
            .collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts.as_slice() {
            [] => Self::Root,
            ["version"] => Self::Version,
            [check @ ("healthz" | "livez" | "readyz"), rest @ ..] => {
                Self::Health([&[*check], rest].concat().join("/"))
            }
            ["api"] => Self::Api,
            ["apis"] => Self::Apis,
            ["apis", group] => Self::Group((*group).to_owned()),
            ["api", version, rest @ ..] => Self::in_group("", version, rest),
            ["apis", group, version, rest @ ..] => Self::in_group(group, version, rest),
            ["openapi", "v3"] => Self::OpenApi,
            ["openapi", "v3", "api", version] => Self::document("", version),
            ["openapi", "v3", "apis", group, version] => Self::document(group, version),
            _ => Self::Nowhere,
        }
    }

    fn document(group: &str, version: &str) -> Self {
        Self::OpenApiDocument { group: group.to_owned(), version: version.to_owned() }
    }

    fn in_group(group: &str, version: &str, rest: &[&str]) -> Self {
        if !registry::group_versions().any(|served| served == (group, version)) {
            return Self::Nowhere;
        }
        let find = |resource: &str| registry::lookup(group, version, resource);
        let (namespace, rest) = match rest {
            [] => return Self::GroupVersion(group.to_owned(), version.to_owned()),
            ["namespaces", namespace, resource, rest @ ..]
                if find("namespaces").is_none_or(|row| row.subresource(resource).is_none()) =>
            {
                (*namespace, [&[*resource], rest].concat())
            }
            rest => ("", rest.to_vec()),
        };
        let (resource, name, part) = match rest.as_slice() {
            [resource] => (resource, "", None),
            [resource, name] => (resource, *name, None),
            [resource, name, part] => (resource, *name, Some(*part)),
            _ => return Self::NoResource,
        };
        let Some(row) = find(resource) else { return Self::NoResource };
        let subresource = part.and_then(|part| row.subresource(part));
        let misplaced = (!row.namespaced && !namespace.is_empty())
            || (row.namespaced && namespace.is_empty() && !name.is_empty());
        if misplaced || (part.is_some() && subresource.is_none()) {
            return Self::NoResource;
        }
        Self::Resource(ResourcePath {
            resource: row,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource,
        })
    }
}

#[cfg(test)]
mod tests {
    use podium_types::Kind;

    use super::Route;

    fn resource(path: &str) -> (Kind, String, String, &'static str) {
        match Route::parse(path) {
            Route::Resource(path) => (
                path.resource.kind,
                path.namespace,
                path.name,
                path.subresource.map_or("", |part| part.name),
            ),
            other => panic!("{path} is {other:?}"),
        }
    }

    #[test]
    fn paths_name_resources_in_and_out_of_namespaces() {
        let found = |kind, namespace: &str, name: &str, part| {
            (kind, namespace.to_owned(), name.to_owned(), part)
        };
        assert_eq!(resource("/api/v1/pods"), found(Kind::Pod, "", "", ""));
        assert_eq!(resource("/api/v1/namespaces/a/pods/b/log"), found(Kind::Pod, "a", "b", "log"));
        assert_eq!(resource("/api/v1/namespaces/a"), found(Kind::Namespace, "", "a", ""));
        assert_eq!(
            resource("/api/v1/namespaces/a/finalize"),
            found(Kind::Namespace, "", "a", "finalize")
        );
        assert_eq!(resource("/api/v1/namespaces"), found(Kind::Namespace, "", "", ""));
        assert_eq!(resource("/api/v1/nodes/n/status"), found(Kind::Node, "", "n", "status"));
        assert_eq!(
            resource("/apis/apps/v1/namespaces/a/deployments/d/scale"),
            found(Kind::Deployment, "a", "d", "scale")
        );
        assert_eq!(resource("/apis/events.k8s.io/v1/events"), found(Kind::Event, "", "", ""));
        assert_eq!(resource("/api/v1/namespaces/a%2Db/pods/"), found(Kind::Pod, "a-b", "", ""));
    }

    #[test]
    fn paths_that_lead_nowhere_say_how() {
        assert_eq!(Route::parse("/apis/foo/v1/x"), Route::Nowhere);
        assert_eq!(Route::parse("/api/v2"), Route::Nowhere);
        assert_eq!(Route::parse("/metrics"), Route::Nowhere);
        for path in [
            "/api/v1/gadgets",
            "/api/v1/pods/p",
            "/api/v1/namespaces/a/nodes",
            "/api/v1/namespaces/a/pods/p/nope",
            "/api/v1/namespaces/a/pods/p/log/more",
        ] {
            assert_eq!(Route::parse(path), Route::NoResource, "{path}");
        }
    }
}
