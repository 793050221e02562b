use serde_json::{Value, json};

use super::{prepare_create, prepare_update};
use crate::kind::Kind;

fn created(kind: Kind, mut object: Value) -> Value {
    prepare_create(kind, &mut object);
    object
}

fn updated(kind: Kind, mut new: Value, old: &Value, subresource: Option<&str>) -> Value {
    prepare_update(kind, &mut new, old, subresource);
    new
}

#[test]
fn a_new_object_has_no_status_but_its_first() {
    let pod = created(
        Kind::Pod,
        json!({"metadata": {"name": "a"}, "spec": {"containers": []}, "status": {"phase": "Running"}}),
    );
    assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    assert_eq!(pod["metadata"]["generation"], 1);
    let namespace = created(Kind::Namespace, json!({"metadata": {"name": "a", "generation": 9}}));
    assert_eq!(
        namespace,
        json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})
    );
    let deployment =
        created(Kind::Deployment, json!({"metadata": {}, "spec": {}, "status": {"replicas": 7}}));
    assert_eq!(deployment["status"], json!({}));
}

#[test]
fn the_main_path_keeps_the_status_and_counts_changes_of_the_spec() {
    let old = json!({"metadata": {"name": "a", "generation": 3}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
    let new =
        json!({"metadata": {"name": "a"}, "spec": {"replicas": 2}, "status": {"replicas": 9}});
    let stored = updated(Kind::ReplicaSet, new, &old, None);
    assert_eq!(
        stored,
        json!({"metadata": {"name": "a", "generation": 4}, "spec": {"replicas": 2}, "status": {"replicas": 1}})
    );
    let labelled = json!({"metadata": {"name": "a", "labels": {"x": "y"}, "generation": 9}, "spec": {"replicas": 1}});
    assert_eq!(updated(Kind::ReplicaSet, labelled, &old, None)["metadata"]["generation"], 3);
}

#[test]
fn the_status_path_keeps_all_but_the_status() {
    let old = json!({"metadata": {"name": "a", "labels": {"x": "1"}, "generation": 3, "resourceVersion": "4"}, "spec": {"replicas": 1}, "status": {}});
    let new = json!({"metadata": {"name": "a", "labels": {"x": "2"}, "annotations": {"n": "m"}, "resourceVersion": "5"}, "spec": {"replicas": 2}, "status": {"replicas": 2}});
    assert_eq!(
        updated(Kind::Deployment, new, &old, Some("status")),
        json!({"metadata": {"name": "a", "labels": {"x": "1"}, "annotations": {"n": "m"}, "generation": 3, "resourceVersion": "5"}, "spec": {"replicas": 1}, "status": {"replicas": 2}})
    );
}

#[test]
fn a_service_keeps_what_it_was_given() {
    let old = json!({"metadata": {}, "spec": {"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}});
    let new = json!({"metadata": {}, "spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "TCP"}]}});
    let kept = updated(Kind::Service, new, &old, None);
    assert_eq!(kept["spec"]["clusterIPs"], json!(["10.96.0.9"]));
    assert_eq!(
        kept["spec"]["ports"],
        json!([{"port": 80, "protocol": "TCP", "nodePort": 30001}, {"port": 81, "protocol": "TCP"}])
    );
    let mut inner = old.clone();
    inner["spec"]["type"] = json!("ClusterIP");
    let inner = updated(Kind::Service, inner, &old, None);
    assert_eq!(inner["spec"]["ports"], json!([{"port": 80, "protocol": "TCP"}]));
    let external = json!({"metadata": {}, "spec": {"type": "ExternalName", "externalName": "a.b", "clusterIP": "10.96.0.9"}});
    assert!(updated(Kind::Service, external, &old, None)["spec"].get("clusterIP").is_none());
}
