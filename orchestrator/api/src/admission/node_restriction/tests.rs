use podium_store::{EphemeralStore, Operation as Write, StoreHandle, Transaction, TransactionId};
use podium_types::GroupResource;
use serde_json::json;

use super::*;
use crate::registry;

const PODS: GroupResource = resources::PODS;
const NODES: GroupResource = resources::NODES;
const MACHINES: GroupResource = resources::MACHINES;

fn machine(name: &str, number: u8) -> Value {
    let address = format!("10.77.0.{number}");
    json!({"metadata": {"name": name},
        "spec": {"identityKey": format!("identity of {name}"), "publicKey": format!("tunnel of {name}"),
            "endpoint": format!("{address}:51820"), "podCIDRs": [format!("10.244.{number}.0/24")]},
        "status": {"voter": false, "addresses": [
            {"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]}})
}

/// With the machines n1 and n4.
fn state() -> View {
    let store = EphemeralStore::default();
    let put = |(name, number)| Write::Put {
        key: ObjectKey::new(MACHINES, "", name).storage_key().into(),
        value: machine(name, number).to_string().into_bytes().into(),
    };
    let operations = [("n1", 11), ("n4", 14)].map(put).to_vec();
    let transaction = Transaction { id: TransactionId(1), guards: Vec::new(), operations };
    futures::executor::block_on(store.transact(transaction)).expect("committed");
    store.local()
}

fn review_by(
    user: &User,
    operation: Operation,
    resource: &GroupResource,
    old: Option<&Value>,
    new: &Value,
) -> Result<(), String> {
    let resource = registry::find(resource).expect("served");
    let state = state();
    let (subresource, namespace, dry_run) = ("", "", false);
    let review =
        Review { user, operation, resource, subresource, namespace, old, state: &state, dry_run };
    futures::executor::block_on(NodeRestriction.admit(review, new)).map_err(|status| {
        assert_eq!((status.code, status.reason), (403, "Forbidden"));
        status.message
    })
}

/// As n4, from its own address.
fn change(resource: &GroupResource, old: &Value, new: &Value) -> Result<(), String> {
    let user = User::node("n4", Some([10, 77, 0, 14].into()));
    review_by(&user, Operation::Update, resource, Some(old), new)
}

fn refused(changed: Result<(), String>, why: &str) {
    let message = changed.expect_err("refused");
    assert!(message.contains(why), "{message}");
}

#[test]
fn a_node_touches_no_pods_of_others() {
    let user = User::node("n4", None);
    let pod = |node: &str| json!({"metadata": {"name": "p"}, "spec": {"nodeName": node}});
    let (mine, other) = (pod("n4"), pod("n1"));
    for operation in [Operation::Update, Operation::Delete] {
        assert_eq!(review_by(&user, operation, &PODS, Some(&mine), &mine), Ok(()));
        // What it writes does not make the pod its own.
        let refusal = review_by(&user, operation, &PODS, Some(&other), &mine);
        refused(refusal, "pods \"p\" is forbidden: node \"n4\" can only ");
    }
    refused(review_by(&user, Operation::Create, &PODS, None, &mine), "can not create pods");
    let part = User::system("node:n4");
    assert_eq!(review_by(&part, Operation::Create, &PODS, None, &other), Ok(()), "of a voter");
}

#[test]
fn a_node_does_not_choose_its_pods() {
    let node = json!({"metadata": {"name": "n4", "labels": {"kubernetes.io/os": "linux", "team": "a"}},
        "spec": {"podCIDR": "10.244.14.0/24", "podCIDRs": ["10.244.14.0/24"]}});
    let with = |path: &str, value: Value| {
        let mut changed = node.clone();
        let (parent, field) = path.rsplit_once('.').expect("a path");
        let parent = format!("/{}", parent.replace('.', "/"));
        changed.pointer_mut(&parent).expect("there")[field] = value;
        change(&NODES, &node, &changed)
    };
    assert_eq!(with("spec.unschedulable", json!(true)), Ok(()));
    let labels = |name: &str| {
        let mut labels = node["metadata"]["labels"].clone();
        labels[name] = json!("x");
        with("metadata.labels", labels)
    };
    for own in ["team", "example.com/a", "kubernetes.io/arch", "node.kubernetes.io/kind"] {
        assert_eq!(labels(own), Ok(()), "{own}");
    }
    for foreign in [
        "node-restriction.kubernetes.io/vault",
        "node-role.kubernetes.io/control-plane",
        "kubernetes.io/x",
        "a.k8s.io/x",
    ] {
        refused(labels(foreign), &format!("is not allowed to modify labels: {foreign}"));
    }
    assert_eq!(with("metadata.labels", json!({"kubernetes.io/os": "linux"})), Ok(()));
    refused(with("spec.taints", json!([{"key": "k", "effect": "NoSchedule"}])), "taints");
    refused(with("spec.podCIDRs", json!(["10.244.11.0/24"])), "pod addresses");
    refused(with("spec.podCIDR", json!("10.244.11.0/24")), "pod addresses");
    refused(with("metadata.ownerReferences", json!([{"name": "x"}])), "ownerReferences");
}

#[test]
fn a_machine_is_who_the_voters_say() {
    let old = machine("n4", 14);
    assert_eq!(change(&MACHINES, &old, &old), Ok(()));
    for (path, value, why) in [
        ("/spec/identityKey", json!("identity of n1"), "its identity"),
        ("/spec/identityKey", Value::Null, "its identity"),
        ("/spec/podCIDRs", json!(["10.244.0.0/16"]), "pod addresses"),
        ("/status/voter", json!(true), "is not allowed to call itself a voter"),
        ("/spec/publicKey", json!("tunnel of n1"), "the public key of machine \"n1\""),
        ("/spec/endpoint", json!("10.77.0.11:51820"), "address 10.77.0.11 of machine \"n1\""),
    ] {
        let mut new = old.clone();
        *new.pointer_mut(path).expect("there") = value;
        refused(change(&MACHINES, &old, &new), why);
    }
    let mut new = old.clone();
    new["spec"]["publicKey"] = json!("another");
    new["spec"]["endpoint"] = json!("10.77.0.24:51820");
    assert_eq!(change(&MACHINES, &old, &new), Ok(()));
    let (mut voter, mut demoted) = (old.clone(), old.clone());
    voter["status"]["voter"] = json!(true);
    demoted["status"].as_object_mut().expect("a map").remove("voter");
    assert_eq!(change(&MACHINES, &voter, &voter), Ok(()), "nothing new");
    assert_eq!(change(&MACHINES, &voter, &demoted), Ok(()));
}

#[test]
fn an_address_of_another_is_taken_by_speaking_from_it() {
    let old = machine("n4", 14);
    let claim = |last: u8, from: Option<u8>| {
        let mut new = old.clone();
        new["status"]["addresses"] =
            json!([{"type": "InternalIP", "address": format!("10.77.0.{last}")}]);
        let user = User::node("n4", from.map(|last| [10, 77, 0, last].into()));
        review_by(&user, Operation::Update, &MACHINES, Some(&old), &new)
    };
    assert_eq!(claim(24, None), Ok(()), "nobody's");
    assert_eq!(claim(14, None), Ok(()), "its own");
    for from in [None, Some(14), Some(24)] {
        refused(claim(11, from), "is not allowed to take address 10.77.0.11 of machine \"n1\"");
    }
    assert_eq!(claim(11, Some(11)), Ok(()));
}

#[test]
fn a_lease_has_the_name_of_its_node() {
    let user = User::node("n4", None);
    let lease = |name: &str| {
        let lease = json!({"metadata": {"name": name, "namespace": "kube-node-lease"}});
        review_by(&user, Operation::Create, &resources::LEASES, None, &lease)
    };
    assert_eq!(lease("n4"), Ok(()));
    refused(lease("n1"), "can only access node lease with the same name");
}
