//! Requests, replies and events.

use serde::{Deserialize, Serialize};

use crate::{ContainerConfig, ExecConfig, TerminalSize};

/// What a client may ask of a shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// How is the pod? Answered by [`Reply::Status`].
    Status,
    /// As `Status`, and every later change as a [`Reply::Event`].
    Subscribe,
    /// Make a container, its first process waiting for `Start`. Answered by [`Reply::Created`].
    Create(Box<ContainerConfig>),
    /// Let a created container run. Answered by [`Reply::Done`].
    Start {
        /// The container.
        id: String,
    },
    /// Signal a container's first process. Answered by [`Reply::Done`], also if it has ended meanwhile.
    Signal {
        /// The container.
        id: String,
        /// The signal's number.
        signal: i32,
        /// Kill every process of the container instead; `signal` must then be 9.
        all: bool,
    },
    /// Forget a container that was never started or has ended: its mounts, control group and files, the exit record and
    /// the log excepted. Answered by [`Reply::Done`], also if it is not known.
    Remove {
        /// The container.
        id: String,
    },
    /// Run a process in a running container. Answered by [`Reply::ExecStarted`], later [`Reply::ExecExited`].
    Exec(ExecConfig),
    /// Set the size of a container's terminal. Answered by [`Reply::Done`].
    Resize {
        /// The container.
        id: String,
        /// The new size.
        size: TerminalSize,
    },
    /// Kill every process of every container at once. Answered by [`Reply::Done`] as soon as the kernel was told; the exits come
    /// as events.
    StopPod,
    /// End the shim. Refused ([`FailureKind::WrongState`]) while a container runs. Answered by [`Reply::Done`].
    Shutdown,
    /// Copy a container's output from now on, and feed its standard input. The request carries three descriptors (any of them may
    /// be `/dev/null`): read from as the container's standard input, written to as its output and error. They are made
    /// non-blocking; a reader that does not keep up loses output, never the container time. Answered by [`Reply::Done`]; the
    /// attachment ends with the connection or the container.
    Attach {
        /// The container.
        id: String,
    },
}

/// What a shim answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Done, nothing to tell.
    Done,
    /// The pod as it is now.
    Status(PodStatus),
    /// A container was made.
    Created {
        /// Its first process, as the node sees it.
        pid: i32,
    },
    /// A process runs in a container. With a terminal, the reply carries its master side.
    ExecStarted {
        /// The process, as the node sees it.
        pid: i32,
    },
    /// A process started by `Exec` has ended.
    ExecExited(ExecExit),
    /// Something changed.
    Event(Event),
    /// The request was not carried out.
    Failed(Failure),
}

/// A pod as its shim sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodStatus {
    /// The pod's uid, to notice a folder that belongs to someone else.
    pub uid: String,
    /// The shim's process. `/proc/<pid>/ns/net` is the pod's network.
    pub pid: i32,
    /// Its containers in the order of their creation, ended ones too until they are removed.
    pub containers: Vec<ContainerStatus>,
}

/// One container as its shim sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// [`ContainerConfig::id`].
    pub id: String,
    /// [`ContainerConfig::name`].
    pub name: String,
    /// [`ContainerConfig::attempt`].
    pub attempt: u32,
    /// Where it is in its life.
    pub state: ContainerState,
    /// When it was made.
    pub created_at: WallTime,
    /// Bytes of output that could not be logged, for instance because the disk was full.
    pub log_bytes_lost: u64,
}

/// Where a container is in its life; it only moves forward.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Made; its first process waits for `Start`.
    Created {
        /// The first process.
        pid: i32,
    },
    /// Its program runs.
    Running {
        /// The first process.
        pid: i32,
        /// When it was started.
        started_at: WallTime,
    },
    /// Every process of it has ended, its output is logged, and the record is on disk.
    Exited(ExitRecord),
}

/// How a container ended. Also the content of [`crate::paths::exit_record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The exit code; 128 + the signal's number if a signal ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The kernel killed it for memory: its group's `oom_kill` counter rose and its first process died of SIGKILL.
    pub oom_killed: bool,
    /// When it was started; `None` if it never was.
    pub started_at: Option<WallTime>,
    /// When its first process ended.
    pub finished_at: WallTime,
}

/// How a process started by `Exec` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecExit {
    /// The exit code; 128 + the signal's number if a signal ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

/// A change in a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// This container is now like this: created, started or ended.
    Changed(ContainerStatus),
    /// This container is forgotten.
    Removed {
        /// The container.
        id: String,
    },
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What to do about it.
    pub kind: FailureKind,
    /// For people; one line.
    pub message: String,
}

/// Sorts failures by what the agent does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// No such container.
    NotFound,
    /// The container exists already.
    AlreadyExists,
    /// Not possible in the state that the container is in.
    WrongState,
    /// The configuration can never work (a bad user, capability, path or value): `CreateContainerConfigError`.
    InvalidConfig,
    /// `runAsNonRoot` is set and the user is 0: `CreateContainerConfigError`.
    WouldRunAsRoot,
    /// The program is not in the image or cannot be executed: `RunContainerError`, and for exec exit code 126 or 127.
    CannotExecute,
    /// The kernel or the disk refused; trying again may help: `CreateContainerError`.
    System,
}

/// Wall-clock time since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WallTime {
    /// Seconds; negative before 1970.
    pub seconds: i64,
    /// Nanoseconds within the second, 0 to 999,999,999.
    pub nanoseconds: u32,
}
