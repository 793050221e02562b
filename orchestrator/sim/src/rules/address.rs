//! No address is held by two at one time: cluster IPs by services, pod addresses by pods, pod ranges by nodes.

use std::collections::BTreeMap;

use podium_types::ObjectKey;
use serde_json::Value;

use super::{Change, is_over, text};

/// Who holds which address.
#[derive(Default)]
pub(super) struct Addresses {
    held: BTreeMap<String, ObjectKey>,
    of: BTreeMap<ObjectKey, Vec<String>>,
}

impl Addresses {
    pub(super) fn judge(&mut self, change: &Change<'_>) -> Result<(), String> {
        let addresses = match &*change.key.resource.resource {
            "services" => {
                change.after.map(|service| texts(service, "/spec/clusterIPs", "/spec/clusterIP"))
            }
            "nodes" => change.after.map(|node| texts(node, "/spec/podCIDRs", "/spec/podCIDR")),
            "pods" => change.after.map(pod_addresses),
            _ => return Ok(()),
        };
        for address in self.of.remove(change.key).unwrap_or_default() {
            self.held.remove(&address);
        }
        let Some(addresses) = addresses.filter(|addresses| !addresses.is_empty()) else {
            return Ok(());
        };
        for address in &addresses {
            if let Some(other) = self.held.insert(address.clone(), change.key.clone()) {
                let name =
                    |key: &ObjectKey| format!("{} {}/{}", key.resource, key.namespace, key.name);
                return Err(format!(
                    "{address} is held by {} and {}",
                    name(&other),
                    name(change.key)
                ));
            }
        }
        self.of.insert(change.key.clone(), addresses);
        Ok(())
    }
}

fn pod_addresses(pod: &Value) -> Vec<String> {
    if is_over(pod) || pod.pointer("/spec/hostNetwork") == Some(&Value::Bool(true)) {
        return Vec::new();
    }
    let address = text(pod, "/status/podIP");
    if address.is_empty() { Vec::new() } else { vec![address.to_owned()] }
}

fn texts(object: &Value, list: &str, one: &str) -> Vec<String> {
    let listed = object.pointer(list).and_then(Value::as_array);
    let mut texts: Vec<String> =
        listed.into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect();
    if texts.is_empty() {
        texts.push(text(object, one).to_owned());
    }
    texts.retain(|text| !text.is_empty() && text != "None");
    texts.sort();
    texts.dedup();
    texts
}
