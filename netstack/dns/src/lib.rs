//! The cluster's name server: every node answers its own pods.
//!
//! ```text
//!  pod ──► server ──┬─ a name of the cluster ──► zone      (authoritative, from memory)
//!                   └─ any other ─────────────► forward    (the machine's own name servers, with a cache)
//! ```
//!
//! [`Zone`] is a pure view of Services and their endpoints, kept by the node from its watch; a change replaces one service's
//! records and nothing else. No question leaves the node for a name of the cluster, so names work while the API does not.
//!
//! The names follow the Kubernetes DNS-based service discovery specification, version 1.1.0; the protocol is hickory-dns.
//!
//! Deliberately elsewhere: the address that is served and keeping its packets out of conntrack (`podium-dataplane`).

mod forward;
mod server;
mod zone;

pub use forward::Upstreams;
pub use server::{Server, ServerError, SharedZone};
pub use zone::{Answer, Backend, Data, Kind, Port, Service, ServiceKind, Zone};
