use futures::future::{BoxFuture, pending, ready};
use podium_store::{
    EphemeralStore, HistoryLimits, Intake, MemberId, Mirror, Operation, Outcome, Standing,
    Transaction, TransactionId, View,
};
use podium_types::ObjectKey;
use podium_types::kind::resources;
use serde_json::json;

use super::*;
use crate::pipeline::Config;
use crate::seams::{SystemClock, SystemIds};

struct Voter {
    store: EphemeralStore,
    pipeline: Pipeline,
    transactions: u128,
}

impl Voter {
    fn new() -> Self {
        let store = EphemeralStore::default();
        let clock = Arc::new(SystemClock::default());
        let shared: Arc<dyn StoreHandle> = Arc::new(store.clone());
        let pipeline = Pipeline::new(shared, clock, Arc::new(SystemIds), Config::default());
        Self { store, pipeline, transactions: 0 }
    }

    /// A Service of so many bytes at least.
    fn put(&mut self, name: &str, bytes: usize) {
        let key = ObjectKey::new(resources::SERVICES, "default", name).storage_key();
        let value = json!({"data": "x".repeat(bytes)}).to_string().into_bytes().into();
        self.transactions += 1;
        let id = TransactionId(self.transactions);
        let operations = vec![Operation::Put { key: key.into(), value }];
        let transaction = Transaction { id, guards: Vec::new(), operations };
        self.store.transact(transaction).now_or_never().expect("at once").expect("committed");
    }

    fn feed(&self) -> Feed {
        Feed::open(&self.pipeline, "n1").now_or_never().expect("at once").expect("a feed")
    }
}

/// What is said now; a feed that has nothing to say says that.
fn next(feed: &mut Feed) -> MirrorNews {
    feed.next(ready(())).now_or_never().expect("at once").expect("the session goes on")
}

fn count(news: &MirrorNews) -> usize {
    match news {
        MirrorNews::Part(records) => records.len(),
        MirrorNews::Changes { changes, .. } => changes.len(),
        MirrorNews::Whole(_) => 0,
    }
}

#[test]
fn a_node_that_is_told_the_news_holds_its_share() {
    let mut voter = Voter::new();
    voter.put("a", 1);
    let mirror = Mirror::new(MemberId(1), HistoryLimits::default());
    let (mut feed, mut intake) = (voter.feed(), Intake::new(mirror.clone()));
    voter.put("b", 1);
    for _ in 0..3 {
        intake.take(next(&mut feed)).expect("in turn");
    }
    assert_eq!(mirror.local().revision(), voter.store.local().revision());
    assert_eq!(mirror.local().range("").count(), 2);
}

#[test]
fn a_feed_without_news_waits_and_then_says_how_far_it_is() {
    let mut voter = Voter::new();
    voter.put("a", 1);
    let mut feed = voter.feed();
    assert_eq!(count(&next(&mut feed)), 1);
    assert_eq!(next(&mut feed), MirrorNews::Whole(Revision(1)));
    assert!(feed.next(pending()).now_or_never().is_none());
    let nothing = MirrorNews::Changes { revision: Revision(1), changes: Vec::new() };
    assert_eq!(next(&mut feed), nothing);
}

/// A voter that is cut off from the others: it knows what it has, and cannot find out what is new.
struct CutOff(EphemeralStore);

impl StoreHandle for CutOff {
    fn transact(&self, transaction: Transaction) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        self.0.transact(transaction)
    }

    fn transact_in(
        &self,
        term: u64,
        transaction: Transaction,
    ) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        self.0.transact_in(term, transaction)
    }

    fn read(&self) -> BoxFuture<'_, Result<View, StoreError>> {
        Box::pin(ready(Err(StoreError::Timeout)))
    }

    fn local(&self) -> View {
        self.0.local()
    }

    fn view_at(&self, revision: Revision) -> Result<View, StoreError> {
        self.0.view_at(revision)
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.0.watch(prefix, after)
    }

    fn status(&self) -> podium_store::Status {
        self.0.status()
    }

    fn standing(&self) -> Standing {
        self.0.standing()
    }

    fn standing_other_than(&self, seen: Standing) -> BoxFuture<'static, Standing> {
        self.0.standing_other_than(seen)
    }
}

#[test]
fn a_voter_that_is_cut_off_does_not_say_that_nothing_happens() {
    let mut voter = Voter::new();
    voter.put("a", 1);
    let mut feed = voter.feed();
    assert_eq!((count(&next(&mut feed)), count(&next(&mut feed))), (1, 0));
    feed.store = Arc::new(CutOff(voter.store.clone()));
    voter.put("b", 1);
    assert_eq!(count(&next(&mut feed)), 1, "what it knows it tells");
    let end = feed.next(ready(())).now_or_never().expect("at once");
    assert!(matches!(end, Err(FeedError::Store(StoreError::Timeout))), "{end:?}");
}

#[test]
fn pieces_are_no_larger_than_a_node_takes() {
    let mut voter = Voter::new();
    let names: Vec<String> = (0..8).map(|number| number.to_string()).collect();
    for name in &names {
        voter.put(name, PIECE_BYTES / 2);
    }
    let mut feed = voter.feed();
    let parts: Vec<usize> = (0..4).map(|_| count(&next(&mut feed))).collect();
    assert_eq!(parts, [2; 4]);
    assert_eq!(next(&mut feed), MirrorNews::Whole(Revision(8)));
    for name in &names {
        voter.put(name, PIECE_BYTES / 2 + 1);
    }
    let changes: Vec<usize> = (0..4).map(|_| count(&next(&mut feed))).collect();
    assert_eq!(changes, [2; 4], "not all in one, which no node would take");
}
