//! What goes into a pod's machine and what comes out: events, commands, and the facts they carry.
//!
//! Every command is safe to repeat, since a restarted node issues again what it cannot know to be finished. Commands
//! are to be carried out in the order of the output; those that take time ([`PodCommand::is_effect`]) answer later by
//! the event named in their documentation, and nothing else waits for them.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use podium_types::k8s::api::core::v1::{Pod, PodStatus};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::record::PodRecord;

/// One run of a container: the attempt counts from 0 and never goes back, so it is also the restart count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instance {
    /// The container's name in the pod's spec.
    pub container: String,
    /// How many instances of this container came before.
    pub attempt: u32,
}

impl Instance {
    /// The name of this instance in its pod's shim: unique within the pod, readable in a directory listing, and at most
    /// 64 bytes, for which the longest container names are cut and told apart by a hash.
    #[must_use]
    pub fn id(&self) -> String {
        let attempt = self.attempt;
        if self.container.len() <= LONGEST_NAME_IN_ID {
            return format!("{}.{attempt}", self.container);
        }
        let digest = Sha256::digest(self.container.as_bytes());
        let hash: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let head: String = self.container.chars().take(LONGEST_NAME_IN_ID - 9).collect();
        format!("{head}-{hash}.{attempt}")
    }
}

/// 64 bytes for the id, less a dot and the ten digits of the largest attempt.
const LONGEST_NAME_IN_ID: usize = 53;

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.container, self.attempt)
    }
}

/// What is known of a container image on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// The reference as the pod's spec gives it.
    pub requested: String,
    /// The full reference as the status shows it, for example `docker.io/library/busybox:latest`.
    pub name: String,
    /// The reference by digest as the status shows it in `imageID`.
    pub id: String,
    /// Bytes of the image as the registry holds it.
    pub size_bytes: u64,
}

/// How an instance ended, as its shim recorded it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code; 128 plus the signal's number if a signal ended it.
    pub code: i32,
    /// The kernel killed it for exceeding its memory limit.
    pub oom_killed: bool,
    /// When its process was started.
    pub started_at: Option<Timestamp>,
    /// When its process was reaped.
    pub finished_at: Timestamp,
    /// The termination message, already bounded and read from file or log.
    pub message: Option<String>,
}

/// Which of a container's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Gates the other two until it succeeded once.
    Startup,
    /// Restarts the container when it fails.
    Liveness,
    /// Decides whether the container is ready.
    Readiness,
}

impl ProbeKind {
    /// The word that starts the message of an `Unhealthy` event.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// What one run of a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The container answered well.
    Success,
    /// It answered badly or in no time; the text says how.
    Failure(String),
    /// The probe itself could not be run; counts neither way.
    Unknown(String),
}

/// Which of a container's lifecycle hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Runs right after the start; the container is not ready before it ends.
    PostStart,
    /// Runs before the stop signal, within the grace period.
    PreStop,
}

/// Why an image is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullFailure {
    /// The reference cannot be read.
    InvalidName,
    /// The registry or the content refused, or the disk was full.
    Failed,
}

/// At which point starting an instance failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartStage {
    /// Its configuration cannot be made: a missing ConfigMap, a bad user.
    Config,
    /// The runtime refused to create it; there is no instance.
    Create,
    /// It was created and its program could not be started; the instance has ended.
    Start,
}

/// What happened, to one pod.
#[derive(Debug, Clone)]
pub enum PodEvent {
    /// The pod's object as the API has it now.
    Desired(Arc<Pod>),
    /// The API has the pod no more.
    Removed,
    /// A ConfigMap or Secret that the pod refers to appeared or changed: what waits for one may try at once.
    ReferencesChanged,
    /// Time passed; see [`PodMachine::next_wake`](super::PodMachine::next_wake).
    Tick,
    /// The node is going down: stop all containers within the limit, keep the pod.
    NodeStopping {
        /// The longest grace any container may have.
        limit: Duration,
    },
    /// Answers [`PodCommand::PrepareVolumes`].
    VolumesReady,
    /// Answers [`PodCommand::PrepareVolumes`].
    VolumesFailed {
        /// The volume and the cause, for the event.
        message: String,
    },
    /// Answers [`PodCommand::StartSandbox`].
    SandboxStarted,
    /// Answers [`PodCommand::StartSandbox`].
    SandboxFailed {
        /// The cause, for the event.
        message: String,
    },
    /// The pod's shim is gone, and with it every process of the pod. Exits that it had recorded come before this.
    SandboxLost,
    /// Answers [`PodCommand::AttachNetwork`].
    NetworkAttached {
        /// The pod's addresses, the primary first; the node's own for a pod on the host's network.
        addresses: Vec<IpAddr>,
    },
    /// Answers [`PodCommand::AttachNetwork`].
    NetworkFailed {
        /// The cause, for the event.
        message: String,
    },
    /// Answers [`PodCommand::InspectImage`].
    ImageInspected {
        /// Whose image.
        container: String,
        /// The image if this node has it whole.
        found: Option<ImageFacts>,
    },
    /// Answers [`PodCommand::PullImage`].
    ImagePulled {
        /// Whose image.
        container: String,
        /// The image.
        image: ImageFacts,
        /// How long the registry took.
        took: Duration,
    },
    /// Answers [`PodCommand::PullImage`].
    ImagePullFailed {
        /// Whose image.
        container: String,
        /// The class of the cause.
        failure: PullFailure,
        /// The cause, for status and event.
        message: String,
    },
    /// First answer to [`PodCommand::RunInstance`].
    InstanceCreated(Instance),
    /// Second answer to [`PodCommand::RunInstance`].
    InstanceStarted {
        /// Which instance.
        instance: Instance,
        /// When its process was started.
        started_at: Timestamp,
    },
    /// Last answer to [`PodCommand::RunInstance`] when it failed.
    StartFailed {
        /// Which instance.
        instance: Instance,
        /// How far it came.
        stage: StartStage,
        /// The cause, for status and event.
        message: String,
    },
    /// An instance ended.
    InstanceExited {
        /// Which instance.
        instance: Instance,
        /// How.
        exit: Exit,
    },
    /// Answers [`PodCommand::RunHook`].
    HookFinished {
        /// Whose hook.
        instance: Instance,
        /// Which hook.
        hook: Hook,
        /// The cause if it failed.
        result: Result<(), String>,
    },
    /// Answers [`PodCommand::RunProbe`].
    ProbeFinished {
        /// Whose probe.
        instance: Instance,
        /// Which probe.
        probe: ProbeKind,
        /// What it found.
        outcome: ProbeOutcome,
    },
    /// Answers [`PodCommand::WithdrawEndpoint`].
    EndpointWithdrawn,
    /// Answers [`PodCommand::StopSandbox`].
    SandboxStopped,
    /// Answers [`PodCommand::DetachNetwork`].
    NetworkDetached,
    /// Answers [`PodCommand::RemoveVolumes`].
    VolumesRemoved,
    /// A teardown command failed; it is repeated later.
    TeardownFailed {
        /// The cause, for the event.
        message: String,
    },
}

/// Whether an occurrence is ordinary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Shown as `Normal`.
    Normal,
    /// Shown as `Warning`.
    Warning,
}

/// Something to be recorded as an Event object about the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrence {
    /// Normal or Warning.
    pub severity: Severity,
    /// One CamelCase word that programs match on.
    pub reason: String,
    /// The sentence for people.
    pub message: String,
    /// The field it concerns, as `spec.containers{name}`.
    pub field_path: Option<String>,
}

/// What is to be done for the pod.
#[derive(Debug, Clone)]
pub enum PodCommand {
    /// Put the record on disk, durably, before anything that follows it in the output.
    Persist(Box<PodRecord>),
    /// Make all volumes of the pod: [`PodEvent::VolumesReady`] or [`PodEvent::VolumesFailed`].
    PrepareVolumes,
    /// Start the pod's shim unless it runs: [`PodEvent::SandboxStarted`] or [`PodEvent::SandboxFailed`].
    StartSandbox,
    /// Join the sandbox to the pod network unless it is: [`PodEvent::NetworkAttached`] or [`PodEvent::NetworkFailed`].
    AttachNetwork,
    /// Look whether the node has the image: [`PodEvent::ImageInspected`].
    InspectImage {
        /// For whom.
        container: String,
        /// The reference as the spec gives it.
        image: String,
    },
    /// Get the image from its registry: [`PodEvent::ImagePulled`] or [`PodEvent::ImagePullFailed`].
    PullImage {
        /// For whom.
        container: String,
        /// The reference as the spec gives it.
        image: String,
    },
    /// Create and start the instance, or take it from where the shim has it: [`PodEvent::InstanceCreated`] and
    /// [`PodEvent::InstanceStarted`], or [`PodEvent::StartFailed`], or [`PodEvent::InstanceExited`] if it already ended.
    RunInstance(Instance),
    /// Run the hook: [`PodEvent::HookFinished`].
    RunHook {
        /// In which instance.
        instance: Instance,
        /// Which hook.
        hook: Hook,
    },
    /// Run the probe once: [`PodEvent::ProbeFinished`].
    RunProbe {
        /// Against which instance.
        instance: Instance,
        /// Which probe.
        probe: ProbeKind,
    },
    /// Send a signal to the instance's first process; its end comes as [`PodEvent::InstanceExited`].
    StopInstance {
        /// Which instance.
        instance: Instance,
        /// SIGKILL to all of its processes instead of the stop signal.
        force: bool,
    },
    /// Drop what is left of an instance that ended, but for its log.
    RemoveInstance(Instance),
    /// Take the pod out of every Service, on every node: [`PodEvent::EndpointWithdrawn`].
    WithdrawEndpoint,
    /// Kill what is left in the sandbox and end the shim: [`PodEvent::SandboxStopped`].
    StopSandbox,
    /// Leave the pod network: [`PodEvent::NetworkDetached`].
    DetachNetwork,
    /// Unmount and delete the volumes: [`PodEvent::VolumesRemoved`].
    RemoveVolumes,
    /// Write the status to the API.
    ReportStatus(Box<PodStatus>),
    /// Record an Event.
    Record(Occurrence),
    /// Nothing of the pod is left on the node: delete its object for good. Repeated until [`PodEvent::Removed`] comes.
    DeleteObject,
    /// Delete the pod's record and logs; the machine is done.
    Forget,
}

impl PodCommand {
    /// True for a command that is answered by an event.
    #[must_use]
    pub fn is_effect(&self) -> bool {
        match self {
            Self::PrepareVolumes
            | Self::StartSandbox
            | Self::AttachNetwork
            | Self::InspectImage { .. }
            | Self::PullImage { .. }
            | Self::RunInstance(_)
            | Self::RunHook { .. }
            | Self::RunProbe { .. }
            | Self::StopInstance { .. }
            | Self::WithdrawEndpoint
            | Self::StopSandbox
            | Self::DetachNetwork
            | Self::RemoveVolumes => true,
            Self::Persist(_)
            | Self::RemoveInstance(_)
            | Self::ReportStatus(_)
            | Self::Record(_)
            | Self::DeleteObject
            | Self::Forget => false,
        }
    }
}
