//! Between the frozen shapes and the types the crate works with.
//!
//! Into a frozen shape always works. Back, only numbers may be out of range, which is treated
//! like any payload that does not decode.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::v1;
use crate::member::{FeatureLevel, Member, MemberId, Membership};
use crate::record::{Guard, Operation, Outcome, Record, Revision, Transaction, TransactionId};
use crate::state::{Command, Position};

impl From<Position> for v1::Position {
    fn from(position: Position) -> Self {
        Self { term: position.term, index: position.index }
    }
}

impl From<v1::Position> for Position {
    fn from(position: v1::Position) -> Self {
        Self { term: position.term, index: position.index }
    }
}

impl From<&Membership> for v1::Membership {
    fn from(membership: &Membership) -> Self {
        let member = |member: &Member| v1::Member {
            id: member.id.0,
            public_key: Bytes::copy_from_slice(&member.public_key),
        };
        Self {
            members: membership.members.values().map(member).collect(),
            voters: membership
                .voters
                .iter()
                .map(|set| set.iter().map(|id| id.0).collect())
                .collect(),
        }
    }
}

impl From<v1::Membership> for Membership {
    fn from(membership: v1::Membership) -> Self {
        let member = |member: v1::Member| {
            let id = MemberId(member.id);
            (id, Member { id, public_key: member.public_key.to_vec() })
        };
        Self {
            members: membership.members.into_iter().map(member).collect::<BTreeMap<_, _>>(),
            voters: membership
                .voters
                .into_iter()
                .map(|set| set.into_iter().map(MemberId).collect())
                .collect(),
        }
    }
}

impl From<&Guard> for v1::Guard {
    fn from(guard: &Guard) -> Self {
        match guard {
            Guard::Absent(key) => Self::Absent(key.clone()),
            Guard::At(key, revision) => Self::At(key.clone(), revision.0),
            Guard::Exists(key) => Self::Exists(key.clone()),
        }
    }
}

impl From<v1::Guard> for Guard {
    fn from(guard: v1::Guard) -> Self {
        match guard {
            v1::Guard::Absent(key) => Self::Absent(key),
            v1::Guard::At(key, revision) => Self::At(key, Revision(revision)),
            v1::Guard::Exists(key) => Self::Exists(key),
        }
    }
}

impl From<&Operation> for v1::Operation {
    fn from(operation: &Operation) -> Self {
        match operation {
            Operation::Put { key, value } => Self::Put(key.clone(), value.clone()),
            Operation::Delete { key } => Self::Delete(key.clone()),
        }
    }
}

impl From<v1::Operation> for Operation {
    fn from(operation: v1::Operation) -> Self {
        match operation {
            v1::Operation::Put(key, value) => Self::Put { key, value },
            v1::Operation::Delete(key) => Self::Delete { key },
        }
    }
}

impl From<&Command> for v1::Command {
    fn from(command: &Command) -> Self {
        match command {
            Command::Transact { transaction, basis } => Self::Transact {
                id: transaction.id.0,
                basis: *basis,
                guards: transaction.guards.iter().map(Into::into).collect(),
                operations: transaction.operations.iter().map(Into::into).collect(),
            },
            Command::Compact { before } => Self::Compact { before: before.0 },
            Command::Announce { member, knows } => {
                Self::Announce { member: member.0, knows: knows.0 }
            }
            Command::Raise { to } => Self::Raise { to: to.0 },
        }
    }
}

impl From<v1::Command> for Command {
    fn from(command: v1::Command) -> Self {
        match command {
            v1::Command::Transact { id, basis, guards, operations } => Self::Transact {
                transaction: Transaction {
                    id: TransactionId(id),
                    guards: guards.into_iter().map(Into::into).collect(),
                    operations: operations.into_iter().map(Into::into).collect(),
                },
                basis,
            },
            v1::Command::Compact { before } => Self::Compact { before: Revision(before) },
            v1::Command::Announce { member, knows } => {
                Self::Announce { member: MemberId(member), knows: FeatureLevel(knows) }
            }
            v1::Command::Raise { to } => Self::Raise { to: FeatureLevel(to) },
        }
    }
}

impl From<&Record> for v1::Record {
    fn from(record: &Record) -> Self {
        Self {
            key: record.key.clone(),
            value: record.value.clone(),
            create_revision: record.create_revision.0,
            mod_revision: record.mod_revision.0,
            version: record.version,
        }
    }
}

impl From<v1::Record> for Record {
    fn from(record: v1::Record) -> Self {
        Self {
            key: record.key,
            value: record.value,
            create_revision: Revision(record.create_revision),
            mod_revision: Revision(record.mod_revision),
            version: record.version,
        }
    }
}

impl From<&Outcome> for v1::Outcome {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Committed { revision } => Self::Committed(revision.0),
            Outcome::Refused { guard, current } => Self::Refused {
                // A transaction has at most a thousand guards.
                guard: *guard as u32,
                current: current.as_deref().map(Into::into),
            },
        }
    }
}

impl From<v1::Outcome> for Outcome {
    fn from(outcome: v1::Outcome) -> Self {
        match outcome {
            v1::Outcome::Committed(revision) => Self::Committed { revision: Revision(revision) },
            v1::Outcome::Refused { guard, current } => Self::Refused {
                guard: guard as usize,
                current: current.map(|record| Arc::new(record.into())),
            },
        }
    }
}
