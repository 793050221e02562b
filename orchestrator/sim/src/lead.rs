//! What leading needs of a simulated machine; the rest is the shipped `podium_lead`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, pending};
use podium_control::Settings;
use podium_lead::{Leading, Surroundings};
use podium_store::StoreHandle;
use podium_types::ObjectKey;

use crate::access;
use crate::agent::host::Host;
use crate::cluster::{Cluster, SimStore};
use crate::ledger::Violation;
use crate::runtime::Sleep;

/// Where the API is served.
const API_PORT: u16 = 6443;

/// Leads whenever the store does, for as long as the life lasts.
pub(crate) async fn run(cluster: Cluster, node: u16, store: SimStore) {
    let store: Arc<dyn StoreHandle> = store;
    let leading = Leading {
        store: store.clone(),
        pipeline: access::pipeline(&cluster, node, store),
        settings: Settings::default(),
        port: API_PORT,
    };
    podium_lead::run(leading, Arc::new(Here { cluster, node })).await;
}

struct Here {
    cluster: Cluster,
    node: u16,
}

impl Surroundings for Here {
    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        Box::pin(Sleep::after(span))
    }

    fn servers(&self) -> Vec<IpAddr> {
        self.cluster.hosts().values().flat_map(Host::addresses).collect()
    }

    fn servers_other_than(&self, _: Vec<IpAddr>) -> BoxFuture<'static, ()> {
        Box::pin(pending())
    }

    fn unreadable(&self, key: &ObjectKey, reason: &str) {
        let what = format!("{} {} does not fit its kind: {reason}", key.resource, key.name);
        self.cluster.ledger().accuse(Violation::Rule(what));
    }

    fn at_rest(&self, at_rest: bool) {
        self.cluster.set_idle(self.node, at_rest);
    }
}
