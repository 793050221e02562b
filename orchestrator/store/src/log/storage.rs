//! The log as openraft wants it: its storage and reader traits.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{AsyncRuntime, OptionalSend, RaftLogReader};

use super::{Job, Log};
use crate::consensus::{Entry, LogId, TypeConfig, Vote, entry_bytes, log_id, position};

/// One append message carries at most so many bytes, unless a single entry is larger.
const READ_LIMIT_BYTES: u64 = 1024 * 1024;

impl<R: AsyncRuntime> Log<R> {
    fn collect(&self, range: impl RangeBounds<u64>, limit_bytes: u64) -> Vec<Entry> {
        let memory = self.shared.memory();
        let first = memory.first_index();
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => first,
        };
        let skipped = start.saturating_sub(first) as usize;
        let mut taken = 0;
        memory
            .entries
            .iter()
            .skip(skipped)
            .take_while(|entry| range.contains(&entry.log_id.index()))
            .take_while(|entry| {
                let fits = taken == 0 || taken + entry_bytes(entry) <= limit_bytes;
                taken += entry_bytes(entry);
                fits
            })
            .cloned()
            .collect()
    }
}

impl<R: AsyncRuntime> RaftLogReader<TypeConfig<R>> for Log<R> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.collect(range, u64::MAX))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.collect(start..end, READ_LIMIT_BYTES))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.memory().vote)
    }
}

impl<R: AsyncRuntime> RaftLogStorage<TypeConfig<R>> for Log<R> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig<R>>, io::Error> {
        let memory = self.shared.memory();
        Ok(LogState {
            last_purged_log_id: memory.previous.map(log_id),
            last_log_id: memory.last().map(log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let first = {
            let memory = self.shared.memory();
            memory.flushed.is_none() && memory.last().is_some()
        };
        if first {
            self.sync().await?;
        }
        self.vote.lock().await.save(vote).await?;
        self.shared.memory().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let Some(position) = committed.as_ref().map(position) else { return Ok(()) };
        self.shared.memory().committed = Some(position);
        self.send(Job::Committed { position })
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.memory().committed.map(log_id))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        done: IOFlushed<TypeConfig<R>>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        {
            let mut memory = self.shared.memory();
            for entry in &entries {
                tracing::trace!(at = %entry.log_id, last = ?memory.last(), "append");
                memory.push(entry.clone());
            }
        }
        self.send(Job::Append { entries, done })
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let last = last.as_ref().map(position);
        tracing::trace!(?last, "truncate");
        self.shared.memory().truncate(last.map_or(0, |last| last.index + 1));
        self.send(Job::Truncate { last })
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let upto = position(&upto);
        let beyond = {
            let mut memory = self.shared.memory();
            let beyond = memory.last().is_none_or(|last| last.index < upto.index);
            memory.purge(upto);
            beyond
        };
        self.send(if beyond { Job::Reset { to: upto } } else { Job::Purge { upto: upto.index } })
    }
}
