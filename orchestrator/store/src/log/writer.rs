//! The one who writes the log: everything that came in while the last sync ran goes out in one
//! write and one sync (group commit), in the order in which it came.
//!
//! A full disk stops the writer, not the member: it tells [`Room`](super::Room), so that callers
//! are answered, and tries again until there is room. Any other failure of the disk is final:
//! after a failed sync nobody knows what is there, so nothing is acknowledged ever again.
//!
//! Invariants: a file is reserved and its first record durable before an entry goes into it; a
//! file is left only when all of it is durable; files disappear oldest first, each durably before
//! the next.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::{mpsc, oneshot};
use futures::{FutureExt, StreamExt};
use openraft::AsyncRuntime;
use openraft::storage::IOFlushed;

use super::recover::{Recovered, Segment, Tail, segment_name};
use super::{Job, Shared};
use crate::bugs::{Bug, Bugs};
use crate::consensus::{Entry, TypeConfig, entry_bytes, payload_to_v1, position};
use crate::disk::{Disk, is_full};
use crate::format::{self, v1};
use crate::member::MemberId;
use crate::state::Position;

/// Jobs are taken into one write up to about this many bytes, which bounds the write's buffer.
const BATCH_BYTES: u64 = 1024 * 1024;
/// How long a full disk is left alone.
const FULL_PAUSE: Duration = Duration::from_millis(500);

/// See the module.
pub(crate) struct Writer<R: AsyncRuntime> {
    disk: Arc<dyn Disk>,
    member: MemberId,
    segment_bytes: u64,
    shared: Arc<Shared>,
    queue: mpsc::UnboundedReceiver<Job<R>>,
    /// Taken off the queue while the disk was full.
    backlog: VecDeque<Job<R>>,
    tail: Option<Tail>,
    /// Everything in front of this offset of the tail is synced.
    synced: u64,
    segments: VecDeque<Segment>,
    next_sequence: u64,
    last: Option<Position>,
    /// Records that go to the tail's offset with the next write.
    buffer: Vec<u8>,
    committed: Option<Position>,
    bugs: Bugs,
}

impl<R: AsyncRuntime> Writer<R> {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        member: MemberId,
        segment_bytes: u64,
        (shared, queue): (Arc<Shared>, mpsc::UnboundedReceiver<Job<R>>),
        recovered: Recovered,
        bugs: Bugs,
    ) -> Self {
        let last = shared.memory().last();
        let mut segments = VecDeque::from(recovered.segments);
        if recovered.tail.is_some() {
            segments.pop_back();
        }
        Self {
            disk,
            member,
            segment_bytes,
            shared,
            queue,
            backlog: VecDeque::new(),
            synced: recovered.tail.as_ref().map_or(0, |tail| tail.offset),
            tail: recovered.tail,
            segments,
            next_sequence: recovered.next_sequence,
            last,
            buffer: Vec::new(),
            committed: None,
            bugs,
        }
    }

    /// Works until it is closed, or nobody is left to give it work.
    pub(crate) async fn run(mut self) {
        loop {
            let (jobs, close) = self.take().await;
            if jobs.is_empty() && close.is_none() {
                return;
            }
            let (mut waiting, mut syncs) = (Vec::new(), Vec::new());
            let result = self.work(jobs, &mut waiting, &mut syncs).await;
            let failure = result.as_ref().err().map(|error| (error.kind(), error.to_string()));
            for done in waiting {
                let error = failure.clone().map(|(kind, text)| io::Error::new(kind, text));
                done.io_completed(error.map_or(Ok(()), Err));
            }
            if let Err(error) = result {
                tracing::error!(%error, "the log can no longer be written");
                drop(syncs);
                return self.refuse(&error).await;
            }
            for done in syncs {
                // Who asked may have stopped waiting.
                let _ = done.send(());
            }
            self.note_committed().await;
            if let Some(done) = close {
                self.sync_note().await;
                // Who closed may have stopped waiting.
                let _ = done.send(());
                return;
            }
        }
    }

    /// Waits for work, and takes all there is up to a limit. A close ends it.
    async fn take(&mut self) -> (Vec<Job<R>>, Option<oneshot::Sender<()>>) {
        let mut jobs = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH_BYTES {
            let next = match self.backlog.pop_front() {
                Some(job) => Some(job),
                None if jobs.is_empty() => self.queue.next().await,
                None => self.queue.next().now_or_never().flatten(),
            };
            match next {
                None => break,
                Some(Job::Close { done }) => return (jobs, Some(done)),
                Some(job) => {
                    bytes += job.bytes();
                    jobs.push(job);
                }
            }
        }
        (jobs, None)
    }

    /// Answers everything with the failure from now on.
    async fn refuse(mut self, error: &io::Error) {
        while let (jobs, None) = self.take().await {
            if jobs.is_empty() {
                return;
            }
            for job in jobs {
                if let Job::Append { done, .. } = job {
                    done.io_completed(Err(io::Error::new(error.kind(), error.to_string())));
                }
            }
        }
    }

    async fn work(
        &mut self,
        jobs: Vec<Job<R>>,
        waiting: &mut Vec<IOFlushed<TypeConfig<R>>>,
        syncs: &mut Vec<oneshot::Sender<()>>,
    ) -> io::Result<()> {
        let mut purge = None;
        let mut failed = Ok(());
        for job in jobs {
            match job {
                Job::Append { entries, done } => {
                    waiting.push(done);
                    for entry in &entries {
                        if failed.is_ok() {
                            failed = self.append(entry).await;
                        }
                    }
                }
                Job::Truncate { last } if failed.is_ok() => failed = self.truncate(last).await,
                Job::Reset { to } if failed.is_ok() => {
                    failed = self.reset(to).await;
                    purge = Some(to.index);
                }
                Job::Purge { upto } => purge = Some(upto),
                Job::Committed { position } => self.committed = self.committed.max(Some(position)),
                Job::Sync { done } => syncs.push(done),
                Job::Truncate { .. } | Job::Reset { .. } | Job::Close { .. } => {}
            }
        }
        failed?;
        if let Some(position) = self.committed.take_if(|_| !self.buffer.is_empty()) {
            self.put(|durable| v1::Committed { durable, position: position.into() }).await?;
        }
        self.flush().await?;
        if let Some(upto) = purge {
            self.purge(upto).await?;
        }
        Ok(())
    }

    async fn append(&mut self, entry: &Entry) -> io::Result<()> {
        let position = position(&entry.log_id);
        let payload = payload_to_v1(&entry.payload);
        let record =
            |durable| v1::Entry { durable, position: position.into(), payload: payload.clone() };
        self.put(record).await?;
        self.last = Some(position);
        Ok(())
    }

    async fn truncate(&mut self, last: Option<Position>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index + 1);
        self.put(|durable| v1::Truncate { durable, from }).await?;
        self.last = last;
        Ok(())
    }

    async fn reset(&mut self, to: Position) -> io::Result<()> {
        self.put(|durable| v1::Reset { durable, to: to.into() }).await?;
        self.last = Some(to);
        Ok(())
    }

    /// Puts a record behind the others, in a new file if this one has no room for it. The record
    /// is made for what is durable in its file.
    async fn put<T: format::Frozen>(&mut self, record: impl Fn(u64) -> T) -> io::Result<()> {
        let start = self.buffer.len();
        format::write(&record(self.synced), &mut self.buffer);
        let end = self.tail.as_ref().map_or(u64::MAX, |tail| tail.reserved - tail.offset);
        if self.tail.is_some() && self.buffer.len() as u64 <= end {
            return Ok(());
        }
        let bytes = self.buffer.len() - start;
        self.buffer.truncate(start);
        self.flush().await?;
        self.begin_segment(bytes as u64).await?;
        format::write(&record(self.synced), &mut self.buffer);
        Ok(())
    }

    /// Leaves the file, all of which is durable, for a new one with room for at least one record.
    async fn begin_segment(&mut self, record_bytes: u64) -> io::Result<()> {
        if let Some(tail) = self.tail.take() {
            if tail.offset > self.synced {
                // A note of what is committed, which nothing waited for.
                tail.file.sync().await?;
            }
            self.segments.push_back(Segment { sequence: tail.sequence, last: self.last });
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        loop {
            match self.make_segment(sequence, record_bytes).await {
                Ok(tail) => {
                    self.synced = tail.offset;
                    self.tail = Some(tail);
                    self.shared.room.set_full(false);
                    return Ok(());
                }
                Err(error) if is_full(&error) => self.wait_for_room().await?,
                Err(error) => return Err(error),
            }
        }
    }

    async fn make_segment(&mut self, sequence: u64, record_bytes: u64) -> io::Result<Tail> {
        let (member, previous) = (self.member.0, self.last.map(v1::Position::from));
        let head = format::to_vec(&v1::Segment { durable: 0, member, sequence, previous });
        let offset = head.len() as u64;
        // A record may grow by the size of an offset when it moves here.
        let reserved = self.segment_bytes.max(offset + record_bytes + 16);
        let file = self.disk.create(&segment_name(sequence)).await?;
        file.reserve(reserved).await?;
        file.write_synced(0, Bytes::from(head)).await?;
        self.disk.sync_names().await?;
        Ok(Tail { file, sequence, offset, reserved })
    }

    /// Writes and syncs what is in the buffer.
    async fn flush(&mut self) -> io::Result<()> {
        let Some(tail) = self.tail.as_mut().filter(|_| !self.buffer.is_empty()) else {
            return Ok(());
        };
        let bytes = Bytes::from(std::mem::take(&mut self.buffer));
        let (file, offset, length) = (tail.file.clone(), tail.offset, bytes.len() as u64);
        let unsound = self.bugs.has(Bug::AcknowledgeBeforeSync);
        loop {
            let written = match unsound {
                false => file.write_synced(offset, bytes.clone()).await,
                true => file.write(offset, bytes.clone()).await,
            };
            match written {
                Ok(()) => break,
                Err(error) if is_full(&error) => self.wait_for_room().await?,
                Err(error) => return Err(error),
            }
        }
        self.shared.room.set_full(false);
        if let Some(tail) = &mut self.tail {
            tail.offset = offset + length;
        }
        if !unsound {
            self.synced = offset + length;
        }
        self.shared.memory().set_flushed(self.last);
        Ok(())
    }

    /// Notes what is committed behind the last write, without a sync. Nothing depends on it: it
    /// lets a restart apply the log at once, and is a witness that what is in front of it was
    /// durable.
    async fn note_committed(&mut self) {
        if let Some(job) = self.queue.next().now_or_never().flatten() {
            // The next write takes the note along.
            self.backlog.push_back(job);
            return;
        }
        let Some(position) = self.committed.take() else { return };
        let Some(tail) = &mut self.tail else { return };
        let note = v1::Committed { durable: self.synced, position: position.into() };
        let bytes = format::to_vec(&note);
        let end = tail.offset + bytes.len() as u64;
        if end > tail.reserved {
            return;
        }
        match tail.file.write(tail.offset, Bytes::from(bytes)).await {
            Ok(()) => tail.offset = end,
            // The next write of something that matters meets the same disk.
            Err(error) => tracing::warn!(%error, "noting what is committed"),
        }
    }

    /// Makes the note durable, so that a member that was stopped in order has its witness.
    async fn sync_note(&mut self) {
        let Some(tail) = self.tail.as_ref().filter(|tail| tail.offset > self.synced) else {
            return;
        };
        if let Err(error) = tail.file.sync().await {
            tracing::warn!(%error, "syncing the note of what is committed");
        }
    }

    /// Removes whole files that hold nothing behind an index.
    async fn purge(&mut self, upto: u64) -> io::Result<()> {
        while self
            .segments
            .front()
            .is_some_and(|segment| segment.last.is_none_or(|last| last.index <= upto))
        {
            let Some(segment) = self.segments.pop_front() else { break };
            self.disk.remove(&segment_name(segment.sequence)).await?;
            self.disk.sync_names().await?;
        }
        Ok(())
    }

    /// Says that the disk is full and waits a while. Purges are carried out meanwhile, because
    /// they are what may make room; everything else keeps its order.
    async fn wait_for_room(&mut self) -> io::Result<()> {
        if !self.shared.room.is_full() {
            tracing::warn!("the disk is full, the log waits for room");
        }
        self.shared.room.set_full(true);
        R::sleep(FULL_PAUSE).await;
        while let Some(next) = self.queue.next().now_or_never() {
            match next {
                Some(Job::Purge { upto }) => self.purge(upto).await?,
                Some(Job::Close { done }) => {
                    self.backlog.push_back(Job::Close { done });
                    return Err(io::ErrorKind::StorageFull.into());
                }
                Some(job) => self.backlog.push_back(job),
                None => return Err(io::ErrorKind::StorageFull.into()),
            }
        }
        Ok(())
    }
}

impl<R: AsyncRuntime> Job<R> {
    fn bytes(&self) -> u64 {
        match self {
            Self::Append { entries, .. } => entries.iter().map(entry_bytes).sum(),
            Self::Truncate { .. }
            | Self::Reset { .. }
            | Self::Purge { .. }
            | Self::Committed { .. }
            | Self::Sync { .. }
            | Self::Close { .. } => 0,
        }
    }
}
