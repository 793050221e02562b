use podium_control::pods;
use podium_control::testing::Cluster;
use podium_control::testing::objects::{self, pod_key};
use podium_control::{Propagation, Step};
use podium_types::ObjectKey;
use podium_types::k8s::api::apps::v1::ReplicaSet;
use podium_types::k8s::api::core::v1::{Event, Pod};
use podium_types::kind::resources;
use serde_json::json;

use crate::{assert_at_rest, cluster};

fn set_key(name: &str) -> ObjectKey {
    ObjectKey::new(resources::REPLICA_SETS, "default", name)
}

fn names(cluster: &Cluster) -> Vec<String> {
    let pods = cluster.api.typed::<Pod>().into_iter();
    pods.filter(|(_, pod)| pods::active(pod)).map(|(key, _)| key.name).collect()
}

fn set(cluster: &Cluster, name: &str) -> ReplicaSet {
    podium_types::from_value(cluster.api.get(&set_key(name)).expect("the set")).expect("a set")
}

fn delete(cluster: &mut Cluster, key: &ObjectKey, grace_seconds: Option<i64>) {
    let uid = cluster.api.uid(key);
    let propagation = Propagation::Background;
    cluster
        .call(&Step::Delete { key: key.clone(), uid, grace_seconds, propagation })
        .expect("deleted");
}

#[test]
fn set_has_as_many_pods_as_it_says_and_reports_them() {
    let mut cluster = cluster(2);
    cluster.put(objects::replica_set("web", 3));
    cluster.settle();
    assert_eq!(names(&cluster).len(), 3);
    let status = set(&cluster, "web").status.expect("a status");
    assert_eq!(
        (status.replicas, status.ready_replicas, status.available_replicas),
        (3, Some(3), Some(3))
    );
    assert_eq!(status.observed_generation, Some(1));
    let created = cluster.api.typed::<Event>();
    let created = created.iter().filter(|(_, e)| e.reason.as_deref() == Some("SuccessfulCreate"));
    assert_eq!(created.count(), 3);
    assert_at_rest(&cluster);
}

#[test]
fn lost_pod_is_replaced_under_another_name() {
    let mut cluster = cluster(1);
    cluster.put(objects::replica_set("web", 2));
    cluster.settle();
    let before = names(&cluster);
    delete(&mut cluster, &pod_key("default", &before[0]), Some(0));
    cluster.settle();
    let after = names(&cluster);
    assert_eq!(after.len(), 2);
    assert!(!after.contains(&before[0]), "{after:?} has {}", before[0]);
    assert_at_rest(&cluster);
}

#[test]
fn terminating_pod_is_replaced_before_it_is_gone() {
    let mut cluster = cluster(1);
    cluster.put(objects::replica_set("web", 1));
    cluster.settle();
    let old = names(&cluster).remove(0);
    delete(&mut cluster, &pod_key("default", &old), None);
    cluster.settle_controllers();
    assert_eq!(names(&cluster).len(), 1);
    assert_eq!(cluster.api.typed::<Pod>().len(), 2);
    cluster.settle();
    assert_eq!(cluster.api.typed::<Pod>().len(), 1);
    assert_at_rest(&cluster);
}

#[test]
fn unready_pods_go_first_when_there_are_too_many() {
    let mut cluster = cluster(2);
    cluster.put(objects::replica_set("web", 4));
    cluster.settle();
    let sick = names(&cluster).remove(2);
    let unready = json!({"status": objects::readiness(false, cluster.now)});
    cluster.patch(&pod_key("default", &sick), Some("status"), unready);
    cluster.patch(&set_key("web"), None, json!({"spec": {"replicas": 3}}));
    cluster.settle();
    assert_eq!(names(&cluster).len(), 3);
    assert!(!names(&cluster).contains(&sick));
    assert_at_rest(&cluster);
}

#[test]
fn cheapest_pod_goes_first_and_crowded_nodes_give_first() {
    let mut cluster = cluster(2);
    cluster.put(objects::replica_set("web", 4));
    cluster.settle();
    let cheap = names(&cluster).remove(1);
    let cost =
        json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}}});
    cluster.patch(&pod_key("default", &cheap), None, cost);
    cluster.patch(&set_key("web"), None, json!({"spec": {"replicas": 2}}));
    cluster.settle();
    assert!(!names(&cluster).contains(&cheap));
    let pods = cluster.api.typed::<Pod>();
    let nodes: std::collections::BTreeSet<_> =
        pods.iter().map(|(_, pod)| pods::node_name(pod).to_owned()).collect();
    assert_eq!(nodes.len(), 2, "one pod is left on each node");
}

#[test]
fn free_pod_that_is_selected_is_adopted() {
    let mut cluster = cluster(1);
    cluster.put(objects::pod("stray", "web", 100));
    cluster.settle();
    cluster.put(objects::replica_set("web", 2));
    cluster.settle();
    assert_eq!(names(&cluster).len(), 2);
    let stray = cluster.api.get(&pod_key("default", "stray")).expect("the stray");
    let owner = podium_types::object::controller_of(stray).expect("an owner");
    assert_eq!((owner.kind, owner.name), ("ReplicaSet", "web"));
    assert_at_rest(&cluster);
}

#[test]
fn foreign_pod_is_left_alone() {
    let mut cluster = cluster(1);
    let mut foreign = objects::pod("foreign", "web", 100);
    foreign["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "Node", "name": "n1", "controller": true,
        "uid": cluster.api.uid(&objects::node_key("n1")),
    }]);
    cluster.put(foreign);
    cluster.put(objects::replica_set("web", 1));
    cluster.settle();
    assert_eq!(names(&cluster).len(), 2);
    assert_at_rest(&cluster);
}

#[test]
fn pod_that_loses_the_label_is_released_and_replaced() {
    let mut cluster = cluster(1);
    cluster.put(objects::replica_set("web", 1));
    cluster.settle();
    let first = names(&cluster).remove(0);
    let relabel = json!({"metadata": {"labels": {"app": "quarantine"}}});
    cluster.patch(&pod_key("default", &first), None, relabel);
    cluster.settle();
    assert_eq!(names(&cluster).len(), 2);
    let released = cluster.api.get(&pod_key("default", &first)).expect("the pod");
    assert!(podium_types::object::controller_of(released).is_none());
    assert_at_rest(&cluster);
}

#[test]
fn pod_counts_as_available_only_after_min_ready_seconds() {
    let mut cluster = cluster(1);
    let mut web = objects::replica_set("web", 1);
    web["spec"]["minReadySeconds"] = json!(10);
    cluster.put(web);
    cluster.settle();
    let status = set(&cluster, "web").status.expect("a status");
    assert_eq!((status.ready_replicas, status.available_replicas), (Some(1), None));
    cluster.settle_for(std::time::Duration::from_secs(11));
    let status = set(&cluster, "web").status.expect("a status");
    assert_eq!(status.available_replicas, Some(1));
    assert_at_rest(&cluster);
}

#[test]
fn refused_pod_is_reported_and_tried_again() {
    let mut cluster = cluster(1);
    cluster.put(objects::replica_set("web", 1));
    // The namespace starts to go before the controller has seen the set.
    delete(&mut cluster, &objects::namespace_key("default"), None);
    cluster.settle();
    assert!(cluster.api.get(&set_key("web")).is_none());
    assert!(names(&cluster).is_empty());
}
