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
fn pods_that_cannot_run_are_refused() {
    let cases = [
        (pod(json!({})), "spec.containers: Required value"),
        (
            pod(json!({"containers": [{"name": "a", "image": "i"}, {"name": "a", "image": "i"}]})),
            r#"spec.containers[1].name: Duplicate value: "a""#,
        ),
        (pod(json!({"containers": [{"name": "a"}]})), "spec.containers[0].image: Required value"),
        (
            container(json!({"imagePullPolicy": "Sometimes"})),
            r#"spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never""#,
        ),
        (
            container(json!({"ports": [{"containerPort": 70000}]})),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            container(json!({"ports": [{"name": "x"}]})),
            "spec.containers[0].ports[0].containerPort: Required value",
        ),
        (
            pod(
                json!({"hostNetwork": true, "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 9}, {"containerPort": 9}]}]}),
            ),
            r#"spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//9""#,
        ),
        (
            container(json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}})),
            r#"spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1"#,
        ),
        (
            container(json!({"resources": {"requests": {"memory": "-1"}}})),
            r#"spec.containers[0].resources.requests[memory]: Invalid value: "-1": must be greater than or equal to 0"#,
        ),
        (
            container(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})),
            r#"spec.containers[0].volumeMounts[0].name: Not found: "v""#,
        ),
        (
            container(json!({"livenessProbe": {}})),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            container(
                json!({"livenessProbe": {"exec": {"command": ["a"]}, "tcpSocket": {"port": 1}}}),
            ),
            "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
        ),
        (
            container(
                json!({"livenessProbe": {"exec": {"command": ["a"]}, "successThreshold": 2}}),
            ),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            container(json!({"env": [{"name": "a=b"}]})),
            r#"spec.containers[0].env[0].name: Invalid value: "a=b": a valid environment variable name must consist only of printable ASCII characters other than '='"#,
        ),
        (
            container(
                json!({"env": [{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]}),
            ),
            r#"spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.x": error converting fieldPath: field label not supported: spec.x"#,
        ),
        (
            pod(json!({"restartPolicy": "Maybe", "containers": [{"name": "c", "image": "i"}]})),
            r#"spec.restartPolicy: Unsupported value: "Maybe": supported values: "Always", "OnFailure", "Never""#,
        ),
        (
            pod(
                json!({"tolerations": [{"operator": "Equal"}], "containers": [{"name": "c", "image": "i"}]}),
            ),
            r#"spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, which means "match all values and all keys""#,
        ),
        (
            pod(
                json!({"volumes": [{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}], "containers": [{"name": "c", "image": "i"}]}),
            ),
            "spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type",
        ),
        (
            pod(
                json!({"volumes": [{"name": "v", "secret": {"secretName": "s", "defaultMode": 1000}}], "containers": [{"name": "c", "image": "i"}]}),
            ),
            "spec.volumes[0].secret.defaultMode: Invalid value: 1000: must be a number between 0 and 0777 (octal), both inclusive",
        ),
    ];
    for (object, line) in cases {
        assert_eq!(refused(Kind::Pod, object), [line]);
    }
}

#[test]
fn what_podium_does_not_do_yet_is_refused_by_name() {
    let with = |field: &str, value: Value| {
        pod(json!({"containers": [{"name": "c", "image": "i"}], field: value}))
    };
    let cases = [
        (
            with("volumes", json!([{"name": "v", "nfs": {"server": "s", "path": "/"}}])),
            "spec.volumes[0].nfs",
        ),
        (
            with("volumes", json!([{"name": "v", "persistentVolumeClaim": {"claimName": "x"}}])),
            "spec.volumes[0].persistentVolumeClaim",
        ),
        (with("runtimeClassName", json!("kata")), "spec.runtimeClassName"),
        (with("shareProcessNamespace", json!(true)), "spec.shareProcessNamespace"),
        (
            with("initContainers", json!([{"name": "i", "image": "i", "restartPolicy": "Always"}])),
            "spec.initContainers[0].restartPolicy",
        ),
        (
            container(json!({"livenessProbe": {"grpc": {"port": 1}}})),
            "spec.containers[0].livenessProbe.grpc",
        ),
        (
            container(
                json!({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "x"}}}),
            ),
            "spec.containers[0].securityContext.seccompProfile.type",
        ),
        (
            container(json!({"ports": [{"containerPort": 80, "hostPort": 8080}]})),
            "spec.containers[0].ports[0].hostPort",
        ),
        (
            with(
                "affinity",
                json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname"}]}}),
            ),
            "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution",
        ),
    ];
    for (object, field) in cases {
        assert_eq!(
            refused(Kind::Pod, object),
            [format!("{field}: Forbidden: not supported by Podium yet")]
        );
    }
}

#[test]
fn ways_to_a_service_that_the_nodes_do_not_have_are_refused_by_name() {
    let cases = [
        (json!({"type": "NodePort", "ports": [{"port": 1}]}), "spec.type"),
        (json!({"sessionAffinity": "ClientIP", "ports": [{"port": 1}]}), "spec.sessionAffinity"),
        (json!({"externalIPs": ["192.0.2.1"], "ports": [{"port": 1}]}), "spec.externalIPs"),
        (json!({"ipFamilies": ["IPv6"], "ports": [{"port": 1}]}), "spec.ipFamilies"),
    ];
    for (spec, field) in cases {
        let lines = refused(Kind::Service, service(spec));
        assert_eq!(lines, [format!("{field}: Forbidden: not supported by Podium yet")]);
    }
}

#[test]
fn workloads_that_could_never_work_are_refused() {
    let cases = [
        (deployment(json!({"selector": null})), "spec.selector: Required value"),
        (
            deployment(json!({"selector": {"matchLabels": {"a": "c"}}})),
            r#"spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match template `labels`"#,
        ),
        (
            deployment(json!({"selector": {}})),
            "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
        ),
        (
            deployment(json!({"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}})),
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            deployment(
                json!({"strategy": {"rollingUpdate": {"maxSurge": "0%", "maxUnavailable": 0}}}),
            ),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ),
        (
            deployment(json!({"strategy": {"type": "Fast"}})),
            r#"spec.strategy.type: Unsupported value: "Fast": supported values: "Recreate", "RollingUpdate""#,
        ),
        (
            deployment(json!({"minReadySeconds": 600})),
            "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
        ),
        (
            deployment(
                json!({"template": {"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}),
            ),
            r#"spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always""#,
        ),
        (
            deployment(
                json!({"template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}}}),
            ),
            "spec.template.spec.containers[0].image: Required value",
        ),
    ];
    for (object, line) in cases {
        assert_eq!(refused(Kind::Deployment, object), [line]);
    }
}

#[test]
fn services_that_make_no_sense_are_refused() {
    let cases = [
        (service(json!({"ports": []})), "spec.ports: Required value"),
        (
            service(json!({"ports": [{"port": 0}]})),
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            service(json!({"ports": [{"name": "a", "port": 1}, {"port": 2}]})),
            "spec.ports[1].name: Required value",
        ),
        (
            service(json!({"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 1}]})),
            r#"spec.ports[1]: Duplicate value: {"port":1,"protocol":"TCP"}"#,
        ),
        (
            service(json!({"type": "Cluster", "ports": [{"port": 1}]})),
            r#"spec.type: Unsupported value: "Cluster": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort""#,
        ),
        (
            service(json!({"ports": [{"port": 1, "nodePort": 30000}]})),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (
            service(json!({"clusterIP": "x", "ports": [{"port": 1}]})),
            r#"spec.clusterIPs[0]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#,
        ),
        (service(json!({"type": "ExternalName"})), "spec.externalName: Required value"),
    ];
    for (object, line) in cases {
        let lines = refused(Kind::Service, object);
        assert!(lines.first().is_some_and(|first| first == line), "{lines:?}");
    }
    let mut digit = service(json!({"ports": [{"port": 1}]}));
    digit["metadata"]["name"] = json!("1s");
    assert!(
        refused(Kind::Service, digit)[0]
            .starts_with(r#"metadata.name: Invalid value: "1s": a DNS-1035 label"#)
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
    fn validation_never_panics(spec in spec(), other in spec(), kind in prop::sample::select(Kind::ALL.to_vec())) {
        let object = |spec: Value| json!({"metadata": {"name": "a", "namespace": "b"}, "spec": spec});
        let mut objects = Vec::new();
        for spec in [spec, other] {
            // Also what decoding would have refused: it must not bring the server down.
            let mut object = check(kind, object(spec.clone()), FieldValidation::Ignore).map_or_else(|_| object(spec), |decoded| decoded.object);
            defaults::apply(kind, &mut object);
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
