//! Each planted bug breaks a promise that the checks find.

use podium_control::bugs::{Bug, plant};
use podium_control::testing::Promise;
use podium_control::testing::objects::{self, deployment_key, pod_key};
use podium_control::{Propagation, Step};
use serde_json::json;

use crate::cluster;

fn broken_by(bug: Bug) -> Vec<Promise> {
    let mut cluster = cluster(2);
    let mut web = objects::deployment("web", 3, "image:1");
    web["spec"]["strategy"] =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    cluster.put(web);
    let mut foreign = objects::pod("foreign", "web2", 10);
    foreign["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "Node", "name": "n1", "controller": true,
        "uid": cluster.api.uid(&objects::node_key("n1")),
    }]);
    cluster.put(foreign);
    cluster.put(objects::pod("full", "full", 1500));
    cluster.settle();
    plant(Some(bug));
    let patch = json!({"spec": {"template": {"spec": objects::pod_spec("image:2", 100)}}});
    cluster.patch(&deployment_key("default", "web"), None, patch);
    cluster.put(objects::replica_set("web2", 1));
    let full = pod_key("default", "full");
    let uid = cluster.api.uid(&full);
    let propagation = Propagation::Background;
    cluster
        .call(&Step::Delete { key: full, uid, grace_seconds: None, propagation })
        .expect("deleted");
    cluster.put(objects::pod("next1", "next", 1500));
    cluster.put(objects::pod("next2", "next", 1500));
    for _ in 0..500 {
        // The nodes do nothing, and a bug may well go on for ever.
        cluster.advance();
    }
    plant(None);
    cluster.broken().to_vec()
}

#[test]
fn double_bind_is_found() {
    let broken = broken_by(Bug::DoubleBind);
    assert!(broken.iter().any(|p| matches!(p, Promise::BoundOnce(_))), "{broken:?}");
}

#[test]
fn exceeded_surge_is_found() {
    let broken = broken_by(Bug::ExceedSurge);
    assert!(broken.iter().any(|p| matches!(p, Promise::WithinSurge(_))), "{broken:?}");
}

#[test]
fn adoption_of_a_foreign_pod_is_found() {
    let broken = broken_by(Bug::AdoptForeignPod);
    assert!(broken.iter().any(|p| matches!(p, Promise::OwnerStays(_))), "{broken:?}");
}

#[test]
fn forgotten_terminating_pod_is_found() {
    let broken = broken_by(Bug::ForgetTerminatingPods);
    assert!(broken.iter().any(|p| matches!(p, Promise::NodeNotOverfull(_))), "{broken:?}");
}

#[test]
fn nothing_is_found_without_a_bug() {
    // The same story with a mistake that it does not touch.
    plant(None);
    let mut cluster = cluster(2);
    cluster.put(objects::deployment("web", 3, "image:1"));
    cluster.settle();
    assert_eq!(cluster.broken(), []);
}
