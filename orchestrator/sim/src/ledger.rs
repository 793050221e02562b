//! The judge of the store: one canonical history, and everything anybody was told held against it.
//!
//! Job: the first watcher to deliver a revision says what that revision was; from then on every other watcher, every
//! view, every acknowledgement and every refusal, on any member and in any life, must agree with it. Since the store
//! gives one revision to each committed transaction, that is all linearizability needs: real time bounds which revision
//! an answer may carry, and the revision says what the answer must hold.
//!
//! What is claimed about a revision that no watcher has delivered yet waits until one has; [`Ledger::close`] refuses
//! claims that are left over, which is how a lost acknowledged write shows if nothing contradicts it before.

mod claim;
mod history;

use std::collections::BTreeMap;

use bytes::Bytes;
use podium_store::{MemberId, Outcome, Record, Revision, Transaction, View};

use claim::Claim;
pub(crate) use history::Known;
pub use history::{Fact, History};

/// What the store did that it must never do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Two members led in one term.
    #[error("term {term} has two leaders, {first} and {second}")]
    TwoLeaders {
        /// The term.
        term: u64,
        /// Who was seen first.
        first: MemberId,
        /// Who else.
        second: MemberId,
    },
    /// Two accounts of one revision differ.
    #[error("revision {revision}: {who} says {claimed}, but it was {known}")]
    Contradiction {
        /// The revision.
        revision: u64,
        /// Who says it.
        who: String,
        /// What is said.
        claimed: String,
        /// What was established before.
        known: String,
    },
    /// A watcher got events out of order, twice, or not at all.
    #[error("the watch of {who} is broken: {what}")]
    BrokenWatch {
        /// Which watcher.
        who: String,
        /// What it got.
        what: String,
    },
    /// An answer does not hold what was acknowledged before the question.
    #[error(
        "{who} answered at revision {answered}, although {promised} had been acknowledged before it was asked"
    )]
    Stale {
        /// Who answered.
        who: String,
        /// The revision of the answer.
        answered: u64,
        /// The least it had to be.
        promised: u64,
    },
    /// One transaction happened twice.
    #[error("the transaction of {tag} happened at revision {first} and again at {second}")]
    Repeated {
        /// What it put.
        tag: String,
        /// Where first.
        first: u64,
        /// Where again.
        second: u64,
    },
    /// An acknowledged transaction never became part of the history.
    #[error("{what} at revision {revision} is not in the history, which ends at {end}")]
    Missing {
        /// What was acknowledged.
        what: String,
        /// At which revision.
        revision: u64,
        /// The last revision anybody has seen.
        end: u64,
    },
    /// A guard was decided wrongly.
    #[error("{what} was refused for a guard that held at every revision it may have met")]
    WrongRefusal {
        /// The transaction.
        what: String,
    },
    /// Something above the store broke one of its own rules.
    #[error("{0}")]
    Rule(String),
    /// Faults ended, time passed, and the cluster did not come to rest where it should.
    #[error("no progress after healing: {0}")]
    Stuck(String),
}

/// Real time's bound on an answer, taken when the question is asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The highest revision that somebody had been told of by then.
    promised: u64,
}

/// The record of one run.
#[derive(Default)]
pub struct Ledger {
    history: History,
    leaders: BTreeMap<u64, MemberId>,
    /// The highest revision that any client has been told of.
    promised: u64,
    waiting: BTreeMap<u64, Vec<Claim>>,
    acknowledged: BTreeMap<u64, (u128, String)>,
    violation: Option<Violation>,
    checks: u64,
}

impl Ledger {
    /// The first violation, if there is one.
    #[must_use]
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// How many claims were held against the history.
    #[must_use]
    pub fn checks(&self) -> u64 {
        self.checks
    }

    /// The established history.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Records a violation; only the first counts.
    pub fn accuse(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    fn judge(&mut self, verdict: Result<(), Violation>) {
        self.checks += 1;
        if let Err(violation) = verdict {
            self.accuse(violation);
        }
    }

    /// `member` says that it leads `term`.
    pub fn leads(&mut self, member: MemberId, term: u64) {
        let first = *self.leaders.entry(term).or_insert(member);
        if first != member {
            self.accuse(Violation::TwoLeaders { term, first, second: member });
        }
    }

    /// How many terms had a leader.
    #[must_use]
    pub fn terms_led(&self) -> usize {
        self.leaders.len()
    }

    /// A question is asked now.
    #[must_use]
    pub fn ask(&self) -> Asked {
        Asked { promised: self.promised }
    }

    /// A watcher of everything delivered all of `revision`.
    pub fn delivered(&mut self, who: &str, revision: u64, facts: Vec<Fact>) {
        let verdict = self.history.deliver(who, revision, facts);
        self.judge(verdict);
        self.settle();
    }

    /// A transaction was answered. `applied` is the highest revision that any member is seen to have applied by then; one that
    /// applied more and lost power before its answer arrived is known by what it told.
    pub fn answered(
        &mut self,
        who: &str,
        asked: Asked,
        transaction: &Transaction,
        outcome: &Outcome,
        applied: u64,
    ) {
        match outcome {
            Outcome::Committed { revision } => self.committed(who, asked, transaction, revision.0),
            Outcome::Refused { guard, current } => {
                let applied = applied.max(self.promised).max(self.history.end());
                let claim = Claim::Refused {
                    who: who.to_owned(),
                    transaction: transaction.clone(),
                    guard: *guard,
                    current: current.clone(),
                    from: asked.promised,
                    to: applied,
                };
                self.claim(applied, claim);
            }
        }
    }

    fn committed(&mut self, who: &str, asked: Asked, transaction: &Transaction, revision: u64) {
        let id = transaction.id.0;
        let (first, known) =
            self.acknowledged.entry(revision).or_insert_with(|| (id, who.to_owned())).clone();
        if first != id {
            self.accuse(Violation::Contradiction {
                revision,
                who: who.to_owned(),
                claimed: format!("it is transaction {id:x}"),
                known: format!("transaction {first:x}, as {known} said"),
            });
        }
        // A retry may be answered with a revision from before it was asked: the transaction happened at its first try.
        self.promised = self.promised.max(revision);
        let _ = asked;
        self.claim(
            revision,
            Claim::Committed { who: who.to_owned(), transaction: transaction.clone() },
        );
    }

    /// As [`Ledger::answered`] for a transaction that was sent once: real time binds its revision.
    pub fn answered_first_try(&mut self, who: &str, asked: Asked, outcome: &Outcome) {
        if let Outcome::Committed { revision } = outcome {
            self.judge(not_older(who, *revision, asked.promised + 1));
        }
    }

    /// A linearizable read was answered.
    pub fn read(&mut self, who: &str, asked: Asked, view: &View) {
        let revision = view.revision();
        self.judge(not_older(who, revision, asked.promised));
        self.promised = self.promised.max(revision.0);
        self.viewed(who, view);
    }

    /// A view was taken that promises nothing but to be the state at its revision.
    pub fn viewed(&mut self, who: &str, view: &View) {
        self.claim(view.revision().0, Claim::View { who: who.to_owned(), view: view.clone() });
    }

    fn claim(&mut self, revision: u64, claim: Claim) {
        if revision <= self.history.end() {
            let verdict = claim.check(revision, &self.history);
            self.judge(verdict);
        } else {
            self.waiting.entry(revision).or_default().push(claim);
        }
    }

    fn settle(&mut self) {
        while let Some(entry) = self.waiting.first_entry() {
            let revision = *entry.key();
            if revision > self.history.end() {
                return;
            }
            for claim in entry.remove() {
                let verdict = claim.check(revision, &self.history);
                self.judge(verdict);
            }
        }
    }

    /// The run is over and every member has been read to its end: nothing may be left unexplained.
    pub fn close(&mut self) {
        self.settle();
        if let Some((revision, claims)) = self.waiting.first_key_value() {
            let what = claims.first().map_or_else(String::new, Claim::describe);
            let violation =
                Violation::Missing { what, revision: *revision, end: self.history.end() };
            self.accuse(violation);
        }
    }
}

fn not_older(who: &str, revision: Revision, promised: u64) -> Result<(), Violation> {
    if revision.0 >= promised {
        return Ok(());
    }
    Err(Violation::Stale { who: who.to_owned(), answered: revision.0, promised })
}

/// A record as the history would have it, to compare with one that was handed out.
pub(crate) fn same_record(record: &Record, known: &history::Known) -> bool {
    record.value == known.value
        && record.mod_revision.0 == known.modified
        && record.create_revision.0 == known.created
        && record.version == known.version
}

/// Up to 32 bytes of a value, for reports.
pub(crate) fn shown(value: &Bytes) -> String {
    let head = &value[..value.len().min(32)];
    String::from_utf8_lossy(head).into_owned()
}

#[cfg(test)]
mod tests {
    use podium_store::{Guard, Operation, TransactionId};

    use super::*;

    fn transaction(id: u128, guards: Vec<Guard>, operations: Vec<Operation>) -> Transaction {
        Transaction { id: TransactionId(id), guards, operations }
    }

    /// Member 1 deletes a key, refuses who needs it, and loses power before anybody sees how far it got.
    #[test]
    fn refusal_of_a_member_that_crashed_meanwhile_is_explained() {
        let (key, value) = ("/a/1", Bytes::from("#1.0"));
        let mut ledger = Ledger::default();
        let put = Operation::Put { key: key.into(), value: value.clone() };
        let asked = ledger.ask();
        ledger.delivered("node 1", 1, vec![Fact { key: key.into(), value: Some(value) }]);
        let outcome = Outcome::Committed { revision: Revision(1) };
        ledger.answered("node 1", asked, &transaction(1, Vec::new(), vec![put]), &outcome, 1);
        let asked = ledger.ask();
        ledger.delivered("node 1", 2, vec![Fact { key: key.into(), value: None }]);
        let refused = Outcome::Refused { guard: 0, current: None };
        let needs = transaction(2, vec![Guard::Exists(key.into())], Vec::new());
        ledger.answered("node 1", asked, &needs, &refused, 1);
        assert_eq!(ledger.violation(), None);
    }

    #[test]
    fn refusal_that_no_revision_explains_is_a_violation() {
        let (key, value) = ("/a/1", Bytes::from("#1.0"));
        let mut ledger = Ledger::default();
        ledger.delivered("node 1", 1, vec![Fact { key: key.into(), value: Some(value.clone()) }]);
        let put = Operation::Put { key: key.into(), value };
        let asked = ledger.ask();
        let outcome = Outcome::Committed { revision: Revision(1) };
        ledger.answered("node 1", asked, &transaction(1, Vec::new(), vec![put]), &outcome, 1);
        let asked = ledger.ask();
        let refused = Outcome::Refused { guard: 0, current: None };
        let needs = transaction(2, vec![Guard::Exists(key.into())], Vec::new());
        ledger.answered("node 1", asked, &needs, &refused, 1);
        assert!(matches!(ledger.violation(), Some(Violation::WrongRefusal { .. })));
    }
}
