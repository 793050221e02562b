//! The Kubernetes API: resources, verbs, patches, admission, authorization, HTTP, streaming.
//!
//! ```text
//!  kubectl ── TLS ──► http ── verbs ──► pipeline ── transactions ──► store
//!                      │                   ▲
//!        log, exec ────┘                   └── controllers, agent (in process, as system users)
//!                      ▼
//!                 streams::PodStreams (the node)
//! ```
//!
//! A resource is a row of [`registry`]; no kind has a handler of its own. [`pipeline`] carries out the verbs on a
//! [`podium_store::StoreHandle`], with time and randomness handed in, so the simulator runs the same code. [`http`] is
//! what only a server needs: negotiation, tables, discovery, watch streams, upgrades. What the kinds look like, what
//! their fields default to and which values are valid is in `podium-types`.

pub mod admission;
pub mod auth;
pub mod bootstrap;
pub mod bugs;
pub mod http;
pub mod patch;
pub mod pipeline;
pub mod registry;
pub mod seams;
pub mod share;
pub mod status;
pub mod streams;

pub use auth::User;
pub use pipeline::{Pipeline, Target};
pub use registry::Resource;
pub use status::Status;
