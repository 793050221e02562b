//! What a voter says to one node that follows it: the node's whole share, then what becomes of it.
//!
//! How it travels is elsewhere: the node program sends it over TLS, the simulator over its network. Nothing is queued here: the
//! next piece of news is made when it is asked for, of what the store's history still has. A node that takes too long has
//! lost events by then; its session ends, and it is sent the whole again.
//!
//! Invariants: all changes of a revision are in one piece, after which the node is at that revision at least; the whole is not
//! older than anything that was acknowledged before, so that a node that comes from another voter never goes back.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{Either, select};
use podium_store::{
    MirrorChange, MirrorNews, Record, Revision, StoreError, StoreHandle, Watch, WatchError,
};

use super::Share;
use crate::Pipeline;
use crate::bugs::Bug;

/// A voter that has no news says at least so often that it is there.
pub const REMINDER: Duration = Duration::from_secs(3);
/// How long the other end may take to say, or to take, what is due: a reminder, and what a read of the store may take before it.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// Between a session that broke and the next: another voter is there at once, and none is soon.
pub const RETRY: Duration = Duration::from_millis(500);

/// A piece of news is ended when it has so many bytes of keys and values, and the transaction that they belong to is whole. A
/// quarter of what nodes take as a frame, so that a large object still fits behind them.
const PIECE_BYTES: usize = 1024 * 1024;
/// Or so many changes.
const PIECE_CHANGES: usize = 512;

/// All objects.
const ROOT: &str = "/registry/";

/// Why a session is over. The node may ask another voter.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The store was closed, or its history no longer has what comes next.
    #[error("the watch ended: {0}")]
    Watch(#[from] WatchError),
    /// This voter does not know whether the cluster has gone on without it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// See the module.
pub struct Feed {
    store: Arc<dyn StoreHandle>,
    share: Share,
    watch: Watch,
    /// What of the whole has not been said; `None` when all has.
    first: Option<First>,
}

struct First {
    revision: Revision,
    records: std::vec::IntoIter<Arc<Record>>,
}

impl Feed {
    /// For the node of this name.
    ///
    /// # Errors
    /// The store cannot be read now.
    pub async fn open(pipeline: &Pipeline, node: &str) -> Result<Self, StoreError> {
        let store = Arc::clone(pipeline.store());
        let view = store.read().await?;
        let revision = view.revision();
        let skips = pipeline.bugs().has(Bug::FeedSkipsRevision);
        let watch = store.watch(ROOT, Revision(revision.0 + u64::from(skips)))?;
        let mut share = Share::new(node);
        let records = share.start(&view).into_iter();
        Ok(Self { store, share, watch, first: Some(First { revision, records }) })
    }

    /// What is to be said next; after `pause` without any changes, that there are none.
    ///
    /// That there are none is said only after the cluster's leader was asked: a voter that is cut off from the others would
    /// keep the node for as long, and never tell it anything.
    ///
    /// # Errors
    /// The session is over.
    pub async fn next(&mut self, pause: impl Future<Output = ()>) -> Result<MirrorNews, FeedError> {
        if let Some(first) = &mut self.first {
            let part = first.part();
            if !part.is_empty() {
                return Ok(MirrorNews::Part(part));
            }
            let revision = first.revision;
            self.first = None;
            return Ok(MirrorNews::Whole(revision));
        }
        self.changes(pause).await
    }

    /// Waits for changes of the share. They are all there are up to a revision.
    async fn changes(&mut self, pause: impl Future<Output = ()>) -> Result<MirrorNews, FeedError> {
        let mut pause = pin!(pause);
        let (mut changes, mut bytes) = (Vec::new(), 0);
        loop {
            let event = match self.watch.next().now_or_never() {
                Some(event) => event?,
                // The events of a transaction come together: none of them is still to come.
                None if !changes.is_empty() => break,
                None => match select(pin!(self.watch.next()), &mut pause).await {
                    Either::Left((event, _)) => event?,
                    Either::Right(_) => {
                        self.store.read().await?;
                        break;
                    }
                },
            };
            let new = self.share.changes(&event, &self.store.local());
            bytes += new.iter().map(size).sum::<usize>();
            changes.extend(new);
            let enough = changes.len() >= PIECE_CHANGES || bytes >= PIECE_BYTES;
            if enough && self.watch.progress() >= event.revision {
                break;
            }
        }
        Ok(MirrorNews::Changes { revision: self.watch.progress(), changes })
    }
}

impl First {
    /// As many records as make a piece; none when there are no more.
    fn part(&mut self) -> Vec<Record> {
        let (mut part, mut bytes) = (Vec::new(), 0);
        while bytes < PIECE_BYTES {
            let Some(record) = self.records.next() else { break };
            bytes += record.key.len() + record.value.len();
            part.push(Record::clone(&record));
        }
        part
    }
}

fn size(change: &MirrorChange) -> usize {
    match change {
        MirrorChange::Put(record) => record.key.len() + record.value.len(),
        MirrorChange::Delete(key) => key.len(),
    }
}

#[cfg(test)]
mod tests;
