//! Pods, and templates of pods.

use serde_json::{Map, Value, json};

use super::{absent, each, nonzero, text};
use crate::object::{child_mut, map_of};
use crate::quantity;

/// Read by owner and nobody's to write but the owner: `0644`.
const VOLUME_MODE: i64 = 0o644;
const TOKEN_SECONDS: i64 = 3600;
const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// A pod itself: what a template has, and what only shows when the pod is made of it.
pub(super) fn pod(object: &mut Value) {
    let spec = child_mut(map_of(object), "spec");
    pod_spec(spec);
    absent(spec, "enableServiceLinks", true);
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool).unwrap_or_default();
    for list in ["initContainers", "containers"] {
        for container in each(spec, list) {
            if let Some(Value::Object(resources)) = container.get_mut("resources") {
                request_what_is_limited(resources);
            }
            if host_network {
                for port in each(container, "ports") {
                    let number =
                        port.get("containerPort").and_then(Value::as_i64).unwrap_or_default();
                    nonzero(port, "hostPort", number);
                }
            }
        }
    }
    text(child_mut(map_of(object), "status"), "phase", "Pending");
}

pub(super) fn template(template: &mut Map<String, Value>) {
    child_mut(template, "metadata");
    pod_spec(child_mut(template, "spec"));
}

fn pod_spec(spec: &mut Map<String, Value>) {
    text(spec, "dnsPolicy", "ClusterFirst");
    text(spec, "restartPolicy", "Always");
    text(spec, "schedulerName", "default-scheduler");
    absent(spec, "securityContext", json!({}));
    absent(spec, "terminationGracePeriodSeconds", 30);
    one_service_account(spec);
    for list in CONTAINER_LISTS {
        for item in each(spec, list) {
            container(item);
        }
    }
    for item in each(spec, "volumes") {
        volume(item);
    }
    if let Some(Value::Object(resources)) = spec.get_mut("resources") {
        round_resources(resources);
    }
    if let Some(Value::Object(overhead)) = spec.get_mut("overhead") {
        round_up(overhead);
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are always given.
fn one_service_account(spec: &mut Map<String, Value>) {
    let named = |field: &str| {
        spec.get(field).filter(|name| name.as_str().is_some_and(|name| !name.is_empty())).cloned()
    };
    if let Some(name) = named("serviceAccountName").or_else(|| named("serviceAccount")) {
        spec.insert("serviceAccountName".to_owned(), name.clone());
        spec.insert("serviceAccount".to_owned(), name);
    }
}

fn container(container: &mut Map<String, Value>) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = pull_policy(image);
    text(container, "imagePullPolicy", policy);
    text(container, "terminationMessagePath", "/dev/termination-log");
    text(container, "terminationMessagePolicy", "File");
    round_resources(child_mut(container, "resources"));
    for port in each(container, "ports") {
        text(port, "protocol", "TCP");
    }
    for variable in each(container, "env") {
        if let Some(Value::Object(source)) = variable.get_mut("valueFrom") {
            references(source);
        }
    }
    for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(Value::Object(found)) = container.get_mut(field) {
            probe(found);
        }
    }
    if let Some(Value::Object(lifecycle)) = container.get_mut("lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(Value::Object(hook)) = lifecycle.get_mut(hook) {
                http_get(hook);
            }
        }
    }
}

/// A moving tag is pulled every time; a fixed one, or a digest, once.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) =
        image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let tag = name.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    match (tag, digest) {
        (Some("latest"), _) | (None, None) => "Always",
        _ => "IfNotPresent",
    }
}

fn probe(probe: &mut Map<String, Value>) {
    nonzero(probe, "timeoutSeconds", 1);
    nonzero(probe, "periodSeconds", 10);
    nonzero(probe, "successThreshold", 1);
    nonzero(probe, "failureThreshold", 3);
    http_get(probe);
    if let Some(Value::Object(grpc)) = probe.get_mut("grpc") {
        absent(grpc, "service", "");
    }
}

fn http_get(handler: &mut Map<String, Value>) {
    if let Some(Value::Object(request)) = handler.get_mut("httpGet") {
        text(request, "path", "/");
        text(request, "scheme", "HTTP");
    }
}

fn volume(volume: &mut Map<String, Value>) {
    if volume.keys().all(|field| field == "name") {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(Value::Object(source)) = volume.get_mut(source) {
            absent(source, "defaultMode", VOLUME_MODE);
        }
    }
    if let Some(Value::Object(path)) = volume.get_mut("hostPath") {
        absent(path, "type", "");
    }
    if let Some(Value::Object(downward)) = volume.get_mut("downwardAPI") {
        downward_items(downward);
    }
    if let Some(Value::Object(projected)) = volume.get_mut("projected") {
        for source in each(projected, "sources") {
            if let Some(Value::Object(token)) = source.get_mut("serviceAccountToken") {
                absent(token, "expirationSeconds", TOKEN_SECONDS);
            }
            if let Some(Value::Object(downward)) = source.get_mut("downwardAPI") {
                downward_items(downward);
            }
        }
    }
}

fn downward_items(downward: &mut Map<String, Value>) {
    for item in each(downward, "items") {
        references(item);
    }
}

/// A field of the pod, or a resource of a container: as it is written, in whole units.
fn references(source: &mut Map<String, Value>) {
    if let Some(Value::Object(field)) = source.get_mut("fieldRef") {
        text(field, "apiVersion", "v1");
    }
    if let Some(Value::Object(resource)) = source.get_mut("resourceFieldRef") {
        absent(resource, "divisor", "0");
    }
}

fn request_what_is_limited(resources: &mut Map<String, Value>) {
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    if limits.is_empty() {
        return;
    }
    let requests = child_mut(resources, "requests");
    for (name, amount) in limits {
        requests.entry(name).or_insert(amount);
    }
}

fn round_resources(resources: &mut Map<String, Value>) {
    for list in ["limits", "requests"] {
        if let Some(Value::Object(amounts)) = resources.get_mut(list) {
            round_up(amounts);
        }
    }
}

/// Amounts of resources have no more than three decimal places.
fn round_up(amounts: &mut Map<String, Value>) {
    for amount in amounts.values_mut() {
        if let Some(exact) = quantity::of(amount) {
            let rounded = exact.rounded_to_milli();
            if rounded != exact {
                *amount = Value::from(rounded.to_string());
            }
        }
    }
}
