//! What a watcher holds: a place in the history, and the events behind it one by one.
//!
//! There is no queue per watcher. All share the history; a watcher is a position in it, so a slow
//! one costs nothing and holds nobody up. When the history moves past an event it has not taken,
//! it is told so once and ends.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;

use crate::error::WatchError;
use crate::record::{Record, Revision};
use crate::replica::Replica;

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It was created or replaced; `previous` tells which.
    Put,
    /// It was removed.
    Delete,
}

/// One change of one key, made once and shared by all who see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchEvent {
    /// The revision of the transaction. Events of one transaction share it and follow each other.
    pub revision: Revision,
    /// The key.
    pub key: Arc<str>,
    /// What happened.
    pub kind: EventKind,
    /// What the key holds now; nothing after a deletion.
    pub record: Option<Arc<Record>>,
    /// What it held before; nothing if it is new.
    pub previous: Option<Arc<Record>>,
}

/// Events in order and without a gap. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    replica: Arc<Replica>,
    id: u64,
}

impl Watch {
    pub(crate) fn new(replica: Arc<Replica>, id: u64) -> Self {
        Self { replica, id }
    }

    /// The next event. Safe to cancel: an event that was not returned comes again.
    ///
    /// # Errors
    /// [`WatchError`], after which nothing comes any more.
    pub async fn next(&mut self) -> Result<Arc<WatchEvent>, WatchError> {
        poll_fn(|context| self.poll_event(context)).await
    }

    /// [`Watch::next`] for a caller that polls.
    pub fn poll_event(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Arc<WatchEvent>, WatchError>> {
        self.replica.poll_watch(self.id, context)
    }

    /// Every event of the watch up to this revision has been delivered. Moves on without events
    /// too, which is what a bookmark reports.
    #[must_use]
    pub fn progress(&self) -> Revision {
        self.replica.watch_progress(self.id)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.replica.unwatch(self.id);
    }
}

/// Ends after the first error.
impl Stream for Watch {
    type Item = Result<Arc<WatchEvent>, WatchError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_event(context).map(Some)
    }
}
