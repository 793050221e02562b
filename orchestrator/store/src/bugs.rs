//! Mistakes that can be switched on, to see that the simulator finds them.
//!
//! Only with the cargo feature `planted-bugs`, which no shipped program may enable: `node` asserts
//! that [`PLANTED_BUGS`] is false. Without it [`Bugs`] has no bit to set, every question is
//! answered `false` at compile time, and nothing of this is left in the program. A bug is chosen
//! per value, so one process may run a sound and an unsound cluster side by side.

/// Makes a list of mistakes of the crate that calls it, under that crate's feature `planted-bugs`:
/// `PLANTED_BUGS`, the enum `Bug` and the set `Bugs`.
#[macro_export]
macro_rules! planted_bugs {
    ($($(#[$doc:meta])* $bug:ident = $name:literal),* $(,)?) => {
        /// Whether this build can be made to misbehave.
        pub const PLANTED_BUGS: bool = cfg!(feature = "planted-bugs");

        /// A mistake at one place.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Bug {
            $($(#[$doc])* $bug,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$bug),*];

            /// Its name on a command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$bug => $name,)*
                }
            }
        }

        /// Which bugs something has. None, unless the build can have any.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Bugs {
            #[cfg(feature = "planted-bugs")]
            bits: u32,
        }

        impl Bugs {
            /// Sound code.
            pub const NONE: Self = Self {
                #[cfg(feature = "planted-bugs")]
                bits: 0,
            };

            /// One bug.
            #[cfg(feature = "planted-bugs")]
            #[must_use]
            pub fn only(bug: Bug) -> Self {
                Self { bits: 1 << bug as u32 }
            }

            /// Whether this bug is among them.
            #[cfg(feature = "planted-bugs")]
            pub(crate) fn has(self, bug: Bug) -> bool {
                self.bits & (1 << bug as u32) != 0
            }

            /// Whether this bug is among them: none is.
            #[cfg(not(feature = "planted-bugs"))]
            #[allow(clippy::unused_self)]
            pub(crate) const fn has(self, _: Bug) -> bool {
                false
            }
        }
    };
}

planted_bugs! {
    /// Log records count as durable before they were synced.
    AcknowledgeBeforeSync = "acknowledge_before_sync",
    /// A linearizable read answers with whatever is applied here.
    StaleRead = "stale_read",
    /// Every seventh event never reaches a watcher.
    LostWatchEvent = "lost_watch_event",
    /// Two transactions of one batch share a revision.
    ReusedRevision = "reused_revision",
    /// Outcomes are not remembered, so a retry happens twice.
    ForgottenTransactionId = "forgotten_transaction_id",
    /// `Guard::At` is taken to hold if the key is there.
    SkipGuard = "skip_guard",
    /// A torn record at the end of the log is left, and later ones are written behind it.
    TornTailKept = "torn_tail_kept",
    /// A vote is answered before it is durable.
    VoteNotSynced = "vote_not_synced",
    /// Every sixteenth key is left out of a snapshot.
    SnapshotDropsKey = "snapshot_drops_key",
}
