//! What somebody was told, to be held against the history once that reaches far enough.

use std::sync::Arc;

use podium_store::{Guard, Operation, Record, Transaction, View};

use super::history::{Fact, History, describe};
use super::{Violation, same_record};

pub(super) enum Claim {
    /// This transaction is what happened at the revision.
    Committed { who: String, transaction: Transaction },
    /// This guard failed at some revision between the two.
    Refused {
        who: String,
        transaction: Transaction,
        guard: usize,
        current: Option<Arc<Record>>,
        from: u64,
        to: u64,
    },
    /// This is the whole state at the revision.
    View { who: String, view: View },
}

impl Claim {
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Committed { who, transaction } => {
                format!("transaction {} acknowledged by {who}", transaction.id)
            }
            Self::Refused { who, transaction, .. } => {
                format!("transaction {} refused by {who}", transaction.id)
            }
            Self::View { who, .. } => format!("the view of {who}"),
        }
    }

    pub(super) fn check(&self, revision: u64, history: &History) -> Result<(), Violation> {
        match self {
            Self::Committed { who, transaction } => committed(who, transaction, revision, history),
            Self::Refused { who, transaction, guard, current, from, to } => {
                let Some(guard) = transaction.guards.get(*guard) else {
                    return Err(Violation::Rule(format!(
                        "{who} refused a guard that {} does not have",
                        transaction.id
                    )));
                };
                let explained = history.moments(guard.key(), *from, *to).into_iter().any(|at| {
                    !holds(guard, at, history)
                        && is_record(guard.key(), current.as_deref(), at, history)
                });
                if explained {
                    return Ok(());
                }
                let current = current
                    .as_ref()
                    .map_or_else(|| "nothing".to_owned(), |record| format!("{record:?}"));
                let what = format!(
                    "transaction {} ({guard:?} against {current}, between {from} and {to}, by {who})",
                    transaction.id
                );
                Err(Violation::WrongRefusal { what })
            }
            Self::View { who, view } => viewed(who, view, revision, history),
        }
    }
}

fn committed(
    who: &str,
    transaction: &Transaction,
    revision: u64,
    history: &History,
) -> Result<(), Violation> {
    let contradiction = |claimed: String| {
        let known = describe(history.changes(revision));
        Err(Violation::Contradiction { revision, who: who.to_owned(), claimed, known })
    };
    if revision == 0 {
        return contradiction("a transaction happened at it".to_owned());
    }
    if let Some(guard) =
        transaction.guards.iter().find(|guard| !holds(guard, revision - 1, history))
    {
        return contradiction(format!("{guard:?} held in front of it"));
    }
    let expected: Vec<Fact> = transaction
        .operations
        .iter()
        .filter_map(|operation| match operation {
            Operation::Put { key, value } => {
                Some(Fact { key: key.clone(), value: Some(value.clone()) })
            }
            Operation::Delete { key } => {
                history.at(key, revision - 1).map(|_| Fact { key: key.clone(), value: None })
            }
        })
        .collect();
    if expected == history.changes(revision) {
        return Ok(());
    }
    contradiction(format!("it is transaction {}: {}", transaction.id, describe(&expected)))
}

fn holds(guard: &Guard, at: u64, history: &History) -> bool {
    let known = history.at(guard.key(), at);
    match guard {
        Guard::Absent(_) => known.is_none(),
        Guard::At(_, revision) => known.is_some_and(|known| known.modified == revision.0),
        Guard::Exists(_) => known.is_some(),
    }
}

fn is_record(key: &str, record: Option<&Record>, at: u64, history: &History) -> bool {
    match (record, history.at(key, at)) {
        (None, None) => true,
        (Some(record), Some(known)) => same_record(record, known),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

fn viewed(who: &str, view: &View, revision: u64, history: &History) -> Result<(), Violation> {
    let contradiction = |claimed: String, known: String| {
        Err(Violation::Contradiction { revision, who: who.to_owned(), claimed, known })
    };
    // Both are in the order of their keys, so that nothing needs to be looked up.
    let mut records = view.range("");
    for (key, known) in history.state(revision) {
        match records.next() {
            Some(record) if record.key == *key && same_record(record, known) => {}
            Some(record) => {
                return contradiction(format!("{record:?}"), format!("{key} as {known:?}"));
            }
            None => return contradiction(format!("no {key}"), format!("{key} as {known:?}")),
        }
    }
    match records.next() {
        None => Ok(()),
        Some(record) => contradiction(format!("{record:?}"), "nothing more".to_owned()),
    }
}
