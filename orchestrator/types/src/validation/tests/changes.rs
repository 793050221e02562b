//! Golden lines: what may not become of an object.

use serde_json::{Value, json};

use super::{container, deployment, pod, refused_update, service};
use crate::kind::Kind;

#[test]
fn what_is_immutable_stays() {
    let old = container(json!({}));
    let mut image = old.clone();
    image["spec"]["containers"][0]["image"] = json!("j:2");
    assert_eq!(refused_update(Kind::Pod, image, old.clone()), Vec::<String>::new());
    let changed = container(json!({"command": ["x"], "env": [{"name": "A", "value": "b"}]}));
    let lines = refused_update(Kind::Pod, changed, old.clone());
    assert!(lines[0].starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`"), "{lines:?}");
    assert!(
        lines[0].ends_with("changed: spec.containers[0].command, spec.containers[0].env"),
        "{lines:?}"
    );
    let added =
        pod(json!({"containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "i:1"}]}));
    assert_eq!(
        refused_update(Kind::Pod, added, old),
        ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    );

    let other = deployment(
        json!({"selector": {"matchLabels": {"c": "d"}}, "template": {"metadata": {"labels": {"a": "b", "c": "d"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}),
    );
    assert_eq!(
        refused_update(Kind::Deployment, other, deployment(json!({}))),
        [r#"spec.selector: Invalid value: {"matchLabels":{"c":"d"}}: field is immutable"#]
    );

    let address = |address: &str| {
        service(json!({"clusterIP": address, "clusterIPs": [address], "ports": [{"port": 1}]}))
    };
    assert_eq!(
        refused_update(Kind::Service, address("None"), address("10.96.0.5")),
        [r#"spec.clusterIPs[0]: Invalid value: ["None"]: may not change once set"#]
    );

    let fixed = |value: &str| json!({"metadata": {"name": "c", "namespace": "n"}, "immutable": true, "data": {"a": value}});
    assert_eq!(
        refused_update(Kind::ConfigMap, fixed("2"), fixed("1")),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
    let typed = |kind: &str| json!({"metadata": {"name": "c", "namespace": "n"}, "type": kind});
    assert_eq!(
        refused_update(Kind::Secret, typed("b"), typed("a")),
        [r#"type: Invalid value: "b": field is immutable"#]
    );
}

#[test]
fn an_object_that_is_going_gets_no_new_finalizers() {
    let going = |finalizers: Value| json!({"metadata": {"name": "c", "namespace": "n", "deletionTimestamp": "2026-11-21T10:00:00Z", "finalizers": finalizers}});
    assert_eq!(
        refused_update(Kind::ConfigMap, going(json!(["a.b/c", "a.b/d"])), going(json!(["a.b/c"]))),
        [
            r#"metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{"a.b/d"}"#
        ]
    );
    assert_eq!(
        refused_update(Kind::ConfigMap, going(json!([])), going(json!(["a.b/c"]))),
        Vec::<String>::new()
    );
}
