//! A watcher of everything on each member: what it is told becomes, or must agree with, the history.

use std::time::Duration;

use podium_store::{Revision, StoreHandle, Watch, WatchError, WatchEvent};

use super::{Cluster, SimStore};
use crate::ledger::{Fact, Violation};
use crate::runtime::Sleep;

/// How long an auditor waits that fell behind.
const AGAIN: Duration = Duration::from_millis(10);

/// Watches a store for as long as its life lasts.
pub(super) async fn audit(cluster: Cluster, node: u16, store: SimStore) {
    let who = format!("node {node}");
    loop {
        let start = store.status().oldest;
        if let (Ok(view), Ok(watch)) = (store.view_at(start), store.watch("", start)) {
            if start > Revision::ZERO {
                cluster.ledger().viewed(&who, &view);
            }
            match follow(&cluster, &who, start, watch).await {
                WatchError::TooOld => {}
                WatchError::Closed => return,
            }
        }
        Sleep::after(AGAIN).await;
    }
}

async fn follow(cluster: &Cluster, who: &str, start: Revision, mut watch: Watch) -> WatchError {
    let mut done = start.0;
    let mut facts: Vec<Fact> = Vec::new();
    let mut current = start.0;
    loop {
        let event = match watch.next().await {
            Ok(event) => event,
            Err(end) => return end,
        };
        let revision = event.revision.0;
        if revision <= done || revision < current {
            let what = format!("an event of revision {revision} came after {done}");
            cluster.ledger().accuse(Violation::BrokenWatch { who: who.to_owned(), what });
        }
        if revision > current {
            finish(cluster, who, &mut done, (current, revision - 1), &mut facts);
            current = revision;
        }
        facts.push(Fact {
            key: event.key.clone(),
            value: event.record.as_ref().map(|record| record.value.clone()),
        });
        check_event(cluster, who, &event);
        let progress = watch.progress().0;
        if progress >= current {
            finish(cluster, who, &mut done, (current, progress), &mut facts);
            current = done;
        }
    }
}

/// Everything up to `through` has been delivered: `facts` are the last revision's that had events, others had none.
fn finish(
    cluster: &Cluster,
    who: &str,
    done: &mut u64,
    (current, through): (u64, u64),
    facts: &mut Vec<Fact>,
) {
    while *done < through {
        *done += 1;
        let facts = if *done == current { std::mem::take(facts) } else { Vec::new() };
        cluster.delivered(who, *done, facts);
    }
}

fn check_event(cluster: &Cluster, who: &str, event: &WatchEvent) {
    let consistent = match &event.record {
        Some(record) => {
            record.key == event.key
                && record.mod_revision == event.revision
                && event.previous.as_ref().map_or(1, |previous| previous.version + 1)
                    == record.version
        }
        None => event.previous.is_some(),
    };
    if !consistent {
        let what = format!("the event {event:?} contradicts itself");
        cluster.ledger().accuse(Violation::BrokenWatch { who: who.to_owned(), what });
    }
}
