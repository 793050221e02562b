//! Clients of the store: random transactions, reads, views and watches from outside, through the network.
//!
//! Every value that is put names its transaction, so the ledger sees a write that happens twice. A client that does not
//! know what became of a transaction sends it again under its id, to another member, as the API's pipeline does; some
//! give up instead and never know.

mod watcher;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::rt::AsyncRuntime;
use podium_store::{
    Guard, Operation, Outcome, Revision, StoreError, StoreHandle, Transaction, TransactionId,
};

use crate::cluster::{Cluster, FIRST_CLIENT, SimStore};
use crate::executor::{self, Core, Life};
use crate::ledger::Asked;
use crate::network::{Lost, Work};
use crate::runtime::{SimRuntime, Sleep, spawn_in};

/// Few keys, so that transactions meet.
const KEYS: u64 = 24;

/// How long a client waits for one answer. Shorter than the store's own patience, so that some answers come too late.
const PATIENCE: Duration = Duration::from_secs(8);

/// How often a client sends one transaction before it gives up.
const TRIES: usize = 8;

/// The clients of a cluster.
#[derive(Clone)]
pub struct Clients {
    cluster: Cluster,
    address: u16,
}

/// What went wrong with one call, as the client sees it.
enum Trouble {
    /// No answer, or none that says whether it happened.
    Unknown,
    /// It certainly did not happen.
    Nothing,
}

impl Clients {
    /// Clients that reach the cluster from one address.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, address: FIRST_CLIENT }
    }

    /// Starts one random action.
    pub fn act(&self) {
        let clients = self.clone();
        let choice = executor::with(|core| core.below(100));
        match choice {
            0..68 => self.run(async move { clients.write().await }),
            68..86 => self.run(async move { clients.read().await }),
            86..92 => clients.look_back(),
            92..97 => self.run(watcher::watch(self.cluster.clone())),
            _ => self.run(async move { clients.read_locally().await }),
        }
    }

    fn run(&self, action: impl Future<Output = ()> + Send + 'static) {
        drop(spawn_in(Life::HARNESS, action));
    }

    /// Calls one member's store through the network.
    async fn call<T, F>(&self, node: u16, work: F) -> Result<T, Trouble>
    where
        T: Send + 'static,
        F: Fn(SimStore) -> futures::future::BoxFuture<'static, Result<T, StoreError>>
            + Send
            + Sync
            + 'static,
    {
        let cluster = self.cluster.clone();
        let work: Work<Result<T, Trouble>> = Arc::new(move || {
            let call = cluster.store(node).map(&work);
            Box::pin(async move {
                match call {
                    None => Err(Trouble::Nothing),
                    Some(call) => call.await.map_err(|error| Trouble::of(&error)),
                }
            })
        });
        let exchange = self.cluster.network().exchange(self.address, node, work);
        match SimRuntime::timeout(PATIENCE, exchange).await {
            Err(_) | Ok(Err(Lost::Broken)) => Err(Trouble::Unknown),
            Ok(Err(Lost::Refused)) => Err(Trouble::Nothing),
            Ok(Ok(answer)) => answer,
        }
    }

    async fn write(&self) {
        let basis = self
            .cluster
            .running()
            .first()
            .and_then(|node| self.cluster.store(*node))
            .map(|store| store.local());
        let transaction = executor::with(|core| draw_transaction(core, basis.as_ref()));
        let asked = self.cluster.ledger().ask();
        for attempt in 0..TRIES {
            let node = self.choose(attempt == 0);
            match self.send(node, &transaction).await {
                Ok(outcome) => return self.answered(node, asked, &transaction, &outcome, attempt),
                Err(Trouble::Nothing) => {}
                Err(Trouble::Unknown) => {
                    if executor::with(|core| core.one_in(4)) {
                        return;
                    }
                }
            }
            Sleep::after(executor::with(|core| {
                core.between(Duration::from_millis(10), Duration::from_secs(1))
            }))
            .await;
        }
    }

    /// Writes through one member and reads it back there; false if either did not work.
    pub async fn prove(&self, node: u16) -> bool {
        // It puts something, so that every watcher hears of it and of all that went before.
        let id =
            executor::with(|core| (u128::from(core.random()) << 64) | u128::from(core.random()));
        let value = Bytes::from(format!("#{id:032x}.last"));
        let operations = vec![Operation::Put { key: "/a/last".into(), value }];
        let transaction = Transaction { id: TransactionId(id), guards: Vec::new(), operations };
        let asked = self.cluster.ledger().ask();
        let Ok(outcome) = self.send(node, &transaction).await else { return false };
        self.answered(node, asked, &transaction, &outcome, 0);
        let asked = self.cluster.ledger().ask();
        let Ok(view) = self.call(node, |store| Box::pin(async move { store.read().await })).await
        else {
            return false;
        };
        self.cluster.ledger().read(&format!("the last read on node {node}"), asked, &view);
        true
    }

    async fn send(&self, node: u16, transaction: &Transaction) -> Result<Outcome, Trouble> {
        let transaction = transaction.clone();
        self.call(node, move |store| {
            let transaction = transaction.clone();
            Box::pin(async move { store.submit(transaction).await })
        })
        .await
    }

    fn answered(
        &self,
        node: u16,
        asked: Asked,
        transaction: &Transaction,
        outcome: &Outcome,
        attempt: usize,
    ) {
        tracing::debug!(node, id = %transaction.id, ?outcome, attempt, "answered");
        let who = format!("node {node}");
        let applied = self.cluster.applied();
        let mut ledger = self.cluster.ledger();
        if attempt == 0 {
            ledger.answered_first_try(&who, asked, outcome);
        }
        ledger.answered(&who, asked, transaction, outcome, applied);
    }

    async fn read(&self) {
        let node = self.choose(false);
        let asked = self.cluster.ledger().ask();
        let view = self.call(node, |store| Box::pin(async move { store.read().await })).await;
        if let Ok(view) = view {
            self.cluster.ledger().read(&format!("a read on node {node}"), asked, &view);
        }
    }

    async fn read_locally(&self) {
        let node = self.choose(false);
        let view = self.call(node, |store| Box::pin(async move { Ok(store.local()) })).await;
        if let Ok(view) = view {
            self.cluster.ledger().viewed(&format!("node {node} itself"), &view);
        }
    }

    /// Asks for a state of the past.
    fn look_back(&self) {
        let node = self.choose(false);
        let Some(store) = self.cluster.store(node) else { return };
        let end = store.local().revision().0;
        let revision = executor::with(|core| core.below(end + 3));
        if let Ok(view) = store.view_at(Revision(revision)) {
            let who = format!("the past on node {node}");
            let mut ledger = self.cluster.ledger();
            if view.revision().0 != revision {
                let what = format!("{who}: asked for {revision}, got {}", view.revision());
                ledger.accuse(crate::ledger::Violation::Rule(what));
            }
            ledger.viewed(&who, &view);
        }
    }

    /// Any node, or half of the time the one that leads.
    fn choose(&self, prefer_leader: bool) -> u16 {
        let numbers = self.cluster.numbers();
        let leader = self.cluster.leader();
        executor::with(|core| match leader {
            Some(leader) if prefer_leader && core.one_in(2) => leader,
            _ => numbers[usize::try_from(core.below(numbers.len() as u64)).unwrap_or(0)],
        })
    }
}

impl Trouble {
    fn of(error: &StoreError) -> Self {
        if error.outcome_is_unknown() { Self::Unknown } else { Self::Nothing }
    }
}

fn draw_key(core: &Core) -> Arc<str> {
    let key = core.below(KEYS);
    format!("/{}/{key:02}", ["a", "b", "c"][usize::try_from(key % 3).unwrap_or(0)]).into()
}

/// One to four keys; guards mostly true of `basis`, so that about half of the transactions commit.
fn draw_transaction(core: &Core, basis: Option<&podium_store::View>) -> Transaction {
    let id = (u128::from(core.random()) << 64) | u128::from(core.random());
    let mut keys: Vec<Arc<str>> = (0..=core.below(4)).map(|_| draw_key(core)).collect();
    keys.sort();
    keys.dedup();
    let mut guards = Vec::new();
    let mut operations = Vec::new();
    for (index, key) in keys.into_iter().enumerate() {
        let held = basis.and_then(|view| view.get(&key).cloned());
        match core.below(6) {
            0 => guards.push(Guard::Exists(key.clone())),
            1 if held.is_none() => guards.push(Guard::Absent(key.clone())),
            2 | 3 => guards.extend(held.map(|record| Guard::At(key.clone(), record.mod_revision))),
            4 if core.one_in(4) => guards.push(Guard::Absent(key.clone())),
            _ => {}
        }
        match core.below(8) {
            0 => {}
            1 | 2 => operations.push(Operation::Delete { key }),
            _ => {
                let padding = usize::try_from(core.below(400)).unwrap_or(0);
                let value = format!("#{id:032x}.{index} {:padding$}", "");
                operations.push(Operation::Put { key, value: Bytes::from(value) });
            }
        }
    }
    Transaction { id: TransactionId(id), guards, operations }
}
