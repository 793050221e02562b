use podium_api::Pipeline;
use podium_api::pipeline::Config;
use podium_api::seams::{SystemClock, SystemIds};
use podium_control::{EventStep, Regarding};
use podium_store::{
    EphemeralStore, EventKind, HistoryLimits, MemberId, Mirror, Operation, Revision, StoreHandle,
    Transaction, TransactionId,
};
use podium_types::kind::resources;
use podium_types::{GroupResource, object};
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::follow::follow;
use super::super::{Desk, Visitor, serve};
use super::*;
use crate::authority::Authority;
use crate::sinks;
use crate::voters::Voters;
use podium_form::client::SharedClient;

const LIMIT: Duration = Duration::from_secs(60);

/// A voter with a store, and the way to it, which can be cut.
struct Voter {
    store: EphemeralStore,
    desk: Desk,
    sessions: Mutex<Option<JoinSet<()>>>,
    transactions: AtomicU64,
}

impl Voter {
    fn new() -> Arc<Self> {
        let store = EphemeralStore::default();
        let clock = Arc::new(SystemClock::default());
        let pipeline =
            Pipeline::new(Arc::new(store.clone()), clock, Arc::new(SystemIds), Config::default());
        let sessions = Mutex::new(Some(JoinSet::new()));
        let voters = Voters::new([vec![1]]);
        let transactions = AtomicU64::new(0);
        let authority = futures::executor::block_on(Authority::obtain(&store));
        let authority = Arc::new(authority.expect("an authority"));
        let desk = Desk { pipeline, voters, authority };
        let voter = Arc::new(Self { store, desk, sessions, transactions });
        voter.put(
            resources::NAMESPACES,
            "default",
            json!({"kind": "Namespace", "apiVersion": "v1"}),
        );
        voter
    }

    fn put(&self, resource: GroupResource, name: &str, mut object: Value) {
        let key = key(resource, name);
        object["metadata"] =
            json!({"name": name, "namespace": key.namespace, "uid": format!("uid of {name}")});
        let value = object.to_string().into_bytes().into();
        let operations = vec![Operation::Put { key: key.storage_key().into(), value }];
        let id = TransactionId(u128::from(self.transactions.fetch_add(1, Ordering::Relaxed)));
        let transaction = Transaction { id, guards: Vec::new(), operations };
        futures::executor::block_on(self.store.transact(transaction)).expect("committed");
    }

    fn put_pod(&self, name: &str, node: &str, secret: &str) {
        let spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "v", "secret": {"secretName": secret}}]});
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "spec": spec, "status": {"phase": "Pending"}});
        self.put(resources::PODS, name, pod);
    }

    /// Breaks all sessions; there are no new ones until [`Voter::mend`].
    fn cut(&self) {
        self.sessions.lock().expect("it").take();
    }

    fn mend(&self) {
        *self.sessions.lock().expect("it") = Some(JoinSet::new());
    }
}

fn key(resource: GroupResource, name: &str) -> ObjectKey {
    let namespaced = resource != resources::NODES && resource != resources::NAMESPACES;
    ObjectKey::new(resource, if namespaced { "default" } else { "" }, name)
}

struct Way(Arc<Voter>);

impl Dial for Way {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Session>, String>> {
        Box::pin(async {
            let mut sessions = self.0.sessions.lock().expect("it");
            let sessions = sessions.as_mut().ok_or("the cable is cut")?;
            let (here, there) = tokio::io::duplex(4096);
            let desk = self.0.desk.clone();
            let visitor = Visitor { node: "n1".to_owned(), key: vec![1], address: None };
            sessions.spawn(async move { drop(serve(there, &desk, &visitor).await) });
            Ok(Box::new(here) as Box<dyn Session>)
        })
    }
}

fn remote(voter: &Arc<Voter>) -> Remote {
    Remote::new(Arc::new(Way(Arc::clone(voter))))
}

#[tokio::test]
async fn a_node_reads_and_writes_what_is_its_own() {
    let voter = Voter::new();
    voter.put_pod("mine", "n1", "secret");
    let remote = remote(&voter);
    let mut pod = remote.get(&key(resources::PODS, "mine")).await.expect("read").expect("there");
    pod["status"]["phase"] = json!("Running");
    let step = Step::Update {
        key: key(resources::PODS, "mine"),
        subresource: Some("status"),
        object: pod.clone(),
    };
    let revision = remote.call(step.clone()).await.expect("written");
    assert_eq!(revision, voter.store.local().revision().0);
    let again = remote.call(step).await.expect_err("it carries an old revision");
    assert!(again.is("Conflict"), "{again:?}");
    let pod = remote.get(&key(resources::PODS, "mine")).await.expect("read").expect("there");
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(remote.get(&key(resources::PODS, "none")).await, Ok(None));
}

#[tokio::test]
async fn a_node_is_refused_what_is_not_its_own() {
    let voter = Voter::new();
    voter.put_pod("mine", "n1", "seen");
    voter.put_pod("other", "n2", "unseen");
    for secret in ["seen", "unseen"] {
        voter.put(resources::SECRETS, secret, json!({"kind": "Secret", "apiVersion": "v1"}));
    }
    voter.put(resources::NODES, "n2", json!({"kind": "Node", "apiVersion": "v1"}));
    let remote = remote(&voter);
    assert!(remote.get(&key(resources::SECRETS, "seen")).await.expect("allowed").is_some());
    let refused = remote.get(&key(resources::SECRETS, "unseen")).await.expect_err("refused");
    assert_eq!(refused.code, 403, "{refused:?}");
    let object = remote.get(&key(resources::NODES, "n2")).await.expect("read").expect("there");
    let key = key(resources::NODES, "n2");
    let step = Step::Update { key, subresource: Some("status"), object };
    assert_eq!(remote.call(step).await.expect_err("refused").code, 403);
    let bind = Step::Bind { pods: Vec::new(), node: "n1".to_owned() };
    assert_eq!(remote.call(bind).await.expect_err("no call of nodes").code, 400);
}

#[tokio::test]
async fn a_call_after_a_cut_finds_the_voter_again() {
    let voter = Voter::new();
    voter.put_pod("mine", "n1", "secret");
    let remote = remote(&voter);
    let key = key(resources::PODS, "mine");
    assert!(remote.get(&key).await.expect("read").is_some());
    voter.cut();
    assert_eq!(remote.get(&key).await.expect_err("nobody is there").code, 503);
    voter.mend();
    assert!(remote.get(&key).await.expect("read").is_some());
}

#[tokio::test]
async fn a_mirror_follows_its_share_over_cuts_without_a_gap() {
    let voter = Voter::new();
    voter.put(resources::SECRETS, "secret", json!({"kind": "Secret", "apiVersion": "v1"}));
    voter.put_pod("a", "n1", "secret");
    voter.put_pod("b", "n2", "none");
    let mirror = Mirror::new(MemberId(1), HistoryLimits::default());
    let mut watch = mirror.watch("", Revision::ZERO).expect("a watch");
    let following = tokio::spawn(follow(Arc::new(Way(Arc::clone(&voter))), mirror.clone(), drop));
    let seen = async |watch: &mut podium_store::Watch, count: usize| {
        let mut names = Vec::new();
        for _ in 0..count {
            let event = timeout(LIMIT, watch.next()).await.expect("in time").expect("an event");
            let key = ObjectKey::parse(&event.key).expect("a key");
            names.push((event.kind == EventKind::Put, key.name));
        }
        names.sort();
        names
    };
    let put = |name: &str| (true, name.to_owned());
    assert_eq!(seen(&mut watch, 3).await, [put("a"), put("default"), put("secret")]);
    voter.put_pod("c", "n1", "secret");
    assert_eq!(seen(&mut watch, 1).await, [put("c")]);
    voter.cut();
    voter.put_pod("a", "n2", "secret");
    voter.put_pod("d", "n1", "secret");
    voter.mend();
    assert_eq!(seen(&mut watch, 2).await, [(false, "a".to_owned()), put("d")]);
    assert_eq!(mirror.local().revision(), voter.store.local().revision());
    following.abort();
}

#[tokio::test]
async fn an_object_larger_than_a_part_arrives() {
    let voter = Voter::new();
    let data = "x".repeat(1024 * 1024);
    let secret = json!({"kind": "Secret", "apiVersion": "v1", "data": {"k": data}});
    voter.put(resources::SECRETS, "large", secret.clone());
    voter.put(resources::SECRETS, "larger", secret);
    voter.put_pod("a", "n1", "large");
    voter.put_pod("b", "n1", "larger");
    let mirror = Mirror::new(MemberId(1), HistoryLimits::default());
    let mut watch = mirror.watch("", Revision::ZERO).expect("a watch");
    let following = tokio::spawn(follow(Arc::new(Way(Arc::clone(&voter))), mirror.clone(), drop));
    timeout(LIMIT, watch.next()).await.expect("in time").expect("an event");
    let records = mirror.local();
    for name in ["large", "larger"] {
        let record = records.get(&key(resources::SECRETS, name).storage_key()).expect("there");
        let secret: Value = serde_json::from_slice(&record.value).expect("JSON");
        assert_eq!(object::str_at(&secret, &["data", "k"]).map(str::len), Some(data.len()));
    }
    following.abort();
}

#[tokio::test]
async fn a_node_hears_at_once_who_votes_and_then_every_change() {
    let voter = Voter::new();
    let mirror = Mirror::new(MemberId(1), HistoryLimits::default());
    let (heard, mut told) = tokio::sync::mpsc::unbounded_channel();
    let following =
        follow(Arc::new(Way(Arc::clone(&voter))), mirror, move |keys| drop(heard.send(keys)));
    let following = tokio::spawn(following);
    let mut next = async || timeout(LIMIT, told.recv()).await.expect("in time").expect("it runs");
    assert_eq!(next().await, [vec![1]]);
    assert!(voter.desk.voters.are([vec![2], vec![3]]));
    voter.put_pod("a", "n1", "secret");
    assert_eq!(next().await, [vec![2], vec![3]]);
    following.abort();
}

#[tokio::test]
async fn the_same_event_of_a_node_is_counted_up() {
    let voter = Voter::new();
    voter.put_pod("mine", "n1", "secret");
    let client: SharedClient = Arc::new(remote(&voter));
    let step = EventStep {
        regarding: Regarding {
            key: key(resources::PODS, "mine"),
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            uid: "uid of mine".to_owned(),
            resource_version: String::new(),
            field_path: String::new(),
        },
        kind: podium_control::EventKind::Normal,
        reason: "Pulling".to_owned(),
        message: "again".to_owned(),
        action: "",
        component: "kubelet",
        reports: None,
    };
    let clock = SystemClock::default();
    for _ in 0..3 {
        sinks::record(&client, &clock, &step).await;
    }
    let key = podium_control::event::key_of(&step);
    let event = client.get(&key).await.expect("read").expect("recorded");
    assert_eq!((&event["count"], &event["message"]), (&json!(3), &json!("again")));
}
