//! What the node's agent and a pod's shim say to each other, and the few files that both of them read.
//!
//! One shim serves one pod. The agent writes [`PodConfig`] to [`paths::pod_config`], runs `shim --dir <dir>` and waits for
//! that command to exit: status 0 means that the shim now runs on its own (a child of PID 1, in its own session) and
//! that [`paths::socket`] accepts connections; any other status comes with the reason on stderr.
//!
//! A connection carries frames ([`frame`]): a [`Request`] is answered by exactly one [`Reply`], in order. Two requests
//! change what a connection is for, and nothing else may be sent on it afterwards:
//!
//! - [`Request::Subscribe`] answers with [`Reply::Status`], then one [`Reply::Event`] per change for as long as the
//!   connection lives. The status and the events have no gap between them, so a restarted agent misses nothing.
//! - [`Request::Exec`] answers with [`Reply::ExecStarted`], then [`Reply::ExecExited`] when the process has ended. Closing
//!   the connection before that kills the process.
//!
//! # Files and groups
//!
//! ```text
//! <dir>/pod.bin                     PodConfig, written by the agent before it starts the shim
//! <dir>/shim.sock, shim.pid         made by the shim; <dir>/shim.log holds what it has to complain about
//! <dir>/containers/<id>/exit        ExitRecord, on disk before any client hears of it; outlives the shim
//! /sys/fs/cgroup<cgroup>/           the pod's control group (PodConfig::cgroup), made by the shim
//!     shim/                         the shim's own process
//!     <container id>/               one per container
//! ```
//!
//! If the shim dies, its containers run on without a parent that would record their end: the agent, seeing end-of-file
//! on its subscription or finding nobody at the socket, writes `1` to `cgroup.kill` of the pod's group, which takes every
//! process of the pod and any shim that is left. Containers without an exit record then count as killed (137).
//! Mounts need no cleaning: they live in the shim's mount namespace and go with its last process.
//!
//! # Blocking and async callers
//!
//! [`client::Client`] blocks. An async caller has two ways: run it on a blocking thread (right for exec, which passes
//! file descriptors), or put [`frame::encode`] and [`frame::Decoder`] on its own non-blocking socket (right for
//! subscriptions, which live long and never carry descriptors).

pub mod client;
mod config;
pub mod frame;
pub mod group;
pub mod paths;
pub mod record;
mod status;

pub use config::{
    Capabilities, ContainerConfig, CpuQuota, ExecConfig, LogLimits, Mount, PodConfig, Propagation,
    Resources, RunAs, Seccomp, Security, Stdio, TerminalSize, cpu_quota, cpu_weight,
};
pub use status::{
    ContainerState, ContainerStatus, Event, ExecExit, ExitRecord, Failure, FailureKind, PodStatus,
    Reply, Request, WallTime,
};
