//! What a store of one member costs a machine that does nothing. These are alone in their program, because they look at the whole
//! process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use podium_store::disk::os::OsDisk;
use podium_store::{Alone, Config, Member, MemberId, Role, Store, StoreHandle, TokioRuntime};

async fn leader(folder: &Path) -> Store<TokioRuntime> {
    let id = MemberId(1);
    let disk = Arc::new(OsDisk::open(folder.to_owned()).unwrap());
    let store = Store::<TokioRuntime>::open(Config::new(id), disk, Arc::new(Alone)).await.unwrap();
    store.initialise(vec![Member { id, public_key: Vec::new() }]).await.unwrap();
    while store.status().role != Role::Leader {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    store
}

#[tokio::test]
async fn a_store_of_one_member_is_small_and_sleeps_when_idle() {
    let folder = tempfile::tempdir().unwrap();
    let store = leader(folder.path()).await;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let kibibytes: u64 = resident.split_whitespace().next().unwrap().parse().unwrap();
    // A log segment and a history, both empty: about 2 MiB. The tables of all of a histogram's widths are 25 MB.
    assert!(kibibytes < 12 << 10, "{kibibytes} KiB");

    // The announcement after the first round of maintenance wakes everybody once more.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.worker_park_count(0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let woken = metrics.worker_park_count(0) - before;
    // Maintenance once a second, and this test. The consensus's clock would be 50 a second and more.
    assert!(woken < 20, "woken {woken} times in 2 s");
    store.read().await.unwrap();
}
