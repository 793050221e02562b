use futures::FutureExt as _;
use podium_store::{
    EphemeralStore, HistoryLimits, MemberId, Mirror, Operation, StoreHandle, Transaction,
    TransactionId, Watch,
};
use serde_json::json;

use super::*;

/// A store, the share of node `n1`, and what the node makes of it.
struct Cluster {
    store: EphemeralStore,
    watch: Watch,
    share: Share,
    mirror: Mirror,
    transactions: u128,
}

impl Cluster {
    fn new() -> Self {
        let store = EphemeralStore::default();
        let watch = store.watch("", Revision::ZERO).expect("a watch");
        let mirror = Mirror::new(MemberId(1), HistoryLimits::default());
        Self { store, watch, share: Share::new("n1"), mirror, transactions: 0 }
    }

    fn transact(&mut self, operations: Vec<Operation>) {
        self.transactions += 1;
        let id = TransactionId(self.transactions);
        let transaction = Transaction { id, guards: Vec::new(), operations };
        self.store.transact(transaction).now_or_never().expect("at once").expect("committed");
    }

    fn put(&mut self, resource: GroupResource, name: &str, object: &Value) {
        let value = object.to_string().into_bytes().into();
        self.transact(vec![Operation::Put { key: key(resource, name), value }]);
    }

    fn delete(&mut self, resource: GroupResource, name: &str) {
        self.transact(vec![Operation::Delete { key: key(resource, name) }]);
    }

    /// Sends the node everything that has happened, with the view of now.
    fn send(&mut self) {
        let view = self.store.local();
        while let Some(Ok(event)) = self.watch.next().now_or_never() {
            let changes = self.share.changes(&event, &view);
            assert!(self.mirror.apply(event.revision, changes), "{event:?}");
        }
    }

    /// The names that the node holds of a kind.
    fn held(&self, resource: &GroupResource) -> Vec<String> {
        let view = self.mirror.local();
        let prefix = ObjectKey::prefix(resource, None);
        let names = view.range(&prefix).filter_map(|record| ObjectKey::parse(&record.key));
        names.map(|key| key.name).collect()
    }

    /// What the node holds is what a new share would be sent.
    fn check(&self) {
        let fresh = Share::new("n1").start(&self.store.local());
        let expected: BTreeMap<_, _> =
            fresh.iter().map(|record| (record.key.clone(), record.mod_revision)).collect();
        let view = self.mirror.local();
        let held: BTreeMap<_, _> =
            view.range("").map(|record| (record.key.clone(), record.mod_revision)).collect();
        assert_eq!(held, expected);
    }
}

fn key(resource: GroupResource, name: &str) -> Arc<str> {
    let namespaced = resource != resources::NODES;
    ObjectKey::new(resource, if namespaced { "default" } else { "" }, name).storage_key().into()
}

fn pod(node: &str, secret: &str) -> Value {
    json!({"metadata": {"namespace": "default"},
        "spec": {"nodeName": node, "volumes": [{"name": "v", "secret": {"secretName": secret}}]}})
}

#[test]
fn a_node_follows_its_own_pods_and_what_they_refer_to() {
    let mut cluster = Cluster::new();
    cluster.put(resources::SECRETS, "mine", &json!({}));
    cluster.put(resources::SECRETS, "other", &json!({}));
    cluster.put(resources::SERVICES, "web", &json!({}));
    cluster.put(resources::PODS, "a", &pod("n1", "mine"));
    cluster.put(resources::PODS, "b", &pod("n2", "other"));
    cluster.send();
    assert_eq!(cluster.held(&resources::PODS), ["a"]);
    assert_eq!(cluster.held(&resources::SECRETS), ["mine"]);
    assert_eq!(cluster.held(&resources::SERVICES), ["web"]);
    cluster.check();
}

#[test]
fn what_the_last_pod_referred_to_goes_with_it() {
    let mut cluster = Cluster::new();
    cluster.put(resources::SECRETS, "shared", &json!({}));
    cluster.put(resources::PODS, "a", &pod("n1", "shared"));
    cluster.put(resources::PODS, "b", &pod("n1", "shared"));
    cluster.delete(resources::PODS, "a");
    cluster.send();
    assert_eq!(cluster.held(&resources::SECRETS), ["shared"]);
    cluster.delete(resources::PODS, "b");
    cluster.send();
    assert!(cluster.held(&resources::SECRETS).is_empty());
    // And is not sent when it changes.
    cluster.put(resources::SECRETS, "shared", &json!({"data": {}}));
    cluster.send();
    assert!(cluster.held(&resources::SECRETS).is_empty());
    cluster.check();
}

#[test]
fn a_reference_that_appears_later_is_followed() {
    let mut cluster = Cluster::new();
    cluster.put(resources::PODS, "a", &pod("n1", "late"));
    cluster.send();
    assert!(cluster.held(&resources::SECRETS).is_empty());
    cluster.put(resources::SECRETS, "late", &json!({}));
    cluster.send();
    assert_eq!(cluster.held(&resources::SECRETS), ["late"]);
    cluster.delete(resources::SECRETS, "late");
    cluster.send();
    cluster.check();
}

#[test]
fn a_view_ahead_of_its_events_takes_nothing_back() {
    let mut cluster = Cluster::new();
    cluster.put(resources::SECRETS, "s", &json!({}));
    cluster.put(resources::PODS, "a", &pod("n1", "s"));
    cluster.put(resources::SECRETS, "s", &json!({"data": {"k": "dg=="}}));
    cluster.delete(resources::SECRETS, "s");
    cluster.put(resources::SECRETS, "s", &json!({"data": {"k": "dw=="}}));
    let secrets = ObjectKey::prefix(&resources::SECRETS, None);
    let mut watch = cluster.mirror.watch(&secrets, Revision::ZERO).expect("a watch");
    cluster.send();
    let event = watch.next().now_or_never().expect("an event").expect("an event");
    assert_eq!(event.record.as_ref().expect("a record").mod_revision, Revision(5));
    assert!(watch.next().now_or_never().is_none(), "nothing older comes after it");
    cluster.check();
}

#[test]
fn random_histories_leave_the_node_with_exactly_its_share() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut cluster = Cluster::new();
    for _ in 0..2_000 {
        let name = format!("x{}", draw(4));
        match draw(7) {
            0 | 1 => {
                let object = pod(&format!("n{}", draw(2)), &format!("x{}", draw(4)));
                cluster.put(resources::PODS, &name, &object);
            }
            2 => cluster.delete(resources::PODS, &name),
            3 => cluster.put(resources::SECRETS, &name, &json!({})),
            4 => cluster.delete(resources::SECRETS, &name),
            5 => cluster.put(resources::NODES, &name, &json!({})),
            _ => {
                cluster.send();
                cluster.check();
            }
        }
    }
}
