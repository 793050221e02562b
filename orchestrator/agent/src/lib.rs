//! The effects on a node: what the pure lifecycle of a pod ([`podium_control::pod`]) decides is done here.
//!
//! The agent takes the pods that are bound to this node as [`Change`]s, keeps one task per pod that feeds its machine
//! and carries out what it says, and reports through the sinks it was given. It starts a shim per pod and speaks the
//! shim's protocol, fetches images, makes volumes, files and environments, runs probes and hooks, reads logs and joins
//! exec streams.
//!
//! Deliberately elsewhere: every decision (control), namespaces and processes (the shim), packets (the data path, by
//! way of [`PodNetwork`]), the API (the node adapts [`StatusSink`], [`EventSink`] and [`References`] to it).
//!
//! # Invariants
//!
//! - The agent may be killed at any instruction: what it needs again is in the pods' records, in the shims, or in the
//!   API, and [`Agent::start`] finds it all before it takes the first change.
//! - Effects that build or take down one pod run one after the other; effects of different pods run side by side,
//!   within the bounds of [`AgentConfig`].
//! - A pod whose shim died is killed whole before anything of it is started again.

mod adopt;
mod agent;
mod cgroup;
mod config;
mod container;
mod dns;
mod env;
mod exec;
mod fields;
mod hooks;
mod host;
mod http;
mod logs;
mod node;
mod pod;
mod probes;
mod records;
mod references;
mod reports;
mod sandbox;
mod seams;
mod shim;
mod signals;
mod streams;
mod termination;
mod volumes;

pub use agent::{Agent, AgentError};
pub use config::{AgentConfig, Reserved};
pub use host::Seams;
pub use logs::{LogError, LogOptions, LogOrigin, LogStream};
pub use node::{NodeFacts, NodePressure};
pub use sandbox::ProcessLauncher;
pub use seams::{
    BoxFuture, Change, EventSink, ImageError, ImageStore, LaunchError, NetworkError, PodNetwork,
    PodRef, PulledImage, References, ServiceAddress, ShimLauncher, SinkError, StatusSink,
};
pub use streams::{
    ExecExit, ExecOptions, ExecSession, Input, Output, Resizer, StreamError, TerminalSize,
};
