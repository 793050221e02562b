//! What a controller is, and the list of all of them.
//!
//! A controller is level-triggered: an event only says which keys to look at again, and a plan is made from the world as
//! it is, never from the event. It holds no state of its own, so one that starts anew on another node goes on where the
//! last one stopped.

use podium_types::{Now, ObjectKey};

use crate::collector::Collector;
use crate::deployment::DeploymentController;
use crate::endpoint_slice::EndpointSliceController;
use crate::event_collector::EventCollector;
use crate::leader_lease::LeaderLease;
use crate::namespace::NamespaceController;
use crate::node_lease::NodeLease;
use crate::node_lifecycle::NodeLifecycle;
use crate::plan::{EventStep, Plan, Step};
use crate::pod_collector::PodCollector;
use crate::replica_set::ReplicaSetController;
use crate::scheduler::Scheduler;
use crate::taint_eviction::TaintEviction;
use crate::world::{Change, World};

/// A pure function from a part of the world to a plan.
pub trait Controller: Send + Sync {
    /// Lower-case, with hyphens; in logs, metrics and the user name `system:controller:<name>`.
    fn name(&self) -> &'static str;

    /// The keys whose plan may differ because of a change that `world` already includes. Too many is slow, too few is a bug.
    fn keys_for(&self, world: &World, change: &Change) -> Vec<ObjectKey>;

    /// The keys whose plan may differ because the leader judges a node anew.
    fn keys_for_judgement(&self, node: &str) -> Vec<ObjectKey> {
        let _ = node;
        Vec::new()
    }

    /// What to do about a key. Total: a key that does not exist any more gives [`Plan::nothing`].
    fn plan(&self, world: &World, key: &ObjectKey, now: Now) -> Plan;

    /// The family of a key. Plans of one family, across controllers, are made one at a time, and each one sees all writes of
    /// those before it. Keys that bound a shared number (a Deployment and its ReplicaSets share the surge) are one family.
    fn family(&self, world: &World, key: &ObjectKey) -> ObjectKey {
        let _ = world;
        key.clone()
    }

    /// What to tell the user when the API refused a step with this message, if anything.
    fn refused(
        &self,
        world: &World,
        key: &ObjectKey,
        step: &Step,
        message: &str,
    ) -> Option<EventStep> {
        let _ = (world, key, step, message);
        None
    }
}

/// What controllers need to know about the cluster that is not an object of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The node that leads, by name; what it leads by is not written down if this is empty.
    pub leader: String,
    /// Certificates, PEM, that clients in pods shall trust: the contents of each namespace's `kube-root-ca.crt`.
    pub root_ca_pem: String,
    /// Finished pods beyond this number are removed, oldest first. Kubernetes' default.
    pub terminated_pods: usize,
    /// Events are removed this long after they last occurred.
    pub event_ttl: std::time::Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            leader: String::new(),
            root_ca_pem: String::new(),
            terminated_pods: 12_500,
            event_ttl: std::time::Duration::from_secs(3600),
        }
    }
}

/// All controllers that the cluster's leader runs.
#[must_use]
pub fn controllers(settings: &Settings) -> Vec<Box<dyn Controller>> {
    vec![
        Box::new(LeaderLease { holder: settings.leader.clone() }),
        Box::new(NodeLease),
        Box::new(Scheduler),
        // Pods leave a dead node before it is told that they serve no more: the order in which both are planned.
        Box::new(TaintEviction),
        Box::new(NodeLifecycle),
        Box::new(DeploymentController),
        Box::new(ReplicaSetController),
        Box::new(EndpointSliceController),
        Box::new(NamespaceController { root_ca_pem: settings.root_ca_pem.clone() }),
        Box::new(Collector),
        Box::new(PodCollector { finished: settings.terminated_pods }),
        Box::new(EventCollector { ttl: settings.event_ttl }),
    ]
}
