//! What the agent needs from the rest of the node: small traits that the node program implements and tests replace.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use podium_control::pod::Occurrence;
use podium_types::k8s::api::core::v1::{ConfigMap, Pod, PodStatus, Secret};
use thiserror::Error;

/// A future that a trait object can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Which pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodRef {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`; a pod of the same name with another uid is another pod.
    pub uid: String,
}

impl PodRef {
    /// The reference to a pod.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        let metadata = &pod.metadata;
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}({})", self.name, self.namespace, self.uid)
    }
}

/// News for the agent, in the order in which the API made them.
#[derive(Debug, Clone)]
pub enum Change {
    /// All pods that are bound to this node: the first change, and again whenever the watch had to be restarted. Pods
    /// that are not in it are gone from the API.
    AllPods(Vec<Arc<Pod>>),
    /// A pod of this node is new or changed.
    Pod(Arc<Pod>),
    /// The API has the pod no more.
    PodRemoved {
        /// Its uid.
        uid: String,
    },
    /// A ConfigMap is new, changed or gone.
    ConfigMap {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A Secret is new, changed or gone.
    Secret {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// A Service as containers learn of it by environment variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAddress {
    /// The Service's name.
    pub name: String,
    /// Its cluster IP; Services without one are left out.
    pub cluster_ip: String,
    /// Its ports: name (may be empty), protocol (`TCP`), number.
    pub ports: Vec<(String, String, u16)>,
}

/// What pods refer to, as this node's view of the API has it now. Reads must not block for long.
pub trait References: Send + Sync + 'static {
    /// A ConfigMap, if there is one.
    fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<ConfigMap>>;
    /// A Secret, if there is one.
    fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>>;
    /// The Services of a namespace that have a cluster IP, and `default/kubernetes` with them.
    fn services(&self, namespace: &str) -> Vec<ServiceAddress>;
}

/// Why the API did not take a report.
#[derive(Debug, Error)]
pub enum SinkError {
    /// The API has this pod no more; the report is void.
    #[error("the pod is gone")]
    Gone,
    /// To be tried again later.
    #[error("the API cannot be reached: {0}")]
    Unavailable(String),
    /// The API refuses the report; trying again will not help.
    #[error("the API refuses the report: {0}")]
    Refused(String),
}

/// Where the agent reports the status of pods.
pub trait StatusSink: Send + Sync + 'static {
    /// Writes the node's part of a pod's status: the implementation joins it to the present one by
    /// [`podium_control::pod::merge_status`] and writes `/status`, if anything changed.
    fn write<'a>(
        &'a self,
        pod: &'a PodRef,
        status: &'a PodStatus,
    ) -> BoxFuture<'a, Result<(), SinkError>>;

    /// Deletes the pod's object for good: grace 0, only if the uid is still the same.
    fn delete<'a>(&'a self, pod: &'a PodRef) -> BoxFuture<'a, Result<(), SinkError>>;
}

/// Where the agent records Events. Must not block; may drop when it is flooded.
pub trait EventSink: Send + Sync + 'static {
    /// Records that something happened to a pod.
    fn record(&self, pod: &PodRef, occurrence: &Occurrence);
}

/// Why a pod could not join or leave the network.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct NetworkError(
    /// For people.
    pub String,
);

/// The pod network, as the agent uses it. All of it is safe to repeat.
pub trait PodNetwork: Send + Sync + 'static {
    /// Joins a network namespace (`/proc/<pid>/ns/net`) to the pod network and returns the pod's addresses, the same as
    /// before if the pod had some. Repeated with the same namespace it only answers.
    fn attach<'a>(
        &'a self,
        pod: &'a PodRef,
        namespace: &'a Path,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, NetworkError>>;

    /// Takes the pod out of the network and frees its addresses; without effect for one that is not in it.
    fn detach<'a>(&'a self, pod: &'a PodRef) -> BoxFuture<'a, Result<(), NetworkError>>;

    /// Takes every pod out of the network that is not one of these; called once, when the agent starts.
    fn reconcile<'a>(&'a self, pods: &'a [PodRef]) -> BoxFuture<'a, Result<(), NetworkError>>;

    /// Resolves when no node sends new connections of a Service to the pod any more, as its object is terminating.
    fn withdrawn<'a>(&'a self, pod: &'a PodRef) -> BoxFuture<'a, ()>;
}

/// What the agent needs to know of an image on the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PulledImage {
    /// The full reference: `docker.io/library/busybox:latest`.
    pub reference: String,
    /// The digest by which the image was pulled: `sha256:…`.
    pub digest: String,
    /// `Entrypoint` of the image's configuration.
    pub entrypoint: Vec<String>,
    /// `Cmd` of the image's configuration.
    pub cmd: Vec<String>,
    /// `Env` of the image's configuration, as `NAME=value`.
    pub env: Vec<String>,
    /// `User` of the image's configuration.
    pub user: String,
    /// `WorkingDir` of the image's configuration.
    pub working_dir: String,
    /// `StopSignal` of the image's configuration.
    pub stop_signal: Option<String>,
    /// Paths that the image declares as volumes.
    pub volumes: Vec<String>,
    /// The unpacked layers, top first.
    pub layers: Vec<PathBuf>,
    /// Bytes of the image as the registry holds it.
    pub size_bytes: u64,
}

/// Why there is no image.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The reference cannot be read.
    #[error("{0}")]
    InvalidReference(String),
    /// The registry, the content or the disk refused.
    #[error("{0}")]
    Failed(String),
}

/// Container images of this node.
pub trait ImageStore: Send + Sync + 'static {
    /// The image, if it is here whole.
    fn get<'a>(
        &'a self,
        reference: &'a str,
    ) -> BoxFuture<'a, Result<Option<PulledImage>, ImageError>>;

    /// Gets the image from its registry; `credentials` are the pod's `.dockerconfigjson` documents, to be tried in order.
    fn pull<'a>(
        &'a self,
        reference: &'a str,
        credentials: &'a [String],
    ) -> BoxFuture<'a, Result<PulledImage, ImageError>>;

    /// All images: references and digests as a node's status names them, and bytes.
    fn list(&self) -> BoxFuture<'_, Vec<(Vec<String>, u64)>>;
}

/// Why a shim could not be started.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct LaunchError(
    /// For people.
    pub String,
);

/// Starts shims.
pub trait ShimLauncher: Send + Sync + 'static {
    /// Starts the shim of the pod whose folder this is, and returns when its socket accepts connections.
    fn launch<'a>(&'a self, dir: &'a Path) -> BoxFuture<'a, Result<(), LaunchError>>;
}
