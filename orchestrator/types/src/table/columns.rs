//! The columns of each kind.

use super::Column;
use crate::kind::Kind;

/// The columns of a kind's table; the first names the object, except for events.
#[must_use]
pub fn columns(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::Pod => POD,
        Kind::Deployment => DEPLOYMENT,
        Kind::ReplicaSet => REPLICA_SET,
        Kind::Service => SERVICE,
        Kind::EndpointSlice => ENDPOINT_SLICE,
        Kind::Node => NODE,
        Kind::Machine => MACHINE,
        Kind::CoreEvent | Kind::Event => EVENT,
        Kind::Namespace => NAMESPACE,
        Kind::ConfigMap => CONFIG_MAP,
        Kind::Secret => SECRET,
        Kind::Lease => LEASE,
        Kind::ServiceAccount
        | Kind::Scale
        | Kind::Binding
        | Kind::Eviction
        | Kind::Status
        | Kind::DeleteOptions => NAME_AND_AGE,
    }
}

const fn column(name: &'static str, kind: &'static str, description: &'static str) -> Column {
    Column { name, kind, format: "", description, priority: 0 }
}

const fn string(name: &'static str, description: &'static str) -> Column {
    column(name, "string", description)
}

const fn integer(name: &'static str, description: &'static str) -> Column {
    column(name, "integer", description)
}

const fn wide(column: Column) -> Column {
    Column { priority: 1, ..column }
}

const NAME: Column = Column {
    format: "name",
    ..string("Name", "The name of the object, unique within its namespace and kind.")
};
const AGE: Column = string("Age", "The time since the object was made.");
const CONTAINERS: Column =
    wide(string("Containers", "The names of the containers in the template."));
const IMAGES: Column = wide(string("Images", "The images of the containers in the template."));
const SELECTOR: Column = wide(string("Selector", "The labels of the pods that belong to it."));

const NAME_AND_AGE: &[Column] = &[NAME, AGE];

const POD: &[Column] = &[
    NAME,
    string("Ready", "How many of the pod's containers are ready."),
    string("Status", "What the pod is doing, or why it is not."),
    string("Restarts", "How often its containers were restarted, and when last."),
    AGE,
    wide(string("IP", "The pod's address.")),
    wide(string("Node", "The node it runs on.")),
    wide(string("Nominated Node", "The node that makes room for it.")),
    wide(string("Readiness Gates", "How many of its readiness gates are open.")),
];

const DEPLOYMENT: &[Column] = &[
    NAME,
    string("Ready", "How many pods are ready, of those desired."),
    string("Up-to-date", "How many pods are of the current template."),
    string("Available", "How many pods have been ready for long enough."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const REPLICA_SET: &[Column] = &[
    NAME,
    integer("Desired", "How many pods there should be."),
    integer("Current", "How many pods there are."),
    integer("Ready", "How many pods are ready."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const SERVICE: &[Column] = &[
    NAME,
    string("Type", "How the service is reached."),
    string("Cluster-IP", "Its address within the cluster."),
    string("External-IP", "Its addresses outside of the cluster."),
    string("Port(s)", "Its ports, with those on the nodes, and their protocols."),
    AGE,
    SELECTOR,
];

const ENDPOINT_SLICE: &[Column] = &[
    NAME,
    string("AddressType", "The type of the addresses in the slice."),
    string("Ports", "The ports of all endpoints in the slice."),
    string("Endpoints", "The addresses of the endpoints."),
    AGE,
];

const NODE: &[Column] = &[
    NAME,
    string("Status", "Whether the node is ready, and whether it takes pods."),
    string("Roles", "The roles of the node."),
    AGE,
    string("Version", "The version that the node runs."),
    wide(string("Internal-IP", "Its address within the cluster.")),
    wide(string("External-IP", "Its address outside of the cluster.")),
    wide(string("OS-Image", "The operating system of the node.")),
    wide(string("Kernel-Version", "The release of its kernel.")),
    wide(string("Container-Runtime", "What runs its containers.")),
];

const MACHINE: &[Column] = &[
    NAME,
    string("Ready", "Whether the machine says that it serves."),
    column("Voter", "boolean", "Whether the machine votes in the store."),
    string("Version", "The version that the machine runs."),
    string("Address", "Its preferred address."),
    string("Uptime", "The time since it booted."),
    AGE,
    wide(string("Boot-Time", "How long its last boot took.")),
    wide(string("Kernel", "The release of its kernel.")),
];

const EVENT: &[Column] = &[
    string("Last Seen", "The time since it happened last."),
    string("Type", "Normal or Warning."),
    string("Reason", "Why it was recorded, in one word."),
    string("Object", "What it is about."),
    wide(string("Subobject", "The part of the object that it is about.")),
    wide(string("Source", "Who recorded it.")),
    string("Message", "What happened."),
    wide(string("First Seen", "The time since it happened first.")),
    wide(string("Count", "How often it happened.")),
    wide(NAME),
];

const NAMESPACE: &[Column] =
    &[NAME, string("Status", "Whether the namespace is in use, or going."), AGE];

const CONFIG_MAP: &[Column] = &[NAME, string("Data", "How many entries it has."), AGE];

const SECRET: &[Column] = &[
    NAME,
    string("Type", "What the secret is for."),
    string("Data", "How many entries it has."),
    AGE,
];

const LEASE: &[Column] = &[NAME, string("Holder", "Who holds the lease."), AGE];
