//! A part of a store, kept by somebody who is no member of it.
//!
//! A node without a vote follows what it needs of the cluster's state. Who decides what that is, and how it travels, is
//! elsewhere: a mirror takes over records as they are and offers the reading half of [`StoreHandle`] over them, so that
//! what follows the store on a voter follows a mirror in the same way.
//!
//! What a voter says to a node that follows it is [`MirrorNews`]; an [`Intake`] takes it over, and judges its order.
//!
//! Invariants: the mirror's revision never goes back; every change is one event for its watchers, those by which a
//! connection makes up for what it missed too.

mod intake;

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::{BoxFuture, pending, ready};

use crate::bugs::Bugs;
use crate::error::StoreError;
use crate::handle::{Role, Standing, Status, StoreHandle};
use crate::history::HistoryLimits;
use crate::member::{MemberId, Membership};
use crate::record::{Outcome, Record, Revision, Transaction};
use crate::replica::Replica;
use crate::view::View;
use crate::watch::Watch;

pub use intake::{Intake, MirrorNews, NewsError};

/// What happened to one key of the part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MirrorChange {
    /// It holds this now.
    Put(Arc<Record>),
    /// It is gone, or no longer of the part.
    Delete(Arc<str>),
}

/// See the module. Clones are the same mirror.
#[derive(Debug, Clone)]
pub struct Mirror {
    member: MemberId,
    replica: Arc<Replica>,
}

impl Mirror {
    /// An empty mirror on the machine of this id, with this much history.
    #[must_use]
    pub fn new(member: MemberId, limits: HistoryLimits) -> Self {
        Self { member, replica: Replica::new(limits, Bugs::NONE) }
    }

    /// Takes the whole part, as of a revision: what differs from what the mirror holds becomes events.
    ///
    /// An older revision than the mirror's changes nothing; says whether it was taken.
    pub fn reset(&self, revision: Revision, records: Vec<Record>) -> bool {
        let present = self.replica.view();
        let kept: BTreeSet<Arc<str>> =
            records.iter().map(|record| Arc::clone(&record.key)).collect();
        let gone = present.range("").filter(|record| !kept.contains(&record.key));
        let mut changes: Vec<MirrorChange> =
            gone.map(|record| MirrorChange::Delete(Arc::clone(&record.key))).collect();
        let new = records.into_iter().filter(|record| {
            present.get(&record.key).is_none_or(|known| known.mod_revision != record.mod_revision)
        });
        changes.extend(new.map(|record| MirrorChange::Put(Arc::new(record))));
        self.apply(revision, changes)
    }

    /// Takes changes that come behind the mirror's revision, all up to and including `revision`.
    ///
    /// Changes of one revision come together: an older or the same revision with changes is refused. Says whether it was
    /// taken.
    pub fn apply(&self, revision: Revision, changes: Vec<MirrorChange>) -> bool {
        let present = self.replica.view().revision();
        if revision < present || (revision == present && !changes.is_empty()) {
            return false;
        }
        self.replica.follow(revision, changes);
        true
    }

    /// Ends all watches.
    pub fn close(&self, reason: &str) {
        self.replica.close(reason);
    }
}

impl StoreHandle for Mirror {
    /// Always [`StoreError::NotLeader`]: what a mirror's node writes goes to a voter's API.
    fn transact(&self, _: Transaction) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        ready(Err(StoreError::NotLeader { leader: None })).boxed()
    }

    /// As [`StoreHandle::transact`] here.
    fn transact_in(&self, _: u64, _: Transaction) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        ready(Err(StoreError::NotLeader { leader: None })).boxed()
    }

    /// Always [`StoreError::NotLeader`]: a mirror may be old, and cannot find out.
    fn read(&self) -> BoxFuture<'_, Result<View, StoreError>> {
        ready(Err(StoreError::NotLeader { leader: None })).boxed()
    }

    fn local(&self) -> View {
        self.replica.view()
    }

    fn view_at(&self, revision: Revision) -> Result<View, StoreError> {
        self.replica.view_at(revision)
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.replica.watch(prefix, after)
    }

    fn status(&self) -> Status {
        let state = self.replica.state();
        Status {
            member: self.member,
            role: Role::Learner,
            term: 0,
            leader: None,
            applied: state.view.revision,
            applied_index: 0,
            oldest: self.replica.oldest(),
            last_index: 0,
            snapshot_index: 0,
            membership: Membership::default(),
            feature_level: state.level,
            keys: state.view.len(),
            state_bytes: state.bytes,
            log_bytes: 0,
            disk_full: false,
            stopped: self.replica.closed(),
        }
    }

    fn standing(&self) -> Standing {
        Standing { leads: false, term: 0 }
    }

    fn standing_other_than(&self, seen: Standing) -> BoxFuture<'static, Standing> {
        match self.standing() == seen {
            true => pending().boxed(),
            false => ready(self.standing()).boxed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::FutureExt as _;

    use super::*;
    use crate::watch::EventKind;

    fn record(key: &str, revision: u64) -> Record {
        let (create_revision, mod_revision) = (Revision(1), Revision(revision));
        let value = Bytes::from(format!("{key} at {revision}"));
        Record { key: key.into(), value, create_revision, mod_revision, version: revision }
    }

    fn put(key: &str, revision: u64) -> MirrorChange {
        MirrorChange::Put(Arc::new(record(key, revision)))
    }

    fn mirror() -> Mirror {
        Mirror::new(MemberId(7), HistoryLimits::default())
    }

    /// The kinds and keys of the events that are there now.
    fn seen(watch: &mut Watch) -> Vec<(EventKind, String)> {
        let mut events = Vec::new();
        while let Some(Ok(event)) = watch.next().now_or_never() {
            events.push((event.kind, event.key.to_string()));
        }
        events
    }

    #[test]
    fn records_are_taken_as_they_are() {
        let mirror = mirror();
        assert!(mirror.reset(Revision(9), vec![record("a", 3)]));
        assert!(mirror.apply(Revision(12), vec![put("b", 5)]));
        let view = mirror.local();
        assert_eq!(view.revision(), Revision(12));
        assert_eq!(**view.get("a").expect("a"), record("a", 3));
        assert_eq!(**view.get("b").expect("b"), record("b", 5));
        let status = mirror.status();
        assert_eq!((status.keys, status.state_bytes), (2, 2 * ("a".len() + "a at 3".len())));
    }

    #[test]
    fn a_new_connection_gives_watchers_the_difference_and_no_gap() {
        let mirror = mirror();
        mirror.reset(Revision(9), vec![record("a", 1), record("b", 2), record("c", 3)]);
        let mut watch = mirror.watch("", Revision(9)).expect("a watch");
        mirror.reset(Revision(20), vec![record("a", 1), record("c", 15), record("d", 16)]);
        let (put, delete) = (EventKind::Put, EventKind::Delete);
        let expected = [(delete, "b"), (put, "c"), (put, "d")];
        assert_eq!(seen(&mut watch), expected.map(|(kind, key)| (kind, key.to_owned())));
        assert_eq!(watch.progress(), Revision(20));
    }

    #[test]
    fn an_older_state_changes_nothing() {
        let mirror = mirror();
        assert!(mirror.reset(Revision(9), vec![record("a", 8)]));
        assert!(!mirror.reset(Revision(8), vec![record("a", 2)]));
        assert!(!mirror.apply(Revision(9), vec![put("a", 2)]));
        assert!(mirror.apply(Revision(9), Vec::new()), "a bookmark at the same revision is none");
        assert_eq!(mirror.local().get("a").expect("a").mod_revision, Revision(8));
    }

    #[test]
    fn a_revision_without_changes_moves_the_mirror_on() {
        let mirror = mirror();
        assert!(mirror.apply(Revision(4), Vec::new()));
        assert_eq!(mirror.local().revision(), Revision(4));
    }

    #[test]
    fn a_mirror_takes_no_writes_and_no_linearizable_reads() {
        let mirror = mirror();
        let read = mirror.read().now_or_never().expect("at once");
        assert!(matches!(read, Err(StoreError::NotLeader { leader: None })));
    }
}
