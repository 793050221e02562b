//! What a node does when it gets power: open the store on its disk, join or found the cluster, serve.

use std::sync::Arc;
use std::time::Duration;

use podium_api::User;
use podium_store::{Config, Role, Store, StoreError, StoreHandle};

use super::{Cluster, Load, SimStore, audit};
use crate::access::Access;
use crate::agent;
use crate::executor::Life;
use crate::forming;
use crate::lead;
use crate::ledger::Violation;
use crate::network::seam::NodeTransport;
use crate::pulse::{Pulse, name_of};
use crate::runtime::{Sleep, spawn, spawn_in};

/// How long a node waits before it opens a store again that would not open.
const RETRY: Duration = Duration::from_secs(1);

/// Starts everything that belongs to a life.
pub(super) fn start(cluster: Cluster, life: Life) {
    drop(spawn_in(life, async move { run(cluster, life).await }));
}

async fn run(cluster: Cluster, life: Life) {
    let Some(store) = open(&cluster, life).await else { return };
    match cluster.load {
        Load::Forming => {
            // Nobody speaks to the store of a machine that is no member.
            if !forming::life::run(&cluster, life, &store).await {
                return;
            }
            cluster.install(life, &store);
            drop(spawn(forming::life::take_place(cluster.clone(), life.node, store.clone())));
        }
        Load::Store | Load::Orchestrator => {
            cluster.install(life, &store);
            found(&cluster, &store).await;
        }
    }
    if cluster.load == Load::Orchestrator {
        orchestrate(&cluster, life.node, &store);
    }
    audit::audit(cluster, life.node, store).await;
}

/// What the node program runs beside the store.
fn orchestrate(cluster: &Cluster, node: u16, store: &SimStore) {
    let pulse = Pulse::default();
    cluster.hear_with(node, &pulse);
    drop(spawn(pulse.clone().beat(cluster.clone(), node)));
    drop(spawn(lead::run(cluster.clone(), node, store.clone(), pulse)));
    if let Some(host) = cluster.host(node) {
        let name = name_of(node);
        let user = User::system(&format!("node:{name}"));
        let access = Access::new(cluster.clone(), node, user);
        drop(spawn(agent::run(name, host, store.clone(), access)));
    }
}

/// Opens the store, again and again while the disk has no room for it. A store that will not open for another reason
/// although the others are well is a finding.
async fn open(cluster: &Cluster, life: Life) -> Option<SimStore> {
    let disk = cluster.disk(life.node)?;
    let mut config = Config::new(cluster.member(life.node));
    config.bugs = cluster.mistakes.store;
    config.log = cluster.log_limits;
    let serving = cluster.clone();
    let stores = Arc::new(move |member| serving.serve(member));
    loop {
        let transport =
            NodeTransport::new(cluster.network().clone(), config.member, stores.clone());
        match Store::open(config.clone(), Arc::new(disk.clone()), Arc::new(transport)).await {
            Ok(store) => return Some(Arc::new(store)),
            Err(StoreError::Disk { .. } | StoreError::DiskFull { .. }) => Sleep::after(RETRY).await,
            Err(error) => {
                let what = format!("node {} cannot open its store: {error}", life.node);
                cluster.ledger().accuse(Violation::Rule(what));
                return None;
            }
        }
    }
}

/// A blank member founds the cluster with the others; the same set from everyone.
async fn found(cluster: &Cluster, store: &SimStore) {
    while store.status().role == Role::Blank && cluster.founding() {
        if store.initialise(cluster.members()).await.is_ok() {
            return;
        }
        Sleep::after(RETRY).await;
    }
}
