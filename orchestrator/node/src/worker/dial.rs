//! The way to some voter: those of the directory, or while it is empty those that the place came with.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use podium_peer::{Peers, Protocol};
use tokio::sync::watch;

use super::{Dial, Session};
use crate::directory::Directory;

/// One voter after the other.
pub(crate) struct AnyVoter {
    /// The other machines.
    pub(crate) peers: Arc<Peers>,
    /// Who votes now.
    pub(crate) directory: watch::Receiver<Directory>,
    /// Public keys of those who voted when this node joined.
    pub(crate) first: Vec<Vec<u8>>,
    /// Whose turn it is.
    pub(crate) turn: AtomicUsize,
}

impl AnyVoter {
    fn keys(&self) -> Vec<Vec<u8>> {
        let directory = self.directory.borrow();
        let voters = directory.values().filter(|entry| entry.voter && !entry.key.is_empty());
        let known: Vec<_> = voters.map(|entry| entry.key.clone()).collect();
        if known.is_empty() { self.first.clone() } else { known }
    }
}

impl Dial for AnyVoter {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Session>, String>> {
        Box::pin(async move {
            let keys = self.keys();
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
