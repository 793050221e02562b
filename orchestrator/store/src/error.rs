//! What can go wrong for somebody who uses the store.

use std::io;
use std::sync::Arc;

use crate::member::{FeatureLevel, MemberId};
use crate::record::Revision;

/// Why the store did not do what it was asked.
///
/// [`StoreError::outcome_is_unknown`] tells the errors after which a transaction may have been
/// committed all the same; every other one means that nothing happened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Only the leader takes writes.
    #[error("this member is not the leader")]
    NotLeader {
        /// Who is, as far as this member knows.
        leader: Option<MemberId>,
    },
    /// The history before `oldest` has been forgotten. List again.
    #[error("the history before revision {oldest} is gone")]
    TooOld {
        /// The oldest revision that can still be answered.
        oldest: Revision,
    },
    /// This member has not got there yet, or nobody ever will.
    #[error("revision {asked} is ahead of {current}")]
    Future {
        /// What was asked for.
        asked: Revision,
        /// What has been applied here.
        current: Revision,
    },
    /// No answer in time. A write may have happened.
    #[error("the store did not answer in time")]
    Timeout,
    /// The log has no room. New writes are refused until there is; one that was under way may
    /// have happened.
    #[error("the disk of the store is full")]
    DiskFull {
        /// Whether the write was already under way.
        outcome_unknown: bool,
    },
    /// The transaction was first tried so long ago that its outcome may have been forgotten.
    #[error("the outcome of a transaction as old as this is no longer remembered")]
    Expired,
    /// Not a transaction that the store takes.
    #[error("malformed transaction: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// Larger than the store takes.
    #[error("{bytes} bytes where at most {limit} are taken")]
    TooLarge {
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        limit: usize,
    },
    /// Something on the disk fails its checksum, and this member cannot be repaired from others.
    #[error("the store is damaged: {what}")]
    Damaged {
        /// What, and what to do about it.
        what: String,
    },
    /// The state on the disk, or the cluster's, is newer than this program.
    #[error("feature level {required} is needed, this program knows {supported}")]
    TooNew {
        /// What the state needs.
        required: FeatureLevel,
        /// What this program has.
        supported: FeatureLevel,
    },
    /// Some member does not know the feature level that was asked for.
    #[error("member {member} does not know feature level {level}")]
    NotKnownByAll {
        /// The level that was asked for.
        level: FeatureLevel,
        /// A member that has not announced it.
        member: MemberId,
    },
    /// A change of members that cannot be made now, or at all.
    #[error("the members cannot be changed: {reason}")]
    Membership {
        /// Why.
        reason: String,
    },
    /// The disk failed in a way that is not a lack of room.
    #[error("the disk failed while {doing}")]
    Disk {
        /// What was being done, and to what.
        doing: String,
        /// What the disk said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The member no longer runs.
    #[error("the store has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

impl StoreError {
    /// Whether a transaction answered with this may have been committed all the same. Retrying
    /// it under its own id is right; reporting it as failed is not.
    #[must_use]
    pub fn outcome_is_unknown(&self) -> bool {
        match self {
            Self::Timeout | Self::Expired | Self::Stopped { .. } | Self::Disk { .. } => true,
            Self::DiskFull { outcome_unknown } => *outcome_unknown,
            Self::NotLeader { .. }
            | Self::TooOld { .. }
            | Self::Future { .. }
            | Self::Invalid { .. }
            | Self::TooLarge { .. }
            | Self::Damaged { .. }
            | Self::TooNew { .. }
            | Self::NotKnownByAll { .. }
            | Self::Membership { .. } => false,
        }
    }

    pub(crate) fn disk(doing: impl Into<String>, source: io::Error) -> Self {
        Self::Disk { doing: doing.into(), source: Arc::new(source) }
    }
}

/// Why a watch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The watcher was slower than the history is long, or the history was replaced by a
    /// snapshot. List again and watch from there.
    #[error("the watch fell behind the history")]
    TooOld,
    /// The store has stopped.
    #[error("the store has stopped")]
    Closed,
}
