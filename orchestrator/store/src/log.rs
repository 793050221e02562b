//! The log and the vote: what a member promised, kept until it is in a snapshot.
//!
//! ```text
//!   openraft ── append, truncate, purge ──► memory (all entries since the last purge; readers)
//!        │                        │
//!        │ save_vote              └─ jobs, in order ──► writer task ──► log-<sequence> files
//!        ▼                                               one write and one sync for all jobs
//!     vote file (two places)                             that came in during the last sync
//! ```
//!
//! Reads never touch the disk: the entries are in memory, sharing their values with the state.
//! The disk is read once, by [`recover`], at the start.
//!
//! The vote does not queue behind the entries, which lets a member with a full log vote. Openraft
//! waits for it before it appends anything of the new term, so no entry overtakes its vote. But it
//! takes a vote that is durable for a sign that all entries of older terms are, too, which is not
//! so: [`Log::reaches`] is asked before a leader is told that entries are durable here. Only the
//! very first vote waits for the entry that says who the members are: a vote without it would keep
//! the member from ever being initialised.

pub(crate) mod recover;
mod storage;
#[cfg(test)]
mod tests;
pub(crate) mod vote;
pub(crate) mod writer;

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use futures::channel::{mpsc, oneshot};
use openraft::AsyncRuntime;
use openraft::storage::IOFlushed;

use crate::consensus::{Entry, TypeConfig, Vote, entry_bytes, position};
use crate::state::Position;
use vote::VoteFile;

/// What the writer is to do, in this order.
pub(crate) enum Job<R: AsyncRuntime> {
    Append {
        entries: Vec<Entry>,
        done: IOFlushed<TypeConfig<R>>,
    },
    /// What is behind this entry is void.
    Truncate {
        last: Option<Position>,
    },
    /// Everything is void; the log goes on behind a snapshot.
    Reset {
        to: Position,
    },
    /// Whole files up to this index may go.
    Purge {
        upto: u64,
    },
    Committed {
        position: Position,
    },
    /// Says when all that came before it is durable; dropped if it cannot be.
    Sync {
        done: oneshot::Sender<()>,
    },
    Close {
        done: oneshot::Sender<()>,
    },
}

/// Entries and what is known about them.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) entries: VecDeque<Entry>,
    /// What stands in front of `entries`, purged or in a snapshot.
    pub(crate) previous: Option<Position>,
    pub(crate) committed: Option<Position>,
    /// The last entry that is known to be durable.
    pub(crate) flushed: Option<Position>,
    pub(crate) vote: Option<Vote>,
    pub(crate) bytes: u64,
}

impl Memory {
    fn first_index(&self) -> u64 {
        self.previous.map_or(0, |previous| previous.index + 1)
    }

    pub(crate) fn last(&self) -> Option<Position> {
        self.entries.back().map(|entry| position(&entry.log_id)).or(self.previous)
    }

    fn get(&self, index: u64) -> Option<&Entry> {
        let offset = index.checked_sub(self.first_index())?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        self.bytes += entry_bytes(&entry);
        self.entries.push_back(entry);
    }

    pub(crate) fn truncate(&mut self, from: u64) {
        while self.entries.back().is_some_and(|entry| entry.log_id.index() >= from) {
            self.bytes -= self.entries.pop_back().as_ref().map_or(0, entry_bytes);
        }
        if self.flushed.is_some_and(|flushed| flushed.index >= from) {
            self.flushed = self.last();
        }
    }

    /// Whether the entry at this index is another one, or the log ends in front of it with
    /// entries that cannot be in front of it.
    pub(crate) fn contradicts(&self, other: Position) -> bool {
        let here = self.get(other.index).map(|entry| position(&entry.log_id));
        here.is_some_and(|here| here != other)
    }

    /// Whether exactly this entry is here, or is the one in front of all.
    pub(crate) fn holds(&self, wanted: Position) -> bool {
        self.previous == Some(wanted)
            || self.get(wanted.index).is_some_and(|entry| position(&entry.log_id) == wanted)
    }

    /// Whether everything up to this index is durable here, or in a snapshot.
    fn is_durable(&self, index: u64) -> bool {
        let reaches = |at: Option<Position>| at.is_some_and(|at| at.index >= index);
        reaches(self.flushed) || reaches(self.previous)
    }

    /// The writer has made everything up to here durable; unless that was overruled meanwhile.
    pub(crate) fn set_flushed(&mut self, last: Option<Position>) {
        if last.is_some_and(|last| self.holds(last)) {
            self.flushed = last;
        }
    }

    pub(crate) fn purge(&mut self, upto: Position) {
        while self.entries.front().is_some_and(|entry| entry.log_id.index() <= upto.index) {
            self.bytes -= self.entries.pop_front().as_ref().map_or(0, entry_bytes);
        }
        self.previous = self.previous.max(Some(upto));
    }
}

/// Whether the log waits for room on the disk, and who wants to know.
#[derive(Debug, Default)]
pub(crate) struct Room {
    full: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
}

impl Room {
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Release);
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if full {
            wakers.drain(..).for_each(Waker::wake);
        }
    }

    /// Resolves when the disk is full.
    pub(crate) async fn until_full(&self) {
        std::future::poll_fn(|context| {
            if self.is_full() {
                return Poll::Ready(());
            }
            let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
            // Of the callers, those that got their answer leave their wakers behind.
            if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                if wakers.len() >= 256 {
                    wakers.drain(..).for_each(Waker::wake);
                }
                wakers.push(context.waker().clone());
            }
            if self.is_full() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// What the log's handle, its readers and its writer share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    memory: Mutex<Memory>,
    pub(crate) room: Room,
}

impl Shared {
    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The log, for openraft and for its readers.
pub(crate) struct Log<R: AsyncRuntime> {
    pub(crate) shared: Arc<Shared>,
    jobs: mpsc::UnboundedSender<Job<R>>,
    vote: Arc<futures::lock::Mutex<VoteFile>>,
}

impl<R: AsyncRuntime> Clone for Log<R> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), jobs: self.jobs.clone(), vote: self.vote.clone() }
    }
}

impl<R: AsyncRuntime> fmt::Debug for Log<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Log").finish_non_exhaustive()
    }
}

impl<R: AsyncRuntime> Log<R> {
    pub(crate) fn new(memory: Memory, vote: VoteFile) -> (Self, mpsc::UnboundedReceiver<Job<R>>) {
        let (jobs, queue) = mpsc::unbounded();
        let shared = Arc::new(Shared { memory: Mutex::new(memory), room: Room::default() });
        (Self { shared, jobs, vote: Arc::new(futures::lock::Mutex::new(vote)) }, queue)
    }

    fn send(&self, job: Job<R>) -> std::io::Result<()> {
        self.jobs
            .unbounded_send(job)
            .map_err(|_| std::io::Error::other("the writer of the log has ended"))
    }

    /// Bytes of the entries in memory.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.memory().bytes
    }

    /// The last index that is purged, or in a snapshot only.
    pub(crate) fn purged(&self) -> Option<u64> {
        self.shared.memory().previous.map(|position| position.index)
    }

    /// The last index up to which a purge is needed to leave at most so many bytes.
    pub(crate) fn index_leaving(&self, bytes: u64) -> Option<u64> {
        let memory = self.shared.memory();
        let mut left = memory.bytes;
        let mut last = None;
        for entry in &memory.entries {
            if left <= bytes {
                break;
            }
            left -= entry_bytes(entry);
            last = Some(entry.log_id.index());
        }
        last
    }

    /// Whether exactly this entry is here, or covered by a snapshot, and durable.
    pub(crate) fn holds(&self, wanted: Position) -> bool {
        let memory = self.shared.memory();
        let covered = memory.previous.is_some_and(|previous| previous.index >= wanted.index);
        let here = memory.get(wanted.index).is_some_and(|entry| position(&entry.log_id) == wanted);
        let durable = memory.flushed.is_some_and(|flushed| flushed.index >= wanted.index);
        covered || here && durable
    }

    /// Waits until everything that was appended by now is durable.
    pub(crate) async fn sync(&self) -> std::io::Result<()> {
        let (done, synced) = oneshot::channel();
        self.send(Job::Sync { done })?;
        synced.await.map_err(|_| std::io::Error::other("the log can no longer be written"))
    }

    /// Waits until the log is durable up to this index.
    pub(crate) async fn reaches(&self, index: u64) -> std::io::Result<()> {
        if self.shared.memory().is_durable(index) {
            return Ok(());
        }
        self.sync().await
    }

    /// Waits until everything that was appended has been written, and ends the writer.
    pub(crate) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.send(Job::Close { done }).is_ok() {
            // An error means that the writer has ended already.
            let _ = closed.await;
        }
    }
}
