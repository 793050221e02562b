//! What a node may write into the objects that it may write: Kubernetes' NodeRestriction, and the same for Machines.
//!
//! A node that was taken over must not get more than it had. So it says nothing about the pods of others; in its Node not
//! which pods come to it (labels, taints, addresses of pods) and in its Machine not who it is: the identity key, whether it
//! votes, another machine's tunnel key or address.
//!
//! An address that another machine has is taken from it only by the machine that speaks from there ([`User::address`]):
//! addresses do change hands, and with them the objects in whatever order. Whoever has one of its further addresses from
//! another machine waits until that one has said that it is gone, or somebody has removed it.
//!
//! The authorizer has let only nodes through that ask for what has their name; parts of voters are not looked at.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use futures::future::BoxFuture;
use podium_store::View;
use podium_types::kind::resources;
use podium_types::{Kind, ObjectKey, object};
use serde_json::Value;

use super::{Operation, Review, Validating};
use crate::auth::User;
use crate::status::Status;

/// Labels under these names are an administrator's: they decide where pods go.
const RESERVED_DOMAINS: [&str; 2] = ["kubernetes.io", "k8s.io"];
/// Those of them that a node may change nevertheless, as kubelet does.
const OWN_LABELS: [&str; 6] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
const OWN_LABEL_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// See the module.
#[derive(Debug)]
pub struct NodeRestriction;

impl Validating for NodeRestriction {
    fn admit<'a>(
        &'a self,
        review: Review<'a>,
        object: &'a Value,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            let Some(node) = review.user.as_node() else { return Ok(()) };
            let checked = match review.resource.kind {
                Kind::Pod => check_pod(node, review),
                Kind::Node => check_node(review.old, object),
                Kind::Machine => check_machine(node, review, object),
                Kind::Lease => check_lease(node, object),
                _ => Ok(()),
            };
            checked.map_err(|why| {
                let why = format!("node {node:?} {why}");
                Status::forbidden(review.resource.names, object::name(object), &why)
            })
        })
    }
}

/// Only the status of pods, and their end.
fn check_pod(node: &str, review: Review<'_>) -> Result<(), String> {
    let mine =
        review.old.is_some_and(|pod| object::str_at(pod, &["spec", "nodeName"]) == Some(node));
    match (review.operation, mine) {
        (Operation::Create, _) => Err("can not create pods".into()),
        (Operation::Update | Operation::Delete, true) => Ok(()),
        (Operation::Update, false) => {
            Err("can only update pod status for pods with spec.nodeName set to itself".into())
        }
        (Operation::Delete, false) => {
            Err("can only delete pods with spec.nodeName set to itself".into())
        }
    }
}

fn check_node(old: Option<&Value>, new: &Value) -> Result<(), String> {
    let Some(old) = old else { return Err("can not create nodes".into()) };
    for (path, what) in [
        (["spec", "taints"], "taints"),
        (["spec", "podCIDR"], "pod addresses"),
        (["spec", "podCIDRs"], "pod addresses"),
        (["metadata", "ownerReferences"], "ownerReferences"),
    ] {
        unchanged(old, new, &path, what)?;
    }
    let (before, after) =
        (object::at(old, &["metadata", "labels"]), object::at(new, &["metadata", "labels"]));
    let names: BTreeSet<&String> =
        [before, after].into_iter().filter_map(Value::as_object).flat_map(|it| it.keys()).collect();
    let changed = names.into_iter().filter(|name| before.get(name) != after.get(name));
    let refused: Vec<&str> = changed.map(String::as_str).filter(|it| !is_own_label(it)).collect();
    match refused.as_slice() {
        [] => Ok(()),
        refused => Err(format!("is not allowed to modify labels: {}", refused.join(", "))),
    }
}

fn is_own_label(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else { return true };
    let within = |of: &&str| {
        domain.strip_suffix(*of).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    OWN_LABELS.contains(&label)
        || OWN_LABEL_DOMAINS.iter().any(within)
        || !RESERVED_DOMAINS.iter().any(within)
}

fn check_lease(node: &str, lease: &Value) -> Result<(), String> {
    if object::name(lease) == node {
        return Ok(());
    }
    Err("can only access node lease with the same name as the requesting node".into())
}

fn check_machine(node: &str, review: Review<'_>, new: &Value) -> Result<(), String> {
    let Some(old) = review.old else { return Err("can not create machines".into()) };
    for (path, what) in [
        (["spec", "identityKey"], "its identity"),
        (["spec", "podCIDRs"], "pod addresses"),
        (["metadata", "ownerReferences"], "ownerReferences"),
    ] {
        unchanged(old, new, &path, what)?;
    }
    let votes = |machine| object::at(machine, &["status", "voter"]).as_bool() == Some(true);
    if votes(new) && !votes(old) {
        return Err("is not allowed to call itself a voter".into());
    }
    check_claims(node, review.user, review.state, old, new)
}

fn unchanged(old: &Value, new: &Value, path: &[&str], what: &str) -> Result<(), String> {
    if object::at(old, path) == object::at(new, path) {
        return Ok(());
    }
    Err(format!("is not allowed to modify {what}"))
}

/// What packets follow: a tunnel's key, and addresses.
fn check_claims(
    node: &str,
    user: &User,
    state: &View,
    old: &Value,
    new: &Value,
) -> Result<(), String> {
    let key = tunnel(new).filter(|key| tunnel(old) != Some(*key));
    let mut claimed = addresses(new);
    let had = addresses(old);
    claimed.retain(|address| !had.contains(address) && user.address != Some(*address));
    if key.is_none() && claimed.is_empty() {
        return Ok(());
    }
    for record in state.range(&ObjectKey::prefix(&resources::MACHINES, None)) {
        let Ok(other) = serde_json::from_slice::<Value>(&record.value) else { continue };
        let name = object::name(&other);
        if name == node {
            continue;
        }
        if key.is_some() && tunnel(&other) == key {
            return Err(format!("is not allowed to take the public key of machine {name:?}"));
        }
        if let Some(address) = addresses(&other).intersection(&claimed).next() {
            return Err(format!("is not allowed to take address {address} of machine {name:?}"));
        }
    }
    Ok(())
}

fn tunnel(machine: &Value) -> Option<&str> {
    object::str_at(machine, &["spec", "publicKey"])
}

/// All addresses by which a Machine says that it is reached.
fn addresses(machine: &Value) -> BTreeSet<IpAddr> {
    let endpoint = object::str_at(machine, &["spec", "endpoint"]);
    let endpoint = endpoint.and_then(|text| text.parse::<SocketAddr>().ok());
    let listed = object::list_at(machine, &["status", "addresses"]).iter();
    let listed = listed.filter_map(|it| it.get("address")?.as_str()?.parse().ok());
    listed.chain(endpoint.map(|it| it.ip())).collect()
}

#[cfg(test)]
mod tests;
