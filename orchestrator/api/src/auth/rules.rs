//! The rules of a cluster without RBAC objects: administrators and our own parts may do everything, a node may do what
//! its own work needs, and everybody may ask whether the server lives.
//!
//! A node reads Services, EndpointSlices, Namespaces and Nodes; it reads pods, and the Secrets and ConfigMaps that pods bound
//! to it refer to; it changes its own Node, Machine and Lease, the status of its pods, and Events. It removes its own pods.

use futures::future::BoxFuture;
use podium_store::View;
use podium_types::{Kind, ObjectKey, References, object};
use serde_json::Value;

use super::{Attributes, Authorizer, Decision, INTERNAL, MASTERS, NODE_PREFIX, NODES, Subject};

/// Paths that anybody may read.
const PUBLIC: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];
/// Paths that everybody who is known may read, with all below them.
const DISCOVERY: [&str; 3] = ["/api", "/apis", "/openapi"];
const NODE_LEASES: &str = "kube-node-lease";

/// See the module.
#[derive(Debug, Default)]
pub struct ClusterRules;

impl Authorizer for ClusterRules {
    fn authorize<'a>(&'a self, request: Attributes<'a>, state: View) -> BoxFuture<'a, Decision> {
        Box::pin(async move {
            if allowed(request, &state) { Decision::Allow } else { Decision::Deny(String::new()) }
        })
    }
}

fn allowed(request: Attributes<'_>, state: &View) -> bool {
    let user = request.user;
    if user.is_in(MASTERS) || user.is_in(INTERNAL) {
        return true;
    }
    match request.subject {
        Subject::Path(path) => {
            let below = |root: &str| {
                path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            request.verb == "get"
                && (PUBLIC.into_iter().any(below)
                    || (!user.is_anonymous() && DISCOVERY.into_iter().any(below)))
        }
        Subject::Object { resource, subresource, namespace, name } => {
            let Some(node) = user.name.strip_prefix(NODE_PREFIX) else { return false };
            let asked = Asked { kind: resource.kind, subresource, namespace, name };
            user.is_in(NODES) && node_may(node, request.verb, asked, state)
        }
    }
}

#[derive(Clone, Copy)]
struct Asked<'a> {
    kind: Kind,
    subresource: &'a str,
    namespace: &'a str,
    name: &'a str,
}

fn node_may(node: &str, verb: &str, asked: Asked<'_>, state: &View) -> bool {
    let reads = matches!(verb, "get" | "list" | "watch");
    let changes = matches!(verb, "update" | "patch");
    let own = asked.name == node;
    match asked.kind {
        Kind::Service | Kind::EndpointSlice | Kind::Namespace | Kind::ServiceAccount => reads,
        Kind::Node | Kind::Machine => reads || (changes && own),
        Kind::Lease => asked.namespace == NODE_LEASES && (own || verb == "create"),
        Kind::CoreEvent | Kind::Event => verb == "create" || changes,
        Kind::Pod => match asked.subresource {
            "" => reads || (verb == "delete" && is_on(node, &pod(asked, state))),
            "status" => reads || (changes && is_on(node, &pod(asked, state))),
            _ => false,
        },
        Kind::ConfigMap | Kind::Secret => {
            reads && !asked.name.is_empty() && refers(node, asked, state)
        }
        Kind::Deployment
        | Kind::ReplicaSet
        | Kind::Scale
        | Kind::Binding
        | Kind::Eviction
        | Kind::Status
        | Kind::DeleteOptions => false,
    }
}

fn pod(asked: Asked<'_>, state: &View) -> Value {
    let key = ObjectKey::new(podium_types::kind::resources::PODS, asked.namespace, asked.name);
    let record = state.get(&key.storage_key());
    record.and_then(|record| serde_json::from_slice(&record.value).ok()).unwrap_or_default()
}

fn is_on(node: &str, pod: &Value) -> bool {
    object::str_at(pod, &["spec", "nodeName"]) == Some(node)
}

/// Whether a pod on the node names the ConfigMap or Secret.
fn refers(node: &str, asked: Asked<'_>, state: &View) -> bool {
    let pods = podium_types::kind::resources::PODS;
    let prefix = ObjectKey::prefix(&pods, Some(asked.namespace));
    state.range(&prefix).any(|record| {
        let Ok(pod) = serde_json::from_slice::<Value>(&record.value) else { return false };
        is_on(node, &pod) && names(&pod["spec"], asked)
    })
}

/// Whether a pod's spec refers to what is asked for.
fn names(spec: &Value, asked: Asked<'_>) -> bool {
    let References { config_maps, secrets } = References::of(spec);
    match asked.kind {
        Kind::Secret => secrets.contains(asked.name),
        _ => config_maps.contains(asked.name),
    }
}

#[cfg(test)]
mod tests {
    use podium_store::{EphemeralStore, Operation, StoreHandle, Transaction, TransactionId, View};
    use podium_types::kind::resources;
    use podium_types::{GroupResource, ObjectKey};
    use serde_json::json;

    use super::allowed;
    use crate::auth::{Attributes, NODES, Subject, User};
    use crate::registry;

    fn state() -> View {
        let store = EphemeralStore::default();
        let pod = json!({"spec": {"nodeName": "n1", "volumes": [{"name": "v", "configMap": {"name": "seen"}}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}]}]}});
        let key = ObjectKey::new(resources::PODS, "default", "p").storage_key();
        let operations =
            vec![Operation::Put { key: key.into(), value: pod.to_string().into_bytes().into() }];
        let transaction = Transaction { id: TransactionId(1), guards: Vec::new(), operations };
        futures::executor::block_on(store.transact(transaction)).expect("committed");
        store.local()
    }

    fn may(
        user: &User,
        verb: &str,
        resource: GroupResource,
        subresource: &str,
        name: &str,
    ) -> bool {
        let resource = registry::find(&resource).expect("served");
        let namespace = if resource.namespaced { "default" } else { "" };
        let subject = Subject::Object { resource, subresource, namespace, name };
        allowed(Attributes { user, verb, subject }, &state())
    }

    #[test]
    fn a_node_reads_only_what_its_pods_refer_to() {
        let node = User::authenticated("system:node:n1", [NODES.to_owned()]);
        assert!(may(&node, "get", resources::CONFIG_MAPS, "", "seen"));
        assert!(!may(&node, "get", resources::CONFIG_MAPS, "", "other"));
        assert!(!may(&node, "list", resources::CONFIG_MAPS, "", ""));
        assert!(may(&node, "get", resources::SECRETS, "", "key"));
        assert!(!may(&node, "get", resources::SECRETS, "", "seen"));
        let other = User::authenticated("system:node:n2", [NODES.to_owned()]);
        assert!(!may(&other, "get", resources::SECRETS, "", "key"));
    }

    #[test]
    fn a_node_writes_only_what_is_its_own() {
        let node = User::authenticated("system:node:n1", [NODES.to_owned()]);
        assert!(may(&node, "patch", resources::NODES, "status", "n1"));
        assert!(!may(&node, "patch", resources::NODES, "status", "n2"));
        assert!(!may(&node, "create", resources::NODES, "", ""), "a voter makes it, for who joins");
        assert!(may(&node, "patch", resources::PODS, "status", "p"));
        assert!(!may(&node, "patch", resources::PODS, "", "p"));
        assert!(!may(&node, "create", resources::DEPLOYMENTS, "", ""));
        let impostor = User::authenticated("system:node:n1", []);
        assert!(!may(&impostor, "get", resources::NODES, "", "n1"));
    }

    #[test]
    fn strangers_may_ask_only_whether_the_server_lives() {
        let state = state();
        let get = |user: &User, path: &str| {
            allowed(Attributes { user, verb: "get", subject: Subject::Path(path) }, &state)
        };
        assert!(get(&User::anonymous(), "/livez"));
        assert!(get(&User::anonymous(), "/version"));
        assert!(!get(&User::anonymous(), "/api"));
        assert!(!get(&User::anonymous(), "/versions"));
        assert!(get(&User::authenticated("bob", []), "/apis/apps/v1"));
        assert!(!may(&User::authenticated("bob", []), "get", resources::PODS, "", "p"));
        assert!(may(&User::admin(), "deletecollection", resources::PODS, "", ""));
    }
}
