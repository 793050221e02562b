//! A cluster of which not every machine is a member lives on: its members take reads and writes, workers follow what is theirs,
//! machines fail, workers leave and others come in their place, and nobody forms a cluster again.
//!
//! Where no cluster could be formed, or it has lost most of its members, machines fail all the same and stay what they are.

use std::time::Duration;

use podium_control::forming::Standing;
use podium_types::ObjectKey;
use podium_types::kind::resources;

use super::nemesis::Nemesis;
use super::tenants::Tenants;
use super::{end, later, pick, story};
use crate::access::{Access, Request};
use crate::cluster::{Cluster, FIRST_CLIENT};
use crate::executor::{self, Life};
use crate::follow;
use crate::ledger::Violation;
use crate::pulse::name_of;
use crate::run::check;
use crate::runtime::{Sleep, spawn_in};
use crate::workload::Clients;

/// The mean time between two steps: twice a store's, for half as many of them.
const STEP: Duration = Duration::from_millis(440);
/// One step in this many is a fault, and as often a machine is exchanged.
const FAULT_ONE_IN: u64 = 24;
const EXCHANGE_ONE_IN: u64 = 120;
/// How long a machine is off that is exchanged, and how long it then takes the operator to have the one before it forgotten: by
/// then nobody is about to bind a pod to its Node.
const OFF: Duration = Duration::from_secs(8);
const FORGET: (Duration, Duration) = (Duration::from_secs(45), Duration::from_secs(75));

/// Lives for as long as a store's run of so many steps lasts; in the end all is mended.
pub(crate) async fn live(cluster: &Cluster, steps: u64) -> Result<(), Violation> {
    let mut nemesis = Nemesis::sparing(cluster.clone());
    let (clients, tenants) = (Clients::new(cluster.clone()), Tenants::new(cluster.clone()));
    for _ in 0..steps / 2 {
        Sleep::after(executor::with(|core| core.between(Duration::ZERO, STEP * 2))).await;
        if executor::with(|core| core.one_in(FAULT_ONE_IN)) {
            nemesis.strike();
        } else if executor::with(|core| core.one_in(EXCHANGE_ONE_IN)) {
            exchange(cluster);
        } else if executor::with(|core| core.one_in(2)) {
            clients.act();
        } else {
            tenants.act();
        }
        follow::check(cluster);
        check(cluster)?;
    }
    story::mend(cluster).await;
    end::wait(cluster).await?;
    if end::has_cluster(cluster) {
        follow::settle(cluster).await?;
        follow::leave_lost_voter(cluster).await?;
    }
    check(cluster)
}

/// A machine gets a blank disk, and an operator has the cluster forget what it was before.
///
/// Never so many that blank machines could form a cluster of their own, and never so that a cluster loses its quorum.
fn exchange(cluster: &Cluster) {
    let numbers = cluster.numbers();
    let node = numbers[pick(numbers.len())];
    if !cluster.census().may_lose(node) {
        return;
    }
    tracing::info!(node, "a machine is exchanged");
    cluster.crash(node);
    let (off, then) = executor::with(|core| {
        (core.between(Duration::ZERO, OFF), core.between(FORGET.0, FORGET.1))
    });
    let cluster = cluster.clone();
    later(off, move || {
        if cluster.life(node).is_none() && cluster.census().may_lose(node) {
            cluster.replace_disk(node);
            later(then, {
                let cluster = cluster.clone();
                move || drop(spawn_in(Life::HARNESS, forget(cluster, node)))
            });
        }
        cluster.boot(node);
    });
}

/// Has the cluster forget the machine that was in a node, so that the one which is there now may have its name.
async fn forget(cluster: Cluster, node: u16) {
    if cluster.census().standing(node).and_then(Standing::cluster).is_some() {
        return;
    }
    let access = Access::new(cluster.clone(), FIRST_CLIENT + 1, podium_api::User::admin());
    // By their uids of now, so that a second try does not meet the objects of the machine that comes after it.
    let requests = [resources::NODES, resources::MACHINES].map(|resource| {
        let key = ObjectKey::new(resource, "", name_of(node));
        let uid = cluster
            .rules()
            .objects()
            .get(&key)
            .and_then(|object| object.pointer("/metadata/uid")?.as_str().map(str::to_owned));
        uid.map(|uid| Request::Delete {
            key,
            uid: Some(uid),
            grace_seconds: None,
            propagation: None,
        })
    });
    for request in requests.into_iter().flatten() {
        access.insist(request).await;
    }
}
