//! A watcher of one prefix from somewhere in the past, held against the history event by event.

use std::time::Duration;

use openraft::rt::AsyncRuntime;
use podium_store::{Revision, StoreHandle, Watch, WatchError, WatchEvent};

use crate::cluster::Cluster;
use crate::executor;
use crate::ledger::Violation;
use crate::runtime::{SimRuntime, join_in};

/// Watches on a random member for a while, in that member's life.
pub(super) async fn watch(cluster: Cluster) {
    let numbers = cluster.numbers();
    let (node, prefix, lasts) = executor::with(|core| {
        let node = numbers[usize::try_from(core.below(numbers.len() as u64)).unwrap_or(0)];
        let prefix = ["/a/", "/b/", "/c/1", "/"][usize::try_from(core.below(4)).unwrap_or(0)];
        (node, prefix, core.between(Duration::from_secs(1), Duration::from_secs(60)))
    });
    let (Some(life), Some(store)) = (cluster.life(node), cluster.store(node)) else { return };
    let local = store.local().revision().0;
    let after = executor::with(|core| core.below(local + 2));
    let follow = async move {
        let Ok(watch) = store.watch(prefix, Revision(after)) else { return };
        let watcher = Watcher {
            who: format!("a watch of {prefix} on node {node}"),
            prefix,
            cluster,
            seen: after,
        };
        drop(SimRuntime::timeout(lasts, watcher.follow(watch)).await);
    };
    join_in(life, follow).await;
}

struct Watcher {
    who: String,
    prefix: &'static str,
    cluster: Cluster,
    /// Everything up to here was delivered.
    seen: u64,
}

impl Watcher {
    async fn follow(mut self, mut watch: Watch) {
        let mut batch: Vec<std::sync::Arc<WatchEvent>> = Vec::new();
        loop {
            match watch.next().await {
                Ok(event) => batch.push(event),
                Err(WatchError::TooOld | WatchError::Closed) => return,
            }
            let progress = watch.progress().0;
            let complete = batch.last().is_none_or(|event| event.revision.0 <= progress);
            if complete && progress > self.seen && self.check(&batch, progress) {
                batch.clear();
            }
        }
    }

    /// The events after what was seen and up to `progress` must be the history's, all of them, in its order. False while
    /// the history does not reach that far, because no auditor has been polled since.
    fn check(&mut self, batch: &[std::sync::Arc<WatchEvent>], progress: u64) -> bool {
        let mut ledger = self.cluster.ledger();
        if ledger.history().end() < progress {
            return false;
        }
        let expected: Vec<(u64, &str)> = (self.seen + 1..=progress)
            .flat_map(|revision| {
                ledger.history().changes(revision).iter().map(move |fact| (revision, &*fact.key))
            })
            .filter(|(_, key)| key.starts_with(self.prefix))
            .collect();
        let got: Vec<(u64, &str)> =
            batch.iter().map(|event| (event.revision.0, &*event.key)).collect();
        if expected != got {
            let what = format!(
                "between {} and {progress} it got {got:?} instead of {expected:?}",
                self.seen
            );
            let violation = Violation::BrokenWatch { who: self.who.clone(), what };
            ledger.accuse(violation);
        }
        self.seen = progress;
        true
    }
}
