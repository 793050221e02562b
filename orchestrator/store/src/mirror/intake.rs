//! What a mirror is told, in its order: the whole part in pieces, then changes.
//!
//! One [`Intake`] per session with a voter. Invariants: the mirror sees nothing of a whole before all of it has come; nothing
//! older than what it has is taken, from whichever voter it comes.

use super::{Mirror, MirrorChange};
use crate::record::{Record, Revision};

/// One piece of what a voter says to somebody who keeps a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MirrorNews {
    /// Some of the records of the whole, as of the revision that [`MirrorNews::Whole`] gives.
    Part(Vec<Record>),
    /// The whole has been said.
    Whole(Revision),
    /// All changes up to and including a revision; none if only time has passed.
    Changes {
        /// The revision.
        revision: Revision,
        /// In the order in which they happened.
        changes: Vec<MirrorChange>,
    },
}

/// Why a session is to be ended. The mirror stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NewsError {
    /// Changes before the whole, or a whole after it.
    #[error("the voter speaks out of turn")]
    OutOfTurn,
    /// What was said is older than what the mirror has.
    #[error("the voter is behind what this node has seen")]
    Behind,
}

/// See the module.
#[derive(Debug)]
pub struct Intake {
    mirror: Mirror,
    parts: Vec<Record>,
    whole: bool,
}

impl Intake {
    /// A session in which nothing has been said.
    #[must_use]
    pub fn new(mirror: Mirror) -> Self {
        Self { mirror, parts: Vec::new(), whole: false }
    }

    /// Takes one piece over.
    ///
    /// # Errors
    /// [`NewsError`]; nothing was taken.
    pub fn take(&mut self, news: MirrorNews) -> Result<(), NewsError> {
        let taken = match news {
            MirrorNews::Part(records) if !self.whole => {
                self.parts.extend(records);
                true
            }
            MirrorNews::Whole(revision) if !self.whole => {
                self.whole = true;
                let records = std::mem::take(&mut self.parts);
                tracing::info!(
                    records = records.len(),
                    revision = revision.0,
                    "this node follows the cluster"
                );
                self.mirror.reset(revision, records)
            }
            MirrorNews::Changes { revision, changes } if self.whole => {
                self.mirror.apply(revision, changes)
            }
            MirrorNews::Part(_) | MirrorNews::Whole(_) | MirrorNews::Changes { .. } => {
                return Err(NewsError::OutOfTurn);
            }
        };
        if taken { Ok(()) } else { Err(NewsError::Behind) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::handle::StoreHandle;
    use crate::history::HistoryLimits;
    use crate::member::MemberId;

    fn record(key: &str, revision: u64) -> Record {
        let at = Revision(revision);
        let value = Bytes::from(format!("{key} at {revision}"));
        Record { key: key.into(), value, create_revision: at, mod_revision: at, version: 1 }
    }

    fn changes(revision: u64, changes: Vec<MirrorChange>) -> MirrorNews {
        MirrorNews::Changes { revision: Revision(revision), changes }
    }

    fn keys(mirror: &Mirror) -> Vec<String> {
        mirror.local().range("").map(|record| record.key.to_string()).collect()
    }

    #[test]
    fn a_whole_is_seen_when_all_of_it_has_come() {
        let mirror = Mirror::new(MemberId(1), HistoryLimits::default());
        let mut intake = Intake::new(mirror.clone());
        assert_eq!(intake.take(MirrorNews::Part(vec![record("a", 1)])), Ok(()));
        assert_eq!(intake.take(MirrorNews::Part(vec![record("b", 2)])), Ok(()));
        assert_eq!(keys(&mirror), Vec::<String>::new());
        assert_eq!(intake.take(MirrorNews::Whole(Revision(3))), Ok(()));
        assert_eq!(keys(&mirror), ["a", "b"]);
        let put = MirrorChange::Put(Arc::new(record("c", 4)));
        assert_eq!(intake.take(changes(4, vec![put, MirrorChange::Delete("a".into())])), Ok(()));
        assert_eq!(keys(&mirror), ["b", "c"]);
    }

    #[test]
    fn a_voter_that_is_behind_or_out_of_turn_changes_nothing() {
        let mirror = Mirror::new(MemberId(1), HistoryLimits::default());
        let mut intake = Intake::new(mirror.clone());
        assert_eq!(intake.take(changes(1, Vec::new())), Err(NewsError::OutOfTurn));
        intake.take(MirrorNews::Part(vec![record("a", 5)])).expect("a part");
        intake.take(MirrorNews::Whole(Revision(5))).expect("the whole");
        assert_eq!(intake.take(MirrorNews::Whole(Revision(6))), Err(NewsError::OutOfTurn));
        assert_eq!(intake.take(changes(4, Vec::new())), Err(NewsError::Behind));
        let mut another = Intake::new(mirror.clone());
        another.take(MirrorNews::Part(vec![record("a", 3)])).expect("a part");
        assert_eq!(another.take(MirrorNews::Whole(Revision(3))), Err(NewsError::Behind));
        assert_eq!(mirror.local().get("a").expect("a").mod_revision, Revision(5));
    }
}
