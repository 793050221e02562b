use std::time::Duration;

use podium_control::testing::Cluster;
use podium_control::testing::objects::{self, namespace_key, pod_key};
use podium_control::{Propagation, Step};
use podium_types::ObjectKey;
use podium_types::k8s::api::core::v1::Event;
use podium_types::kind::resources;
use serde_json::json;

use crate::{assert_at_rest, cluster};

fn delete(cluster: &mut Cluster, key: ObjectKey) {
    let uid = cluster.api.uid(&key);
    let propagation = Propagation::Background;
    cluster.call(&Step::Delete { key, uid, grace_seconds: None, propagation }).expect("deleted");
}

#[test]
fn namespace_is_furnished_and_what_is_taken_comes_back() {
    let mut cluster = cluster(0);
    let account = ObjectKey::new(resources::SERVICE_ACCOUNTS, "default", "default");
    let ca = ObjectKey::new(resources::CONFIG_MAPS, "default", "kube-root-ca.crt");
    assert!(cluster.api.get(&account).is_some());
    assert_eq!(cluster.api.get(&ca).expect("the CA")["data"], json!({"ca.crt": "PEM"}));
    delete(&mut cluster, account.clone());
    cluster.patch(&ca, None, json!({"data": {"ca.crt": "forged", "more": "x"}}));
    cluster.settle();
    assert!(cluster.api.get(&account).is_some());
    assert_eq!(cluster.api.get(&ca).expect("the CA")["data"], json!({"ca.crt": "PEM"}));
    assert_at_rest(&cluster);
}

#[test]
fn deleted_namespace_loses_its_pods_first_and_then_everything() {
    let mut cluster = cluster(1);
    cluster.put(objects::deployment("web", 2, "image:1"));
    cluster.put(objects::service("web", "web"));
    cluster.put(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"},
    }));
    cluster.settle();
    delete(&mut cluster, namespace_key("default"));
    let secret = ObjectKey::new(resources::SECRETS, "default", "s");
    for choice in 0..4000 {
        cluster.turn(choice * 5 % 64);
        let pods = cluster.api.list(&resources::PODS).count();
        assert!(pods == 0 || cluster.api.get(&secret).is_some(), "the secret went before the pods");
    }
    cluster.settle();
    assert!(cluster.api.get(&namespace_key("default")).is_none());
    assert_at_rest(&cluster);
}

#[test]
fn namespace_that_waits_for_a_finalizer_says_so() {
    let mut cluster = cluster(1);
    let mut stuck = objects::pod("stuck", "a", 10);
    stuck["metadata"]["finalizers"] = json!(["example.com/hold"]);
    cluster.put(stuck);
    cluster.settle();
    delete(&mut cluster, namespace_key("default"));
    for choice in 0..1000 {
        cluster.turn(choice * 5 % 64);
    }
    let found = cluster.api.get(&namespace_key("default")).expect("still there");
    let conditions = found["status"]["conditions"].as_array().expect("conditions");
    let message = |kind: &str| {
        let condition = conditions.iter().find(|condition| condition["type"] == kind);
        condition.map(|c| (c["status"].clone(), c["message"].clone())).expect("the condition")
    };
    assert_eq!(message("NamespaceFinalizersRemaining").0, "True");
    assert_eq!(
        message("NamespaceFinalizersRemaining").1,
        "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
    );
    cluster.patch(&pod_key("default", "stuck"), None, json!({"metadata": {"finalizers": null}}));
    cluster.settle();
    assert!(cluster.api.get(&namespace_key("default")).is_none());
}

#[test]
fn events_are_removed_an_hour_after_they_last_occurred() {
    let mut cluster = cluster(1);
    cluster.put(objects::pod("a", "a", 10));
    cluster.settle();
    assert_eq!(cluster.api.typed::<Event>().len(), 1);
    cluster.settle_for(Duration::from_secs(3590));
    assert_eq!(cluster.api.typed::<Event>().len(), 1);
    cluster.settle_for(Duration::from_secs(20));
    assert_eq!(cluster.api.typed::<Event>().len(), 0);
    assert_at_rest(&cluster);
}
