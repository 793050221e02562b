//! Mistakes that can be switched on, to see that the simulator finds them.
//!
//! Only with the cargo feature `planted-bugs`, which no shipped program may enable: `node` asserts
//! that [`PLANTED_BUGS`] is false. Without it [`Bugs`] has no bit to set, every question is
//! answered `false` at compile time, and nothing of this is left in the program. A bug is chosen
//! per store, so one process may run a sound and an unsound cluster side by side.

/// Whether this build can be made to misbehave.
pub const PLANTED_BUGS: bool = cfg!(feature = "planted-bugs");

/// A mistake at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Bug {
    /// Log records count as durable before they were synced.
    AcknowledgeBeforeSync,
    /// A linearizable read answers with whatever is applied here.
    StaleRead,
    /// Every seventh event never reaches a watcher.
    LostWatchEvent,
    /// Two transactions of one batch share a revision.
    ReusedRevision,
    /// Outcomes are not remembered, so a retry happens twice.
    ForgottenTransactionId,
    /// `Guard::At` is taken to hold if the key is there.
    SkipGuard,
    /// A torn record at the end of the log is left, and later ones are written behind it.
    TornTailKept,
    /// A vote is answered before it is durable.
    VoteNotSynced,
    /// Every sixteenth key is left out of a snapshot.
    SnapshotDropsKey,
    /// Records that a new leader overrules stay on the disk.
    LogTruncateSkipped,
    /// The log is purged before the snapshot that replaces it is durable.
    PurgeBeforeSnapshot,
    /// A member that lost a part of its log votes as if it had not.
    DamagedVotes,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::AcknowledgeBeforeSync,
        Self::StaleRead,
        Self::LostWatchEvent,
        Self::ReusedRevision,
        Self::ForgottenTransactionId,
        Self::SkipGuard,
        Self::TornTailKept,
        Self::VoteNotSynced,
        Self::SnapshotDropsKey,
        Self::LogTruncateSkipped,
        Self::PurgeBeforeSnapshot,
        Self::DamagedVotes,
    ];

    /// Its name on a command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AcknowledgeBeforeSync => "acknowledge_before_sync",
            Self::StaleRead => "stale_read",
            Self::LostWatchEvent => "lost_watch_event",
            Self::ReusedRevision => "reused_revision",
            Self::ForgottenTransactionId => "forgotten_transaction_id",
            Self::SkipGuard => "skip_guard",
            Self::TornTailKept => "torn_tail_kept",
            Self::VoteNotSynced => "vote_not_synced",
            Self::SnapshotDropsKey => "snapshot_drops_key",
            Self::LogTruncateSkipped => "log_truncate_skipped",
            Self::PurgeBeforeSnapshot => "purge_before_snapshot",
            Self::DamagedVotes => "damaged_votes",
        }
    }
}

/// Which bugs a store has. None, unless the build can have any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bugs {
    #[cfg(feature = "planted-bugs")]
    bits: u32,
}

impl Bugs {
    /// A sound store.
    pub const NONE: Self = Self {
        #[cfg(feature = "planted-bugs")]
        bits: 0,
    };

    /// A store with one bug.
    #[cfg(feature = "planted-bugs")]
    #[must_use]
    pub fn only(bug: Bug) -> Self {
        Self { bits: 1 << bug as u32 }
    }

    /// Whether the store has this bug.
    #[cfg(feature = "planted-bugs")]
    pub(crate) fn has(self, bug: Bug) -> bool {
        self.bits & (1 << bug as u32) != 0
    }

    /// Whether the store has this bug: it has none.
    #[cfg(not(feature = "planted-bugs"))]
    #[allow(clippy::unused_self)]
    pub(crate) const fn has(self, _bug: Bug) -> bool {
        false
    }
}
