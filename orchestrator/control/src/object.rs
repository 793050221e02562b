//! One object as controllers see it: a typed view where a controller looks inside, its metadata otherwise.
//!
//! Objects are shared: cloning one is a reference count. Kinds that nothing here looks into (Secrets, most ConfigMaps,
//! custom resources) keep only type and metadata, so a world costs little memory beside the store's own copy.

use std::sync::Arc;

use podium_types::k8s::api::apps::v1::{Deployment, ReplicaSet};
use podium_types::k8s::api::coordination::v1::Lease;
use podium_types::k8s::api::core::v1::{ConfigMap, Event, Namespace, Node, Pod, Service};
use podium_types::k8s::api::discovery::v1::EndpointSlice;
use podium_types::k8s::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use podium_types::kind::resources;
use podium_types::{GroupResource, Kind, Machine, ObjectKey};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::plan::Regarding;

/// Name of the ConfigMap that carries the cluster's CA into each namespace; the only one that is kept whole.
pub const ROOT_CA: &str = "kube-root-ca.crt";

/// Type and metadata of an object of any kind.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Bare {
    /// `group/version`.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// The metadata.
    pub metadata: ObjectMeta,
}

/// What is kept of an object.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "each variant holds the kind of that name; the last one has words")]
pub enum View {
    Namespace(Arc<Namespace>),
    Node(Arc<Node>),
    Pod(Arc<Pod>),
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    Deployment(Arc<Deployment>),
    ReplicaSet(Arc<ReplicaSet>),
    ConfigMap(Arc<ConfigMap>),
    Event(Arc<Event>),
    Lease(Arc<Lease>),
    Machine(Arc<Machine>),
    /// Any other kind, and objects that do not have the shape of their kind.
    Bare(Arc<Bare>),
}

/// A kind that controllers see whole.
pub trait Typed: Sized {
    /// Its resource.
    const RESOURCE: GroupResource;
    /// The object, if a view holds this kind.
    fn of(view: &View) -> Option<&Arc<Self>>;
}

macro_rules! typed {
    ($($kind:ident => $resource:expr),* $(,)?) => {
        $(impl Typed for $kind {
            const RESOURCE: GroupResource = $resource;
            fn of(view: &View) -> Option<&Arc<Self>> {
                if let View::$kind(object) = view { Some(object) } else { None }
            }
        })*

        impl View {
            /// The metadata of whatever this is.
            #[must_use]
            pub fn metadata(&self) -> &ObjectMeta {
                match self {
                    $(Self::$kind(object) => &object.metadata,)*
                    Self::Bare(object) => &object.metadata,
                }
            }

            fn decode(key: &ObjectKey, json: &[u8], revision: u64) -> (Self, Option<String>) {
                let mut defect = None;
                $(if key.resource == $resource && ($resource != resources::CONFIG_MAPS || key.name == ROOT_CA) {
                    match read::<$kind>(json) {
                        Ok(mut object) => {
                            object.metadata.resource_version = Some(revision.to_string());
                            return (Self::$kind(Arc::new(object)), None);
                        }
                        Err(error) => defect = Some(error.to_string()),
                    }
                })*
                let mut bare = read::<Bare>(json).unwrap_or_else(|error| {
                    defect.get_or_insert(error.to_string());
                    Bare::default()
                });
                bare.metadata.resource_version = Some(revision.to_string());
                (Self::Bare(Arc::new(bare)), defect)
            }
        }
    };
}

typed! {
    Namespace => resources::NAMESPACES,
    Node => resources::NODES,
    Pod => resources::PODS,
    Service => resources::SERVICES,
    EndpointSlice => resources::ENDPOINT_SLICES,
    Deployment => resources::DEPLOYMENTS,
    ReplicaSet => resources::REPLICA_SETS,
    ConfigMap => resources::CONFIG_MAPS,
    Event => resources::EVENTS,
    Lease => resources::LEASES,
    Machine => resources::MACHINES,
}

fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(json)
}

/// One object at one revision.
#[derive(Debug, Clone)]
pub struct Object {
    /// Where it is.
    pub key: Arc<ObjectKey>,
    /// The revision that wrote it: its resourceVersion.
    pub revision: u64,
    /// What it is.
    pub view: View,
    /// Why its contents could not be read as its kind, if so. Typed controllers do not see such an object; the collector
    /// and namespace deletion do.
    pub defect: Option<Arc<str>>,
}

impl Object {
    /// Reads an object as it is stored. Never fails: an object that does not fit its kind becomes [`View::Bare`].
    #[must_use]
    pub fn decode(key: &ObjectKey, revision: u64, json: &[u8]) -> Self {
        let (view, defect) = View::decode(key, json, revision);
        Self { key: Arc::new(intern(key)), revision, view, defect: defect.map(Into::into) }
    }

    /// Its metadata.
    #[must_use]
    pub fn metadata(&self) -> &ObjectMeta {
        self.view.metadata()
    }

    /// Its uid; empty if it has none.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.metadata().uid.as_deref().unwrap_or_default()
    }

    /// Whether it has been deleted and only its finalizers or its grace period keep it.
    #[must_use]
    pub fn terminating(&self) -> bool {
        self.metadata().deletion_timestamp.is_some()
    }

    /// `(apiVersion, kind)`.
    #[must_use]
    pub fn type_names(&self) -> (&str, &str) {
        match (&self.view, Kind::of_resource(&self.key.resource)) {
            (View::Bare(bare), _) if !bare.kind.is_empty() => (&bare.api_version, &bare.kind),
            (_, Some(kind)) => (kind.api_version(), kind.name()),
            (_, None) => ("", ""),
        }
    }

    /// This object as the subject of an event.
    #[must_use]
    pub fn regarding(&self) -> Regarding {
        let (api_version, kind) = self.type_names();
        Regarding {
            key: (*self.key).clone(),
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            uid: self.uid().to_owned(),
            resource_version: self.revision.to_string(),
            field_path: String::new(),
        }
    }
}

/// The same key with the resource's names borrowed from the program where it knows them.
fn intern(key: &ObjectKey) -> ObjectKey {
    let resource = GroupResource::named(&key.resource.group, &key.resource.resource);
    ObjectKey { resource, namespace: key.namespace.clone(), name: key.name.clone() }
}
