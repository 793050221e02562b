//! A cluster of stores in one process on tokio: disks in memory, a network that can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use podium_store::disk::memory::MemoryDisk;
use podium_store::{
    Config, Disk, Guard, LogLimits, Member, MemberId, Message, Operation, Outcome, Revision, Role,
    Store, StoreError, StoreHandle, Timings, TokioRuntime, Transaction, TransactionId, Transport,
    TransportError,
};

pub(crate) type TokioStore = Store<TokioRuntime>;

/// Far above what anything takes, for machines that are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(crate) struct Network {
    stores: Mutex<BTreeMap<MemberId, TokioStore>>,
    cut: Mutex<BTreeSet<MemberId>>,
}

impl Network {
    pub(crate) fn attach(&self, id: MemberId, store: TokioStore) {
        self.stores.lock().unwrap().insert(id, store);
    }

    pub(crate) fn detach(&self, id: MemberId) {
        self.stores.lock().unwrap().remove(&id);
    }

    /// Nothing goes to or from this member.
    pub(crate) fn cut(&self, id: MemberId) {
        self.cut.lock().unwrap().insert(id);
    }

    pub(crate) fn heal(&self) {
        self.cut.lock().unwrap().clear();
    }

    fn target(&self, from: MemberId, to: MemberId) -> Option<TokioStore> {
        let cut = self.cut.lock().unwrap();
        if cut.contains(&from) || cut.contains(&to) {
            return None;
        }
        self.stores.lock().unwrap().get(&to).cloned()
    }
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) from: MemberId,
    pub(crate) network: Arc<Network>,
}

impl Transport for Link {
    fn call(
        &self,
        to: MemberId,
        message: Message,
    ) -> BoxFuture<'static, Result<Message, TransportError>> {
        let (from, network) = (self.from, self.network.clone());
        async move {
            let unreachable = || TransportError::Unreachable { to, reason: "cut".into() };
            let store = network.target(from, to).ok_or_else(unreachable)?;
            let message = Message::from_bytes(message.bytes).expect("a message of this program");
            let reply = store.serve(from, message).await;
            network.target(from, to).ok_or_else(unreachable)?;
            Ok(Message::from_bytes(reply.bytes).expect("a message of this program"))
        }
        .boxed()
    }
}

/// Elections in a third of a second, maintenance ten times a second.
pub(crate) fn timings() -> Timings {
    Timings {
        heartbeat: Duration::from_millis(50),
        election_min: Duration::from_millis(300),
        election_max: Duration::from_millis(600),
        maintenance: Duration::from_millis(50),
        request: Duration::from_secs(20),
        ..Timings::default()
    }
}

pub(crate) fn config(id: MemberId) -> Config {
    Config { timings: timings(), ..Config::new(id) }
}

/// Short files and frequent snapshots.
pub(crate) fn small_log() -> LogLimits {
    LogLimits {
        segment_bytes: 16 * 1024,
        snapshot_records: 40,
        keep_records: 5,
        ..LogLimits::default()
    }
}

pub(crate) fn member(id: u64) -> Member {
    Member { id: MemberId(id), public_key: vec![id as u8; 4] }
}

#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) network: Arc<Network>,
    pub(crate) disks: BTreeMap<MemberId, MemoryDisk>,
    pub(crate) stores: BTreeMap<MemberId, TokioStore>,
    pub(crate) log: LogLimits,
}

impl Cluster {
    pub(crate) async fn start(count: u64, log: LogLimits) -> Self {
        let mut cluster =
            Self { network: Arc::default(), disks: BTreeMap::new(), stores: BTreeMap::new(), log };
        for id in 1..=count {
            cluster.disks.insert(MemberId(id), MemoryDisk::new());
            cluster.open(MemberId(id)).await.unwrap();
        }
        let members = (1..=count).map(member).collect();
        cluster.stores[&MemberId(1)].initialise(members).await.unwrap();
        cluster.leader().await;
        cluster
    }

    /// Opens a member on its disk.
    pub(crate) async fn open(&mut self, id: MemberId) -> Result<(), StoreError> {
        let disk: Arc<dyn Disk> = Arc::new(self.disks.entry(id).or_default().clone());
        let link = Arc::new(Link { from: id, network: self.network.clone() });
        let config = Config { log: self.log, ..config(id) };
        let store = TokioStore::open(config, disk, link).await?;
        self.network.attach(id, store.clone());
        self.stores.insert(id, store);
        Ok(())
    }

    /// Stops a member as a power cut does: what was not synced is gone.
    pub(crate) async fn power_off(&mut self, id: MemberId) {
        let disk = self.disks[&id].after_power_cut();
        self.network.detach(id);
        if let Some(store) = self.stores.remove(&id) {
            // It writes on to a disk that is no more.
            store.shutdown().await;
        }
        self.disks.insert(id, disk);
    }

    /// A member that leads and is followed by every other that runs and is connected.
    pub(crate) async fn leader(&self) -> TokioStore {
        let mut found = None;
        eventually("a leader that all know", || {
            let cut = self.network.cut.lock().unwrap().clone();
            let mut running =
                self.stores.iter().filter(|(id, _)| !cut.contains(id)).map(|(_, store)| store);
            let leaders: BTreeSet<_> = running.clone().map(|store| store.status().leader).collect();
            let leader = running.find(|store| store.status().role == Role::Leader);
            let agreed = leaders.len() == 1
                && leader.is_some_and(|leader| leaders.contains(&Some(leader.status().member)));
            found = leader.filter(|_| agreed).cloned();
            agreed
        })
        .await;
        found.unwrap()
    }

    /// Somebody who runs, is connected and does not lead.
    pub(crate) async fn follower(&self) -> TokioStore {
        let leader = self.leader().await.status().member;
        let cut = self.network.cut.lock().unwrap().clone();
        let follower = self.stores.iter().find(|(id, _)| **id != leader && !cut.contains(id));
        follower.unwrap().1.clone()
    }
}

/// Waits for a condition; fails after a long while with its name.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "still waiting for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn id() -> TransactionId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    TransactionId(u128::from(NEXT.fetch_add(1, Ordering::Relaxed)))
}

pub(crate) fn put(key: &str, value: &str) -> Operation {
    Operation::Put { key: key.into(), value: Bytes::copy_from_slice(value.as_bytes()) }
}

pub(crate) fn transaction(guards: Vec<Guard>, operations: Vec<Operation>) -> Transaction {
    Transaction { id: id(), guards, operations }
}

pub(crate) fn put_one(key: &str, value: &str) -> Transaction {
    transaction(Vec::new(), vec![put(key, value)])
}

pub(crate) fn committed(outcome: Outcome) -> Revision {
    match outcome {
        Outcome::Committed { revision } => revision,
        Outcome::Refused { .. } => panic!("{outcome:?}"),
    }
}

pub(crate) async fn write(store: &impl StoreHandle, key: &str, value: &str) -> Revision {
    committed(store.submit(put_one(key, value)).await.unwrap())
}

pub(crate) fn text(value: &Bytes) -> String {
    String::from_utf8(value.to_vec()).unwrap()
}
