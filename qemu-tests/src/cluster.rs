//! A cluster of virtual machines.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use podium_init::config::document;
use podium_switch::{OutsidePort, Switch, SwitchConfig};
use serde_json::Value;

use crate::accelerator::Accelerator;
use crate::boot::{Firmware, OsImage};
use crate::console::tail;
use crate::credentials::Credentials;
use crate::layout::Layout;
use crate::node_api::{Https, cluster_authority};
use crate::registry::{self, Registry};
use crate::vm::{Vm, VmOptions};

/// The LAN of every rig; it exists only inside its switch, so rigs do not meet.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Machine 0 has .10; the LAN is a /24.
const FIRST_ADDRESS: u8 = 10;
/// More do not fit the LAN, nor any host that this rig is meant for.
pub const MACHINES_MAX: u16 = 200;
/// The API's port on every node.
pub const API_PORT: u16 = 6443;

/// How a cluster is put together.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Where things are kept.
    pub layout: Layout,
    /// What the machines boot.
    pub image: PathBuf,
    /// How many machines.
    pub machines: u16,
    /// Memory of each, in MiB.
    pub memory_mebibytes: u32,
    /// Virtual processors of each.
    pub processors: u32,
    /// How they boot.
    pub firmware: Firmware,
    /// KVM or not; found out if left out.
    pub accelerator: Option<Accelerator>,
    /// More host ports that the machines may reach on [`GATEWAY`].
    pub outside: Vec<OutsidePort>,
    /// Whether to start the registry.
    pub registry: bool,
    /// The host port of the first machine's API (0: any free one).
    pub api_port: u16,
    /// Whether the machines' disks have a write cache that a power cut may empty.
    pub volatile_cache: bool,
    /// Changes to the machine config, last before it is written.
    pub adjust: fn(&mut document::Document),
    /// More raw disks for every machine, after its own; only sensible for one machine.
    pub extra_disks: Vec<PathBuf>,
}

impl ClusterOptions {
    /// One machine of 512 MiB that boots `image` directly.
    #[must_use]
    pub fn new(layout: Layout, image: PathBuf) -> Self {
        Self {
            layout,
            image,
            machines: 1,
            memory_mebibytes: 512,
            processors: 2,
            firmware: Firmware::Direct,
            accelerator: None,
            outside: Vec::new(),
            registry: true,
            api_port: 0,
            volatile_cache: false,
            adjust: |_| {},
            extra_disks: Vec::new(),
        }
    }
}

/// A cluster whose machines can be switched on. Dropping it cuts the power of all of them; their disks stay.
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    credentials: Credentials,
    accelerator: Accelerator,
    accelerator_reason: String,
    vms: Vec<Vm>,
    api_addresses: Vec<SocketAddr>,
    switch: Switch,
    registry: Option<Registry>,
    authority: Option<String>,
    // Last: the sockets' folder goes when nothing uses it any more.
    _sockets: tempfile::TempDir,
}

impl Cluster {
    /// Makes what is missing (secrets, disks, registry) and starts the network; the machines are still off.
    ///
    /// # Errors
    /// The image or a program is missing, or a port is taken.
    pub fn prepare(options: &ClusterOptions) -> anyhow::Result<Self> {
        ensure!(
            (1..=MACHINES_MAX).contains(&options.machines),
            "a rig has 1 to {MACHINES_MAX} machines, not {}",
            options.machines
        );
        let image = OsImage::open(&options.image)?;
        let credentials = Credentials::open_or_create(&options.layout.cluster())?;
        let (accelerator, accelerator_reason) = match options.accelerator {
            Some(accelerator) => (accelerator, "as asked".to_owned()),
            None => Accelerator::detect(&image.kernel()),
        };
        let registry = options
            .registry
            .then(|| Registry::start(&options.layout.cache(), &options.layout.registry(), GATEWAY))
            .transpose()?;
        write_machine_config(options, &credentials, accelerator, registry.as_ref())?;
        let sockets = tempfile::Builder::new().prefix("podium-").tempdir_in("/tmp")?;
        let vm = |index| {
            let vm_options = VmOptions {
                index,
                memory_mebibytes: options.memory_mebibytes,
                processors: options.processors,
                accelerator,
                firmware: options.firmware,
                config: options.layout.machine_config(),
                extra_command_line: String::new(),
                extra_disks: options.extra_disks.clone(),
                clock: None,
                volatile_cache: options.volatile_cache,
            };
            let folder = options.layout.machine(index);
            Vm::new(vm_options, image.clone(), folder, sockets.path().to_owned())
        };
        let vms = (0..options.machines).map(vm).collect::<anyhow::Result<Vec<Vm>>>()?;
        let switch = start_switch(options, &vms, registry.as_ref())?;
        let forward = |index| {
            let host_port = if index == 0 { options.api_port } else { 0 };
            Ok(switch.forward(host_port, SocketAddrV4::new(machine_address(index), API_PORT))?)
        };
        let api_addresses =
            (0..options.machines).map(forward).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Self {
            layout: options.layout.clone(),
            credentials,
            accelerator,
            accelerator_reason,
            vms,
            api_addresses,
            switch,
            registry,
            authority: None,
            _sockets: sockets,
        })
    }

    /// How the machines are run, and why.
    #[must_use]
    pub fn accelerator(&self) -> (Accelerator, &str) {
        (self.accelerator, &self.accelerator_reason)
    }

    /// A time limit that suits a real machine, made longer for an emulated one.
    #[must_use]
    pub fn patient(&self, limit: Duration) -> Duration {
        limit * self.accelerator.patience()
    }

    /// The machines.
    pub fn machines(&mut self) -> &mut [Vm] {
        &mut self.vms
    }

    /// One machine.
    ///
    /// # Panics
    /// There is no machine `index`.
    pub fn machine(&mut self, index: u16) -> &mut Vm {
        &mut self.vms[usize::from(index)]
    }

    /// The network between them.
    #[must_use]
    pub fn switch(&self) -> &Switch {
        &self.switch
    }

    /// The registry, if the cluster has one.
    pub fn registry(&mut self) -> Option<&mut Registry> {
        self.registry.as_mut()
    }

    /// Where a machine's API is on the host.
    ///
    /// # Panics
    /// There is no machine `index`.
    #[must_use]
    pub fn api_address(&self, index: u16) -> SocketAddr {
        self.api_addresses[usize::from(index)]
    }

    /// Where things are.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Switches all machines on that are off.
    ///
    /// # Errors
    /// QEMU does not start.
    pub fn power_on(&mut self) -> anyhow::Result<()> {
        for vm in &mut self.vms {
            if !vm.is_on() {
                vm.power_on()?;
            }
        }
        Ok(())
    }

    /// Waits until the API says that as many nodes are Ready as there are machines; `progress` is called while it waits.
    ///
    /// # Errors
    /// A machine switches itself off, or `limit` passes: the consoles' ends and the last answer are in the error.
    pub fn wait_ready(
        &mut self,
        limit: Duration,
        mut progress: impl FnMut(&mut Self),
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let answer = self.ready_nodes();
            if answer.as_ref().is_ok_and(|ready| *ready >= self.vms.len()) {
                return Ok(());
            }
            progress(self);
            let ended = self.vms.iter_mut().position(|vm| !vm.is_on());
            if ended.is_some() || Instant::now() > deadline {
                let why = match (ended, answer) {
                    (Some(index), _) => format!("machine {index} has switched itself off"),
                    (None, Ok(ready)) => format!("{ready} of {} nodes are Ready", self.vms.len()),
                    (None, Err(error)) => format!("the API does not answer: {error:#}"),
                };
                bail!("not ready after {}s: {why}\n{}", limit.as_secs(), self.consoles());
            }
            // The API answers at most once a round trip; asking faster only takes the emulated processor's time.
            std::thread::park_timeout(Duration::from_millis(200));
        }
    }

    /// An HTTPS client of the first machine's API, as the administrator.
    ///
    /// # Errors
    /// The node does not prove that it belongs to the cluster.
    pub fn api(&mut self) -> anyhow::Result<Https> {
        let address = self.api_address(0);
        let authority = match &self.authority {
            Some(authority) => authority.clone(),
            None => cluster_authority(address, self.credentials.token())?,
        };
        self.authority = Some(authority.clone());
        let (certificate, key) = (self.credentials.certificate_pem()?, self.credentials.key_pem()?);
        Https::with_client(address, "127.0.0.1", &authority, &certificate, &key)
    }

    /// Writes the administrator's kubeconfig and returns its path.
    ///
    /// # Errors
    /// The node does not prove that it belongs to the cluster, or the file cannot be written.
    pub fn write_kubeconfig(&mut self) -> anyhow::Result<PathBuf> {
        let authority = cluster_authority(self.api_address(0), self.credentials.token())?;
        let text =
            kubeconfig(self.layout.name(), self.api_address(0), &authority, &self.credentials)?;
        let path = self.layout.kubeconfig();
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// Presses all power buttons and waits; a machine that has not obeyed by then has its power cut.
    ///
    /// # Errors
    /// QEMU cannot be reached or killed.
    pub fn shut_down(&mut self, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        for vm in &mut self.vms {
            if !vm.shut_down(deadline.saturating_duration_since(Instant::now())).unwrap_or(false) {
                vm.cut_power()?;
            }
        }
        Ok(())
    }

    /// The ends of all consoles.
    #[must_use]
    pub fn consoles(&self) -> String {
        let console = |(index, vm): (usize, &Vm)| {
            format!("--- console of machine {index}\n{}", tail(&vm.console(), 40))
        };
        self.vms.iter().enumerate().map(console).collect::<Vec<_>>().join("\n")
    }

    fn ready_nodes(&mut self) -> anyhow::Result<usize> {
        let nodes = self.api()?.get("/api/v1/nodes")?.json()?;
        let items = nodes["items"].as_array().context("the list of nodes has no items")?;
        Ok(items.iter().filter(|node| is_ready(node)).count())
    }
}

/// A machine's address on the LAN.
#[must_use]
pub fn machine_address(index: u16) -> Ipv4Addr {
    let [a, b, c, _] = GATEWAY.octets();
    let last = FIRST_ADDRESS.saturating_add(u8::try_from(index).unwrap_or(u8::MAX));
    Ipv4Addr::new(a, b, c, last)
}

/// A kubeconfig with everything in it, so that it can be moved.
///
/// # Errors
/// The administrator's key or certificate cannot be read.
pub fn kubeconfig(
    name: &str,
    server: SocketAddr,
    authority_pem: &str,
    credentials: &Credentials,
) -> anyhow::Result<String> {
    use base64::Engine as _;
    let encode = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": name, "cluster": {
            "server": format!("https://{server}"),
            "certificate-authority-data": encode(authority_pem),
        }}],
        "users": [{ "name": "admin", "user": {
            "client-certificate-data": encode(&credentials.certificate_pem()?),
            "client-key-data": encode(&credentials.key_pem()?),
        }}],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": "admin" } }],
        "current-context": name,
    });
    Ok(serde_json::to_string_pretty(&config)?)
}

fn is_ready(node: &Value) -> bool {
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .is_some_and(|all| all.iter().any(|it| it["type"] == "Ready" && it["status"] == "True"))
}

fn write_machine_config(
    options: &ClusterOptions,
    credentials: &Credentials,
    accelerator: Accelerator,
    registry: Option<&Registry>,
) -> anyhow::Result<()> {
    let mut config =
        credentials.machine_config(options.layout.name(), u32::from(options.machines))?;
    config.registries = registry.map(Registry::mirrors).unwrap_or_default();
    config.timings = Some(document::Timings { factor: Some(accelerator.patience()) });
    (options.adjust)(&mut config);
    let path = options.layout.machine_config();
    std::fs::write(&path, config.to_yaml()?).with_context(|| path.display().to_string())
}

fn start_switch(
    options: &ClusterOptions,
    vms: &[Vm],
    registry: Option<&Registry>,
) -> anyhow::Result<Switch> {
    let ports = vms.iter().zip(0..).map(|(vm, index)| vm.port(machine_address(index))).collect();
    let to_registry =
        registry.map(|it| OutsidePort { port: registry::GATEWAY_PORT, target: it.address() });
    let mut seed = [0; 8];
    getrandom::fill(&mut seed)?;
    let config = SwitchConfig {
        gateway: GATEWAY,
        ports,
        outside: options.outside.iter().copied().chain(to_registry).collect(),
        names: vec![
            ("registry.podium.test".to_owned(), GATEWAY),
            ("gateway.podium.test".to_owned(), GATEWAY),
        ],
        upstream: None,
        seed: u64::from_le_bytes(seed),
    };
    Ok(Switch::start(&config)?)
}
