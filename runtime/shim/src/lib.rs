//! One pod's supervisor. A small, single-threaded program per pod that owns the pod's namespaces, runs its containers with libcontainer,
//! logs what they write and records how they end; see [`podium_shim_protocol`] for how it is talked to.
//!
//! Elsewhere, on purpose: every decision (what to start, restart, signal or remove, and when) is the agent's. Images are unpacked
//! already, volumes mounted, addresses assigned: the agent does that to `/proc/<shim>/ns/net`.
//!
//! # Invariants
//!
//! - The shim outlives the agent. Nothing that a client does or fails to do stops a container or its log.
//! - A container's end is told only when every process of it is gone, its output is logged and the record is on disk.
//! - Nothing in a container's filesystem is trusted, and no descriptor of the shim reaches a container: all are close-on-exec, and
//!   libcontainer closes the rest. A container sees neither the shim's socket nor its folder, which are not mounted into it.
//! - The program itself must lie on a read-only filesystem, as it does in the image: a container's first process is, for a moment, this
//!   program, and could otherwise be used to write to it.
//! - One thread. libcontainer runs Rust code between clone and exec, which is sound only then.

mod attach;
mod capabilities;
mod cgroup;
mod client;
mod container;
mod create;
mod devices;
mod exec;
mod failure;
mod identity;
mod inside;
mod launch;
mod leaks;
mod log;
mod loopback;
mod pod;
mod poll;
mod rootfs;
mod seccomp;
mod server;
mod spec;
mod terminal;
mod time;
mod workload;

pub use launch::{ShimError, launch, serve};
pub use pod::SetUpError;
