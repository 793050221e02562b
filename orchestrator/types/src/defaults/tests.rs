use serde_json::{Value, json};

use super::apply;
use crate::kind::Kind;
use crate::schema::{FieldValidation, check};

fn defaulted(kind: Kind, mut object: Value) -> Value {
    apply(kind, &mut object);
    let once = object.clone();
    apply(kind, &mut object);
    assert_eq!(object, once, "defaults are idempotent");
    let checked =
        check(kind, once, FieldValidation::Strict).expect("defaults have the shape of the kind");
    checked.object
}

#[test]
fn a_bare_pod_gets_what_the_real_server_gives_it() {
    let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "nginx", "ports": [{"containerPort": 80}],
        "resources": {"limits": {"cpu": "0.5", "memory": "1Gi"}, "requests": {"cpu": "100m"}},
        "livenessProbe": {"httpGet": {"port": 80}}}], "serviceAccountName": "s"}});
    assert_eq!(
        defaulted(Kind::Pod, pod),
        json!({
            "metadata": {"name": "a"},
            "spec": {
                "containers": [{
                    "name": "c", "image": "nginx", "imagePullPolicy": "Always",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "1Gi"}},
                    "livenessProbe": {"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                }],
                "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
                "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30,
                "serviceAccount": "s", "serviceAccountName": "s",
            },
            "status": {"phase": "Pending"},
        })
    );
}

#[test]
fn the_pull_policy_follows_the_tag() {
    let cases = [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.27", "IfNotPresent"),
        ("localhost:5000/nginx", "Always"),
        ("localhost:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:00", "IfNotPresent"),
        ("nginx:latest@sha256:00", "Always"),
    ];
    for (image, policy) in cases {
        let pod =
            defaulted(Kind::Pod, json!({"spec": {"containers": [{"name": "c", "image": image}]}}));
        assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], policy, "{image}");
    }
}

#[test]
fn volumes_without_a_source_are_empty_folders_and_files_are_readable() {
    let pod = defaulted(
        Kind::Pod,
        json!({"spec": {"containers": [], "volumes": [
            {"name": "a"}, {"name": "b", "configMap": {"name": "x"}}, {"name": "c", "hostPath": {"path": "/"}},
            {"name": "d", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}, {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}},
        ]}}),
    );
    assert_eq!(
        pod["spec"]["volumes"],
        json!([
            {"name": "a", "emptyDir": {}}, {"name": "b", "configMap": {"name": "x", "defaultMode": 420}}, {"name": "c", "hostPath": {"path": "/", "type": ""}},
            {"name": "d", "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}},
                {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}]}}]}},
        ])
    );
}

#[test]
fn pods_on_the_host_network_take_their_ports_there() {
    let pod = defaulted(
        Kind::Pod,
        json!({"spec": {"hostNetwork": true, "containers": [{"name": "c", "image": "a:1", "ports": [{"containerPort": 80}]}]}}),
    );
    assert_eq!(
        pod["spec"]["containers"][0]["ports"],
        json!([{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}])
    );
}

#[test]
fn references_to_fields_and_resources_are_complete() {
    let env = json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]);
    let pod = defaulted(
        Kind::Pod,
        json!({"spec": {"containers": [{"name": "c", "image": "a:1", "env": env}]}}),
    );
    assert_eq!(
        pod["spec"]["containers"][0]["env"],
        json!([
            {"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
            {"name": "B", "valueFrom": {"resourceFieldRef": {"divisor": "0", "resource": "limits.cpu"}}},
        ])
    );
}

#[test]
fn a_deployment_rolls_a_quarter_at_a_time_and_its_template_gets_no_pod_defaults() {
    let deployment = defaulted(
        Kind::Deployment,
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "a:1", "resources": {"limits": {"cpu": "1"}}}]}}}}),
    );
    let spec = &deployment["spec"];
    assert_eq!(
        spec["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    assert_eq!(
        (&spec["replicas"], &spec["revisionHistoryLimit"], &spec["progressDeadlineSeconds"]),
        (&json!(1), &json!(10), &json!(600))
    );
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["containers"][0]["resources"], json!({"limits": {"cpu": "1"}}));
    assert!(pod.get("enableServiceLinks").is_none() && pod["dnsPolicy"] == "ClusterFirst");
    let recreate = defaulted(Kind::Deployment, json!({"spec": {"strategy": {"type": "Recreate"}}}));
    assert_eq!(recreate["spec"]["strategy"], json!({"type": "Recreate"}));
}

#[test]
fn services_of_each_type_get_their_policies() {
    let service = |spec: Value| defaulted(Kind::Service, json!({"spec": spec}))["spec"].clone();
    assert_eq!(
        service(
            json!({"ports": [{"port": 80}, {"port": 53, "protocol": "UDP", "targetPort": "dns"}]})
        ),
        json!({
            "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}, {"port": 53, "protocol": "UDP", "targetPort": "dns"}],
        })
    );
    assert_eq!(
        service(json!({"type": "ExternalName", "externalName": "a.b"})),
        json!({"type": "ExternalName", "externalName": "a.b", "sessionAffinity": "None"})
    );
    assert_eq!(service(json!({"type": "NodePort"}))["externalTrafficPolicy"], "Cluster");
    let sticky = service(json!({"sessionAffinity": "ClientIP"}));
    assert_eq!(sticky["sessionAffinityConfig"], json!({"clientIP": {"timeoutSeconds": 10800}}));
}

#[test]
fn string_data_of_a_secret_becomes_data() {
    let secret = defaulted(
        Kind::Secret,
        json!({"stringData": {"a": "x"}, "data": {"a": "AAAA", "b": "AAAA"}}),
    );
    assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "eA==", "b": "AAAA"}}));
}

#[test]
fn a_namespace_is_labelled_with_its_name() {
    let namespace = defaulted(Kind::Namespace, json!({"metadata": {"name": "a"}}));
    assert_eq!(
        namespace,
        json!({"metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}}, "status": {"phase": "Active"}})
    );
}
