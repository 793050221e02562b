//! Golden lines: what is wrong with an object by itself.

use serde_json::{Value, json};

use super::{container, deployment, pod, refused, service};
use crate::kind::Kind;

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
