//! No pod is bound twice, and no node is given more than it has.

use std::collections::{BTreeMap, BTreeSet};

use podium_types::{GroupResource, ObjectKey};
use serde_json::Value;

use super::{Change, is_over, text};

const NODES: GroupResource = GroupResource::new("", "nodes");

/// Where each pod was bound, and which pods each node has.
#[derive(Default)]
pub(super) struct Bindings {
    /// By uid; kept when the pod is gone.
    bound: BTreeMap<String, String>,
    on_node: BTreeMap<String, BTreeSet<ObjectKey>>,
}

impl Bindings {
    pub(super) fn judge(
        &mut self,
        change: &Change<'_>,
        objects: &BTreeMap<ObjectKey, Value>,
    ) -> Result<(), String> {
        if change.key.resource.resource != "pods" {
            return Ok(());
        }
        let Some(pod) = change.after else {
            for pods in self.on_node.values_mut() {
                pods.remove(change.key);
            }
            return Ok(());
        };
        let (uid, node) = (text(pod, "/metadata/uid"), text(pod, "/spec/nodeName"));
        match self.bound.get(uid) {
            Some(first) if first != node => {
                return Err(format!(
                    "pod {} was bound to {first} and then to {node:?}",
                    change.key.name
                ));
            }
            Some(_) => return Ok(()),
            None if node.is_empty() => return Ok(()),
            None => {}
        }
        self.bound.insert(uid.to_owned(), node.to_owned());
        self.on_node.entry(node.to_owned()).or_default().insert(change.key.clone());
        self.fits(node, objects)
    }

    fn fits(&self, node: &str, objects: &BTreeMap<ObjectKey, Value>) -> Result<(), String> {
        let Some(object) = objects.get(&ObjectKey::new(NODES, "", node)) else {
            return Err(format!("a pod was bound to node {node}, which does not exist"));
        };
        let pods: Vec<&Value> = self
            .on_node
            .get(node)
            .into_iter()
            .flatten()
            .filter_map(|key| objects.get(key))
            .filter(|pod| !is_over(pod))
            .collect();
        let room = milli_cpu(text(object, "/status/allocatable/cpu"));
        let asked: u64 = pods.iter().map(|pod| requests(pod)).sum();
        if asked > room {
            return Err(format!(
                "node {node} has {room}m of CPU and its {} pods ask for {asked}m",
                pods.len()
            ));
        }
        Ok(())
    }
}

fn requests(pod: &Value) -> u64 {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
    containers
        .into_iter()
        .flatten()
        .map(|container| milli_cpu(text(container, "/resources/requests/cpu")))
        .sum()
}

/// Only the forms that the workload writes: `250m` and `2`.
fn milli_cpu(quantity: &str) -> u64 {
    match quantity.strip_suffix('m') {
        Some(milli) => milli.parse().unwrap_or(0),
        None => quantity.parse::<u64>().unwrap_or(0) * 1_000,
    }
}
