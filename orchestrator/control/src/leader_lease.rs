//! Who leads, for people and their tools: the Lease `kube-system/podium-leader`.
//!
//! Nothing in Podium decides by it. The store knows its leader, and what a leader writes carries its term; this is how the
//! others get to know. So it is written when another machine leads than before, and never renewed: to renew it every few
//! seconds, as Kubernetes does, would keep the disks of a cluster busy that has nothing to do. For the same reason it has no
//! duration: it is held until another holds it, also by a leader that has died and has no successor yet.

use podium_types::k8s::api::coordination::v1::Lease;
use podium_types::{Now, ObjectKey, namespace};
use serde_json::json;

use crate::controller::Controller;
use crate::object::{Object, Typed};
use crate::plan::{Plan, Step};
use crate::world::{Change, World};

/// What it is called.
pub const NAME: &str = "podium-leader";

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct LeaderLease {
    /// The node that leads; empty for none, and then the Lease stays as it is.
    pub holder: String,
}

impl Controller for LeaderLease {
    fn name(&self) -> &'static str {
        "leader-lease-controller"
    }

    fn keys_for(&self, _: &World, change: &Change) -> Vec<ObjectKey> {
        if *change.key == key() || *change.key == ObjectKey::of_namespace(namespace::SYSTEM) {
            vec![key()]
        } else {
            Vec::new()
        }
    }

    fn plan(&self, world: &World, key: &ObjectKey, now: Now) -> Plan {
        let home = world.object(&ObjectKey::of_namespace(namespace::SYSTEM));
        if self.holder.is_empty() || home.is_none_or(Object::terminating) {
            return Plan::nothing();
        }
        let steps = match (world.object(key), world.get::<Lease>(key)) {
            (None, _) => vec![self.create(now)],
            (Some(object), Some(lease)) if !object.terminating() => {
                self.take_over(key, lease, now).into_iter().collect()
            }
            (Some(_), _) => Vec::new(),
        };
        Plan { steps, wake_after: None }
    }
}

fn key() -> ObjectKey {
    ObjectKey::new(Lease::RESOURCE, namespace::SYSTEM, NAME)
}

impl LeaderLease {
    fn create(&self, now: Now) -> Step {
        Step::Create {
            resource: Lease::RESOURCE,
            object: json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": NAME, "namespace": namespace::SYSTEM},
                "spec": self.spec(0, now),
            }),
        }
    }

    fn take_over(&self, key: &ObjectKey, lease: &Lease, now: Now) -> Option<Step> {
        let spec = lease.spec.as_ref();
        if spec.and_then(|spec| spec.holder_identity.as_ref()) == Some(&self.holder) {
            return None;
        }
        let transitions = spec.and_then(|spec| spec.lease_transitions).unwrap_or_default();
        Some(Step::Patch {
            key: key.clone(),
            subresource: None,
            patch: json!({
                "metadata": {
                    "uid": lease.metadata.uid, "resourceVersion": lease.metadata.resource_version,
                },
                "spec": self.spec(transitions.saturating_add(1), now),
            }),
        })
    }

    fn spec(&self, transitions: i32, now: Now) -> serde_json::Value {
        let moment = format!("{:.6}", now.wall);
        json!({
            "holderIdentity": self.holder, "leaseTransitions": transitions,
            "acquireTime": moment, "renewTime": moment,
        })
    }
}
