//! What there is: the registry, in the two forms that clients ask for.

use http::header::{ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::negotiate::accepted;
use super::reply::{self, Reply};
use super::route::Route;
use crate::registry::{self, Resource, Subresource, Verb};
use crate::status::Status;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Paths that somebody might look at.
pub(super) fn root() -> Reply {
    let groups = registry::group_versions().filter(|(group, _)| !group.is_empty());
    let groups = groups.map(|(group, version)| format!("/apis/{group}/{version}"));
    let fixed =
        ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"];
    let mut paths: Vec<String> = fixed.into_iter().map(str::to_owned).chain(groups).collect();
    paths.sort();
    reply::json(&json!({"paths": paths}))
}

pub(super) fn answer(route: &Route, headers: &HeaderMap) -> Result<Reply, Status> {
    let aggregated = aggregated(headers);
    let value = match route {
        Route::Api if aggregated => group_list(str::is_empty),
        Route::Apis if aggregated => group_list(|group| !group.is_empty()),
        Route::Api => {
            json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
        }
        Route::Apis => {
            let groups: Vec<Value> =
                groups().into_iter().filter(|group| !group.is_empty()).map(api_group).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        Route::Group(name) => {
            let Some(group) = groups().into_iter().find(|group| group == name && !group.is_empty())
            else {
                return Ok(reply::nowhere());
            };
            let mut group = api_group(group);
            group["kind"] = json!("APIGroup");
            group["apiVersion"] = json!("v1");
            group
        }
        Route::GroupVersion(group, version) => resource_list(group, version),
        _ => return Err(Status::no_such_resource()),
    };
    let combined = aggregated && matches!(route, Route::Api | Route::Apis);
    Ok(tagged(&value, combined, headers))
}

/// Whether the client would rather have the aggregated form than plain JSON.
fn aggregated(headers: &HeaderMap) -> bool {
    let first = accepted(headers).find(|entry| {
        let wanted = entry.parameter("as") == Some("APIGroupDiscoveryList")
            && entry.parameter("g") == Some("apidiscovery.k8s.io")
            && entry.parameter("v") == Some("v2");
        let plain = entry.parameter("as").is_none()
            && entry.media_type != "application/vnd.kubernetes.protobuf";
        entry.media_type == "application/json" && wanted || plain
    });
    first.is_some_and(|entry| entry.parameter("as").is_some())
}

fn tagged(value: &Value, aggregated: bool, headers: &HeaderMap) -> Reply {
    let text = value.to_string();
    let digest = Sha256::digest(text.as_bytes());
    let tag: String = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    let tag = HeaderValue::from_str(&format!("\"{tag}\"")).ok();
    let known = tag.is_some() && headers.get(IF_NONE_MATCH) == tag.as_ref();
    let mut reply = if known {
        reply::empty(304)
    } else {
        let form = if aggregated { AGGREGATED } else { "application/json" };
        reply::bytes(HeaderValue::from_static(form), text)
    };
    if let Some(tag) = tag {
        reply.headers_mut().insert(ETAG, tag);
    }
    reply.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    reply
}

fn groups() -> Vec<&'static str> {
    let mut groups: Vec<_> = registry::group_versions().map(|(group, _)| group).collect();
    groups.dedup();
    groups
}

fn versions(group: &'static str) -> impl Iterator<Item = &'static str> {
    registry::group_versions().filter(move |served| served.0 == group).map(|(_, version)| version)
}

fn group_list(wanted: impl Fn(&str) -> bool) -> Value {
    let items: Vec<Value> =
        groups().into_iter().filter(|group| wanted(group)).map(group_discovery).collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    })
}

fn group_discovery(group: &'static str) -> Value {
    let versions = versions(group).map(|version| {
        let resources: Vec<Value> =
            registry::of_group_version(group, version).map(resource_discovery).collect();
        json!({"version": version, "freshness": "Current", "resources": resources})
    });
    let metadata = if group.is_empty() {
        json!({"creationTimestamp": null})
    } else {
        json!({"name": group, "creationTimestamp": null})
    };
    json!({"metadata": metadata, "versions": versions.collect::<Vec<_>>()})
}

fn verbs(verbs: &[Verb]) -> Value {
    verbs.iter().map(|verb| verb.as_str()).collect()
}

fn resource_discovery(row: &Resource) -> Value {
    let subresources = row.subresources.iter().map(|part| {
        let (group, version) = (part.kind.group(), part.kind.version());
        json!({
            "subresource": part.name, "verbs": verbs(part.verbs),
            "responseKind": {"group": group, "version": version, "kind": response_kind(row, part)},
        })
    });
    let mut discovery = json!({
        "resource": row.names.resource,
        "responseKind": {"group": row.kind.group(), "version": row.version(), "kind": row.kind.name()},
        "scope": if row.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": verbs(row.verbs),
    });
    let lists = [("shortNames", row.short_names), ("categories", row.categories)];
    for (field, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        discovery[field] = json!(list);
    }
    if !row.subresources.is_empty() {
        discovery["subresources"] = subresources.collect();
    }
    discovery
}

/// The streams of a pod have kinds of options, which nobody sends.
fn response_kind(row: &Resource, part: &Subresource) -> &'static str {
    use crate::registry::Action;
    match part.action {
        Action::Exec => "PodExecOptions",
        Action::Attach => "PodAttachOptions",
        Action::Part | Action::Log => row.kind.name(),
        Action::Scale | Action::Bind | Action::Evict => part.kind.name(),
    }
}

fn api_group(group: &'static str) -> Value {
    let version =
        |version: &str| json!({"groupVersion": format!("{group}/{version}"), "version": version});
    let versions: Vec<Value> = versions(group).map(version).collect();
    json!({"name": group, "versions": versions, "preferredVersion": versions.first()})
}

fn resource_list(group: &str, version: &str) -> Value {
    let mut resources = Vec::new();
    for row in registry::of_group_version(group, version) {
        let mut resource = json!({
            "name": row.names.resource, "singularName": row.singular, "namespaced": row.namespaced,
            "kind": row.kind.name(), "verbs": verbs(row.verbs),
        });
        let lists = [("shortNames", row.short_names), ("categories", row.categories)];
        for (field, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            resource[field] = json!(list);
        }
        resources.push(resource);
        for part in row.subresources {
            let mut resource = json!({
                "name": format!("{}/{}", row.names.resource, part.name), "singularName": "",
                "namespaced": row.namespaced, "kind": response_kind(row, part), "verbs": verbs(part.verbs),
            });
            if part.kind.group() != row.kind.group() {
                resource["group"] = json!(part.kind.group());
                resource["version"] = json!(part.kind.version());
            }
            resources.push(resource);
        }
    }
    let name = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": resources})
}
