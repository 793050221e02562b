//! Whether desired and observed have met: what must be true once faults, users and failures have ended.

use std::collections::{BTreeMap, BTreeSet};

use podium_types::ObjectKey;
use serde_json::Value;

use crate::agent::host::Host;
use crate::rules::{Rules, controller, is_deleting, is_over, number, text};

/// The first thing that has not come to rest, in words.
pub(crate) fn unrest(rules: &Rules, hosts: &BTreeMap<u16, Host>) -> Option<String> {
    deletions(rules)
        .or_else(|| orphans(rules))
        .or_else(|| deployments(rules))
        .or_else(|| replica_sets(rules))
        .or_else(|| pods(rules, hosts))
        .or_else(|| sandboxes(rules, hosts))
        .or_else(|| endpoints(rules))
}

fn name(key: &ObjectKey) -> String {
    format!("{} {}/{}", key.resource, key.namespace, key.name)
}

fn deletions(rules: &Rules) -> Option<String> {
    let (key, object) = rules.objects().iter().find(|(_, object)| is_deleting(object))?;
    Some(format!("{} is still being deleted: {}", name(key), object["metadata"]))
}

fn orphans(rules: &Rules) -> Option<String> {
    let uids: BTreeSet<&str> =
        rules.objects().values().map(|object| text(object, "/metadata/uid")).collect();
    let (key, _) = rules.objects().iter().find(|(_, object)| {
        let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        owners.is_some_and(|owners| {
            !owners.is_empty() && owners.iter().all(|owner| !uids.contains(text(owner, "/uid")))
        })
    })?;
    Some(format!("{} has no owner any more and is still there", name(key)))
}

fn deployments(rules: &Rules) -> Option<String> {
    rules.of("deployments").find_map(|(key, deployment)| {
        let wanted = number(deployment, "/spec/replicas");
        let at = |field: &str| number(deployment, field).or(Some(0));
        let settled = number(deployment, "/status/observedGeneration")
            == number(deployment, "/metadata/generation")
            && at("/status/replicas") == wanted
            && at("/status/updatedReplicas") == wanted
            && at("/status/availableReplicas") == wanted;
        (!settled).then(|| {
            format!("{} wants {wanted:?} replicas and is at {}", name(key), deployment["status"])
        })
    })
}

fn replica_sets(rules: &Rules) -> Option<String> {
    let mut pods: BTreeMap<&str, i64> = BTreeMap::new();
    for (_, pod) in rules.of("pods").filter(|(_, pod)| !is_over(pod)) {
        *pods.entry(controller(pod).unwrap_or_default()).or_default() += 1;
    }
    rules.of("replicasets").find_map(|(key, set)| {
        let wanted = number(set, "/spec/replicas").unwrap_or(1);
        let there = pods.get(text(set, "/metadata/uid")).copied().unwrap_or(0);
        (wanted != there).then(|| format!("{} wants {wanted} pods and has {there}", name(key)))
    })
}

fn pods(rules: &Rules, hosts: &BTreeMap<u16, Host>) -> Option<String> {
    let running: BTreeSet<String> =
        hosts.values().flat_map(Host::running_instances).map(|(uid, _)| uid).collect();
    rules.of("pods").find_map(|(key, pod)| {
        if is_over(pod) {
            return None;
        }
        let runs = running.contains(text(pod, "/metadata/uid"));
        let ready = text(pod, "/status/phase") == "Running" && runs;
        (!ready).then(|| {
            format!(
                "{} should run: {} on {}",
                name(key),
                pod["status"],
                text(pod, "/spec/nodeName")
            )
        })
    })
}

fn sandboxes(rules: &Rules, hosts: &BTreeMap<u16, Host>) -> Option<String> {
    let wanted: BTreeMap<&str, &Value> =
        rules.of("pods").map(|(_, pod)| (text(pod, "/metadata/uid"), pod)).collect();
    for (number, host) in hosts {
        for uid in host.sandboxes() {
            match wanted.get(&*uid) {
                None => {
                    return Some(format!(
                        "node {number} has a sandbox of pod {uid}, which is not there"
                    ));
                }
                Some(pod) if is_over(pod) => {
                    return Some(format!(
                        "node {number} has a sandbox of pod {uid}, which is over"
                    ));
                }
                Some(_) => {}
            }
        }
    }
    None
}

/// Each Service with a selector has exactly the ready addresses of the pods that it selects.
fn endpoints(rules: &Rules) -> Option<String> {
    rules.of("services").find_map(|(key, service)| {
        let selector = service.pointer("/spec/selector").and_then(Value::as_object)?;
        let wanted: BTreeSet<&str> = rules
            .of("pods")
            .filter(|(pod, _)| pod.namespace == key.namespace)
            .filter(|(_, pod)| !is_over(pod) && is_ready(pod))
            .filter(|(_, pod)| {
                selector
                    .iter()
                    .all(|(label, value)| pod["metadata"]["labels"].get(label) == Some(value))
            })
            .map(|(_, pod)| text(pod, "/status/podIP"))
            .collect();
        let there: BTreeSet<&str> = rules
            .of("endpointslices")
            .filter(|(slice, _)| slice.namespace == key.namespace)
            .filter(|(_, slice)| {
                slice["metadata"]["labels"]["kubernetes.io/service-name"] == *key.name
            })
            .flat_map(|(_, slice)| slice["endpoints"].as_array().into_iter().flatten())
            .filter(|endpoint| endpoint["conditions"]["ready"] == true)
            .filter_map(|endpoint| endpoint["addresses"][0].as_str())
            .collect();
        (wanted != there)
            .then(|| format!("{} should lead to {wanted:?} and leads to {there:?}", name(key)))
    })
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}
