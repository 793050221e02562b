//! The replicated state: what every member computes alike from the same log.
//!
//! [`State::apply`] is a function of the state and the command: no clock, no randomness, no order
//! that a hash decides. Maps are persistent, so a copy for a reader or a snapshot is O(1).
//!
//! Elsewhere: which revisions of the past can still be seen and who watches ([`crate::replica`],
//! not replicated), and how a state is written down ([`crate::format`]).

mod outcomes;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::bugs::{Bug, Bugs};
use crate::error::StoreError;
use crate::member::{FeatureLevel, MemberId, Membership};
use crate::mirror::MirrorChange;
use crate::record::{Guard, Operation, Outcome, Record, Revision, Transaction};
use crate::view::View;
use crate::watch::{EventKind, WatchEvent};

pub(crate) use outcomes::{Kept, Outcomes, Remembered};

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Position {
    pub(crate) term: u64,
    pub(crate) index: u64,
}

/// What a log record asks of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Decide a transaction. `basis` is a log position that had been applied somewhere before it
    /// was first sent: see [`Outcomes`].
    Transact { transaction: Transaction, basis: u64 },
    /// Nobody needs the history up to and including this revision. The leader decides by its
    /// clock; the members obey without one.
    Compact { before: Revision },
    /// A member says what it understands.
    Announce { member: MemberId, knows: FeatureLevel },
    /// Raise the feature level, if all members know it.
    Raise { to: FeatureLevel },
}

impl fmt::Display for Command {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transact { transaction, .. } => write!(formatter, "transact {}", transaction.id),
            Self::Compact { before } => write!(formatter, "compact {before}"),
            Self::Announce { member, knows } => write!(formatter, "announce {member} {knows}"),
            Self::Raise { to } => write!(formatter, "raise {to}"),
        }
    }
}

impl Command {
    /// The level a cluster must have before this may stand in its log. Commands that come with a
    /// later release name that release's level here.
    pub(crate) fn level(&self) -> FeatureLevel {
        match self {
            Self::Transact { .. }
            | Self::Compact { .. }
            | Self::Announce { .. }
            | Self::Raise { .. } => FeatureLevel::FIRST,
        }
    }
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// To a transaction.
    Outcome(Outcome),
    /// To a transaction that may have been forgotten.
    Expired,
    /// To a raise that some member would not understand.
    NotKnownBy(MemberId),
    /// To everything else.
    Done,
}

impl Reply {
    pub(crate) fn into_outcome(self) -> Result<Outcome, StoreError> {
        match self {
            Self::Outcome(outcome) => Ok(outcome),
            Self::Expired => Err(StoreError::Expired),
            Self::NotKnownBy(_) | Self::Done => {
                Err(StoreError::Invalid { reason: "the answer is not to a transaction".into() })
            }
        }
    }
}

/// Everything that is replicated.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    pub(crate) view: View,
    pub(crate) outcomes: Outcomes,
    pub(crate) compacted: Revision,
    pub(crate) level: FeatureLevel,
    pub(crate) announced: Arc<BTreeMap<MemberId, FeatureLevel>>,
    pub(crate) applied: Option<Position>,
    pub(crate) membership_position: Option<Position>,
    pub(crate) membership: Arc<Membership>,
    /// Bytes of all keys and values; follows from `view`.
    pub(crate) bytes: usize,
}

impl State {
    /// The state in front of the first log record.
    pub(crate) fn new() -> Self {
        Self { level: FeatureLevel::FIRST, ..Self::default() }
    }

    /// The position of the last applied record, 0 before the first.
    pub(crate) fn applied_index(&self) -> u64 {
        self.applied.map_or(0, |position| position.index)
    }

    /// Carries out a command that stands at `index` of the log. The events are of one revision,
    /// in the order of the transaction's operations.
    pub(crate) fn apply(
        &mut self,
        index: u64,
        command: &Command,
        bugs: Bugs,
    ) -> (Reply, Vec<Arc<WatchEvent>>) {
        match command {
            Command::Transact { transaction, basis } => {
                self.transact(index, transaction, *basis, bugs)
            }
            Command::Compact { before } => {
                self.compacted = self.compacted.max((*before).min(self.view.revision));
                (Reply::Done, Vec::new())
            }
            Command::Announce { member, knows } => {
                Arc::make_mut(&mut self.announced).insert(*member, *knows);
                (Reply::Done, Vec::new())
            }
            Command::Raise { to } => (self.raise(*to), Vec::new()),
        }
    }

    fn raise(&mut self, to: FeatureLevel) -> Reply {
        let behind = |id: &&MemberId| self.announced.get(id).is_none_or(|knows| *knows < to);
        if let Some(member) = self.membership.members.keys().find(behind) {
            return Reply::NotKnownBy(*member);
        }
        self.level = self.level.max(to);
        Reply::Done
    }

    fn transact(
        &mut self,
        index: u64,
        transaction: &Transaction,
        basis: u64,
        bugs: Bugs,
    ) -> (Reply, Vec<Arc<WatchEvent>>) {
        match self.outcomes.recall(transaction.id, basis) {
            Remembered::Outcome(outcome) => return (Reply::Outcome(outcome), Vec::new()),
            Remembered::Forgotten => return (Reply::Expired, Vec::new()),
            Remembered::New => {}
        }
        let (outcome, events) = match self.refusal(&transaction.guards, bugs) {
            Some(refused) => (refused, Vec::new()),
            None => self.commit(&transaction.operations, bugs),
        };
        if !bugs.has(Bug::ForgottenTransactionId) {
            self.outcomes.remember(index, transaction.id, &outcome);
        }
        (Reply::Outcome(outcome), events)
    }

    fn refusal(&self, guards: &[Guard], bugs: Bugs) -> Option<Outcome> {
        guards.iter().enumerate().find_map(|(guard, condition)| {
            let current = self.view.get(condition.key());
            let holds = match condition {
                Guard::Absent(_) => current.is_none(),
                Guard::Exists(_) => current.is_some(),
                Guard::At(_, revision) => current.is_some_and(|record| {
                    record.mod_revision == *revision || bugs.has(Bug::SkipGuard)
                }),
            };
            (!holds).then(|| Outcome::Refused { guard, current: current.cloned() })
        })
    }

    fn commit(&mut self, operations: &[Operation], bugs: Bugs) -> (Outcome, Vec<Arc<WatchEvent>>) {
        let mut revision = self.view.revision.next();
        if bugs.has(Bug::ReusedRevision) && revision.0.is_multiple_of(5) {
            revision = self.view.revision;
        }
        let events = operations
            .iter()
            .filter_map(|operation| match operation {
                Operation::Put { key, value } => Some(self.put(revision, key, value)),
                Operation::Delete { key } => self.delete(revision, key),
            })
            .map(Arc::new)
            .collect();
        self.view.revision = revision;
        (Outcome::Committed { revision }, events)
    }

    /// Takes over records as they are, after which the state is that of `revision`.
    pub(crate) fn follow(
        &mut self,
        revision: Revision,
        changes: Vec<MirrorChange>,
    ) -> Vec<Arc<WatchEvent>> {
        let events = changes.into_iter().filter_map(|change| match change {
            MirrorChange::Put(record) => Some(self.place(revision, record)),
            MirrorChange::Delete(key) => self.delete(revision, &key),
        });
        let events = events.map(Arc::new).collect();
        self.view.revision = revision;
        events
    }

    fn put(&mut self, revision: Revision, key: &Arc<str>, value: &Bytes) -> WatchEvent {
        let previous = self.view.get(key);
        // One copy of the key serves the map, the record and all later versions of it.
        let record = Arc::new(Record {
            key: previous.map_or(key, |record| &record.key).clone(),
            value: value.clone(),
            create_revision: previous.map_or(revision, |record| record.create_revision),
            mod_revision: revision,
            version: previous.map_or(0, |record| record.version) + 1,
        });
        self.place(revision, record)
    }

    fn place(&mut self, revision: Revision, record: Arc<Record>) -> WatchEvent {
        let key = record.key.clone();
        let previous = self.view.records.insert(key.clone(), record.clone());
        self.bytes += key.len() + record.value.len();
        self.bytes -= previous.as_ref().map_or(0, |old| old.key.len() + old.value.len());
        WatchEvent { revision, key, kind: EventKind::Put, record: Some(record), previous }
    }

    fn delete(&mut self, revision: Revision, key: &Arc<str>) -> Option<WatchEvent> {
        let previous = self.view.records.remove(&**key)?;
        self.bytes -= previous.key.len() + previous.value.len();
        let key = previous.key.clone();
        Some(WatchEvent {
            revision,
            key,
            kind: EventKind::Delete,
            record: None,
            previous: Some(previous),
        })
    }
}
