//! A node without a replica, and the voter that it asks.
//!
//! ```text
//!  worker                               podium-node/1                     voter
//!  agent, services, names ─ Mirror ◄── follow ◄──── share, changes ──── serve ◄─ watch ─ store
//!  status, events ───────── Remote ──────────────── calls ────────────► serve ── pipeline, as the node's user
//! ```
//!
//! The voter sends what `podium_api::share` says is the node's, and carries out calls through the pipeline as
//! `system:node:<name>`, so that the authorizer judges them like any client's. A session is opened by the node, by whatever
//! way it has ([`Dial`]); the voter has checked the node's key before it serves, and the node the voter's. Who votes, and so may
//! be asked next time, the voter says too.

mod certify;
mod client;
mod dial;
pub(crate) mod door;
mod follow;
mod serve;
mod wire;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use certify::{NoCertificate, certify};
pub(crate) use client::Remote;
pub(crate) use dial::AnyVoter;
pub(crate) use follow::follow;
pub(crate) use serve::{Desk, Visitor, serve};

/// A session with another machine whose key was checked, before anything was said on it.
pub(crate) trait Session: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Session for S {}

/// Opens sessions with some voter.
pub(crate) trait Dial: Send + Sync + 'static {
    /// A new session with any voter that answers; the error says why there is none.
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Session>, String>>;
}
