//! The outcomes of recent transactions, so that one sent twice happens once.
//!
//! Bounded by number and bytes, never by a clock, so that every member forgets the same ones at
//! the same place of the log. Forgetting must not turn a late retry into a second execution, so
//! every transaction carries a *basis*: a log position applied somewhere before it was first
//! sent. Its first execution, if there was one, stands behind its basis. As long as nothing that
//! stands behind the basis has been forgotten, an unknown id is a new transaction; else it is
//! refused as too old to judge.

use std::sync::Arc;

use imbl::{OrdMap, Vector};

use crate::record::{Outcome, Record, Revision, TransactionId};

/// How many outcomes are kept: half a second of the highest rate that the log reaches, hours of a
/// quiet cluster's, for about half a MiB. A leader change pauses the log, so it uses up none.
const CAPACITY: usize = 8192;
/// How many bytes of records refused outcomes may keep alive.
const REFUSED_BYTES: usize = 2 * 1024 * 1024;

/// What is known of an id.
pub(crate) enum Remembered {
    Outcome(Outcome),
    Forgotten,
    New,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kept {
    Committed(Revision),
    Refused(Arc<(usize, Option<Arc<Record>>)>),
}

impl Kept {
    fn bytes(&self) -> usize {
        match self {
            Self::Committed(_) => 0,
            Self::Refused(refused) => refused.1.as_ref().map_or(0, |record| record.value.len()),
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Committed(revision) => Outcome::Committed { revision: *revision },
            Self::Refused(refused) => {
                Outcome::Refused { guard: refused.0, current: refused.1.clone() }
            }
        }
    }
}

/// Recent outcomes by id, and their order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcomes {
    by_id: OrdMap<TransactionId, Kept>,
    order: Vector<(u64, TransactionId)>,
    refused_bytes: usize,
    /// Everything up to this log position may have been forgotten.
    forgotten: u64,
}

impl Outcomes {
    pub(crate) fn recall(&self, id: TransactionId, basis: u64) -> Remembered {
        match self.by_id.get(&id) {
            Some(kept) => Remembered::Outcome(kept.outcome()),
            None if basis < self.forgotten => Remembered::Forgotten,
            None => Remembered::New,
        }
    }

    pub(crate) fn remember(&mut self, index: u64, id: TransactionId, outcome: &Outcome) {
        let kept = match outcome {
            Outcome::Committed { revision } => Kept::Committed(*revision),
            Outcome::Refused { guard, current } => {
                Kept::Refused(Arc::new((*guard, current.clone())))
            }
        };
        self.restore(index, id, kept);
    }

    /// Adds one in the order of the log.
    pub(crate) fn restore(&mut self, index: u64, id: TransactionId, kept: Kept) {
        self.refused_bytes += kept.bytes();
        self.by_id.insert(id, kept);
        self.order.push_back((index, id));
        while self.order.len() > CAPACITY || self.refused_bytes > REFUSED_BYTES {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((index, id)) = self.order.pop_front() else { return };
        self.forgotten = self.forgotten.max(index);
        if let Some(kept) = self.by_id.remove(&id) {
            self.refused_bytes -= kept.bytes();
        }
    }

    /// Up to where outcomes may have been forgotten.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// An empty memory that has forgotten everything up to a position.
    pub(crate) fn after(forgotten: u64) -> Self {
        Self { forgotten, ..Self::default() }
    }

    /// All of them, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, TransactionId, &Kept)> {
        self.order.iter().filter_map(|(index, id)| Some((*index, *id, self.by_id.get(id)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::{CAPACITY, Outcomes, Remembered};
    use crate::record::{Outcome, Revision, TransactionId};

    fn filled(count: u64) -> Outcomes {
        let mut outcomes = Outcomes::default();
        for index in 1..=count {
            let outcome = Outcome::Committed { revision: Revision(index) };
            outcomes.remember(index, TransactionId(u128::from(index)), &outcome);
        }
        outcomes
    }

    #[test]
    fn remembered_id_is_answered_with_its_first_outcome() {
        let outcomes = filled(3);
        let Remembered::Outcome(outcome) = outcomes.recall(TransactionId(2), 0) else {
            panic!("the outcome is kept");
        };
        assert_eq!(outcome, Outcome::Committed { revision: Revision(2) });
    }

    #[test]
    fn forgotten_id_is_refused_and_a_new_one_is_not() {
        let last = CAPACITY as u64 + 10;
        let outcomes = filled(last);
        assert!(matches!(outcomes.recall(TransactionId(3), 2), Remembered::Forgotten));
        assert!(matches!(outcomes.recall(TransactionId(10), 9), Remembered::Forgotten));
        assert!(matches!(outcomes.recall(TransactionId(11), 0), Remembered::Outcome(_)));
        assert!(matches!(outcomes.recall(TransactionId(u128::MAX), 10), Remembered::New));
        assert!(matches!(outcomes.recall(TransactionId(u128::MAX), last), Remembered::New));
    }
}
