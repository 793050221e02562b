//! How machines find each other, prove who they are, and speak.
//!
//! ```text
//!  discover ── announcements (multicast, sealed with the token) ──┐
//!  listed addresses, gossip, addresses of the last run ───────────┴─► book: whom to try where
//!                                                                      │
//!  TCP 6444, TLS 1.3, both sides show their identity key               ▼
//!   ├─ podium-meet/1    token proven both ways, hellos, proposals ── meet ──► what the others say
//!   ├─ podium-store/1   members only, by pinned key ── link ──► the store's Transport
//!   ├─ podium-node/1    nodes only: what a node and a voter say to each other
//!   ├─ podium-streams/1 nodes only: one stream of a pod each
//!   └─ podium-beat/1    nodes only: that a node lives
//! ```
//!
//! - An identity is a key. TLS carries it raw (RFC 7250): there are no certificates, so no dates and no names that could be
//!   wrong. Who a member is stands in the store's membership, who a stranger is does not matter: the token does.
//! - The token is never sent. Both ends of a `podium-meet/1` session prove it by a MAC over what only this TLS session
//!   knows (RFC 8446, 7.5) and both keys, so that a relay in the middle proves nothing.
//! - Addresses are hints, from wherever they come. A connection counts only after the key on the other end was seen.
//! - Everything that comes from another machine has a limit in size and in time, and strangers a limit in number.
//!
//! Deliberately elsewhere: what to say and what follows from what is heard (`podium_control::forming`), the disk, the store.

mod announce;
mod book;
mod complaint;
mod discover;
pub mod frame;
mod identity;
mod link;
mod listen;
mod meet;
pub mod operator;
mod pace;
mod peers;
mod pinned;
mod proof;
mod tls;

pub use identity::{IdentityError, NodeKey};
pub use pace::Pace;
pub use peers::{Config, Peers, Services, StartError};
pub use pinned::Pinned;
pub use tls::{Protocol, Session};

/// Where machines speak to each other: TCP, and UDP for announcements.
pub const PORT: u16 = 6444;
