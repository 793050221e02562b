//! Members whose disks lose power, fill up, or flip bits.

use crate::cluster::{
    Cluster, TokioStore, config, eventually, member, put_one, small_log, text, write,
};
use podium_store::disk::memory::MemoryDisk;
use podium_store::{
    Alone, Config, Disk, LogLimits, MemberId, Revision, Role, StoreError, StoreHandle,
};
use std::sync::Arc;

async fn open_alone(disk: &MemoryDisk, log: LogLimits) -> Result<TokioStore, StoreError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    TokioStore::open(Config { log, ..config(MemberId(1)) }, disk, Arc::new(Alone)).await
}

/// The log's files that hold something, oldest first.
async fn log_files(disk: &MemoryDisk) -> Vec<String> {
    let names = disk.list().await.unwrap();
    names.into_iter().filter(|name| name.starts_with("log-")).collect()
}

/// Flips a byte of the first value that is found in a file.
fn flip(disk: &MemoryDisk, name: &str, value: &[u8]) {
    let mut bytes = disk.contents(name).unwrap();
    let at =
        bytes.windows(value.len()).position(|window| window == value).expect("the value is there");
    bytes[at] ^= 0x20;
    disk.set_contents(name, bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn member_alone_keeps_every_acknowledged_write_through_power_cuts() {
    let mut disk = MemoryDisk::new();
    let mut written = 0;
    for round in 0..12 {
        let store = open_alone(&disk, small_log()).await.unwrap();
        if round == 0 {
            store.initialise(vec![member(1)]).await.unwrap();
        }
        let view = store.read().await.unwrap();
        assert_eq!(view.revision(), Revision(written), "round {round}");
        assert_eq!(view.len() as u64, written.min(10));
        let from = Revision(store.status().oldest.0.max(written.saturating_sub(3)));
        let mut watch = store.watch("/", from).unwrap();
        for _ in 0..13 {
            written += 1;
            assert_eq!(write(&store, &format!("/{}", written % 10), "x").await, Revision(written));
        }
        for expected in from.0 + 1..=written {
            assert_eq!(watch.next().await.unwrap().revision, Revision(expected));
        }
        // The power goes while the program still runs; what it does later is on no disk.
        disk = disk.after_power_cut();
        store.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_member_alone_is_refused() {
    let disk = MemoryDisk::new();
    let store = open_alone(&disk, LogLimits::default()).await.unwrap();
    store.initialise(vec![member(1)]).await.unwrap();
    for number in 0..5 {
        write(&store, "/a", &format!("value-{number}")).await;
    }
    store.shutdown().await;
    flip(&disk, &log_files(&disk).await[0], b"value-2");
    let before = disk.contents(&log_files(&disk).await[0]);
    let refused = open_alone(&disk, LogLimits::default()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
    assert_eq!(disk.contents(&log_files(&disk).await[0]), before, "and nothing was touched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_snapshot_of_a_member_alone_is_refused() {
    let disk = MemoryDisk::new();
    let store = open_alone(&disk, LogLimits::default()).await.unwrap();
    store.initialise(vec![member(1)]).await.unwrap();
    write(&store, "/a", "value-1").await;
    store.snapshot().await.unwrap();
    store.shutdown().await;
    flip(&disk, "snapshot", b"value-1");
    let refused = open_alone(&disk, LogLimits::default()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
}

/// Damages a follower's disk, and sees that it neither votes nor serves what is wrong until it has
/// been filled again, and that it then is a voter like any other.
async fn damaged_follower_is_repaired(log: LogLimits, damage: impl AsyncFn(&MemoryDisk)) {
    let mut cluster = Cluster::start(3, log).await;
    let leader = cluster.leader().await;
    for number in 0..60 {
        write(&leader, &format!("/k/{number}"), &format!("value-{number}")).await;
    }
    let hurt = cluster.follower().await.status().member;
    let revision = leader.read().await.unwrap().revision();
    let seen = cluster.stores[&hurt].clone();
    eventually("the follower to have applied all", || seen.local().revision() == revision).await;
    let due = log.snapshot_records < 60;
    eventually("its snapshot", || !due || seen.status().snapshot_index > 0).await;
    drop(seen);
    cluster.stores.remove(&hurt).unwrap().shutdown().await;
    cluster.network.detach(hurt);
    damage(&cluster.disks[&hurt]).await;

    // Without a leader it must stay damaged, and must not help to elect one.
    let sound = cluster.leader().await.status().member;
    cluster.network.cut(sound);
    cluster.open(hurt).await.unwrap();
    let store = cluster.stores[&hurt].clone();
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(store.status().role, Role::Damaged);
    let other =
        cluster.stores.iter().find(|(id, _)| ![hurt, sound].contains(id)).unwrap().1.clone();
    assert_ne!(other.status().role, Role::Leader, "elected by a member that may not vote");

    cluster.network.heal();
    eventually("the member to be whole again", || store.status().role == Role::Follower).await;
    let view = store.read().await.unwrap();
    assert_eq!(view.range("/k/").count(), 60);
    assert_eq!(text(&view.get("/k/17").unwrap().value), "value-17");

    // It votes again: with the other one gone, the two elect a leader.
    let gone = cluster.leader().await.status().member;
    if gone != hurt {
        cluster.network.cut(gone);
    }
    let leader = cluster.leader().await;
    write(&leader, "/k/17", "later").await;
    cluster.stores.remove(&hurt).unwrap().shutdown().await;
    cluster.network.detach(hurt);
    cluster.open(hurt).await.unwrap();
    assert_ne!(cluster.stores[&hurt].status().role, Role::Damaged, "the mark is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_record_of_the_log_is_repaired_from_the_leader() {
    damaged_follower_is_repaired(LogLimits::default(), async |disk| {
        flip(disk, &log_files(disk).await[0], b"value-17");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_snapshot_is_repaired_from_the_leader() {
    let log = LogLimits { snapshot_records: 20, keep_records: 5, ..LogLimits::default() };
    damaged_follower_is_repaired(log, async |disk| flip(disk, "snapshot", b"value-17")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn member_that_forgot_even_its_cluster_is_filled_by_the_leader() {
    let log = LogLimits { snapshot_records: 20, keep_records: 5, ..LogLimits::default() };
    damaged_follower_is_repaired(log, async |disk| {
        let mut bytes = disk.contents("snapshot").unwrap();
        // Within the first block, which names the members.
        bytes[12] ^= 1;
        disk.set_contents("snapshot", bytes);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_file_of_the_log_is_repaired_from_the_leader() {
    let log = LogLimits { segment_bytes: 1024, ..LogLimits::default() };
    damaged_follower_is_repaired(log, async |disk| {
        let files = log_files(disk).await;
        assert!(files.len() > 2, "a later file is the witness");
        disk.remove(&files[1]).await.unwrap();
        disk.sync_names().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_refuses_writes_says_so_and_recovers() {
    let disk = MemoryDisk::new();
    let store =
        open_alone(&disk, LogLimits { segment_bytes: 4096, ..LogLimits::default() }).await.unwrap();
    store.initialise(vec![member(1)]).await.unwrap();
    write(&store, "/first", "x").await;
    let used: usize = {
        let names = disk.list().await.unwrap();
        names.iter().map(|name| disk.contents(name).unwrap().len()).sum()
    };
    disk.set_capacity(Some(used + 4096));
    let mut acknowledged = 0;
    let full = loop {
        match store.transact(put_one(&format!("/{acknowledged}"), "x")).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, StoreError::DiskFull { outcome_unknown: true }), "{full}");
    assert!(store.status().disk_full);
    let next = store.transact(put_one("/next", "x")).await.unwrap_err();
    assert!(matches!(next, StoreError::DiskFull { outcome_unknown: false }), "{next}");
    disk.set_capacity(None);
    eventually("room", || !store.status().disk_full).await;
    write(&store, "/after", "x").await;
    let view = store.read().await.unwrap();
    assert!(view.get("/next").is_none());
    assert!((0..acknowledged).all(|number| view.get(&format!("/{number}")).is_some()));
    store.shutdown().await;
    let again = open_alone(&disk.after_power_cut(), LogLimits::default()).await.unwrap();
    assert_eq!(again.read().await.unwrap().revision(), view.revision());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_waits_for_room_and_the_member_goes_on() {
    let disk = MemoryDisk::new();
    let log = LogLimits { segment_bytes: 64 * 1024, snapshot_records: 20, ..LogLimits::default() };
    let store = open_alone(&disk, log).await.unwrap();
    store.initialise(vec![member(1)]).await.unwrap();
    write(&store, "/a", &"x".repeat(20_000)).await;
    let used: usize = {
        let names = disk.list().await.unwrap();
        names.iter().map(|name| disk.contents(name).unwrap().len()).sum()
    };
    disk.set_capacity(Some(used + 1000));
    for number in 0..60 {
        write(&store, "/b", &number.to_string()).await;
    }
    assert_eq!(store.status().snapshot_index, 0);
    assert!(matches!(store.snapshot().await, Err(StoreError::DiskFull { .. })));
    disk.set_capacity(None);
    eventually("a snapshot", || store.status().snapshot_index > 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disk_of_another_member_is_refused() {
    let disk = MemoryDisk::new();
    let store = open_alone(&disk, LogLimits::default()).await.unwrap();
    store.initialise(vec![member(1)]).await.unwrap();
    write(&store, "/a", "1").await;
    store.shutdown().await;
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let refused = TokioStore::open(config(MemberId(2)), disk, Arc::new(Alone)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
}
