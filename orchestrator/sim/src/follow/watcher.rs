//! Whoever follows a worker's mirror hears of all that changes there.

use std::collections::BTreeMap;
use std::sync::Arc;

use podium_store::{Mirror, Record, StoreHandle, WatchError, WatchEvent};

use super::accuse;
use crate::cluster::Cluster;
use crate::fault::Fault;

/// What was heard so far.
type Seen = BTreeMap<Arc<str>, Arc<Record>>;

/// Watches everything, and begins anew where the mirror has forgotten too much.
pub(super) async fn watch(cluster: Cluster, node: u16, mirror: Mirror) {
    loop {
        let view = mirror.local();
        let mut seen: Seen =
            view.range("").map(|record| (record.key.clone(), record.clone())).collect();
        // Nobody changes the mirror in between.
        let Ok(mut watch) = mirror.watch("", view.revision()) else { return };
        let end = loop {
            match watch.next().await {
                Ok(event) => heard(&cluster, node, &mut seen, &event),
                Err(end) => break end,
            }
            let view = mirror.local();
            let same = |record: &Arc<Record>| seen.get(&record.key) == Some(record);
            if watch.progress() == view.revision()
                && (seen.len() != view.len() || !view.range("").all(same))
            {
                let what = format!("is at {}, and its watcher was told less", view.revision());
                accuse(&cluster, node, &what);
            }
        };
        match end {
            WatchError::TooOld => cluster.coverage().count(Fault::ForgottenHistory),
            WatchError::Closed => return,
        }
    }
}

fn heard(cluster: &Cluster, node: u16, seen: &mut Seen, event: &WatchEvent) {
    let known = match &event.record {
        Some(record) => seen.insert(event.key.clone(), record.clone()),
        None => seen.remove(&event.key),
    };
    if known != event.previous {
        let what = format!("tells of {} at {} as if {known:?}", event.key, event.revision);
        accuse(cluster, node, &what);
    }
    let (before, now) = (known.as_ref(), event.record.as_ref());
    if let (Some(before), Some(now)) = (before, now)
        && now.mod_revision <= before.mod_revision
    {
        let what = format!("went back from {before:?} to {now:?}");
        accuse(cluster, node, &what);
    }
}
