use std::time::Duration;

use podium_control::testing::Cluster;
use podium_control::testing::objects::{self, node_key, pod_key};
use podium_control::{Propagation, Settings, Step, controllers, pods};
use podium_types::ObjectKey;
use podium_types::k8s::api::core::v1::Pod;
use podium_types::kind::resources;
use serde_json::{Value, json};

use crate::{assert_at_rest, cluster};

fn config_map(name: &str, owners: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "ownerReferences": owners},
    })
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(resources::CONFIG_MAPS, "default", name)
}

fn reference(cluster: &Cluster, name: &str, blocks: bool) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": cluster.api.uid(&key(name)),
        "blockOwnerDeletion": blocks,
    })
}

fn put(cluster: &mut Cluster, name: &str, owners: &[(&str, bool)]) {
    let owners = owners.iter().map(|(owner, blocks)| reference(cluster, owner, *blocks)).collect();
    cluster.put(config_map(name, &Value::Array(owners)));
}

fn delete(cluster: &mut Cluster, name: &str, propagation: Propagation) {
    let uid = cluster.api.uid(&key(name));
    cluster
        .call(&Step::Delete { key: key(name), uid, grace_seconds: None, propagation })
        .expect("deleted");
}

fn there(cluster: &Cluster, names: &[&str]) -> Vec<bool> {
    names.iter().map(|name| cluster.api.get(&key(name)).is_some()).collect()
}

#[test]
fn chain_of_dependents_goes_after_its_owner_in_the_background() {
    let mut cluster = cluster(0);
    put(&mut cluster, "a", &[]);
    put(&mut cluster, "b", &[("a", false)]);
    put(&mut cluster, "c", &[("b", false)]);
    cluster.settle();
    delete(&mut cluster, "a", Propagation::Background);
    assert_eq!(there(&cluster, &["a", "b", "c"]), [false, true, true]);
    cluster.settle();
    assert_eq!(there(&cluster, &["a", "b", "c"]), [false, false, false]);
    assert_at_rest(&cluster);
}

#[test]
fn foreground_owner_goes_after_its_blocking_dependents() {
    let mut cluster = cluster(0);
    put(&mut cluster, "a", &[]);
    put(&mut cluster, "b", &[("a", true)]);
    put(&mut cluster, "c", &[("b", true)]);
    cluster.settle();
    delete(&mut cluster, "a", Propagation::Foreground);
    for choice in 0..600 {
        cluster.turn(choice * 3 % 64);
        let present = there(&cluster, &["a", "b", "c"]);
        assert!(present[0] || !present[1], "the owner went before its dependent");
        assert!(present[1] || !present[2], "the owner went before its dependent");
    }
    cluster.settle();
    assert_eq!(there(&cluster, &["a", "b", "c"]), [false, false, false]);
    assert_at_rest(&cluster);
}

#[test]
fn orphaned_dependents_stay_without_the_reference() {
    let mut cluster = cluster(0);
    put(&mut cluster, "a", &[]);
    put(&mut cluster, "b", &[("a", true)]);
    put(&mut cluster, "c", &[("b", true)]);
    cluster.settle();
    delete(&mut cluster, "a", Propagation::Orphan);
    cluster.settle();
    assert_eq!(there(&cluster, &["a", "b", "c"]), [false, true, true]);
    let left = cluster.api.get(&key("b")).expect("b");
    assert!(left["metadata"].get("ownerReferences").is_none());
    assert_at_rest(&cluster);
}

#[test]
fn object_with_one_owner_left_loses_only_the_other_reference() {
    let mut cluster = cluster(0);
    put(&mut cluster, "a", &[]);
    put(&mut cluster, "b", &[]);
    put(&mut cluster, "c", &[("a", true), ("b", true)]);
    cluster.settle();
    delete(&mut cluster, "a", Propagation::Foreground);
    cluster.settle();
    assert_eq!(there(&cluster, &["a", "b", "c"]), [false, true, true]);
    let owners = &cluster.api.get(&key("c")).expect("c")["metadata"]["ownerReferences"];
    assert_eq!(owners.as_array().map(Vec::len), Some(1));
    assert_at_rest(&cluster);
}

#[test]
fn reference_to_an_object_that_never_was_counts_as_gone() {
    let mut cluster = cluster(0);
    let owners = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "no-such"}]);
    cluster.put(config_map("lost", &owners));
    cluster.settle();
    assert_eq!(there(&cluster, &["lost"]), [false]);
}

#[test]
fn owner_in_another_namespace_does_not_count() {
    let mut cluster = cluster(0);
    cluster.put(objects::namespace("other"));
    put(&mut cluster, "a", &[]);
    cluster.settle();
    let mut stray = config_map("stray", &json!([reference(&cluster, "a", false)]));
    stray["metadata"]["namespace"] = json!("other");
    cluster.put(stray);
    cluster.settle();
    assert!(cluster.api.get(&ObjectKey::new(resources::CONFIG_MAPS, "other", "stray")).is_none());
}

#[test]
fn circle_of_owners_can_be_deleted() {
    let mut cluster = cluster(0);
    put(&mut cluster, "a", &[]);
    put(&mut cluster, "b", &[("a", false)]);
    let back = json!({"metadata": {"ownerReferences": [reference(&cluster, "b", false)]}});
    cluster.patch(&key("a"), None, back);
    cluster.settle();
    assert_eq!(there(&cluster, &["a", "b"]), [true, true]);
    delete(&mut cluster, "a", Propagation::Background);
    cluster.settle();
    assert_eq!(there(&cluster, &["a", "b"]), [false, false]);
    assert_at_rest(&cluster);
}

#[test]
fn pods_of_a_removed_node_are_removed_and_replaced() {
    let mut cluster = cluster(2);
    cluster.put(objects::replica_set("web", 4));
    cluster.settle();
    cluster.settle_for(Duration::from_secs(60));
    let uid = cluster.api.uid(&node_key("n1"));
    let step = Step::Delete {
        key: node_key("n1"),
        uid,
        grace_seconds: None,
        propagation: Propagation::Background,
    };
    cluster.call(&step).expect("deleted");
    cluster.settle();
    let all = cluster.api.typed::<Pod>();
    assert_eq!(all.len(), 4);
    assert!(all.iter().all(|(_, pod)| pods::node_name(pod) == "n2"));
    assert_at_rest(&cluster);
}

#[test]
fn pod_for_a_node_that_never_comes_is_removed_after_a_while() {
    let mut cluster = cluster(0);
    let mut early = objects::pod("early", "a", 10);
    early["spec"]["nodeName"] = json!("n9");
    cluster.put(early);
    cluster.settle();
    assert!(cluster.api.get(&pod_key("default", "early")).is_some());
    cluster.settle_for(Duration::from_secs(41));
    assert!(cluster.api.get(&pod_key("default", "early")).is_none());
    assert_at_rest(&cluster);
}

#[test]
fn oldest_finished_pods_beyond_the_limit_are_removed() {
    let settings = Settings { terminated_pods: 3, ..Settings::default() };
    let mut cluster = Cluster::with(controllers(&settings));
    cluster.put(objects::namespace("default"));
    cluster.put(objects::node("n1", 2000, 20));
    for index in 0..6 {
        let name = format!("job{index}");
        cluster.put(objects::pod(&name, "a", 10));
        cluster.settle();
        let done = json!({"status": {"phase": "Succeeded"}});
        cluster.patch(&pod_key("default", &name), Some("status"), done);
        cluster.pass(Duration::from_secs(1));
    }
    cluster.settle();
    let left: Vec<String> =
        cluster.api.typed::<Pod>().into_iter().map(|(key, _)| key.name).collect();
    assert_eq!(left, ["job3", "job4", "job5"]);
}
