//! The way to some voter.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use podium_peer::{Peers, Protocol};

use super::{Dial, Session};
use crate::voters::Voters;

/// One voter after the other.
pub(crate) struct AnyVoter {
    /// The other machines.
    pub(crate) peers: Arc<Peers>,
    /// Who votes now.
    pub(crate) voters: Voters,
    /// Whose turn it is.
    pub(crate) turn: AtomicUsize,
}

impl Dial for AnyVoter {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Session>, String>> {
        Box::pin(async move {
            let keys = self.voters.keys();
            let start = self.turn.fetch_add(1, Ordering::Relaxed) % keys.len().max(1);
            let mut last = "no voter is known".to_owned();
            for key in keys.iter().cycle().skip(start).take(keys.len()) {
                match self.peers.open(key, Protocol::Node).await {
                    Ok(session) => return Ok(Box::new(session.stream) as Box<dyn Session>),
                    Err(reason) => last = reason,
                }
            }
            Err(last)
        })
    }
}
