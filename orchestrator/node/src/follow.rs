//! A part of the store, followed without gaps: everything there is, then every change.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use podium_store::{Record, Revision, StoreHandle, View, Watch, WatchEvent};

/// More than this is handed over in several batches, so that a flood does not delay the first of it.
const BATCH_MAX: usize = 512;
/// A watch ends early only when the store stops, or when this node lagged by the whole history; neither mends faster.
const PAUSE: Duration = Duration::from_millis(200);

/// What a follower learns.
pub(crate) enum News {
    /// Everything there is under the prefix. Comes first, and again after a gap.
    All(Vec<Arc<Record>>),
    /// Changes, in order.
    Changes(Vec<Arc<WatchEvent>>),
}

/// Follows one prefix of the store, as far as this member has applied it.
pub(crate) struct Follower {
    store: Arc<dyn StoreHandle>,
    prefix: String,
    watch: Option<Watch>,
}

impl Follower {
    /// Starts with everything there is.
    pub(crate) fn new(store: Arc<dyn StoreHandle>, prefix: String) -> Self {
        Self { store, prefix, watch: None }
    }

    /// Everything up to this revision has been handed over.
    pub(crate) fn progress(&self) -> Revision {
        self.watch.as_ref().map_or(Revision(0), Watch::progress)
    }

    /// Waits for news. Safe to cancel: nothing is lost.
    pub(crate) async fn next(&mut self) -> News {
        loop {
            let Some(watch) = &mut self.watch else {
                let view = self.store.local();
                match self.store.watch(&self.prefix, view.revision()) {
                    Ok(watch) => {
                        self.watch = Some(watch);
                        return News::All(all(&view, &self.prefix));
                    }
                    Err(error) => {
                        tracing::warn!(prefix = %self.prefix, %error, "cannot watch the store");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                }
            };
            match watch.next().await {
                Ok(first) => {
                    let mut events = vec![first];
                    while events.len() < BATCH_MAX {
                        match watch.next().now_or_never() {
                            Some(Ok(event)) => events.push(event),
                            // An error comes again at the next call.
                            Some(Err(_)) | None => break,
                        }
                    }
                    return News::Changes(events);
                }
                Err(error) => {
                    tracing::info!(prefix = %self.prefix, %error, "starting over");
                    self.watch = None;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

fn all(view: &View, prefix: &str) -> Vec<Arc<Record>> {
    view.range(prefix).cloned().collect()
}
