//! Putting a node together, in the order in which its parts need each other.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use podium_agent::{Agent, AgentConfig, ProcessLauncher, Seams};
use podium_api::Pipeline;
use podium_api::auth::certificate::AdminKey;
use podium_api::http::{OpenPath, Server, serve, tls_config};
use podium_api::pipeline::{Cidr as ServiceCidr, Config as PipelineConfig};
use podium_api::seams::{Clock, SystemClock, SystemIds};
use podium_control::Settings;
use podium_dataplane::{Dataplane, DataplaneConfig, Endpoint};
use podium_dns::{SharedZone, Upstreams, Zone};
use podium_images::Images;
use podium_init::config::MachineConfig;
use podium_init::protocol::{NodeReport, Status as MachineStatus};
use podium_lead::Leading;
use podium_link::Cidr;
use podium_store::disk::os::OsDisk;
use podium_store::{Alone, Config as StoreConfig, Member, Store, StoreHandle, TokioRuntime};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::authority::Prover;
use crate::identity::{Identity, ServerNames};
use crate::images::LocalImages;
use crate::lead::Here;
use crate::machine::{self, Machine};
use crate::network::{Network, SharedDataplane};
use crate::references::Replica;
use crate::register::Registration;
use crate::services::{self, Catalogue};
use crate::sinks::{Events, Statuses};
use crate::streams::Streams;
use crate::workload;

const STATE: &str = "/var/lib/podium";
/// The API's port on every node.
const API_PORT: u16 = 6443;
const DOMAIN: &str = "cluster.local";
/// Ethernet's; the overlay of the next release takes from it.
const POD_MTU_BYTES: u32 = 1500;
/// Each node's part of the pod network: 253 pods, more than a machine takes.
const NODE_PREFIX_LENGTH: u8 = 24;
/// DHCP on an emulated machine takes a few seconds; a cable may be plugged in much later, and then the node goes on.
const ADDRESS_REMINDER: Duration = Duration::from_secs(10);
/// Between the end of the pods and the end of this process.
const CLOSING: Duration = Duration::from_secs(1);

/// What the parts share.
struct Parts {
    config: MachineConfig,
    machine_status: MachineStatus,
    machine: Machine,
    name: String,
    store: Arc<Store<TokioRuntime>>,
    pipeline: Pipeline,
    clock: Arc<dyn Clock>,
    identity: Identity,
    dataplane: SharedDataplane,
    ranges: Ranges,
}

/// Addresses that follow from the config.
#[derive(Clone, Copy)]
struct Ranges {
    node_pods: Cidr,
    cluster_pods: Cidr,
    services: Cidr,
    /// The node's own address among its pods.
    node: Ipv4Addr,
    kubernetes: Ipv4Addr,
    dns: Ipv4Addr,
}

impl Ranges {
    fn new(config: &MachineConfig) -> anyhow::Result<Self> {
        let pods = config.cluster.pod_cidr.network();
        let services = config.cluster.service_cidr.network();
        let first = |cidr: Cidr, field: &str| match cidr.address {
            IpAddr::V4(address) => Ok(u32::from(address)),
            IpAddr::V6(_) => bail!("{field}: {cidr} is not IPv4"),
        };
        let (pods_first, services_first) =
            (first(pods, "cluster.podCIDR")?, first(services, "cluster.serviceCIDR")?);
        Ok(Self {
            // A cluster of one: its only node has the first part. Parts of others come with forming clusters.
            node_pods: Cidr::v4(
                Ipv4Addr::from(pods_first),
                NODE_PREFIX_LENGTH.max(pods.prefix_length),
            ),
            cluster_pods: pods,
            services,
            node: Ipv4Addr::from(pods_first + 1),
            kubernetes: Ipv4Addr::from(services_first + 1),
            dns: Ipv4Addr::from(services_first + 10),
        })
    }
}

/// Runs the node until the machine ends.
pub(crate) async fn run() -> anyhow::Result<()> {
    let started = Instant::now();
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("TLS is set up twice"))?;
    let (config, machine_status) = machine::introduce().await?;
    if config.cluster.expect != 1 {
        bail!(
            "cluster.expect is {}: this version forms clusters of one machine only",
            config.cluster.expect
        );
    }
    let mut machine = machine::listen()?;
    let ranges = Ranges::new(&config)?;
    let store = open_store(&config).await?;
    let (identity, store) = store;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let dataplane = Arc::new(Mutex::new(open_dataplane(ranges)?));
    let name = machine_status.hostname.clone();
    wait_for_address(&mut machine).await;
    let handle: Arc<dyn StoreHandle> = store.clone();
    let IpAddr::V4(services) = ranges.services.address else {
        bail!("cluster.serviceCIDR is not IPv4")
    };
    let pipeline_config = PipelineConfig {
        service_cidr: ServiceCidr::new(services, ranges.services.prefix_length),
        reserved: vec![ranges.dns],
        ..PipelineConfig::default()
    };
    let pipeline = Pipeline::new(handle, Arc::clone(&clock), Arc::new(SystemIds), pipeline_config);
    let parts = Parts {
        config,
        machine_status,
        machine,
        name,
        store,
        pipeline,
        clock,
        identity,
        dataplane,
        ranges,
    };
    tracing::info!(milliseconds = started.elapsed().as_millis(), "the store is open");
    parts.start(started).await
}

async fn open_store(
    config: &MachineConfig,
) -> anyhow::Result<(Identity, Arc<Store<TokioRuntime>>)> {
    let identity = Identity::open(&Path::new(STATE).join("identity"))?;
    let disk = OsDisk::open(Path::new(STATE).join("raft")).context("open the store's folder")?;
    let mut settings = StoreConfig::new(identity.member);
    let factor = config.timings.factor.max(1);
    settings.timings.heartbeat *= factor;
    settings.timings.election_min *= factor;
    settings.timings.election_max *= factor;
    // Alone, nobody else can lead: there is nothing to wait for.
    if config.cluster.expect == 1 {
        settings.timings = StoreConfig::new(identity.member).timings;
    }
    let store = Store::<TokioRuntime>::open(settings, Arc::new(disk), Arc::new(Alone))
        .await
        .context("open the store")?;
    if store.status().role == podium_store::Role::Blank {
        let member = Member { id: identity.member, public_key: Vec::new() };
        store.initialise(vec![member]).await.context("form the cluster")?;
        tracing::info!(member = %identity.member, "a cluster of one is formed");
    }
    Ok((identity, Arc::new(store)))
}

fn open_dataplane(ranges: Ranges) -> anyhow::Result<Dataplane> {
    let config = DataplaneConfig {
        node_pods: ranges.node_pods,
        cluster_pods: ranges.cluster_pods,
        services: ranges.services,
        dns: ranges.dns,
        mtu_bytes: POD_MTU_BYTES,
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
    async fn start(mut self, started: Instant) -> anyhow::Result<()> {
        let images = self.open_images()?;
        let agent = self.start_agent(images).await?;
        let handle: Arc<dyn StoreHandle> = self.store.clone();
        let zone: SharedZone = Arc::new(RwLock::new(Zone::new(DOMAIN)));
        let api = Endpoint { address: self.ranges.node, port: API_PORT };
        tokio::spawn(services::run(
            Arc::clone(&handle),
            Catalogue::new(api),
            Arc::clone(&self.dataplane),
            Arc::clone(&zone),
        ));
        tokio::spawn(serve_names(self.ranges.dns, zone, self.machine.nameservers.clone()));
        let leading = Leading {
            store: Arc::clone(&handle),
            pipeline: self.pipeline.clone(),
            settings: Settings {
                root_ca_pem: self.identity.authority.pem().to_owned(),
                ..Settings::default()
            },
            port: API_PORT,
        };
        let here = Arc::new(Here(self.machine.addresses.clone()));
        tokio::spawn(podium_lead::run(leading, here));
        tokio::spawn(workload::run(Arc::clone(&handle), agent.clone(), self.name.clone()));
        let (registered, mut is_registered) = watch::channel(false);
        tokio::spawn(self.registration(agent.clone()).run(registered));
        let (close, closed) = watch::channel(false);
        let server = self.start_server(agent.clone(), closed).await?;
        let name = self.name.clone();
        let address = self.machine.addresses.borrow().first().copied();
        tokio::spawn(async move {
            if is_registered.wait_for(|ready| *ready).await.is_ok() {
                let message = address
                    .map_or_else(String::new, |address| format!("https://{address}:{API_PORT}"));
                tracing::info!(milliseconds = started.elapsed().as_millis(), "ready");
                machine::report(NodeReport { ready: true, name, message }).await;
            }
        });
        let ended = self.machine.ending.wait_for(Option::is_some).await;
        let Some(grace) = ended.ok().and_then(|ended| *ended) else {
            bail!("PID 1 is not heard any more");
        };
        let left = agent.shutdown(grace.saturating_sub(CLOSING)).await;
        tracing::info!(left, "the pods have ended");
        close.send_replace(true);
        // What is not closed by then, the end of the process closes.
        let _ = tokio::time::timeout(CLOSING, server).await;
        self.store.shutdown().await;
        Ok(())
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
        let store: Arc<dyn StoreHandle> = self.store.clone();
        let seams = Seams {
            references: Arc::new(Replica::new(store)),
            statuses: Arc::new(Statuses::new(self.pipeline.clone(), &self.name)),
            events: Arc::new(Events::start(
                self.pipeline.clone(),
                Arc::clone(&self.clock),
                &self.name,
            )),
            network: Arc::new(network),
            images: Arc::new(LocalImages::new(images)),
            launcher: Arc::new(ProcessLauncher::new(config.shim.clone())),
        };
        Agent::start(config, seams).await.context("start the agent")
    }

    fn registration(&self, agent: Agent) -> Registration {
        Registration {
            pipeline: self.pipeline.clone(),
            clock: Arc::clone(&self.clock),
            agent,
            name: self.name.clone(),
            pod_cidr: self.ranges.node_pods.to_string(),
            machine: self.machine_status.clone(),
            addresses: self.machine.addresses.clone(),
        }
    }

    async fn start_server(
        &self,
        agent: Agent,
        mut closed: watch::Receiver<bool>,
    ) -> anyhow::Result<tokio::task::JoinHandle<()>> {
        let admin = AdminKey(self.config.cluster.admin_key.clone());
        let mut reachable = self.machine.addresses.borrow().clone();
        reachable.push(IpAddr::V4(self.ranges.node));
        let names =
            ServerNames { node: &self.name, machine: &reachable, service: self.ranges.kubernetes };
        let parts = self.identity.authority.server(&names, admin.clone())?;
        let shown = parts.chain.first().context("the server has no certificate")?;
        let token = self.config.cluster.token.as_bytes();
        let prover = Prover::new(token, self.identity.authority.pem(), &parts.authority, shown);
        let acceptor = TlsAcceptor::from(Arc::new(tls_config(parts)?));
        let authority = OpenPath {
            path: podium_init::authority::PATH,
            parameter: podium_init::authority::NONCE_PARAMETER,
            answer: Box::new(move |nonce| prover.answer(nonce)),
        };
        let streams = Arc::new(Streams(agent));
        let server = Server::with_open_path(self.pipeline.clone(), streams, Some(authority));
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
