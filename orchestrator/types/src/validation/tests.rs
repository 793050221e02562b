mod changes;
mod content;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{create, invalid_message, update};
use crate::kind::Kind;
use crate::schema::{FieldValidation, check};
use crate::{defaults, strategy};

/// The lines against an object that is made as the API makes it.
fn refused(kind: Kind, object: Value) -> Vec<String> {
    let object = prepared(kind, object);
    create(kind, &object).iter().map(ToString::to_string).collect()
}

fn prepared(kind: Kind, object: Value) -> Value {
    let mut object =
        check(kind, object, FieldValidation::Strict).expect("the shape of its kind").object;
    defaults::apply(kind, &mut object);
    strategy::prepare_create(kind, &mut object);
    object
}

fn refused_update(kind: Kind, new: Value, old: Value) -> Vec<String> {
    let (mut new, old) = (prepared(kind, new), prepared(kind, old));
    strategy::prepare_update(kind, &mut new, &old, None);
    update(kind, &new, &old).iter().map(ToString::to_string).collect()
}

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec})
}

fn container(more: Value) -> Value {
    let mut container = json!({"name": "c", "image": "i:1"});
    for (field, value) in more.as_object().expect("fields") {
        container[field] = value.clone();
    }
    pod(json!({"containers": [container]}))
}

fn deployment(spec: Value) -> Value {
    let mut whole = json!({"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}});
    for (field, value) in spec.as_object().expect("fields") {
        whole[field] = value.clone();
    }
    json!({"metadata": {"name": "d", "namespace": "default"}, "spec": whole})
}

fn service(spec: Value) -> Value {
    json!({"metadata": {"name": "s", "namespace": "default"}, "spec": spec})
}

#[test]
fn good_objects_of_every_kind_are_taken() {
    let meta = json!({"name": "x", "namespace": "default"});
    let cluster = json!({"name": "x"});
    let good = [
        (
            Kind::Pod,
            container(
                json!({"ports": [{"containerPort": 80, "name": "http"}], "env": [{"name": "A", "value": "b"}, {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}}],
            "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "1", "memory": "64Mi"}}, "readinessProbe": {"exec": {"command": ["true"]}}}),
            ),
        ),
        (
            Kind::Deployment,
            deployment(
                json!({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "50%"}}}),
            ),
        ),
        (Kind::ReplicaSet, deployment(json!({}))),
        (Kind::Service, service(json!({"selector": {"a": "b"}, "ports": [{"port": 80}]}))),
        (Kind::Service, service(json!({"clusterIP": "None", "selector": {"a": "b"}}))),
        (Kind::Service, service(json!({"type": "ExternalName", "externalName": "a.example.com"}))),
        (
            Kind::ConfigMap,
            json!({"metadata": meta, "data": {"a.b": "c"}, "binaryData": {"d": "AA=="}}),
        ),
        (Kind::Secret, json!({"metadata": meta, "stringData": {"a": "b"}})),
        (Kind::ServiceAccount, json!({"metadata": meta})),
        (Kind::Namespace, json!({"metadata": cluster})),
        (
            Kind::Node,
            json!({"metadata": cluster, "spec": {"podCIDRs": ["10.244.0.0/24"], "taints": [{"key": "a", "effect": "NoSchedule"}]}}),
        ),
        (Kind::Machine, json!({"metadata": cluster, "spec": {"endpoint": "10.0.2.15:51820"}})),
        (
            Kind::EndpointSlice,
            json!({"metadata": meta, "addressType": "IPv4", "endpoints": [{"addresses": ["10.244.0.2"]}], "ports": [{"name": "a", "port": 80}]}),
        ),
        (
            Kind::Lease,
            json!({"metadata": meta, "spec": {"holderIdentity": "h", "leaseDurationSeconds": 40}}),
        ),
        (
            Kind::CoreEvent,
            json!({"metadata": meta, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "reason": "Killing"}),
        ),
    ];
    for (kind, object) in good {
        assert_eq!(refused(kind, object), Vec::<String>::new(), "{kind:?}");
    }
}

#[test]
fn the_message_names_kind_group_name_and_every_field() {
    let object =
        json!({"metadata": {"name": "Bad_Name", "namespace": "default"}, "data": {"a/b": "1"}});
    let causes = create(Kind::ConfigMap, &object);
    let reasons: Vec<&str> = causes.iter().map(|cause| cause.reason.as_str()).collect();
    assert_eq!(reasons, ["FieldValueInvalid", "FieldValueInvalid"]);
    let message = invalid_message(Kind::ConfigMap, "Bad_Name", &causes);
    assert!(message.starts_with(r#"ConfigMap "Bad_Name" is invalid: [metadata.name: Invalid value: "Bad_Name": a lowercase RFC 1123 subdomain must consist"#), "{message}");
    assert!(
        message.contains(r#", data[a/b]: Invalid value: "a/b": a valid config key"#),
        "{message}"
    );
    let causes =
        create(Kind::Deployment, &prepared(Kind::Deployment, deployment(json!({"replicas": -1}))));
    assert_eq!(
        invalid_message(Kind::Deployment, "d", &causes),
        r#"Deployment.apps "d" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"#
    );
}

#[test]
fn metadata_is_checked_for_every_kind() {
    let with = |metadata: Value| refused(Kind::ConfigMap, json!({"metadata": metadata}));
    assert_eq!(
        with(json!({"namespace": "n"})),
        ["metadata.name: Required value: name or generateName is required"]
    );
    assert_eq!(with(json!({"name": "a"})), ["metadata.namespace: Required value"]);
    let labels =
        with(json!({"name": "a", "namespace": "n", "labels": {"x y": "ok", "z": "not ok"}}));
    assert!(
        labels[0].starts_with(r#"metadata.labels: Invalid value: "x y": name part must consist"#),
        "{labels:?}"
    );
    assert!(
        labels[1].starts_with(r#"metadata.labels: Invalid value: "not ok": a valid label must be"#),
        "{labels:?}"
    );
    let annotations =
        json!({"name": "a", "namespace": "n", "annotations": {"k": "v".repeat(300_000)}});
    assert_eq!(
        with(annotations),
        ["metadata.annotations: Too long: may not be more than 262144 bytes"]
    );
    let generated = with(json!({"name": "web-xx", "generateName": "web-", "namespace": "n"}));
    assert_eq!(generated, Vec::<String>::new());
    assert_eq!(
        refused(Kind::Namespace, json!({"metadata": {"name": "a", "namespace": "b"}})),
        ["metadata.namespace: Forbidden: not allowed on this type"]
    );
    assert_eq!(
        refused(Kind::Namespace, json!({"metadata": {"name": "a.b"}})),
        [r#"metadata.name: Invalid value: "a.b": must not contain dots"#]
    );
}

#[test]
fn secrets_have_what_their_type_needs() {
    let secret = |kind: &str, data: Value| {
        refused(
            Kind::Secret,
            json!({"metadata": {"name": "s", "namespace": "n"}, "type": kind, "data": data}),
        )
    };
    assert_eq!(
        secret("kubernetes.io/tls", json!({"tls.crt": "AA=="})),
        ["data[tls.key]: Required value"]
    );
    assert_eq!(
        secret("kubernetes.io/dockerconfigjson", json!({})),
        ["data[.dockerconfigjson]: Required value"]
    );
    assert_eq!(secret("Opaque", json!({})), Vec::<String>::new());
}

/// Objects that are sometimes nearly right.
fn spec() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!("a")),
        Just(json!("")),
        Just(json!("A/b")),
        Just(json!(-1)),
        Just(json!(80)),
        Just(json!("Always")),
        Just(json!("1Gi")),
        Just(json!(true)),
    ];
    let name = prop::sample::select(vec![
        "containers",
        "initContainers",
        "name",
        "image",
        "ports",
        "port",
        "containerPort",
        "volumes",
        "volumeMounts",
        "mountPath",
        "env",
        "valueFrom",
        "fieldRef",
        "fieldPath",
        "resources",
        "limits",
        "requests",
        "cpu",
        "livenessProbe",
        "exec",
        "command",
        "selector",
        "matchLabels",
        "template",
        "metadata",
        "labels",
        "spec",
        "type",
        "clusterIP",
        "tolerations",
        "key",
        "operator",
        "secret",
        "items",
    ]);
    leaf.prop_recursive(6, 80, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(name.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn defaults_are_idempotent_and_validation_never_panics(spec in spec(), other in spec(), kind in prop::sample::select(Kind::ALL.to_vec())) {
        let object = |spec: Value| json!({"metadata": {"name": "a", "namespace": "b"}, "spec": spec});
        let mut objects = Vec::new();
        for spec in [spec, other] {
            // Also what decoding would have refused: it must not bring the server down.
            let mut object = check(kind, object(spec.clone()), FieldValidation::Ignore).map_or_else(|_| object(spec), |decoded| decoded.object);
            defaults::apply(kind, &mut object);
            let once = object.clone();
            defaults::apply(kind, &mut object);
            prop_assert_eq!(&object, &once);
            strategy::prepare_create(kind, &mut object);
            let _ = create(kind, &object);
            let _ = crate::table::cells(kind, &object, jiff::Timestamp::UNIX_EPOCH);
            objects.push(object);
        }
        let (old, mut new) = (objects.remove(0), objects.remove(0));
        strategy::prepare_update(kind, &mut new, &old, None);
        let _ = update(kind, &new, &old);
    }
}
