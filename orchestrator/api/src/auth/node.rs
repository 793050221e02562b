//! What a node may ask for: Kubernetes' Node authorizer.
//!
//! A node reads Services, EndpointSlices, Namespaces, ServiceAccounts, Nodes and Machines; the pods that are bound to it, and
//! the ConfigMaps and Secrets that those refer to, each by its name. It changes its own Node, Machine and Lease and the status
//! of its pods, removes its pods, and makes Events and counts them up.
//!
//! A certificate outlives the machine that has it, and names are given again: who has proven which machine it is must still be
//! the one of that name.
//!
//! Here it is decided by who asks for what. Whether the pod is the node's, and which fields of its own objects it may change, is
//! [`crate::admission::NodeRestriction`]'s to say, which sees the object that the write will meet.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use podium_store::View;
use podium_types::kind::resources;
use podium_types::selector::FieldSelector;
use podium_types::{Kind, ObjectKey, References, namespace, object};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// What a node asks for.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) kind: Kind,
    pub(super) subresource: &'a str,
    pub(super) namespace: &'a str,
    /// Empty for collections.
    pub(super) name: &'a str,
    /// Of a collection: the field selector.
    pub(super) fields: &'a str,
}

/// A machine's uid as a user of the API: the fingerprint of its public identity key (SubjectPublicKeyInfo, DER).
#[must_use]
pub fn identity(public_key: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(public_key) {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Whether the machine with this uid is the one that has the name, if a uid was proven.
pub(super) fn is_present(node: &str, uid: Option<&str>, state: &View) -> Result<(), String> {
    let Some(uid) = uid else { return Ok(()) };
    let key = ObjectKey::new(resources::MACHINES, "", node);
    let Some(record) = state.get(&key.storage_key()) else {
        return Err(format!("there is no machine '{node}' any more"));
    };
    let machine: Value = serde_json::from_slice(&record.value).unwrap_or_default();
    let key = object::str_at(&machine, &["spec", "identityKey"]).unwrap_or_default();
    let known = STANDARD.decode(key).ok().filter(|key| !key.is_empty());
    if known.is_some_and(|key| identity(&key) == uid) {
        return Ok(());
    }
    Err(format!("another machine has the name '{node}' now"))
}

/// Whether the node may; the error is a reason for people, or empty.
pub(super) fn may(node: &str, verb: &str, asked: Asked<'_>, state: &View) -> Result<(), String> {
    let reads = matches!(verb, "get" | "list" | "watch");
    let changes = matches!(verb, "update" | "patch");
    let only = |allowed: bool| if allowed { Ok(()) } else { Err(String::new()) };
    match asked.kind {
        Kind::Service | Kind::EndpointSlice | Kind::Namespace | Kind::ServiceAccount => only(reads),
        Kind::Node | Kind::Machine => match changes && asked.name != node {
            true => Err(format!("node '{node}' may only change its own")),
            false => only(reads || changes),
        },
        Kind::Lease if asked.namespace == namespace::NODE_LEASES => match verb {
            // Its name is in the object.
            "create" => Ok(()),
            _ if asked.name == node => only(reads || changes || verb == "delete"),
            _ => Err("can only access node lease with the same name as the requesting node".into()),
        },
        Kind::CoreEvent | Kind::Event => match verb {
            // Before it counts one up.
            "get" => read_event(node, asked, state),
            _ => only(verb == "create" || changes),
        },
        Kind::Pod => match (asked.subresource, verb) {
            ("" | "status", "get") => read_pod(node, asked, state),
            ("", "list" | "watch") => select_pods(node, asked.fields),
            ("", "delete") | ("status", "update" | "patch") => Ok(()),
            _ => Err(String::new()),
        },
        Kind::ConfigMap | Kind::Secret if !reads => {
            Err("can only read resources of this type".into())
        }
        Kind::ConfigMap | Kind::Secret => match single(asked).as_deref() {
            None => Err("can only read single resources of this type, by their names".into()),
            Some(name) if refers(node, Asked { name, ..asked }, state) => Ok(()),
            Some(_) => Err(unrelated(node)),
        },
        Kind::Lease
        | Kind::Deployment
        | Kind::ReplicaSet
        | Kind::Scale
        | Kind::Binding
        | Kind::Eviction
        | Kind::Status
        | Kind::DeleteOptions => Err(String::new()),
    }
}

fn unrelated(node: &str) -> String {
    format!("no relationship found between node '{node}' and this object")
}

/// The one object that is meant, by its path or by a selector, as those who watch one do.
fn single(asked: Asked<'_>) -> Option<String> {
    if !asked.name.is_empty() {
        return Some(asked.name.to_owned());
    }
    let selector = FieldSelector::parse(asked.kind, asked.fields).ok()?;
    let name = selector.exact("metadata.name").filter(|name| !name.is_empty())?;
    (!asked.namespace.is_empty()).then(|| name.to_owned())
}

/// A pod that is bound to the node; that there is none of the name, the node may know.
fn read_pod(node: &str, asked: Asked<'_>, state: &View) -> Result<(), String> {
    let key = ObjectKey::new(resources::PODS, asked.namespace, asked.name);
    let Some(record) = state.get(&key.storage_key()) else { return Ok(()) };
    let pod: Value = serde_json::from_slice(&record.value).unwrap_or_default();
    if is_on(node, &pod) { Ok(()) } else { Err(unrelated(node)) }
}

/// One about the node or a pod of it. That a pod is gone hides nothing: what it did on the node was the node's to tell.
fn read_event(node: &str, asked: Asked<'_>, state: &View) -> Result<(), String> {
    let key = ObjectKey::new(resources::EVENTS, asked.namespace, asked.name);
    let Some(record) = state.get(&key.storage_key()) else { return Ok(()) };
    let event: Value = serde_json::from_slice(&record.value).unwrap_or_default();
    let about = |field| object::str_at(&event, &["involvedObject", field]).unwrap_or_default();
    match about("kind") {
        "Node" if about("name") == node => Ok(()),
        "Pod" => {
            let (namespace, name) = (about("namespace"), about("name"));
            read_pod(node, Asked { namespace, name, ..asked }, state)
        }
        _ => Err(unrelated(node)),
    }
}

fn select_pods(node: &str, fields: &str) -> Result<(), String> {
    let selector = FieldSelector::parse(Kind::Pod, fields);
    if selector.is_ok_and(|selector| selector.exact("spec.nodeName") == Some(node)) {
        return Ok(());
    }
    Err(format!("can only list/watch pods with the field selector spec.nodeName={node}"))
}

fn is_on(node: &str, pod: &Value) -> bool {
    object::str_at(pod, &["spec", "nodeName"]) == Some(node)
}

/// Whether a pod on the node names the ConfigMap or Secret.
fn refers(node: &str, asked: Asked<'_>, state: &View) -> bool {
    let prefix = ObjectKey::prefix(&resources::PODS, Some(asked.namespace));
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
    use podium_store::{EphemeralStore, Operation, StoreHandle, Transaction, TransactionId};
    use podium_types::GroupResource;
    use serde_json::json;

    use super::*;

    /// With the pods `p` on n1, which refers to the ConfigMap `seen` and the Secret `key`, and `q` on n2; and events about both, about a
    /// pod that is gone, and about the Nodes n1 and n2.
    fn state() -> View {
        let store = EphemeralStore::default();
        let pod = json!({"spec": {"nodeName": "n1", "volumes": [{"name": "v", "configMap": {"name": "seen"}}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}]}]}});
        let other = json!({"spec": {"nodeName": "n2", "containers": []}});
        let put = |resource: &GroupResource, name: &str, object: &Value| Operation::Put {
            key: ObjectKey::new(resource.clone(), "default", name).storage_key().into(),
            value: object.to_string().into_bytes().into(),
        };
        let mut operations =
            vec![put(&resources::PODS, "p", &pod), put(&resources::PODS, "q", &other)];
        for (kind, name) in [
            ("Pod", "p"),
            ("Pod", "q"),
            ("Pod", "gone"),
            ("Node", "n1"),
            ("Node", "n2"),
            ("Lease", "n1"),
        ] {
            let about = json!({"kind": kind, "namespace": "default", "name": name});
            let event = json!({"involvedObject": about});
            operations.push(put(&resources::EVENTS, &format!("{kind}-{name}"), &event));
        }
        let transaction = Transaction { id: TransactionId(1), guards: Vec::new(), operations };
        futures::executor::block_on(store.transact(transaction)).expect("committed");
        store.local()
    }

    /// `secrets/key`, `pods/p/status`, `pods?spec.nodeName=n1`
    fn asks(node: &str, verb: &str, kind: Kind, path: &str) -> Result<(), String> {
        let (path, fields) = path.split_once('?').unwrap_or((path, ""));
        let (name, subresource) = path.split_once('/').unwrap_or((path, ""));
        let namespace = match kind {
            Kind::Node | Kind::Machine => "",
            Kind::Lease => namespace::NODE_LEASES,
            _ => "default",
        };
        may(node, verb, Asked { kind, subresource, namespace, name, fields }, &state())
    }

    fn ask(verb: &str, kind: Kind, path: &str) -> bool {
        asks("n1", verb, kind, path).is_ok()
    }

    #[test]
    fn a_node_reads_what_its_pods_refer_to_and_by_name_alone() {
        assert!(ask("get", Kind::ConfigMap, "seen"));
        assert!(!ask("get", Kind::ConfigMap, "other"));
        assert!(ask("get", Kind::Secret, "key"));
        assert!(!ask("get", Kind::Secret, "seen"), "that is a ConfigMap");
        for verb in ["list", "watch"] {
            assert!(!ask(verb, Kind::Secret, ""));
            assert!(!ask(verb, Kind::ConfigMap, ""));
            assert!(ask(verb, Kind::Secret, "?metadata.name=key"));
            for others in
                ["?metadata.name=other", "?metadata.name!=key", "?type=Opaque", "?metadata.name="]
            {
                assert!(!ask(verb, Kind::Secret, others), "{verb} {others}");
            }
            let (kind, subresource, name) = (Kind::Secret, "", "");
            let (namespace, fields) = ("", "metadata.name=key,metadata.namespace=default");
            let asked = Asked { kind, subresource, namespace, name, fields };
            assert!(may("n1", verb, asked, &state()).is_err(), "in all namespaces");
        }
        for verb in ["create", "update", "patch", "delete"] {
            assert!(!ask(verb, Kind::Secret, "key"));
        }
        let refused = asks("n2", "get", Kind::Secret, "key").expect_err("it is n1's");
        assert_eq!(refused, "no relationship found between node 'n2' and this object");
    }

    #[test]
    fn a_name_is_the_machines_that_has_it_now() {
        let store = EphemeralStore::default();
        let put = |name: &str, spec: Value| Operation::Put {
            key: ObjectKey::new(resources::MACHINES, "", name).storage_key().into(),
            value: json!({"spec": spec}).to_string().into_bytes().into(),
        };
        let operations = vec![put("n1", json!({"identityKey": "AQI="})), put("n2", json!({}))];
        let transaction = Transaction { id: TransactionId(1), guards: Vec::new(), operations };
        futures::executor::block_on(store.transact(transaction)).expect("committed");
        let state = store.local();
        let (this, that) = (identity(&[1, 2]), identity(&[3]));
        assert_eq!(this.len(), 64);
        assert_eq!(is_present("n1", Some(&this), &state), Ok(()));
        assert_eq!(is_present("n3", None, &state), Ok(()), "nothing was proven");
        for (node, uid, why) in [
            ("n1", that.as_str(), "another machine has the name 'n1' now"),
            ("n1", "", "another machine has the name 'n1' now"),
            ("n2", &identity(&[]), "another machine has the name 'n2' now"),
            ("n3", &this, "there is no machine 'n3' any more"),
        ] {
            assert_eq!(is_present(node, Some(uid), &state), Err(why.to_owned()));
        }
    }

    #[test]
    fn a_node_reads_its_own_pods() {
        assert!(ask("get", Kind::Pod, "p") && ask("get", Kind::Pod, "p/status"));
        assert!(!ask("get", Kind::Pod, "q"));
        assert!(ask("get", Kind::Pod, "gone"), "the answer is that there is none");
        for verb in ["list", "watch"] {
            assert!(ask(verb, Kind::Pod, "?spec.nodeName=n1,status.phase=Running"));
            for all in ["", "?spec.nodeName=n2", "?spec.nodeName!=n1", "?status.phase=Running"] {
                assert!(!ask(verb, Kind::Pod, all), "{verb} {all}");
            }
        }
    }

    #[test]
    fn a_node_counts_up_the_events_of_its_own() {
        for kind in [Kind::CoreEvent, Kind::Event] {
            assert!(ask("create", kind, "") && ask("patch", kind, "Pod-p"));
            for about in ["Pod-p", "Pod-gone", "Node-n1", "none"] {
                assert!(ask("get", kind, about), "{about}");
            }
            for about in ["Pod-q", "Node-n2", "Lease-n1"] {
                assert!(!ask("get", kind, about), "{about}");
            }
            assert!(
                !ask("list", kind, "") && !ask("watch", kind, "") && !ask("delete", kind, "Pod-p")
            );
        }
    }

    #[test]
    fn a_node_makes_and_enters_no_pods() {
        for (verb, path) in [
            ("create", ""),
            ("update", "p"),
            ("patch", "p"),
            ("deletecollection", "?spec.nodeName=n1"),
            ("create", "p/binding"),
            ("create", "p/eviction"),
            ("create", "p/exec"),
            ("get", "p/exec"),
            ("create", "p/attach"),
            ("get", "p/log"),
        ] {
            assert!(!ask(verb, Kind::Pod, path), "{verb} {path}");
        }
        assert!(!ask("create", Kind::Deployment, ""));
    }

    #[test]
    fn a_node_changes_only_what_has_its_name() {
        for kind in [Kind::Node, Kind::Machine] {
            for path in ["n1", "n1/status"] {
                assert!(ask("patch", kind, path) && ask("update", kind, path));
            }
            for path in ["n2", "n2/status"] {
                assert!(!ask("patch", kind, path) && !ask("update", kind, path));
            }
            assert!(ask("watch", kind, "") && ask("get", kind, "n2"));
            assert!(!ask("create", kind, ""), "a voter makes it, for who joins");
            assert!(!ask("delete", kind, "n1"));
        }
        assert!(ask("update", Kind::Lease, "n1") && ask("create", Kind::Lease, ""));
        assert!(!ask("update", Kind::Lease, "n2") && !ask("list", Kind::Lease, ""));
    }
}
