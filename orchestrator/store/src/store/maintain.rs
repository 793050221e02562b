//! What a member does unasked, once in a while: snapshots, compaction of the history, telling the
//! others what it understands, and noticing that the consensus has stopped.

use std::sync::Weak;

use openraft::AsyncRuntime;
use openraft::async_runtime::{Instant, WatchReceiver};

use super::{Core, stopped};
use crate::disk::is_full;
use crate::error::StoreError;
use crate::record::Revision;
use crate::state::Command;

/// Runs for as long as the member does.
pub(super) async fn maintain<R: AsyncRuntime>(core: Weak<Core<R>>, interval: std::time::Duration) {
    let mut marks = Marks::<R>::new();
    loop {
        R::sleep(interval).await;
        let Some(core) = core.upgrade() else { return };
        if core.replica.closed().is_some() {
            return;
        }
        let running = core.raft.metrics().borrow_watched().running_state.clone();
        if let Err(fatal) = running {
            tracing::error!(%fatal, "the consensus has stopped");
            return core.replica.close(&fatal.to_string());
        }
        core.look_after(&mut marks).await;
    }
}

/// What one round of maintenance remembers for the next.
struct Marks<R: AsyncRuntime> {
    /// When which revision was current, by this member's clock.
    passed: std::collections::VecDeque<(R::Instant, Revision)>,
    announced: bool,
    /// Up to where openraft was last asked to let go of the log; asking for less would take that back.
    purged: u64,
}

impl<R: AsyncRuntime> Marks<R> {
    fn new() -> Self {
        Self { passed: std::collections::VecDeque::new(), announced: false, purged: 0 }
    }
}

impl<R: AsyncRuntime> Core<R> {
    async fn look_after(&self, marks: &mut Marks<R>) {
        self.repair().await;
        if self.wants_snapshot()
            && let Err(error) = self.snapshot().await
        {
            tracing::warn!(%error, "a snapshot could not be made");
        }
        self.purge(marks).await;
        self.compact(marks).await;
        self.announce(marks).await;
    }

    fn wants_snapshot(&self) -> bool {
        let limits = &self.config.log;
        let covered = self.snapshots.current().and_then(|snapshot| snapshot.applied);
        let applied = self.replica.applied_index();
        let behind = applied.saturating_sub(covered.map_or(0, |covered| covered.index));
        behind > 0
            && (self.snapshots.is_distrusted()
                || behind >= limits.snapshot_records
                || self.log.bytes() >= limits.snapshot_bytes)
    }

    /// Writes a snapshot, and only then lets openraft know of it, which lets go of the log behind it.
    pub(super) async fn snapshot(&self) -> Result<(), StoreError> {
        let state = self.replica.state();
        if state.applied.is_none() {
            return Ok(());
        }
        self.snapshots.write(&state).await.map_err(|error| match is_full(&error) {
            true => StoreError::DiskFull { outcome_unknown: false },
            false => StoreError::disk("writing a snapshot", error),
        })?;
        self.raft.trigger().snapshot().await.map_err(|fatal| stopped(&fatal))
    }

    /// Lets go of the log behind the snapshot, but for what members that are a little behind may need: so many records, and
    /// fewer if those are large.
    async fn purge(&self, marks: &mut Marks<R>) {
        let limits = &self.config.log;
        let Some(covered) = self.snapshots.current().and_then(|snapshot| snapshot.applied) else {
            return;
        };
        let by_number = covered.index.checked_sub(limits.keep_records);
        let by_size = self.log.index_leaving(limits.snapshot_bytes / 2);
        let Some(upto) = by_number.max(by_size) else { return };
        let upto = upto.min(covered.index);
        // What a slow follower still reads is kept for now, so the same is asked again until it is done.
        if upto < marks.purged || self.log.purged() >= Some(upto) {
            return;
        }
        marks.purged = upto;
        if let Err(fatal) = self.raft.trigger().purge_log(upto).await {
            tracing::debug!(%fatal, "the log could not be purged");
        }
    }

    /// As the leader, says which revisions have become older than the history is kept.
    async fn compact(&self, marks: &mut Marks<R>) {
        let now = R::Instant::now();
        let timings = &self.config.timings;
        let due = marks.passed.back().is_none_or(|(at, _)| now - *at >= timings.compaction);
        if due {
            marks.passed.push_back((now, self.replica.view().revision()));
        }
        let mut before = None;
        while marks.passed.front().is_some_and(|(at, _)| now - *at >= timings.history) {
            before = marks.passed.pop_front().map(|(_, revision)| revision);
        }
        let Some(before) = before else { return };
        if self.leader() == Some(self.member())
            && before > self.replica.compacted()
            && let Err(error) = self.propose(Command::Compact { before }, None).await
        {
            tracing::debug!(%error, "the history could not be compacted");
        }
    }

    /// Tells the cluster what this program understands, once, and again if it was forgotten.
    async fn announce(&self, marks: &mut Marks<R>) {
        let (member, knows) = (self.member(), self.config.supports);
        marks.announced = self.replica.announced(member) == Some(knows);
        let belongs = self.replica.state().membership.members.contains_key(&member);
        if marks.announced || !belongs || self.leader().is_none() {
            return;
        }
        match self.attempt(&Command::Announce { member, knows }).await {
            Ok(_) => marks.announced = true,
            Err(error) => tracing::debug!(%error, "the feature level could not be announced"),
        }
    }
}
