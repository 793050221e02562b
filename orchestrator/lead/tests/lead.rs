//! A leader works on what it is told; it looks for nothing, and writes in its own term only.

use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::executor::block_on;
use futures::future::{BoxFuture, Either, pending, select};
use podium_api::pipeline::{Config, WriteOptions};
use podium_api::seams::{Clock, Ids, SystemClock};
use podium_api::{Pipeline, Target, User, registry};
use podium_control::Settings;
use podium_lead::{Leading, Surroundings};
use podium_store::{EphemeralStore, Revision, StoreHandle};
use podium_types::ObjectKey;
use podium_types::kind::resources;
use serde_json::{Value, json};

/// Surroundings in which no time is ever over.
struct Timeless;

impl Surroundings for Timeless {
    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(pending())
    }

    fn servers(&self) -> Vec<IpAddr> {
        vec![IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))]
    }

    fn servers_other_than(&self, _: Vec<IpAddr>) -> BoxFuture<'static, ()> {
        Box::pin(pending())
    }

    fn unreadable(&self, key: &ObjectKey, reason: &str) {
        panic!("{key}: {reason}");
    }

    fn at_rest(&self, _: bool) {}
}

#[derive(Default)]
struct Counted(AtomicU64);

impl Ids for Counted {
    fn random(&self) -> u128 {
        // Far apart, so that what is cut from them differs too.
        let count = u128::from(self.0.fetch_add(1, Ordering::Relaxed) + 1);
        count.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    }
}

fn pipeline(store: &Arc<dyn StoreHandle>) -> Pipeline {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    Pipeline::new(Arc::clone(store), clock, Arc::new(Counted::default()), Config::default())
}

/// Leads until `story` is over.
fn lead_during<T>(pipeline: &Pipeline, story: impl Future<Output = T>) -> T {
    let leading = Leading {
        store: Arc::clone(pipeline.store()),
        pipeline: pipeline.clone(),
        settings: Settings::default(),
        port: 6443,
    };
    let led = podium_lead::run(leading, Arc::new(Timeless));
    match block_on(select(pin!(led), pin!(story))) {
        Either::Left((never, _)) => never,
        Either::Right((told, _)) => told,
    }
}

/// Waits for so many objects that were put under a prefix, ever.
async fn put_under(store: &Arc<dyn StoreHandle>, prefix: &str, count: usize) {
    let mut watch = store.watch(prefix, Revision::ZERO).expect("the whole history is there");
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < count {
        let event = watch.next().await.expect("an event");
        if event.record.is_some() {
            seen.insert(event.key.clone());
        }
    }
}

async fn create(pipeline: &Pipeline, object: Value) {
    let deployments = registry::find(&resources::DEPLOYMENTS).expect("deployments are served");
    let target = Target::collection(deployments, "default");
    pipeline
        .create(&User::admin(), &target, object.into(), &WriteOptions::default())
        .await
        .expect("created");
}

#[test]
fn deployment_becomes_pods_although_no_timer_ever_fires() {
    let store: Arc<dyn StoreHandle> = Arc::new(EphemeralStore::default());
    let users = pipeline(&store);
    lead_during(&users, async {
        put_under(&store, "/registry/core/namespaces/_/default", 1).await;
        let labels = json!({"app": "web"});
        let pod = json!({"containers": [{"name": "web", "image": "web"}]});
        let template = json!({"metadata": {"labels": labels}, "spec": pod});
        let spec =
            json!({"replicas": 3, "selector": {"matchLabels": labels}, "template": template});
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec,
        });
        create(&users, object).await;
        put_under(&store, "/registry/core/pods/default/", 3).await;
    });
}

#[test]
fn write_for_another_term_is_refused() {
    let store = EphemeralStore::default();
    let term = store.standing().term;
    let transaction = |id| podium_store::Transaction {
        id: podium_store::TransactionId(id),
        guards: Vec::new(),
        operations: Vec::new(),
    };
    block_on(store.transact_in(term, transaction(1))).expect("the term is this one");
    let refused = block_on(store.transact_in(term + 1, transaction(2)));
    assert!(
        matches!(refused, Err(podium_store::StoreError::NotLeader { .. })),
        "{refused:?} in term {term}"
    );
}
