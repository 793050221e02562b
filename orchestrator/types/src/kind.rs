//! The kinds that the API serves, and what each is called.
//!
//! [`Kind`] is the key under which this crate knows schema, defaults, validation and table columns. It covers the kinds
//! that are stored and those that only travel (Scale, Binding, Status, …). Which verbs a resource has, and how it is
//! stored, is in the registry of the API crate.

use crate::key::GroupResource;

/// Resources by name.
pub mod resources {
    use crate::key::GroupResource;

    /// `namespaces`
    pub const NAMESPACES: GroupResource = GroupResource::new("", "namespaces");
    /// `nodes`
    pub const NODES: GroupResource = GroupResource::new("", "nodes");
    /// `pods`
    pub const PODS: GroupResource = GroupResource::new("", "pods");
    /// `services`
    pub const SERVICES: GroupResource = GroupResource::new("", "services");
    /// `configmaps`
    pub const CONFIG_MAPS: GroupResource = GroupResource::new("", "configmaps");
    /// `secrets`
    pub const SECRETS: GroupResource = GroupResource::new("", "secrets");
    /// `serviceaccounts`
    pub const SERVICE_ACCOUNTS: GroupResource = GroupResource::new("", "serviceaccounts");
    /// `events` of the core group: the form in which events are stored.
    pub const EVENTS: GroupResource = GroupResource::new("", "events");
    /// `events` of `events.k8s.io`: a view of the same objects.
    pub const EVENTS_EVENTS: GroupResource = GroupResource::new("events.k8s.io", "events");
    /// `deployments.apps`
    pub const DEPLOYMENTS: GroupResource = GroupResource::new("apps", "deployments");
    /// `replicasets.apps`
    pub const REPLICA_SETS: GroupResource = GroupResource::new("apps", "replicasets");
    /// `endpointslices.discovery.k8s.io`
    pub const ENDPOINT_SLICES: GroupResource =
        GroupResource::new("discovery.k8s.io", "endpointslices");
    /// `leases.coordination.k8s.io`
    pub const LEASES: GroupResource = GroupResource::new("coordination.k8s.io", "leases");
    /// `machines.podium.dev`
    pub const MACHINES: GroupResource = GroupResource::new("podium.dev", "machines");
}

/// A kind of the API, in the one version that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(
    missing_docs,
    reason = "each variant is the kind of that name; the two that need words have them"
)]
pub enum Kind {
    Namespace,
    Node,
    Pod,
    Service,
    ConfigMap,
    Secret,
    ServiceAccount,
    /// `Event` of the core group.
    CoreEvent,
    /// `Event` of `events.k8s.io`.
    Event,
    Deployment,
    ReplicaSet,
    EndpointSlice,
    Lease,
    Machine,
    Scale,
    Binding,
    Eviction,
    Status,
    DeleteOptions,
}

impl Kind {
    /// All kinds, those that are stored first.
    pub const ALL: [Self; 19] = [
        Self::Namespace,
        Self::Node,
        Self::Pod,
        Self::Service,
        Self::ConfigMap,
        Self::Secret,
        Self::ServiceAccount,
        Self::CoreEvent,
        Self::Event,
        Self::Deployment,
        Self::ReplicaSet,
        Self::EndpointSlice,
        Self::Lease,
        Self::Machine,
        Self::Scale,
        Self::Binding,
        Self::Eviction,
        Self::Status,
        Self::DeleteOptions,
    ];

    /// The kind of this group, version and name, if it is one of ours. `Status` and `DeleteOptions` are in core/v1.
    #[must_use]
    pub fn find(group: &str, version: &str, name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name && kind.group() == group && kind.version() == version)
    }

    /// The kind that objects of a resource have.
    #[must_use]
    pub fn of_resource(resource: &GroupResource) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.resource().as_ref() == Some(resource))
    }

    /// The name as it stands in the field `kind`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
            Self::ServiceAccount => "ServiceAccount",
            Self::CoreEvent | Self::Event => "Event",
            Self::Deployment => "Deployment",
            Self::ReplicaSet => "ReplicaSet",
            Self::EndpointSlice => "EndpointSlice",
            Self::Lease => "Lease",
            Self::Machine => "Machine",
            Self::Scale => "Scale",
            Self::Binding => "Binding",
            Self::Eviction => "Eviction",
            Self::Status => "Status",
            Self::DeleteOptions => "DeleteOptions",
        }
    }

    /// The API group; empty for core.
    #[must_use]
    pub fn group(self) -> &'static str {
        match self {
            Self::Deployment | Self::ReplicaSet => "apps",
            Self::Event => "events.k8s.io",
            Self::EndpointSlice => "discovery.k8s.io",
            Self::Lease => "coordination.k8s.io",
            Self::Machine => "podium.dev",
            Self::Scale => "autoscaling",
            Self::Eviction => "policy",
            Self::Namespace
            | Self::Node
            | Self::Pod
            | Self::Service
            | Self::ConfigMap
            | Self::Secret
            | Self::ServiceAccount
            | Self::CoreEvent
            | Self::Binding
            | Self::Status
            | Self::DeleteOptions => "",
        }
    }

    /// The served version.
    #[must_use]
    pub fn version(self) -> &'static str {
        "v1"
    }

    /// `group/version`, or the version alone for core: as it stands in the field `apiVersion`.
    #[must_use]
    pub fn api_version(self) -> &'static str {
        match self.group() {
            "apps" => "apps/v1",
            "events.k8s.io" => "events.k8s.io/v1",
            "discovery.k8s.io" => "discovery.k8s.io/v1",
            "coordination.k8s.io" => "coordination.k8s.io/v1",
            "podium.dev" => "podium.dev/v1",
            "autoscaling" => "autoscaling/v1",
            "policy" => "policy/v1",
            _ => "v1",
        }
    }

    /// The resource whose objects have this kind; `None` for kinds that only travel in requests and answers.
    #[must_use]
    pub fn resource(self) -> Option<GroupResource> {
        Some(match self {
            Self::Namespace => resources::NAMESPACES,
            Self::Node => resources::NODES,
            Self::Pod => resources::PODS,
            Self::Service => resources::SERVICES,
            Self::ConfigMap => resources::CONFIG_MAPS,
            Self::Secret => resources::SECRETS,
            Self::ServiceAccount => resources::SERVICE_ACCOUNTS,
            Self::CoreEvent => resources::EVENTS,
            Self::Event => resources::EVENTS_EVENTS,
            Self::Deployment => resources::DEPLOYMENTS,
            Self::ReplicaSet => resources::REPLICA_SETS,
            Self::EndpointSlice => resources::ENDPOINT_SLICES,
            Self::Lease => resources::LEASES,
            Self::Machine => resources::MACHINES,
            Self::Scale | Self::Binding | Self::Eviction | Self::Status | Self::DeleteOptions => {
                return None;
            }
        })
    }

    /// Whether objects of this kind live in a namespace. (For kinds that only travel: whether what they are about does.)
    #[must_use]
    pub fn namespaced(self) -> bool {
        !matches!(
            self,
            Self::Namespace | Self::Node | Self::Machine | Self::Status | Self::DeleteOptions
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn every_kind_is_found_by_its_names() {
        for kind in Kind::ALL {
            assert_eq!(Kind::find(kind.group(), kind.version(), kind.name()), Some(kind));
            let group =
                if kind.group().is_empty() { String::new() } else { format!("{}/", kind.group()) };
            assert_eq!(kind.api_version(), format!("{group}{}", kind.version()));
            if let Some(resource) = kind.resource() {
                assert_eq!(Kind::of_resource(&resource), Some(kind));
            }
        }
    }
}
