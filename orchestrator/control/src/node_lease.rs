//! The Lease of each Node, `kube-node-lease/<name>`, for tools that look when a node was heard.
//!
//! It is made once, belongs to its Node, and goes with it. Nobody renews it: heartbeats enter no log, and whoever reads a Lease
//! is told the last one (`podium_api::seams::Beats`). Nothing in Podium decides by it; `crate::health` does.

use podium_types::k8s::api::coordination::v1::Lease;
use podium_types::k8s::api::core::v1::Node;
use podium_types::{Now, ObjectKey, namespace};
use serde_json::json;

use crate::controller::Controller;
use crate::health::Timings;
use crate::object::{Object, Typed};
use crate::plan::{Plan, Step};
use crate::world::{Change, World};

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeLease;

impl Controller for NodeLease {
    fn name(&self) -> &'static str {
        "node-lease-controller"
    }

    fn keys_for(&self, world: &World, change: &Change) -> Vec<ObjectKey> {
        let key = &change.key;
        if key.resource == Node::RESOURCE {
            vec![key_of(&key.name)]
        } else if key.resource == Lease::RESOURCE && key.namespace == namespace::NODE_LEASES {
            vec![(**key).clone()]
        } else if **key == ObjectKey::of_namespace(namespace::NODE_LEASES) {
            let names = world.nodes().filter_map(|node| node.metadata.name.as_deref());
            names.map(key_of).collect()
        } else {
            Vec::new()
        }
    }

    fn plan(&self, world: &World, key: &ObjectKey, now: Now) -> Plan {
        let node = ObjectKey::new(Node::RESOURCE, "", key.name.clone());
        let there = |key: &ObjectKey| world.object(key).filter(|object| !object.terminating());
        let (Some(node), Some(_)) =
            (there(&node), there(&ObjectKey::of_namespace(namespace::NODE_LEASES)))
        else {
            return Plan::nothing();
        };
        // One of an earlier Node of this name goes with that.
        if world.object(key).is_some() {
            return Plan::nothing();
        }
        Plan { steps: vec![create(key, node, now)], wake_after: None }
    }
}

fn key_of(node: &str) -> ObjectKey {
    ObjectKey::new(Lease::RESOURCE, namespace::NODE_LEASES, node)
}

fn create(key: &ObjectKey, node: &Object, now: Now) -> Step {
    // What is not heard for so long is taken for dead. The field has whole seconds, and no fewer than one.
    let seconds = Timings::default().silence.as_secs().max(1);
    let moment = format!("{:.6}", now.wall);
    Step::Create {
        resource: Lease::RESOURCE,
        object: json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {
                "name": key.name, "namespace": namespace::NODE_LEASES,
                "ownerReferences": [{
                    "apiVersion": "v1", "kind": "Node", "name": key.name, "uid": node.uid(),
                }],
            },
            "spec": {
                "holderIdentity": key.name, "leaseDurationSeconds": seconds,
                "acquireTime": moment, "renewTime": moment,
            },
        }),
    }
}
