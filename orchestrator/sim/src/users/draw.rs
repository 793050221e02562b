//! The objects and changes that users come up with.

use podium_api::pipeline::Propagation;
use serde_json::{Value, json};

use crate::executor;

fn below(bound: u64) -> u64 {
    executor::with(|core| core.below(bound))
}

fn one_in(n: u64) -> bool {
    executor::with(|core| core.one_in(n))
}

fn app() -> String {
    format!("app-{}", below(3))
}

fn pod_spec(restart: &str) -> Value {
    let mut container = json!({
        "name": "main",
        "image": format!("image-{}:v{}", below(2), below(4)),
        "resources": { "requests": { "cpu": format!("{}m", 100 * (1 + below(5))) } },
    });
    if one_in(3) {
        container["readinessProbe"] = json!({ "tcpSocket": { "port": 80 }, "periodSeconds": 10 });
    }
    json!({
        "containers": [container],
        "restartPolicy": restart,
        "terminationGracePeriodSeconds": below(12),
    })
}

/// A few select the same pods as another Deployment.
pub(super) fn deployment(namespace: &str) -> Value {
    let app = app();
    let name = if one_in(6) { format!("twin-{app}") } else { app.clone() };
    let strategy = match below(4) {
        0 => json!({ "type": "Recreate" }),
        1 => {
            json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 0, "maxUnavailable": 1 } })
        }
        2 => {
            json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1 + below(2), "maxUnavailable": 0 } })
        }
        _ => {
            json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" } })
        }
    };
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "replicas": below(5),
            "selector": { "matchLabels": { "app": app } },
            "strategy": strategy,
            "revisionHistoryLimit": below(4),
            "template": { "metadata": { "labels": { "app": app } }, "spec": pod_spec("Always") },
        },
    })
}

/// A change of a Deployment: its size, its template, or both.
pub(super) fn change() -> Value {
    let replicas = json!({ "spec": { "replicas": below(6) } });
    let image = format!("image-{}:v{}", below(2), below(6));
    let template = json!({
        "spec": { "template": { "metadata": { "annotations": { "change": image } } } },
    });
    match below(5) {
        0 | 1 => replicas,
        2 | 3 => template,
        _ => json!({
            "spec": {
                "replicas": below(6),
                "template": { "metadata": { "annotations": { "change": image } } },
            },
        }),
    }
}

pub(super) fn service(namespace: &str) -> Value {
    let app = app();
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": format!("{app}-{}", below(3)), "namespace": namespace },
        "spec": { "selector": { "app": app }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    })
}

pub(super) fn pod(namespace: &str) -> Value {
    let restart = if one_in(2) { "Never" } else { "OnFailure" };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": format!("job-{}", below(6)), "namespace": namespace, "labels": { "app": app() } },
        "spec": pod_spec(restart),
    })
}

pub(super) fn grace() -> Option<i64> {
    match below(4) {
        0 => Some(0),
        1 => Some(i64::try_from(below(10)).unwrap_or(0)),
        _ => None,
    }
}

pub(super) fn propagation() -> Propagation {
    match below(4) {
        0 => Propagation::Foreground,
        1 => Propagation::Orphan,
        _ => Propagation::Background,
    }
}
