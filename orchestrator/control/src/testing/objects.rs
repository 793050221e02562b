//! Objects for tests, as users and nodes would write them.

use podium_types::kind::resources;
use podium_types::{Kind, Now, ObjectKey, object};
use serde_json::{Value, json};

/// The key of an object, by its own `kind`.
///
/// # Panics
/// When its kind is not stored.
#[must_use]
pub fn key_of(value: &Value) -> ObjectKey {
    let text = |field: &str| value[field].as_str().unwrap_or_default();
    let (group, version) = text("apiVersion").rsplit_once('/').unwrap_or(("", text("apiVersion")));
    let kind = Kind::find(group, version, text("kind"));
    let resource = kind.and_then(Kind::resource).expect("a kind that is stored");
    object::key_of(resource, value)
}

/// `namespaces name`
#[must_use]
pub fn namespace_key(name: &str) -> ObjectKey {
    ObjectKey::new(resources::NAMESPACES, "", name)
}

/// `nodes name`
#[must_use]
pub fn node_key(name: &str) -> ObjectKey {
    ObjectKey::new(resources::NODES, "", name)
}

/// `pods namespace/name`
#[must_use]
pub fn pod_key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(resources::PODS, namespace, name)
}

/// `deployments.apps namespace/name`
#[must_use]
pub fn deployment_key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(resources::DEPLOYMENTS, namespace, name)
}

/// `services namespace/name`
#[must_use]
pub fn service_key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(resources::SERVICES, namespace, name)
}

/// A namespace.
#[must_use]
pub fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// A node that is ready, with this many CPUs (thousandths) and room for this many pods.
#[must_use]
pub fn node(name: &str, milli_cpu: u32, pods: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {
            "allocatable": {
                "cpu": format!("{milli_cpu}m"), "memory": "8Gi", "pods": pods.to_string(),
            },
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

/// The spec of a pod with one container that asks for this much CPU.
#[must_use]
pub fn pod_spec(image: &str, milli_cpu: u32) -> Value {
    json!({"containers": [{
        "name": "main", "image": image,
        "ports": [{"name": "web", "containerPort": 8080, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": format!("{milli_cpu}m")}},
    }]})
}

/// A pod in `default` with the label `app`.
#[must_use]
pub fn pod(name: &str, app: &str, milli_cpu: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": app}},
        "spec": pod_spec("image:1", milli_cpu),
    })
}

/// A Deployment in `default` whose pods have the label `app` with its name.
#[must_use]
pub fn deployment(name: &str, replicas: i32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod_spec(image, 100)},
        },
    })
}

/// A ReplicaSet in `default`, like [`deployment`].
#[must_use]
pub fn replica_set(name: &str, replicas: i32) -> Value {
    let mut set = deployment(name, replicas, "image:1");
    set["kind"] = json!("ReplicaSet");
    set
}

/// A Service in `default` that sends port 80 to the port named `web` of the pods with this `app`.
#[must_use]
pub fn service(name: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "clusterIP": "10.96.0.20", "ipFamilies": ["IPv4"], "selector": {"app": app},
            "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}],
        },
    })
}

/// The part of a pod's status that says whether it is ready.
#[must_use]
pub fn readiness(ready: bool, now: Now) -> Value {
    let status = if ready { "True" } else { "False" };
    json!({"phase": "Running", "conditions": [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": now.time()},
        {"type": "Ready", "status": status, "lastTransitionTime": now.time()},
    ]})
}

/// An address that is a function of a uid.
#[must_use]
pub fn address(uid: &str) -> String {
    let number: u32 = uid.trim_start_matches("uid-").parse().unwrap_or_default();
    format!("10.244.{}.{}", number / 250, 1 + number % 250)
}
