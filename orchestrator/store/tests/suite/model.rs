//! The store against a model that is too simple to be wrong: random transactions, retries, guards,
//! watches, past views, compaction.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::FutureExt;
use podium_store::{
    EphemeralStore, EventKind, Guard, HistoryLimits, Operation, Outcome, Revision, StoreError,
    StoreHandle, Transaction, TransactionId, Watch, WatchError,
};
use proptest::prelude::*;

const KEYS: u8 = 6;

#[derive(Debug, Clone)]
enum Check {
    Absent,
    Exists,
    /// At what it holds, or at a revision it does not.
    Current(bool),
}

#[derive(Debug, Clone)]
enum Step {
    Transact {
        checks: Vec<(u8, Check)>,
        changes: BTreeMap<u8, Option<u8>>,
    },
    /// Sends a transaction of the past once more.
    Retry(usize),
    Watch {
        prefix: u8,
        back: u64,
    },
    /// Takes what has come in on one watch.
    Drain(usize),
    View {
        back: u64,
    },
    Page {
        prefix: u8,
        size: usize,
    },
    Compact {
        back: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let check = prop_oneof![
        Just(Check::Absent),
        Just(Check::Exists),
        any::<bool>().prop_map(Check::Current)
    ];
    let checks = prop::collection::vec((0..KEYS, check), 0..3);
    let changes =
        prop::collection::btree_map(0..KEYS, prop::option::weighted(0.8, any::<u8>()), 0..4);
    let step = prop_oneof![
        8 => (checks, changes).prop_map(|(checks, changes)| Step::Transact { checks, changes }),
        2 => any::<usize>().prop_map(Step::Retry),
        2 => (0..3_u8, 0..40_u64).prop_map(|(prefix, back)| Step::Watch { prefix, back }),
        3 => any::<usize>().prop_map(Step::Drain),
        3 => (0..40_u64).prop_map(|back| Step::View { back }),
        1 => (0..3_u8, 1..4_usize).prop_map(|(prefix, size)| Step::Page { prefix, size }),
        1 => (0..40_u64).prop_map(|back| Step::Compact { back }),
    ];
    prop::collection::vec(step, 1..120)
}

/// Keys of three prefixes, one of which is within another.
fn key(number: u8) -> String {
    format!("{}{number}", ["/a/", "/b/", "/a/b/"][number as usize % 3])
}

fn prefix(number: u8) -> &'static str {
    ["/a/", "/b/", "/"][number as usize % 3]
}

type Model = BTreeMap<String, (u8, u64, u64, u64)>;

struct Test {
    store: EphemeralStore,
    /// The state at every revision, and what changed to get there.
    past: Vec<Model>,
    changes: Vec<Vec<String>>,
    sent: Vec<(Transaction, Outcome)>,
    watches: Vec<(Watch, &'static str, u64)>,
}

impl Test {
    fn revision(&self) -> u64 {
        self.past.len() as u64 - 1
    }

    fn now(&self) -> &Model {
        self.past.last().unwrap()
    }

    fn transact(&mut self, checks: &[(u8, Check)], changes: &BTreeMap<u8, Option<u8>>) {
        let guard = |(number, check): &(u8, Check)| {
            let name = key(*number);
            let held = self.now().get(&name).map_or(0, |record| record.2);
            match check {
                Check::Absent => Guard::Absent(name.into()),
                Check::Exists => Guard::Exists(name.into()),
                Check::Current(true) => Guard::At(name.into(), Revision(held)),
                Check::Current(false) => Guard::At(name.into(), Revision(held + 1)),
            }
        };
        let guards: Vec<Guard> = checks.iter().map(guard).collect();
        let operation = |(number, value): (&u8, &Option<u8>)| match value {
            Some(value) => {
                Operation::Put { key: key(*number).into(), value: Bytes::from(vec![*value]) }
            }
            None => Operation::Delete { key: key(*number).into() },
        };
        let id = TransactionId(self.sent.len() as u128);
        let transaction =
            Transaction { id, guards, operations: changes.iter().map(operation).collect() };
        let outcome = self.send(&transaction);
        let failing = checks.iter().position(|(number, check)| {
            let held = self.now().get(&key(*number));
            !match check {
                Check::Absent => held.is_none(),
                Check::Exists => held.is_some(),
                Check::Current(right) => *right && held.is_some(),
            }
        });
        match (&outcome, failing) {
            (Outcome::Refused { guard, current }, Some(expected)) => {
                assert_eq!(*guard, expected);
                let held = self.now().get(&key(checks[expected].0));
                let seen = current.as_ref().map(|record| (record.value[0], record.mod_revision.0));
                assert_eq!(seen, held.map(|held| (held.0, held.2)));
            }
            (Outcome::Committed { revision }, None) => {
                assert_eq!(revision.0, self.revision() + 1);
                self.commit(changes);
            }
            _ => panic!("{outcome:?} where the model says {failing:?}"),
        }
        self.sent.push((transaction, outcome));
    }

    fn commit(&mut self, changes: &BTreeMap<u8, Option<u8>>) {
        let revision = self.revision() + 1;
        let mut next = self.now().clone();
        let mut changed = Vec::new();
        for (number, value) in changes {
            let name = key(*number);
            let before = next.get(&name).copied();
            match value {
                Some(value) => {
                    let (created, version) =
                        before.map_or((revision, 0), |before| (before.1, before.3));
                    next.insert(name.clone(), (*value, created, revision, version + 1));
                    changed.push(name);
                }
                None if before.is_some() => {
                    next.remove(&name);
                    changed.push(name);
                }
                None => {}
            }
        }
        self.past.push(next);
        self.changes.push(changed);
    }

    fn send(&self, transaction: &Transaction) -> Outcome {
        self.store.transact(transaction.clone()).now_or_never().unwrap().unwrap()
    }

    fn back(&self, back: u64) -> u64 {
        self.revision().saturating_sub(back)
    }

    fn watch(&mut self, number: u8, back: u64) {
        let after = self.back(back);
        match self.store.watch(prefix(number), Revision(after)) {
            Ok(watch) => self.watches.push((watch, prefix(number), after)),
            Err(StoreError::TooOld { oldest }) => assert!(after < oldest.0),
            Err(error) => panic!("{error}"),
        }
    }

    /// A watch has given everything up to some revision; what comes must be all the rest.
    fn drain(&mut self, index: usize) {
        if self.watches.is_empty() {
            return;
        }
        let index = index % self.watches.len();
        let (watch, prefix, after) = &mut self.watches[index];
        let last = self.past.len() as u64 - 1;
        for revision in *after + 1..=last {
            for name in &self.changes[revision as usize] {
                if !name.starts_with(*prefix) {
                    continue;
                }
                let event = match watch.next().now_or_never().expect("an event is due") {
                    Ok(event) => event,
                    Err(WatchError::TooOld) => {
                        self.watches.remove(index);
                        return;
                    }
                    Err(WatchError::Closed) => panic!("nobody closed the store"),
                };
                assert_eq!((event.revision.0, &*event.key), (revision, &**name));
                let (old, new) = (&self.past[revision as usize - 1], &self.past[revision as usize]);
                let values = |model: &Model| model.get(name).map(|record| record.0);
                assert_eq!(event.previous.as_ref().map(|record| record.value[0]), values(old));
                assert_eq!(event.record.as_ref().map(|record| record.value[0]), values(new));
                assert_eq!(event.kind == EventKind::Delete, values(new).is_none());
            }
        }
        assert!(watch.next().now_or_never().is_none(), "an event too many");
        assert_eq!(watch.progress().0, last);
        *after = last;
    }

    fn view(&self, back: u64) {
        let revision = self.back(back);
        match self.store.view_at(Revision(revision)) {
            Ok(view) => {
                assert_eq!(view.revision().0, revision);
                let seen = view.range("").map(|record| {
                    let revisions =
                        (record.create_revision.0, record.mod_revision.0, record.version);
                    (
                        record.key.to_string(),
                        (record.value[0], revisions.0, revisions.1, revisions.2),
                    )
                });
                assert!(seen.eq(self.past[revision as usize].clone()));
            }
            Err(StoreError::TooOld { oldest }) => assert!(revision < oldest.0),
            Err(error) => panic!("{error}"),
        }
    }

    fn page(&self, number: u8, size: usize) {
        let (view, prefix) = (self.store.local(), prefix(number));
        let mut seen: Vec<String> = Vec::new();
        loop {
            let after = seen.last().cloned().unwrap_or_default();
            let page: Vec<_> =
                view.range_after(prefix, &after).take(size).map(|r| r.key.to_string()).collect();
            if page.is_empty() {
                break;
            }
            seen.extend(page);
        }
        assert!(seen.iter().eq(self.now().keys().filter(|name| name.starts_with(prefix))));
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Transact { checks, changes } => self.transact(checks, changes),
            Step::Retry(which) if !self.sent.is_empty() => {
                let (transaction, outcome) = &self.sent[which % self.sent.len()];
                assert_eq!(self.send(transaction), *outcome);
                assert_eq!(self.store.local().revision().0, self.revision());
            }
            Step::Retry(_) => {}
            Step::Watch { prefix, back } => self.watch(*prefix, *back),
            Step::Drain(which) => self.drain(*which),
            Step::View { back } => self.view(*back),
            Step::Page { prefix, size } => self.page(*prefix, *size),
            Step::Compact { back } => {
                self.store.compact(Revision(self.back(*back)));
                assert!(self.store.status().oldest.0 >= self.back(*back));
                self.view(*back);
            }
        }
    }
}

fn run(steps: &[Step], limits: HistoryLimits) {
    let mut test = Test {
        store: EphemeralStore::new(limits),
        past: vec![Model::new()],
        changes: vec![Vec::new()],
        sent: Vec::new(),
        watches: Vec::new(),
    };
    for step in steps {
        test.step(step);
    }
    for which in (0..test.watches.len()).rev() {
        test.drain(which);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn store_does_what_the_model_does(steps in steps()) {
        run(&steps, HistoryLimits::default());
    }

    #[test]
    fn short_history_says_so_and_never_lies(steps in steps(), events in 0..12_usize) {
        run(&steps, HistoryLimits { events, bytes: usize::MAX });
    }
}

/// More events than there are between two copies of the records.
#[test]
fn view_far_back_is_the_state_that_was() {
    let store = EphemeralStore::default();
    let send = |number: u64| {
        let operations =
            vec![crate::cluster::put(&format!("/{}", number % 100), &number.to_string())];
        let transaction =
            Transaction { id: TransactionId(number.into()), guards: Vec::new(), operations };
        store.transact(transaction).now_or_never().unwrap().unwrap()
    };
    for number in 1..=5000 {
        send(number);
    }
    for revision in [1, 99, 1023, 1024, 1025, 2500, 4999, 5000] {
        let view = store.view_at(Revision(revision)).unwrap();
        assert_eq!(view.len() as u64, revision.min(100));
        let newest = view.get(&format!("/{}", revision % 100)).unwrap();
        assert_eq!(newest.mod_revision, Revision(revision));
        assert!(view.range("").all(|record| record.mod_revision.0 + 100 > revision));
    }
}

#[test]
fn slow_watcher_is_told_and_an_idle_one_is_not() {
    let store = EphemeralStore::new(HistoryLimits { events: 10, bytes: usize::MAX });
    let mut slow = store.watch("/a/", Revision::ZERO).unwrap();
    let mut idle = store.watch("/b/", Revision::ZERO).unwrap();
    for number in 0..50_u32 {
        let operations = vec![crate::cluster::put("/a/x", &number.to_string())];
        let transaction =
            Transaction { id: TransactionId(number.into()), guards: Vec::new(), operations };
        store.transact(transaction).now_or_never().unwrap().unwrap();
    }
    assert_eq!(slow.next().now_or_never(), Some(Err(WatchError::TooOld)));
    assert!(idle.next().now_or_never().is_none());
    assert_eq!(idle.progress(), Revision(50));
    let mut ahead = store.watch("/", Revision(52)).unwrap();
    for number in 50..54_u32 {
        let operations = vec![crate::cluster::put("/b/x", "y")];
        let transaction =
            Transaction { id: TransactionId(number.into()), guards: Vec::new(), operations };
        store.transact(transaction).now_or_never().unwrap().unwrap();
    }
    assert_eq!(idle.next().now_or_never().unwrap().unwrap().revision, Revision(51));
    assert_eq!(ahead.next().now_or_never().unwrap().unwrap().revision, Revision(53));
}

#[test]
fn malformed_transactions_are_refused_before_they_reach_the_log() {
    let store = EphemeralStore::default();
    let send = |operations| {
        let transaction = Transaction { id: TransactionId(1), guards: Vec::new(), operations };
        store.transact(transaction).now_or_never().unwrap().unwrap_err()
    };
    let twice = vec![crate::cluster::put("/a", "1"), Operation::Delete { key: "/a".into() }];
    assert!(matches!(send(twice), StoreError::Invalid { .. }));
    assert!(matches!(send(vec![crate::cluster::put("", "1")]), StoreError::Invalid { .. }));
    let huge = Operation::Put {
        key: "/a".into(),
        value: vec![0; podium_store::VALUE_LIMIT_BYTES + 1].into(),
    };
    assert!(matches!(send(vec![huge]), StoreError::TooLarge { .. }));
}
