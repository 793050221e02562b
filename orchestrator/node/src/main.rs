//! `node`: what a machine runs of the cluster. It composes; the parts it composes know nothing of each other.
//!
//! ```text
//!  machine (PID 1's socket) ── config, addresses, shutdown
//!  cluster ── identity, other machines, forming, the store                       (STATE)
//!  authority ── the cluster's CA; certificates of the API's servers and of nodes (store)
//!  credential ── a worker's certificate as a client of the API                   (STATE)
//!  store ◄── pipeline ◄── server (HTTPS :6443) ◄── kubectl
//!    │          ▲ ▲
//!    │          │ └── lead: bootstrap and controllers, while this member leads
//!    │          └──── register: this node's own Node and Machine objects
//!    └─ watch ─► follow ─┬─► services: the data path and the cluster's names
//!                        ├─► overlay: the way to other nodes' pods
//!                        └─► workload: this node's pods ─► agent ─► shims
//! ```
//!
//! Crash-only: this process may be killed at any instruction. What it needs again is in the store, in STATE, in the shims
//! and in the kernel; PID 1 starts it anew.

mod admit;
mod authority;
mod cluster;
mod compose;
mod credential;
mod directory;
mod files;
mod follow;
mod form;
mod heartbeat;
mod identity;
mod images;
mod lead;
mod machine;
mod name;
mod network;
mod overlay;
mod place;
mod prover;
mod references;
mod register;
mod services;
mod sessions;
mod sinks;
mod streams;
mod voters;
mod worker;
mod workload;

use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

// Mistakes that the simulator can be told to make are never in a program that ships.
const _: () = assert!(
    !podium_store::PLANTED_BUGS
        && !podium_api::bugs::PLANTED_BUGS
        && !podium_control::bugs::PLANTED_BUGS
);

/// Threads for everything that is not blocking. Two keep a slow peer from holding up a probe; more would only cost memory
/// on the small machines that this is meant for.
const WORKERS: usize = 2;
/// Blocking work is unpacking, netlink and file reads; each thread costs a stack.
const BLOCKING_THREADS_MAX: usize = 16;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("PODIUM_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,openraft=error,hickory_server=warn"));
    // PID 1 puts the time in front of what the node prints.
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .without_time()
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build();
    let ended = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let ended = runtime.block_on(compose::run());
        // Dropping it would wait for whatever still blocks; what must be on the disk is there.
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
