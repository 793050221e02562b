//! How many transactions a second are committed, on real files: 1 and 3 members in one process,
//! 1 and 64 clients, values of 1 KiB.
//!
//! `cargo run --release -p podium-store --example commit_rate -- [folder] [seconds]`; with COMMIT_RATE_PLAIN set, only numbers,
//! times in milliseconds.
//!
//! The members share one disk and the machine's cores, as etcd's do in the comparison that
//! docs/benchmarks.md describes. The network between them is a function call.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use podium_store::disk::os::OsDisk;
use podium_store::{
    Config, Member, MemberId, Message, Operation, Role, Store, StoreHandle, TokioRuntime,
    Transaction, TransactionId, Transport, TransportError,
};

type Running = Store<TokioRuntime>;

#[derive(Debug, Default)]
struct Wire {
    members: Mutex<BTreeMap<MemberId, Running>>,
}

#[derive(Debug)]
struct End {
    from: MemberId,
    wire: Arc<Wire>,
}

impl Transport for End {
    fn call(
        &self,
        to: MemberId,
        message: Message,
    ) -> BoxFuture<'static, Result<Message, TransportError>> {
        let store = self.wire.members.lock().unwrap().get(&to).cloned();
        let from = self.from;
        async move {
            let unreachable = || TransportError::Unreachable { to, reason: "not started".into() };
            Ok(store.ok_or_else(unreachable)?.serve(from, message).await)
        }
        .boxed()
    }
}

async fn start(count: u64, folder: &Path) -> Vec<Running> {
    let wire = Arc::new(Wire::default());
    let mut stores = Vec::new();
    for id in (1..=count).map(MemberId) {
        let disk =
            Arc::new(OsDisk::open(folder.join(id.to_string())).expect("a folder to write to"));
        let end = Arc::new(End { from: id, wire: wire.clone() });
        let store = Running::open(Config::new(id), disk, end).await.expect("a blank disk");
        wire.members.lock().unwrap().insert(id, store.clone());
        stores.push(store);
    }
    let members =
        (1..=count).map(|id| Member { id: MemberId(id), public_key: Vec::new() }).collect();
    stores[0].initialise(members).await.expect("a new cluster");
    while !stores.iter().any(|store| store.status().role == Role::Leader) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stores
}

/// Commits a second, and the median and 99th percentile of a commit's time.
async fn measure(leader: &Running, clients: u64, span: Duration) -> (f64, Duration, Duration) {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let value = Bytes::from(vec![7; 1024]);
    let begun = Instant::now();
    let tasks = (0..clients).map(|client| {
        let (store, value) = (leader.clone(), value.clone());
        tokio::spawn(async move {
            let mut times = Vec::new();
            while begun.elapsed() < span {
                let number = NEXT.fetch_add(1, Ordering::Relaxed);
                let key =
                    format!("/registry/core/configmaps/bench/{client}-{}", number % 100).into();
                let operations = vec![Operation::Put { key, value: value.clone() }];
                let id = TransactionId(u128::from(number));
                let sent = Instant::now();
                let transaction = Transaction { id, guards: Vec::new(), operations };
                store.transact(transaction).await.expect("the leader stays");
                times.push(sent.elapsed());
            }
            times
        })
    });
    let mut times: Vec<Duration> = futures::future::join_all(tasks)
        .await
        .into_iter()
        .flat_map(|times| times.unwrap())
        .collect();
    times.sort();
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    (rate, times[times.len() / 2], times[times.len() * 99 / 100])
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder =
        arguments.next().map_or_else(std::env::temp_dir, Into::into).join("podium-commit-rate");
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(5);
    println!("members clients  commits/s  median     p99        resident");
    for count in [1, 3] {
        // A folder for each: files of the last may still be made while its tasks end.
        let folder = folder.join(count.to_string());
        // Left over from a run that was interrupted, or nothing.
        let _ = std::fs::remove_dir_all(&folder);
        let stores = start(count, &folder).await;
        let leader =
            stores.iter().find(|store| store.status().role == Role::Leader).expect("one leads");
        for clients in [1, 64] {
            let (rate, median, p99) = measure(leader, clients, Duration::from_secs(seconds)).await;
            let resident = resident_kib() / 1024;
            if std::env::var_os("COMMIT_RATE_PLAIN").is_some() {
                let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
                let (median, p99) = (milliseconds(median), milliseconds(p99));
                println!("{count} {clients} {rate:.1} {median:.3} {p99:.3}");
                continue;
            }
            println!(
                "{count:7} {clients:7} {rate:10.0}  {median:>9.2?}  {p99:>9.2?}  {resident:5} MiB"
            );
        }
        for store in &stores {
            store.shutdown().await;
        }
    }
    let _ = std::fs::remove_dir_all(&folder);
}
