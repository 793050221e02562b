//! One lock per piece of content, for as long as somebody wants it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::reference::Digest;

/// Locks by digest.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    known: Mutex<BTreeMap<Digest, Weak<AsyncMutex<()>>>>,
}

impl Locks {
    /// Waits until nobody else holds the digest's lock, and holds it until the guard is dropped.
    pub(crate) async fn hold(&self, digest: &Digest) -> OwnedMutexGuard<()> {
        let lock = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.retain(|_, lock| lock.strong_count() > 0);
            let lock = known.get(digest).and_then(Weak::upgrade).unwrap_or_default();
            known.insert(digest.clone(), Arc::downgrade(&lock));
            lock
        };
        lock.lock_owned().await
    }
}
