//! What the rest of the system sees of the store.

use futures::future::BoxFuture;

use crate::error::StoreError;
use crate::member::{FeatureLevel, MemberId, Membership};
use crate::record::{Outcome, Revision, Transaction};
use crate::view::View;
use crate::watch::Watch;

/// One member's store, whatever is behind it.
pub trait StoreHandle: Send + Sync {
    /// Decides a transaction, on the leader only.
    ///
    /// A refused guard is an [`Outcome`], not an error. After an error for which
    /// [`StoreError::outcome_is_unknown`] holds, the same transaction may be sent again under the
    /// same id and is answered as if it had been sent once.
    fn transact(&self, transaction: Transaction) -> BoxFuture<'_, Result<Outcome, StoreError>>;

    /// Like [`StoreHandle::transact`], from any member: finds the leader, passes the transaction
    /// on, and retries it under its id until there is an answer or the request's time is over.
    fn submit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        self.transact(transaction)
    }

    /// Like [`StoreHandle::transact`], but proposed while this member leads `term`, or never: what a
    /// leader decided does not outlive its term.
    ///
    /// [`StoreError::NotLeader`] if it does not lead that term.
    fn transact_in(
        &self,
        term: u64,
        transaction: Transaction,
    ) -> BoxFuture<'_, Result<Outcome, StoreError>>;

    /// A view that holds every transaction acknowledged to anybody before the call (ReadIndex).
    /// Works on every member that can reach a leader with a quorum.
    fn read(&self) -> BoxFuture<'_, Result<View, StoreError>>;

    /// Whatever has been applied here. Never waits, may be old, never goes back while the
    /// program runs.
    fn local(&self) -> View;

    /// The state as it was at a revision that is still in the history.
    ///
    /// # Errors
    /// [`StoreError::TooOld`] or [`StoreError::Future`].
    fn view_at(&self, revision: Revision) -> Result<View, StoreError>;

    /// Every event with a revision above `after` and a key that starts with `prefix`, in order
    /// and without a gap. `after` may be ahead of what has been applied here.
    ///
    /// # Errors
    /// [`StoreError::TooOld`].
    fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError>;

    /// How this member is.
    fn status(&self) -> Status;

    /// Of [`StoreHandle::status`], what costs nothing to ask for.
    fn standing(&self) -> Standing;

    /// Waits until the standing is another than `seen`, and gives it. Does not resolve any more
    /// once the member has stopped.
    fn standing_other_than(&self, seen: Standing) -> BoxFuture<'static, Standing>;
}

/// Whether and when a member leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether it leads, as far as it knows.
    pub leads: bool,
    /// The last term in which it has voted, durably; if it leads, that one.
    pub term: u64,
}

impl Standing {
    /// Whether the member leads this term.
    #[must_use]
    pub fn leads_in(self, term: u64) -> bool {
        self.leads && self.term == term
    }
}

/// What a member is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Has no cluster yet: wait for one, or initialise it.
    Blank,
    /// Takes the writes.
    Leader,
    /// Votes and follows.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Follows and does not vote.
    Learner,
    /// Lost a part of its log to a checksum: follows, does not vote and does not lead until a
    /// leader has filled it again.
    Damaged,
    /// Does nothing any more; the reason is in [`Status::stopped`].
    Stopped,
}

/// A report on one member.
#[derive(Debug, Clone)]
pub struct Status {
    /// Who reports.
    pub member: MemberId,
    /// What it is doing.
    pub role: Role,
    /// The term of its vote.
    pub term: u64,
    /// Who leads, as far as it knows.
    pub leader: Option<MemberId>,
    /// The last revision applied here.
    pub applied: Revision,
    /// The position of the last applied record of the log.
    pub applied_index: u64,
    /// The oldest revision that `view_at` answers.
    pub oldest: Revision,
    /// The last position of the log here.
    pub last_index: u64,
    /// The position that the last durable snapshot covers.
    pub snapshot_index: u64,
    /// The members, as of the last one that is known here.
    pub membership: Membership,
    /// The cluster's feature level.
    pub feature_level: FeatureLevel,
    /// Keys in the current state.
    pub keys: usize,
    /// Bytes of their keys and values.
    pub state_bytes: usize,
    /// Bytes of the log since the last snapshot.
    pub log_bytes: u64,
    /// Whether the log has no room, and writes are refused.
    pub disk_full: bool,
    /// Why the member stopped, if it did.
    pub stopped: Option<String>,
}
