//! Putting a node together, in the order in which its parts need each other.

mod membership;
mod ranges;
mod reporter;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use podium_agent::{Agent, AgentConfig, ProcessLauncher, Seams};
use podium_api::auth::certificate::AdminKey;
use podium_api::http::{OpenPath, Server, TlsParts, serve, tls_config};
use podium_api::seams::{Clock, SystemClock};
use podium_api::streams::PodStreams;
use podium_control::Settings;
use podium_control::health::Timings;
use podium_dataplane::overlay::{OverlayConfig, OverlayMode};
use podium_dataplane::{Dataplane, DataplaneConfig, Endpoint};
use podium_dns::{SharedZone, Upstreams, Zone};
use podium_form::client::SharedClient;
use podium_images::Images;
use podium_init::config::{MachineConfig, PEER_PORT};
use podium_init::protocol::Status as MachineStatus;
use podium_lead::Leading;
use podium_store::{Role, Store, StoreHandle, TokioRuntime};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::authority::{ServerNames, Shown};
use crate::cluster::{Cluster, Meeting, Opened, Options};
use crate::directory::{self, Directory};
use crate::heartbeat::{Board, Heart, KnownVoters};
use crate::images::LocalImages;
use crate::lead::Here;
use crate::machine::{self, Machine};
use crate::name;
use crate::network::{Network, SharedDataplane};
use crate::overlay::{self, Following, Published};
use crate::prover::Prover;
use crate::references::Replica;
use crate::register::Registration;
use crate::services::{self, Catalogue};
use crate::sessions::Sessions;
use crate::sinks::{Events, Statuses};
use crate::streams::everywhere::Everywhere;
use crate::streams::local::Streams;
use crate::worker::{self, Desk};
use crate::workload;

use membership::{Membership, VoterParts};
use ranges::Ranges;
use reporter::Reporter;

const STATE: &str = "/var/lib/podium";
/// The API's port on every node.
const API_PORT: u16 = 6443;
const DOMAIN: &str = "cluster.local";
/// What pods' links start from, less what the overlay adds; they follow the machine's link when it is looked at.
const ETHERNET_MTU_BYTES: u32 = 1500;
/// DHCP on an emulated machine takes a few seconds; a cable may be plugged in much later, and then the node goes on.
const ADDRESS_REMINDER: Duration = Duration::from_secs(10);
/// Between the end of the pods and the end of this process.
const CLOSING: Duration = Duration::from_secs(1);

/// Between two looks whether another leads.
const HAND_OVER_LOOK: Duration = Duration::from_millis(10);

/// What the parts share.
struct Parts {
    config: MachineConfig,
    machine_status: MachineStatus,
    machine: Machine,
    name: String,
    /// What this machine has of the cluster's state.
    state: Arc<dyn StoreHandle>,
    client: SharedClient,
    clock: Arc<dyn Clock>,
    cluster: Cluster,
    /// None on a worker.
    voter: Option<VoterParts>,
    directory: watch::Receiver<Directory>,
    cut_off: watch::Sender<Option<String>>,
    dataplane: SharedDataplane,
    ranges: Ranges,
    overlay: OverlayMode,
}

/// Runs the node until the machine ends.
pub(crate) async fn run() -> anyhow::Result<()> {
    let started = Instant::now();
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("TLS is set up twice"))?;
    let (config, _) = machine::introduce().await?;
    let mut machine = machine::listen()?;
    let options = Options {
        state: STATE.into(),
        expect: config.cluster.expect,
        factor: config.timings.factor.max(1),
    };
    let opened = Opened::open(options).await?;
    tracing::info!(milliseconds = started.elapsed().as_millis(), "the store is open");
    wait_for_address(&mut machine).await;
    // With an address comes what DHCP calls the machine.
    let (_, machine_status) = machine::introduce().await?;
    let configured = config.machine.hostname.as_deref();
    let name =
        name::keep(&Path::new(STATE).join("identity"), configured, &machine_status.hostname)?;
    let (trouble, troubles) = watch::channel(None);
    let (registered, is_registered) = watch::channel(false);
    let (no_place, without_place) = watch::channel(None);
    let (cut_off, alone) = watch::channel(None);
    let reporter = Reporter {
        name: name.clone(),
        addresses: machine.addresses.clone(),
        troubles: [without_place, troubles, alone],
        is_registered,
        started,
    };
    tokio::spawn(reporter.run());
    let meeting = Meeting {
        name: name.clone(),
        token: config.cluster.token.as_bytes().to_vec(),
        listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, PEER_PORT)),
        addresses: machine.addresses.clone(),
        listed: config.cluster.peers.clone(),
        multicast: true,
        trouble,
    };
    let cluster = unless_ending(&machine, opened.meet(meeting)).await?;
    let Some(cluster) = cluster else { return Ok(()) };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let entering = async {
        match &cluster.joined {
            None => membership::voter(&config, &name, &cluster, &clock, &no_place).await,
            Some(joined) => membership::worker(&name, &cluster, joined),
        }
    };
    let Some(membership) = unless_ending(&machine, entering).await? else {
        cluster.store.shutdown().await;
        return Ok(());
    };
    let Membership { state, client, directory, voter, node_pods } = membership;
    let ranges = Ranges::new(&config, node_pods)?;
    let overlay = overlay::mode(config.cluster.overlay, &Path::new(STATE).join("identity"))?;
    let parts = Parts {
        config,
        machine_status,
        machine,
        name,
        state,
        client,
        clock,
        cluster,
        voter,
        directory,
        cut_off,
        dataplane: Arc::new(Mutex::new(open_dataplane(ranges, &overlay)?)),
        ranges,
        overlay,
    };
    tracing::info!(
        milliseconds = started.elapsed().as_millis(),
        pods = %ranges.node_pods,
        "this machine has its place in the cluster"
    );
    parts.start(registered).await
}

/// Waits for `work`, or until the machine ends: then there is nothing.
async fn unless_ending<T>(
    machine: &Machine,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Option<T>> {
    let mut ending = machine.ending.clone();
    tokio::select! {
        done = work => done.map(Some),
        _ = ending.wait_for(Option::is_some) => Ok(None),
    }
}

fn open_dataplane(ranges: Ranges, overlay: &OverlayMode) -> anyhow::Result<Dataplane> {
    let overhead = overlay.overhead_bytes(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let config = DataplaneConfig {
        node_pods: ranges.node_pods,
        cluster_pods: ranges.cluster_pods,
        services: ranges.services,
        dns: ranges.dns,
        mtu_bytes: ETHERNET_MTU_BYTES - overhead,
    };
    Dataplane::open(config).context("prepare the data path")
}

async fn wait_for_address(machine: &mut Machine) {
    while machine.addresses.borrow().is_empty() {
        tokio::select! {
            changed = machine.addresses.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep(ADDRESS_REMINDER) => tracing::warn!("this machine has no address yet"),
        }
    }
}

impl Parts {
    async fn start(mut self, registered: watch::Sender<bool>) -> anyhow::Result<()> {
        let images = self.open_images()?;
        let agent = self.start_agent(images).await?;
        let handle = Arc::clone(&self.state);
        let zone: SharedZone = Arc::new(RwLock::new(Zone::new(DOMAIN)));
        let api = Endpoint { address: self.ranges.node, port: API_PORT };
        tokio::spawn(services::run(
            Arc::clone(&handle),
            Catalogue::new(api),
            Arc::clone(&self.dataplane),
            Arc::clone(&zone),
        ));
        tokio::spawn(overlay::run(Following {
            store: Arc::clone(&handle),
            name: self.name.clone(),
            config: OverlayConfig {
                mode: self.overlay.clone(),
                node_pods: self.ranges.node_pods,
                cluster_pods: self.ranges.cluster_pods,
            },
            dataplane: Arc::clone(&self.dataplane),
            addresses: self.machine.addresses.clone(),
        }));
        tokio::spawn(serve_names(self.ranges.dns, zone, self.machine.nameservers.clone()));
        let board = self.start_heart(&registered);
        let streams: Arc<dyn PodStreams> = Arc::new(Streams(agent.clone()));
        let sessions = Sessions {
            directory: self.directory.clone(),
            voters: self.cluster.voters.clone(),
            desk: self.voter.as_ref().map(|voter| Desk {
                pipeline: voter.pipeline.clone(),
                voters: self.cluster.voters.clone(),
                authority: Arc::clone(&voter.authority),
            }),
            board: Arc::clone(&board),
            streams: Arc::clone(&streams),
        };
        // Nobody else sets it.
        let _ = self.cluster.former.sessions.set(Arc::new(sessions));
        tokio::spawn(workload::run(Arc::clone(&handle), agent.clone(), self.name.clone()));
        tokio::spawn(self.registration(agent.clone()).run(registered));
        let (close, closed) = watch::channel(false);
        let server = match &self.voter {
            Some(voter) => {
                self.start_leading(voter, Arc::clone(&board));
                self.start_server(voter, streams, board, closed).await?
            }
            None => self.start_door(closed).await?,
        };
        let ended = self.machine.ending.wait_for(Option::is_some).await;
        let Some(grace) = ended.ok().and_then(|ended| *ended) else {
            bail!("PID 1 is not heard any more");
        };
        let left = agent.shutdown(grace.saturating_sub(CLOSING)).await;
        tracing::info!(left, "the pods have ended");
        close.send_replace(true);
        // What is not closed by then, the end of the process closes.
        let _ = tokio::time::timeout(CLOSING, server).await;
        if let Some(voter) = &self.voter {
            hand_over(&voter.store).await;
            voter.store.shutdown().await;
        }
        Ok(())
    }

    /// Leads whenever this member does.
    fn start_leading(&self, voter: &VoterParts, board: Arc<Board>) {
        let leading = Leading {
            store: Arc::clone(&self.state),
            pipeline: voter.pipeline.clone(),
            settings: Settings {
                leader: self.name.clone(),
                root_ca_pem: voter.authority.pem().to_owned(),
                ..Settings::default()
            },
            port: API_PORT,
        };
        let here = Arc::new(Here { servers: self.servers(), board });
        tokio::spawn(podium_lead::run(leading, here));
    }

    /// On a worker, the API's port leads to a voter.
    async fn start_door(
        &self,
        mut closed: watch::Receiver<bool>,
    ) -> anyhow::Result<tokio::task::JoinHandle<()>> {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, API_PORT));
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("pass the API on at {address}"))?;
        let directory = self.directory.clone();
        let voters = move || {
            let directory = directory.borrow();
            let voters = directory.values().filter(|entry| entry.voter);
            let first = voters.filter_map(|entry| entry.addresses.first().copied());
            first.map(|address| SocketAddr::new(address, API_PORT)).collect()
        };
        Ok(tokio::spawn(async move {
            tokio::select! {
                never = worker::door::run(listener, voters) => never,
                _ = closed.wait_for(|closed| *closed) => {}
            }
        }))
    }

    /// Tells the voters that this node lives, and hears the others.
    fn start_heart(&self, registered: &watch::Sender<bool>) -> Arc<Board> {
        let timings = Timings::default().scaled(self.config.timings.factor);
        let board = Board::new(&self.name, timings, Arc::clone(&self.clock));
        let voters = derived(&self.directory, &self.machine.addresses, |directory, _| {
            let voters = directory.iter().filter(|(_, entry)| entry.voter);
            voters.map(|(name, _)| name.clone()).collect()
        });
        let reach = KnownVoters {
            peers: Arc::clone(&self.cluster.peers),
            directory: self.directory.clone(),
        };
        let heart = Heart {
            board: Arc::clone(&board),
            voters,
            reach: Arc::new(reach),
            ready: registered.subscribe(),
            cut_off: self.cut_off.clone(),
        };
        tokio::spawn(heart.run());
        board
    }

    fn open_images(&self) -> anyhow::Result<Images> {
        let registries = self.config.registries.iter().map(|registry| {
            let mirrors = registry.mirrors.iter().map(|mirror| podium_images::Mirror {
                url: mirror.url.clone(),
                ca: mirror.ca_pem.clone(),
                username: mirror.credential.as_ref().map(|it| it.username.clone()),
                password: mirror.credential.as_ref().map(|it| it.password.clone()),
            });
            (registry.host.clone(), podium_images::Registry { mirrors: mirrors.collect() })
        });
        let registries: BTreeMap<_, _> = registries.collect();
        let config = podium_images::Config { registries, ..podium_images::Config::default() };
        Images::open(Path::new(STATE).join("images"), config).context("open the images")
    }

    async fn start_agent(&self, images: Images) -> anyhow::Result<Agent> {
        let addresses = self.machine.addresses.borrow().clone();
        let config =
            AgentConfig::shipped(self.name.clone(), addresses, vec![IpAddr::V4(self.ranges.dns)]);
        let file = PathBuf::from(STATE).join("network").join("addresses.json");
        std::fs::create_dir_all(Path::new(STATE).join("network"))?;
        let network = Network::open(Arc::clone(&self.dataplane), self.ranges.node_pods, file)?;
        let store = Arc::clone(&self.state);
        let seams = Seams {
            references: Arc::new(Replica::new(store)),
            statuses: Arc::new(Statuses::new(Arc::clone(&self.client))),
            events: Arc::new(Events::start(Arc::clone(&self.client), Arc::clone(&self.clock))),
            network: Arc::new(network),
            images: Arc::new(LocalImages::new(images)),
            launcher: Arc::new(ProcessLauncher::new(config.shim.clone())),
        };
        Agent::start(config, seams).await.context("start the agent")
    }

    /// The addresses at which the API is served, as voters come and go.
    fn servers(&self) -> watch::Receiver<Vec<IpAddr>> {
        let name = self.name.clone();
        derived(&self.directory, &self.machine.addresses, move |directory, own| {
            directory::servers(directory, &name, own)
        })
    }

    /// The names of this node's API, as machines come and go.
    fn server_names(&self) -> watch::Receiver<ServerNames> {
        let (node, service, pods) = (self.name.clone(), self.ranges.kubernetes, self.ranges.node);
        derived(&self.directory, &self.machine.addresses, move |directory, own| {
            let others = || directory.iter().filter(|(name, _)| **name != node);
            let mut machine = own.to_vec();
            machine.push(IpAddr::V4(pods));
            ServerNames {
                node: node.clone(),
                machine,
                others: others().map(|(name, _)| name.clone()).collect(),
                other_addresses: others().flat_map(|(_, it)| it.addresses.clone()).collect(),
                service,
            }
        })
    }

    /// Whether this machine votes; asked whenever it matters.
    fn is_voter(&self) -> Box<dyn Fn() -> bool + Send + Sync> {
        let state = Arc::clone(&self.state);
        Box::new(move || {
            let status = state.status();
            status.membership.is_voter(status.member)
        })
    }

    fn registration(&self, agent: Agent) -> Registration {
        Registration {
            client: Arc::clone(&self.client),
            clock: Arc::clone(&self.clock),
            agent,
            name: self.name.clone(),
            pod_cidr: self.ranges.node_pods.to_string(),
            identity: self.cluster.identity.key.public().to_vec(),
            voter: self.is_voter(),
            machine: self.machine_status.clone(),
            addresses: self.machine.addresses.clone(),
            overlay: Published::new(&self.overlay),
        }
    }

    async fn start_server(
        &self,
        voter: &VoterParts,
        local: Arc<dyn PodStreams>,
        board: Arc<Board>,
        mut closed: watch::Receiver<bool>,
    ) -> anyhow::Result<tokio::task::JoinHandle<()>> {
        let admin = AdminKey(self.config.cluster.admin_key.clone());
        let shown = Shown::start(Arc::clone(&voter.authority), self.server_names())?;
        let certificate = Arc::new(shown.clone());
        let authority = voter.authority.der()?;
        let token = self.config.cluster.token.as_bytes();
        let prover =
            Prover::new(token, voter.authority.pem(), &authority, move || shown.certificate());
        let parts = TlsParts { authority, certificate, admin: admin.clone() };
        let acceptor = TlsAcceptor::from(Arc::new(tls_config(parts)?));
        let authority = OpenPath {
            path: podium_init::authority::PATH,
            parameter: podium_init::authority::NONCE_PARAMETER,
            answer: Box::new(move |nonce| prover.answer(nonce)),
        };
        let streams = Arc::new(Everywhere {
            name: self.name.clone(),
            local,
            peers: Arc::clone(&self.cluster.peers),
            directory: self.directory.clone(),
        });
        let pipeline = voter.pipeline.clone().with_beats(board);
        let server = Server::with_open_path(pipeline, streams, Some(authority));
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, API_PORT));
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("serve the API at {address}"))?;
        let shutdown = async move {
            let _ = closed.wait_for(|closed| *closed).await;
        };
        Ok(tokio::spawn(serve(listener, acceptor, server, admin, shutdown)))
    }
}

/// A leader that ends in order asks another voter to lead, so that nobody waits for an election.
async fn hand_over(store: &Store<TokioRuntime>) {
    let status = store.status();
    let others = status.membership.members.keys();
    let next = others.copied().find(|id| *id != status.member && status.membership.is_voter(*id));
    if let Some(next) = next.filter(|_| status.role == Role::Leader)
        && store.transfer_leadership(next).await.is_ok()
    {
        let begun = Instant::now();
        while store.status().role == Role::Leader && begun.elapsed() < CLOSING {
            tokio::time::sleep(HAND_OVER_LOOK).await;
        }
    }
}

/// What follows from the machines of the cluster and this machine's addresses, kept true.
fn derived<T: PartialEq + Send + Sync + 'static>(
    directory: &watch::Receiver<Directory>,
    addresses: &watch::Receiver<Vec<IpAddr>>,
    from: impl Fn(&Directory, &[IpAddr]) -> T + Send + 'static,
) -> watch::Receiver<T> {
    let (mut directory, mut addresses) = (directory.clone(), addresses.clone());
    let (sender, receiver) =
        watch::channel(from(&directory.borrow_and_update(), &addresses.borrow_and_update()));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Ok(()) = directory.changed() => {}
                Ok(()) = addresses.changed() => {}
                () = sender.closed() => return,
                else => return,
            }
            let new = from(&directory.borrow_and_update(), &addresses.borrow_and_update());
            sender.send_if_modified(|known| {
                let news = *known != new;
                if news {
                    *known = new;
                }
                news
            });
        }
    });
    receiver
}

/// Serves names at the cluster's DNS address, and again whenever the machine's own name servers change.
async fn serve_names(
    address: Ipv4Addr,
    zone: SharedZone,
    mut nameservers: watch::Receiver<Vec<IpAddr>>,
) {
    const RETRY: Duration = Duration::from_secs(1);
    loop {
        let upstreams = nameservers
            .borrow_and_update()
            .iter()
            .map(|server| SocketAddr::new(*server, 53))
            .collect();
        let addresses = [SocketAddr::from((address, 53))];
        let served = async {
            podium_dns::Server::bind(&addresses, Arc::clone(&zone), &Upstreams(upstreams))
                .await?
                .run()
                .await
        };
        tokio::select! {
            ended = served => {
                if let Err(error) = ended {
                    tracing::error!("{:#}", anyhow::Error::from(error));
                }
                tokio::time::sleep(RETRY).await;
            }
            Ok(()) = nameservers.changed() => {}
        }
    }
}
