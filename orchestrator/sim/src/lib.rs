//! The whole cluster in one process, from one seed.
//!
//! The shipped store runs unchanged on a simulated runtime, disk and network, in virtual time, while faults of every kind
//! that [`fault::Fault`] names happen to it. What the members say is judged by the [`ledger`] after every step; in the end
//! all faults stop and the cluster must come to rest in the state that it promised.
//!
//! ```text
//!   run ── nemesis ──► disk · network · clocks        (what goes wrong)
//!    │                      ▲
//!    ├──── cluster ── shipped code ── runtime ── executor (one thread, one seed)
//!    │                      ▲
//!    └──── workload ────────┴──► ledger                (what was promised, and held)
//! ```

mod access;
mod agent;
pub mod cluster;
pub mod disk;
pub mod executor;
pub mod fault;
mod follow;
mod forming;
mod lead;
pub mod ledger;
pub mod log;
pub mod loss;
pub mod mistake;
pub mod nemesis;
pub mod network;
mod pulse;
mod rest;
pub mod rules;
pub mod run;
pub mod runtime;
pub mod users;
pub mod workload;

pub use mistake::Mistakes;
pub use run::{Options, Report, USUAL_STEPS, USUAL_TIME, run};
