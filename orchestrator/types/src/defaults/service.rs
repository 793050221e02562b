//! Services.

use serde_json::{Map, Value, json};

use super::{absent, each, text};
use crate::object::{child_mut, map_of};

/// Three hours.
const AFFINITY_SECONDS: i64 = 10_800;

pub(super) fn service(object: &mut Value) {
    let spec = child_mut(map_of(object), "spec");
    text(spec, "type", "ClusterIP");
    affinity(spec);
    let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    for port in each(spec, "ports") {
        text(port, "protocol", "TCP");
        let number = port.get("port").and_then(Value::as_i64).unwrap_or_default();
        if port.get("targetPort").is_none_or(|target| target == 0 || target == "") {
            port.insert("targetPort".to_owned(), number.into());
        }
    }
    let external_addresses =
        spec.get("externalIPs").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    let balanced = kind == "LoadBalancer";
    if balanced || kind == "NodePort" || (kind == "ClusterIP" && external_addresses) {
        text(spec, "externalTrafficPolicy", "Cluster");
    }
    if balanced {
        absent(spec, "allocateLoadBalancerNodePorts", true);
    }
    if kind != "ExternalName" {
        text(spec, "internalTrafficPolicy", "Cluster");
        text(spec, "ipFamilyPolicy", "SingleStack");
        absent(spec, "ipFamilies", json!(["IPv4"]));
    }
}

fn affinity(spec: &mut Map<String, Value>) {
    text(spec, "sessionAffinity", "None");
    match spec.get("sessionAffinity").and_then(Value::as_str) {
        Some("None") => {
            spec.remove("sessionAffinityConfig");
        }
        Some("ClientIP") => {
            let config = child_mut(spec, "sessionAffinityConfig");
            absent(child_mut(config, "clientIP"), "timeoutSeconds", AFFINITY_SECONDS);
        }
        _ => {}
    }
}
