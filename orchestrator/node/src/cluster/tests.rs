//! Three machines in one process, each on a runtime of its own that can be killed, speaking over the loopback.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Instant;

use podium_api::pipeline::{Cidr as ApiCidr, Config as PipelineConfig, PodRange, ReadOptions};
use podium_api::pipeline::{Target, WriteOptions};
use podium_api::seams::{SystemClock, SystemIds};
use podium_api::streams::{LogOptions, NoPodStreams};
use podium_api::{Pipeline, User, bootstrap};
use podium_control::health::Timings;
use podium_link::Cidr;
use podium_peer::Protocol;
use podium_peer::operator::{self, OperatorError};
use podium_store::StoreHandle;
use podium_types::ObjectKey;
use podium_types::kind::resources;
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::admit::Admission;
use crate::authority::Authority;
use crate::directory::Directory;
use crate::heartbeat::Board;
use crate::place;
use crate::sessions::Sessions;
use crate::streams::remote;
use crate::voters::Keys;
use podium_form::Applicant;
use podium_form::client::{SharedClient, Voter};

const DEADLINE: Duration = Duration::from_secs(90);
const PORT: u16 = 26444;
const TOKEN: [u8; 16] = [7; 16];

/// A machine that is on.
struct Node {
    runtime: Option<Runtime>,
    cluster: Cluster,
    pipeline: Pipeline,
    authority: String,
    pods: Cidr,
}

/// A machine on its way.
struct Starting {
    at: usize,
    runtime: Runtime,
    started: tokio::task::JoinHandle<(Cluster, Pipeline, String, Cidr)>,
}

/// Machines with disks.
struct Rack {
    disks: Vec<TempDir>,
    network: u8,
    expect: u32,
    nodes: Vec<Option<Node>>,
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().expect("a runtime")
}

impl Rack {
    /// `network`: no other test may use it at the same time.
    fn new(count: usize, network: u8) -> Self {
        let disks = (0..count).map(|_| tempfile::tempdir().expect("a folder")).collect();
        let expect = count.min(3) as u32;
        Self { disks, network, expect, nodes: (0..count).map(|_| None).collect() }
    }

    fn address(&self, at: usize) -> SocketAddr {
        let process = std::process::id();
        let net = Ipv4Addr::new(127, 64 + (process % 128) as u8, self.network, 10 + at as u8);
        SocketAddr::from((net, PORT))
    }

    /// Switches machines on, and waits until each has its place in the cluster.
    fn on(&mut self, which: &[usize], trouble: &watch::Sender<Option<String>>) {
        let starting = which.iter().map(|at| self.begin(*at, trouble)).collect();
        self.finish(starting);
    }

    /// Switches a machine on.
    fn begin(&self, at: usize, trouble: &watch::Sender<Option<String>>) -> Starting {
        let runtime = runtime();
        let options =
            Options { state: self.disks[at].path().to_owned(), expect: self.expect, factor: 1 };
        let address = self.address(at);
        let meeting = Meeting {
            name: format!("n{}", at + 1),
            token: TOKEN.to_vec(),
            listen: address,
            addresses: watch::channel(vec![address.ip()]).1,
            listed: (0..self.disks.len()).map(|at| self.address(at)).collect(),
            multicast: false,
            trouble: trouble.clone(),
        };
        let started = runtime.spawn(start(options, meeting, trouble.clone()));
        Starting { at, runtime, started }
    }

    /// Waits until machines have their places.
    fn finish(&mut self, starting: Vec<Starting>) {
        let waiting = runtime();
        for Starting { at, runtime, started } in starting {
            let started = waiting.block_on(async { tokio::time::timeout(DEADLINE, started).await });
            let (cluster, pipeline, authority, pods) =
                started.unwrap_or_else(|_| panic!("n{} starts in time", at + 1)).expect("a node");
            self.nodes[at] =
                Some(Node { runtime: Some(runtime), cluster, pipeline, authority, pods });
        }
    }

    /// Takes the power of a machine.
    fn off(&mut self, at: usize) {
        if let Some(mut node) = self.nodes[at].take()
            && let Some(runtime) = node.runtime.take()
        {
            runtime.shutdown_timeout(Duration::from_secs(10));
        }
    }

    fn node(&self, at: usize) -> &Node {
        self.nodes[at].as_ref().expect("it is on")
    }

    fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|at| self.nodes[*at].is_some()).collect()
    }

    /// The machine that leads.
    fn leader(&self) -> usize {
        let begun = Instant::now();
        loop {
            let leads = |at: &usize| self.node(*at).cluster.store.status().role == Role::Leader;
            if let Some(at) = self.running().into_iter().find(leads) {
                return at;
            }
            assert!(begun.elapsed() < DEADLINE, "somebody leads");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Writes through one machine, and reads at once through the others.
    fn write_and_read(&self, writer: usize, name: &str) {
        let key = ObjectKey::new(resources::CONFIG_MAPS, "default", name);
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "default"}, "data": {"by": writer.to_string()}});
        let run = runtime();
        run.block_on(async {
            let target = Target { name: "", ..Target::object(&key).expect("served") };
            let begun = Instant::now();
            loop {
                let pipeline = &self.node(writer).pipeline;
                let options = WriteOptions::default();
                match pipeline
                    .create(&User::admin(), &target, object.clone().into(), &options)
                    .await
                {
                    Ok(_) => break,
                    Err(status) if status.reason == "AlreadyExists" => break,
                    Err(status) => {
                        assert!(begun.elapsed() < DEADLINE, "{}", status.message);
                    }
                }
            }
            for reader in self.running() {
                let pipeline = &self.node(reader).pipeline;
                let target = Target::object(&key).expect("served");
                let begun = Instant::now();
                loop {
                    match pipeline.get(&User::admin(), &target, &ReadOptions::default()).await {
                        Ok(_) => break,
                        Err(status) if status.reason == "NotFound" => {
                            panic!("n{} read the past of n{}", reader + 1, writer + 1)
                        }
                        Err(status) => assert!(begun.elapsed() < DEADLINE, "{}", status.message),
                    }
                }
            }
        });
    }

    /// What one machine answers to another that asks for the log of a pod there. None has containers.
    fn ask_for_log(&self, from: usize, to: usize) -> String {
        let key = self.node(to).cluster.identity.key.public();
        let peers = &self.node(from).cluster.peers;
        let pod = json!({"metadata": {"namespace": "default", "name": "p", "uid": "u"}});
        let asked = async {
            let session = loop {
                match peers.open(key, Protocol::Streams).await {
                    Ok(session) => break session.stream,
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            remote::logs(session, &pod, LogOptions::default()).await.err().map(|it| it.message)
        };
        let asked = async { tokio::time::timeout(DEADLINE, asked).await };
        runtime().block_on(asked).expect("in time").expect("there is no log")
    }

    fn revision(&self, at: usize) -> u64 {
        self.node(at).cluster.store.status().applied.0
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        for at in 0..self.nodes.len() {
            self.off(at);
        }
    }
}

/// What a node does before it runs pods.
async fn start(
    options: Options,
    meeting: Meeting,
    trouble: watch::Sender<Option<String>>,
) -> (Cluster, Pipeline, String, Cidr) {
    let name = meeting.name.clone();
    let cluster = Opened::open(options).await.expect("opened").meet(meeting).await.expect("met");
    let store: Arc<dyn StoreHandle> = cluster.store.clone();
    let config = PipelineConfig {
        pods: Some(PodRange {
            cidr: ApiCidr::new(Ipv4Addr::new(10, 244, 0, 0), 16),
            node_prefix: 24,
        }),
        ..PipelineConfig::default()
    };
    let pipeline = Pipeline::new(
        Arc::clone(&store),
        Arc::new(SystemClock::default()),
        Arc::new(SystemIds),
        config,
    );
    let sessions = Sessions {
        directory: watch::channel(Directory::new()).1,
        voters: cluster.voters.clone(),
        desk: None,
        board: Board::new(&name, Timings::default(), Arc::new(SystemClock::default())),
        streams: Arc::new(NoPodStreams),
    };
    assert!(cluster.former.sessions.set(Arc::new(sessions)).is_ok());
    if let Some(joined) = cluster.joined.clone() {
        let pods = joined.pods.parse().expect("a range");
        return (cluster, pipeline, joined.authority_pem, pods);
    }
    let authority = Authority::obtain(&*store).await.expect("an authority").pem().to_owned();
    let client: SharedClient = Arc::new(Voter::new(pipeline.clone(), &name));
    let key = cluster.identity.key.public().to_vec();
    let applicant = Applicant { name, key, voter: true };
    let pods = place::take(&applicant, &client, || store.local(), &trouble).await;
    let admission = Admission {
        pipeline: pipeline.clone(),
        cluster: cluster.id,
        authority_pem: authority.clone(),
        voters: cluster.voters.clone(),
    };
    assert!(cluster.former.places.set(Arc::new(admission)).is_ok());
    (cluster, pipeline, authority, pods)
}

fn all_good() -> watch::Sender<Option<String>> {
    watch::channel(None).0
}

#[test]
fn three_blank_machines_are_one_cluster_that_outlives_its_leader_and_a_power_cut() {
    let mut rack = Rack::new(3, 1);
    rack.on(&[0, 1, 2], &all_good());
    let authorities: BTreeSet<_> = (0..3).map(|at| rack.node(at).authority.clone()).collect();
    assert_eq!(authorities.len(), 1, "one authority");
    let places: Vec<_> = (0..3).map(|at| rack.node(at).pods).collect();
    assert_eq!(places.iter().map(ToString::to_string).collect::<BTreeSet<_>>().len(), 3);
    for at in 0..3 {
        let status = rack.node(at).cluster.store.status();
        assert_eq!(status.membership.members.len(), 3);
        assert!(status.membership.members.keys().all(|id| status.membership.is_voter(*id)));
    }
    let servers = [IpAddr::from([10, 77, 0, 11])];
    let made = bootstrap::ensure(&rack.node(rack.leader()).pipeline, &servers, 6443);
    runtime().block_on(made).expect("the cluster's own objects");
    for round in 0..12 {
        rack.write_and_read(round % 3, &format!("before-{round}"));
    }

    let leader = rack.leader();
    rack.off(leader);
    for (round, writer) in rack.running().into_iter().enumerate() {
        rack.write_and_read(writer, &format!("without-{round}"));
    }
    rack.on(&[leader], &all_good());
    rack.write_and_read(leader, "back");

    let revision = (0..3).map(|at| rack.revision(at)).max().expect("three");
    for at in 0..3 {
        rack.off(at);
    }
    rack.on(&[0, 1, 2], &all_good());
    for (at, place) in places.iter().enumerate() {
        assert_eq!(rack.node(at).authority, *authorities.first().expect("one"));
        assert_eq!(rack.node(at).pods, *place, "a place is for ever");
    }
    rack.write_and_read(0, "after");
    assert!(rack.revision(0) > revision);
}

#[test]
fn two_machines_of_three_wait_and_say_who_is_missing() {
    let mut rack = Rack::new(3, 2);
    let (trouble, mut told) = watch::channel(None);
    let waiting = runtime();
    let mut starting = vec![rack.begin(0, &trouble), rack.begin(1, &trouble)];
    let missing = waiting.block_on(async {
        let missing = told.wait_for(|line: &Option<String>| {
            line.as_ref().is_some_and(|line| {
                line.starts_with("2 of 3: ") && line.ends_with("; waiting for 1 more")
            })
        });
        tokio::time::timeout(DEADLINE, missing).await.expect("told").expect("alive").clone()
    });
    let line = missing.expect("a line");
    assert!(line.contains(" (me), n"), "{line}");
    starting.push(rack.begin(2, &trouble));
    rack.finish(starting);
    rack.off(1);
    rack.off(2);
    let lost = waiting.block_on(async {
        let lost = told.wait_for(|line: &Option<String>| {
            line.as_ref().is_some_and(|line| line.starts_with("waiting for quorum of cluster "))
        });
        tokio::time::timeout(DEADLINE, lost).await.expect("told").expect("alive").clone()
    });
    let line = lost.expect("a line");
    assert!(line.contains("n2") && line.contains("n3") && line.ends_with(" missing"), "{line}");
}

#[test]
fn an_operator_has_two_of_three_form_a_cluster_and_the_third_joins_it() {
    let mut rack = Rack::new(3, 5);
    let starting = vec![rack.begin(0, &all_good()), rack.begin(1, &all_good())];
    let addresses = [rack.address(0), rack.address(1)];
    let told = runtime().block_on(async {
        let told = async {
            loop {
                match operator::form(&TOKEN, &addresses, Pace::default()).await {
                    // They do not listen yet.
                    Err(OperatorError::Unreachable { .. }) => tokio::task::yield_now().await,
                    told => break told,
                }
            }
        };
        tokio::time::timeout(DEADLINE, told).await.expect("in time").expect("told")
    });
    assert_eq!(told.into_iter().collect::<BTreeSet<_>>().len(), 2);
    rack.finish(starting);
    assert_eq!(rack.node(0).cluster.store.status().membership.members.len(), 2);
    let form = operator::form(&TOKEN, &addresses, Pace::default());
    let again = runtime().block_on(form).expect_err("they are in a cluster").to_string();
    assert!(again.contains("this machine belongs to cluster"), "{again}");
    rack.on(&[2], &all_good());
    assert_eq!(rack.node(2).cluster.id, rack.node(0).cluster.id);
    assert!(rack.node(2).cluster.joined.is_some(), "it is a worker");
}

#[test]
fn a_machine_alone_is_a_cluster_without_anybody() {
    let mut rack = Rack::new(1, 3);
    rack.on(&[0], &all_good());
    let pods = rack.node(0).pods;
    assert_eq!(pods.to_string(), "10.244.0.0/24");
    rack.off(0);
    rack.on(&[0], &all_good());
    assert_eq!(rack.node(0).pods, pods);
}

#[test]
fn a_fourth_machine_joins_as_a_worker_and_keeps_its_place() {
    let mut rack = Rack::new(4, 4);
    rack.on(&[0, 1, 2], &all_good());
    rack.on(&[3], &all_good());
    let worker = rack.node(3);
    let (id, pods) = (worker.cluster.id, worker.pods);
    assert_eq!(id, rack.node(0).cluster.id);
    assert_eq!(worker.authority, rack.node(0).authority);
    assert!((0..3).all(|at| rack.node(at).pods != pods));
    assert_eq!(rack.node(0).cluster.store.status().membership.members.len(), 3);
    let voters: Keys =
        (0..3).map(|at| rack.node(at).cluster.identity.key.public().to_vec()).collect();
    for at in 0..4 {
        assert_eq!(rack.node(at).cluster.voters.keys(), voters, "as n{} knows them", at + 1);
    }
    for (from, to) in [(0, 3), (0, 1)] {
        assert_eq!(rack.ask_for_log(from, to), "this server runs no containers");
    }
    let refused = rack.ask_for_log(3, 0);
    assert!(refused.starts_with("the pod's node does not answer"), "{refused}");
    rack.off(3);
    rack.on(&[3], &all_good());
    assert_eq!((rack.node(3).cluster.id, rack.node(3).pods), (id, pods));
}
