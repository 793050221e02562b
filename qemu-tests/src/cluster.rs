//! A cluster of virtual machines: what it is made of, and its parts.
//!
//! How the rig speaks to the API is in [`api`], what can be done to machines and links in [`crate::fault`].

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use podium_init::config::document;
use podium_switch::{Lease, MacAddress, OutsidePort, Switch, SwitchConfig};

use crate::accelerator::Accelerator;
use crate::boot::{Firmware, OsImage};
use crate::console::tail;
use crate::credentials::Credentials;
use crate::layout::Layout;
use crate::links::{Links, machine_name};
use crate::registry::{self, Registry};
use crate::vm::{Vm, VmOptions};

pub mod api;

pub use api::kubeconfig;

/// The LAN of every rig; it exists only inside its switch, so rigs do not meet.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The first machine has .10, the second .11; the LAN is a /24.
const FIRST_ADDRESS: u8 = 10;
/// More do not fit the LAN, nor any host that this rig is meant for.
pub const MACHINES_MAX: u16 = 100;
/// How far a machine's second address is from its first: beyond the first ones of all machines.
const ADDRESS_STEP: u8 = 120;
/// Machines beyond these join as workers, unless the options say otherwise.
const VOTERS: u16 = 3;
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
    /// How many of them form the cluster; the others join it. Three, or all if there are fewer, if left out.
    pub expect: Option<u32>,
    /// Memory of each, in MiB.
    pub memory_mebibytes: u32,
    /// Virtual processors of each.
    pub processors: u32,
    /// The size of each machine's disk in MiB; it takes room on the host as the machine writes.
    pub disk_mebibytes: u64,
    /// How they boot.
    pub firmware: Firmware,
    /// KVM or not; found out if left out.
    pub accelerator: Option<Accelerator>,
    /// More host ports that the machines may reach on [`GATEWAY`].
    pub outside: Vec<OutsidePort>,
    /// Whether to start the registry.
    pub registry: bool,
    /// The host port of the cluster's API (0: any free one).
    pub api_port: u16,
    /// Whether the machines' disks have a write cache that a power cut may empty.
    pub volatile_cache: bool,
    /// Changes to the machine config, last before it is written.
    pub adjust: fn(&mut document::Document),
    /// More raw disks for every machine, after its own; only sensible for one machine.
    pub extra_disks: Vec<PathBuf>,
    /// What decides which frames bad links lose; random if left out. Tests print it when they fail.
    pub seed: Option<u64>,
    /// Changes to one machine's config, for machines that are not like the others.
    pub adjust_one: fn(u16, &mut document::Document),
}

impl ClusterOptions {
    /// One machine of 512 MiB that boots `image` directly.
    #[must_use]
    pub fn new(layout: Layout, image: PathBuf) -> Self {
        Self {
            layout,
            image,
            machines: 1,
            expect: None,
            memory_mebibytes: 512,
            processors: 2,
            disk_mebibytes: 8 << 10,
            firmware: Firmware::Direct,
            accelerator: None,
            outside: Vec::new(),
            registry: true,
            api_port: 0,
            volatile_cache: false,
            adjust: |_| {},
            extra_disks: Vec::new(),
            seed: None,
            adjust_one: |_, _| {},
        }
    }

    fn expected(&self) -> u32 {
        self.expect.unwrap_or_else(|| u32::from(self.machines.min(VOTERS)))
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
    addresses: Vec<Ipv4Addr>,
    api_addresses: Vec<SocketAddr>,
    /// Leads to whichever machine answers.
    api_front: SocketAddr,
    switch: Switch,
    links: Links,
    seed: u64,
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
        let configs = write_machine_configs(options, &credentials, accelerator, registry.as_ref())?;
        let sockets = tempfile::Builder::new().prefix("podium-").tempdir_in("/tmp")?;
        let vm = |(index, config)| {
            let vm_options = VmOptions {
                index,
                memory_mebibytes: options.memory_mebibytes,
                processors: options.processors,
                disk_mebibytes: options.disk_mebibytes,
                accelerator,
                firmware: options.firmware,
                config,
                extra_command_line: String::new(),
                extra_disks: options.extra_disks.clone(),
                clock: None,
                volatile_cache: options.volatile_cache,
            };
            let folder = options.layout.machine(index);
            Vm::new(vm_options, image.clone(), folder, sockets.path().to_owned())
        };
        let vms = (0..).zip(configs).map(vm).collect::<anyhow::Result<Vec<Vm>>>()?;
        let seed = options.seed.map_or_else(random_seed, Ok)?;
        let switch = start_switch(options, &vms, registry.as_ref(), seed)?;
        let addresses: Vec<_> = (0..options.machines).map(machine_address).collect();
        let apis: Vec<_> = addresses.iter().map(|it| SocketAddrV4::new(*it, API_PORT)).collect();
        let api_addresses =
            apis.iter().map(|api| switch.forward(0, *api)).collect::<Result<Vec<_>, _>>()?;
        let api_front = switch.forward_to_any(options.api_port, apis)?;
        Ok(Self {
            layout: options.layout.clone(),
            credentials,
            accelerator,
            accelerator_reason,
            vms,
            addresses,
            api_addresses,
            api_front,
            switch,
            links: Links::new(options.machines),
            seed,
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

    /// The machine `index`, if there is one.
    ///
    /// # Errors
    /// There is none.
    pub fn existing(&mut self, index: u16) -> anyhow::Result<&mut Vm> {
        let count = self.vms.len();
        let machine = self.vms.get_mut(usize::from(index));
        machine.with_context(|| {
            format!("there is no {}: this cluster has {count} machines", machine_name(index))
        })
    }

    /// What decides which frames bad links lose, double and hold back.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What is wrong with the links.
    #[must_use]
    pub fn links(&self) -> &Links {
        &self.links
    }

    pub(crate) fn links_mut(&mut self) -> &mut Links {
        &mut self.links
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

    /// The address that a machine has, or gets at its next boot.
    ///
    /// # Panics
    /// There is no machine `index`.
    #[must_use]
    pub fn address(&self, index: u16) -> Ipv4Addr {
        self.addresses[usize::from(index)]
    }

    /// Gives every machine another address, from its next boot on.
    ///
    /// # Errors
    /// The switch has stopped.
    pub fn readdress(&mut self) -> anyhow::Result<()> {
        for (address, index) in self.addresses.iter_mut().zip(0..) {
            let first = machine_address(index);
            let [a, b, c, last] = first.octets();
            let second = Ipv4Addr::new(a, b, c, last.saturating_add(ADDRESS_STEP));
            *address = if *address == first { second } else { first };
        }
        let leases = self.addresses.iter().zip(0..).map(|(address, index)| Lease {
            mac: MacAddress::of_vm(index),
            address: *address,
            name: machine_name(index),
        });
        Ok(self.switch.lease(leases.collect())?)
    }

    /// Where the cluster's API is on the host: at whichever machine answers.
    #[must_use]
    pub fn api_front(&self) -> SocketAddr {
        self.api_front
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
        let console = |(index, vm): (u16, &Vm)| {
            format!("--- console of {}\n{}", machine_name(index), tail(&vm.console(), 40))
        };
        (0..).zip(&self.vms).map(console).collect::<Vec<_>>().join("\n")
    }
}

/// A machine's first address on the LAN.
#[must_use]
pub fn machine_address(index: u16) -> Ipv4Addr {
    let [a, b, c, _] = GATEWAY.octets();
    let last = FIRST_ADDRESS.saturating_add(u8::try_from(index).unwrap_or(u8::MAX));
    Ipv4Addr::new(a, b, c, last)
}

/// Writes the config that the machines share, and those of machines that differ; returns each machine's.
fn write_machine_configs(
    options: &ClusterOptions,
    credentials: &Credentials,
    accelerator: Accelerator,
    registry: Option<&Registry>,
) -> anyhow::Result<Vec<PathBuf>> {
    let mut config = credentials.machine_config(options.layout.name(), options.expected())?;
    config.registries = registry.map(Registry::mirrors).unwrap_or_default();
    config.timings = Some(document::Timings { factor: Some(accelerator.timings_factor()) });
    (options.adjust)(&mut config);
    let shared = config.to_yaml()?;
    let path = options.layout.machine_config();
    std::fs::write(&path, &shared).with_context(|| path.display().to_string())?;
    let own = |index| {
        let mut config = config.clone();
        (options.adjust_one)(index, &mut config);
        let yaml = config.to_yaml()?;
        if yaml == shared {
            return Ok(path.clone());
        }
        let own = options.layout.machine(index).join("machine.yaml");
        std::fs::create_dir_all(options.layout.machine(index))?;
        std::fs::write(&own, yaml).with_context(|| own.display().to_string())?;
        Ok(own)
    };
    (0..options.machines).map(own).collect()
}

fn random_seed() -> anyhow::Result<u64> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed)?;
    Ok(u64::from_le_bytes(seed))
}

fn start_switch(
    options: &ClusterOptions,
    vms: &[Vm],
    registry: Option<&Registry>,
    seed: u64,
) -> anyhow::Result<Switch> {
    let ports = vms.iter().zip(0..).map(|(vm, index)| vm.port(machine_address(index))).collect();
    let to_registry =
        registry.map(|it| OutsidePort { port: registry::GATEWAY_PORT, target: it.address() });
    let config = SwitchConfig {
        gateway: GATEWAY,
        ports,
        outside: options.outside.iter().copied().chain(to_registry).collect(),
        names: vec![
            ("registry.podium.test".to_owned(), GATEWAY),
            ("gateway.podium.test".to_owned(), GATEWAY),
        ],
        upstream: None,
        seed,
    };
    Ok(Switch::start(&config)?)
}
