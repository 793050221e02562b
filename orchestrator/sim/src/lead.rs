//! What leading needs of a simulated machine; the rest is the shipped `podium_lead`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, pending};
use futures::stream::{self, BoxStream};
use podium_control::Settings;
use podium_control::driver::{Driver, Input};
use podium_control::health::{Health, Timings};
use podium_lead::{Leading, Surroundings};
use podium_store::StoreHandle;
use podium_types::{Now, ObjectKey};

use crate::access;
use crate::agent::host::Host;
use crate::cluster::{Cluster, SimStore};
use crate::ledger::Violation;
use crate::pulse::{Pulse, name_of};
use crate::runtime::Sleep;

/// Where the API is served.
const API_PORT: u16 = 6443;

/// Leads whenever the store does, for as long as the life lasts.
pub(crate) async fn run(cluster: Cluster, node: u16, store: SimStore, pulse: Pulse) {
    let store: Arc<dyn StoreHandle> = store;
    let leading = Leading {
        store: store.clone(),
        pipeline: access::pipeline(&cluster, node, store),
        settings: Settings { leader: name_of(node), ..Settings::default() },
        port: API_PORT,
    };
    podium_lead::run(leading, Arc::new(Here { cluster, node, pulse })).await;
}

struct Here {
    cluster: Cluster,
    node: u16,
    pulse: Pulse,
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

    fn prepare(&self, driver: Driver, now: Now) -> Driver {
        let health = Health::new(Timings::default(), &name_of(self.node), now.monotonic);
        driver.judging(health, now)
    }

    fn told(&self) -> BoxStream<'static, Input> {
        self.pulse.begin_to_listen();
        let next =
            |pulse: Pulse| async move { Some((Input::Heard(pulse.clone().next().await), pulse)) };
        Box::pin(stream::unfold(self.pulse.clone(), next))
    }

    fn unreadable(&self, key: &ObjectKey, reason: &str) {
        let what = format!("{} {} does not fit its kind: {reason}", key.resource, key.name);
        self.cluster.ledger().accuse(Violation::Rule(what));
    }

    fn at_rest(&self, at_rest: bool) {
        self.cluster.set_idle(self.node, at_rest);
    }
}
