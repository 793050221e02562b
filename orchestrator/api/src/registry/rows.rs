//! The table.

use podium_types::kind::resources;
use podium_types::{Kind, event};

use super::{Action, Conversion, Deletion, Resource, Subresource, Verb};

const ALL: &[Verb] = &[
    Verb::Create,
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];
/// Namespaces go one by one.
const NO_COLLECTION: &[Verb] =
    &[Verb::Create, Verb::Delete, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch];
const PART: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];
const CREATE: &[Verb] = &[Verb::Create];
const STREAM: &[Verb] = &[Verb::Create, Verb::Get];

const fn status(kind: Kind) -> Subresource {
    Subresource { name: "status", kind, verbs: PART, action: Action::Part }
}

const SCALE: Subresource =
    Subresource { name: "scale", kind: Kind::Scale, verbs: PART, action: Action::Scale };

/// What most rows have.
const COMMON: Resource = Resource {
    kind: Kind::ConfigMap,
    names: &resources::CONFIG_MAPS,
    singular: "configmap",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: ALL,
    subresources: &[],
    stored_as: &resources::CONFIG_MAPS,
    conversion: None,
    deletion: Deletion::Immediate,
    unconditional_update: true,
    returns_deleted: false,
};

/// All that is served. Discovery keeps this order, and `kubectl get all` prints in it.
pub static RESOURCES: [Resource; 14] = [
    Resource { short_names: &["cm"], ..COMMON },
    Resource {
        kind: Kind::CoreEvent,
        names: &resources::EVENTS,
        stored_as: &resources::EVENTS,
        singular: "event",
        short_names: &["ev"],
        ..COMMON
    },
    Resource {
        kind: Kind::Namespace,
        names: &resources::NAMESPACES,
        stored_as: &resources::NAMESPACES,
        singular: "namespace",
        short_names: &["ns"],
        namespaced: false,
        verbs: NO_COLLECTION,
        subresources: &[
            Subresource {
                name: "finalize",
                kind: Kind::Namespace,
                verbs: &[Verb::Update],
                action: Action::Part,
            },
            status(Kind::Namespace),
        ],
        deletion: Deletion::Namespace,
        ..COMMON
    },
    Resource {
        kind: Kind::Node,
        names: &resources::NODES,
        stored_as: &resources::NODES,
        singular: "node",
        short_names: &["no"],
        namespaced: false,
        subresources: &[status(Kind::Node)],
        ..COMMON
    },
    Resource {
        kind: Kind::Pod,
        names: &resources::PODS,
        stored_as: &resources::PODS,
        singular: "pod",
        short_names: &["po"],
        categories: &["all"],
        subresources: &[
            Subresource { name: "attach", kind: Kind::Pod, verbs: STREAM, action: Action::Attach },
            Subresource {
                name: "binding",
                kind: Kind::Binding,
                verbs: CREATE,
                action: Action::Bind,
            },
            Subresource {
                name: "eviction",
                kind: Kind::Eviction,
                verbs: CREATE,
                action: Action::Evict,
            },
            Subresource { name: "exec", kind: Kind::Pod, verbs: STREAM, action: Action::Exec },
            Subresource { name: "log", kind: Kind::Pod, verbs: &[Verb::Get], action: Action::Log },
            status(Kind::Pod),
        ],
        deletion: Deletion::Grace,
        returns_deleted: true,
        ..COMMON
    },
    Resource {
        kind: Kind::Secret,
        names: &resources::SECRETS,
        stored_as: &resources::SECRETS,
        singular: "secret",
        ..COMMON
    },
    Resource {
        kind: Kind::ServiceAccount,
        names: &resources::SERVICE_ACCOUNTS,
        stored_as: &resources::SERVICE_ACCOUNTS,
        singular: "serviceaccount",
        short_names: &["sa"],
        returns_deleted: true,
        ..COMMON
    },
    Resource {
        kind: Kind::Service,
        names: &resources::SERVICES,
        stored_as: &resources::SERVICES,
        singular: "service",
        short_names: &["svc"],
        categories: &["all"],
        subresources: &[status(Kind::Service)],
        returns_deleted: true,
        ..COMMON
    },
    Resource {
        kind: Kind::Deployment,
        names: &resources::DEPLOYMENTS,
        stored_as: &resources::DEPLOYMENTS,
        singular: "deployment",
        short_names: &["deploy"],
        categories: &["all"],
        subresources: &[SCALE, status(Kind::Deployment)],
        ..COMMON
    },
    Resource {
        kind: Kind::ReplicaSet,
        names: &resources::REPLICA_SETS,
        stored_as: &resources::REPLICA_SETS,
        singular: "replicaset",
        short_names: &["rs"],
        categories: &["all"],
        subresources: &[SCALE, status(Kind::ReplicaSet)],
        ..COMMON
    },
    Resource {
        kind: Kind::Event,
        names: &resources::EVENTS_EVENTS,
        stored_as: &resources::EVENTS,
        conversion: Some(Conversion { from_storage: event::from_core, to_storage: event::to_core }),
        singular: "event",
        short_names: &["ev"],
        ..COMMON
    },
    Resource {
        kind: Kind::Lease,
        names: &resources::LEASES,
        stored_as: &resources::LEASES,
        singular: "lease",
        unconditional_update: false,
        ..COMMON
    },
    Resource {
        kind: Kind::EndpointSlice,
        names: &resources::ENDPOINT_SLICES,
        stored_as: &resources::ENDPOINT_SLICES,
        singular: "endpointslice",
        ..COMMON
    },
    Resource {
        kind: Kind::Machine,
        names: &resources::MACHINES,
        stored_as: &resources::MACHINES,
        singular: "machine",
        namespaced: false,
        subresources: &[status(Kind::Machine)],
        ..COMMON
    },
];
