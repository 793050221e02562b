//! How the programs of a machine talk to PID 1, over the unix socket [`SOCKET`].
//!
//! A frame is a length (u32, little endian, of what follows), one byte [`VERSION`], and a postcard value: a
//! [`Request`] towards PID 1, a [`Reply`] back, one for one and in order. After [`Request::Subscribe`] the connection
//! carries [`Event`]s only, until either side closes it. The framing itself is in [`frame`], without I/O, so that an
//! asynchronous program can use it; [`Client`] is the blocking form.
//!
//! The life of `node` in these words: it connects twice. On one connection it asks [`Request::GetStatus`] and
//! [`Request::GetConfig`] and reports [`Request::ReportNode`] when it becomes ready; on the other it subscribes. When
//! [`Event::ShuttingDown`] arrives it ends the pods with their grace and exits; PID 1 waits for that exit, but never
//! longer than the event's `grace`. A closed socket means nothing: PID 1 never dies before the machine does.
//!
//! Both ends come from one OS image, so versions never differ in practice; the byte makes a mistake visible.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Cidr, MachineConfig, Problem};

mod client;
pub mod frame;

pub use client::{Client, ClientError, Events};

/// Where PID 1 listens. Only root may connect.
pub const SOCKET: &str = "/run/podium/init.sock";
/// The version of this protocol.
pub const VERSION: u8 = 1;

/// What a program may ask of PID 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Answered by [`Reply::Status`].
    GetStatus,
    /// Answered by [`Reply::Config`].
    GetConfig,
    /// End the pods, then the machine. Answered by [`Reply::Accepted`] before anything happens; asking again while
    /// the machine already ends changes nothing.
    Shutdown {
        /// What follows.
        how: Ending,
        /// Who or what wanted it, for the console.
        reason: String,
        /// How long pods may take; PID 1 adds nothing to it.
        grace: Duration,
    },
    /// What `node` says about itself; the newest report replaces the one before. Answered by [`Reply::Accepted`].
    ReportNode(NodeReport),
    /// Answered by [`Reply::Accepted`], then by events.
    Subscribe,
}

/// PID 1's answer to one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Request::GetStatus`].
    Status(Box<Status>),
    /// To [`Request::GetConfig`]: the config that the machine runs with, if there is one.
    Config(Option<Box<MachineConfig>>),
    /// The request was taken.
    Accepted,
    /// The request was not understood or cannot be granted.
    Refused {
        /// Why.
        reason: String,
    },
}

/// What PID 1 tells its subscribers, unasked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The machine ends: stop the pods within `grace`, then exit.
    ShuttingDown {
        /// What follows.
        how: Ending,
        /// Who or what wanted it.
        reason: String,
        /// From now until PID 1 goes on without waiting.
        grace: Duration,
    },
    /// Addresses, routes or name servers changed. Sent once after [`Request::Subscribe`] as well.
    Network(NetworkStatus),
    /// The clock was set from a time server.
    ClockSet(ClockStatus),
}

/// How a machine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// Start again through the firmware.
    Reboot,
    /// Switch the power off.
    PowerOff,
}

/// What `node` says about itself, for the console and for [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Whether the node serves: its Node object says Ready.
    pub ready: bool,
    /// The node's name in the cluster.
    pub name: String,
    /// One line for the console: the address of the API, or who is missing.
    pub message: String,
}

/// Everything that PID 1 knows about its machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The OS image's version.
    pub version: String,
    /// The kernel's release.
    pub kernel: String,
    /// Random per boot.
    pub boot_id: String,
    /// The name that the machine has now.
    pub hostname: String,
    /// Since the kernel started.
    pub uptime: Duration,
    /// The boot trace, in order of their beginnings.
    pub phases: Vec<PhaseReport>,
    /// Where the config came from, and what is wrong with it.
    pub config: ConfigStatus,
    /// The disk partition that keeps what must survive.
    pub state: StateStatus,
    /// Links and addresses.
    pub network: NetworkStatus,
    /// What the wall clock is worth.
    pub clock: ClockStatus,
    /// The `node` program.
    pub node: NodeStatus,
    /// Whether the machine is ending.
    pub ending: Option<Ending>,
}

/// One phase of the boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseReport {
    /// A short word, as `mounts`.
    pub name: String,
    /// When it began, since the kernel started.
    pub began: Duration,
    /// How long it took; until now, if it still runs.
    pub took: Duration,
    /// How it ended.
    pub outcome: PhaseOutcome,
    /// What it did, in a few words.
    pub detail: String,
}

/// How a phase of the boot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PhaseOutcome {
    /// It has not ended.
    Running,
    /// As it should.
    Done,
    /// Not as it should; the boot went on, and the detail says what is missing.
    Failed,
}

/// The machine config that is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// Where the config in force came from; none if there is none.
    pub source: Option<ConfigSource>,
    /// What is wrong with the newest config, if that is not the one in force.
    pub problems: Vec<Problem>,
}

/// Where a machine config can come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConfigSource {
    /// The hypervisor's `opt/podium/config`.
    FwCfg,
    /// `/podium/config.yaml` on the EFI system partition.
    Esp,
    /// The copy on STATE of the last config that was good.
    LastGood,
}

/// The partition STATE.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateStatus {
    /// Not decided yet.
    #[default]
    Pending,
    /// Mounted on `/var`.
    Mounted {
        /// The partition, as `/dev/vda2`.
        device: String,
        /// The partition's size.
        size_bytes: u64,
        /// Whether this boot made the file system.
        made: bool,
    },
    /// There is none: the node is not started, because nothing it says could be kept.
    Refused {
        /// Why, naming the disks.
        reason: String,
    },
}

/// The machine's links and where names and packets go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// The Ethernet links that init configures, by name.
    pub links: Vec<LinkStatus>,
    /// The default routers.
    pub gateways: Vec<IpAddr>,
    /// DNS servers of the network, to forward to.
    pub nameservers: Vec<IpAddr>,
    /// The domain that the network gave, if any.
    pub domain: Option<String>,
}

impl NetworkStatus {
    /// The first address that is not link-local: where the machine is to be reached.
    pub fn address(&self) -> Option<IpAddr> {
        let addresses = self.links.iter().flat_map(|link| &link.addresses).map(|cidr| cidr.address);
        addresses.into_iter().find(|address| match address {
            IpAddr::V4(address) => !address.is_link_local(),
            IpAddr::V6(address) => !address.is_unicast_link_local(),
        })
    }
}

/// One link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// As `eth0`.
    pub name: String,
    /// The hardware address.
    pub mac: [u8; 6],
    /// In bytes.
    pub mtu: u32,
    /// Whether the link has a carrier.
    pub carrier: bool,
    /// Addresses on the link.
    pub addresses: Vec<Cidr>,
    /// What the DHCP client does there, in a few words; empty for fixed addresses.
    pub lease: String,
}

/// What the wall clock is worth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStatus {
    /// Where the time came from.
    pub source: ClockSource,
    /// How far the clock was off when it was last set from a time server, in milliseconds; positive means it was slow.
    pub stepped_milliseconds: i64,
}

/// Where the wall clock's time came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClockSource {
    /// The machine's battery-backed clock, later than the image's build.
    #[default]
    Hardware,
    /// The clock was earlier than the image's build, so it was set to that.
    BuildTime,
    /// A time server.
    Sntp {
        /// Its address.
        server: IpAddr,
    },
}

/// The supervised `node` program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its process, while it runs.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u32,
    /// How it ended last, as `exit code 1` or `signal 9`.
    pub last_exit: Option<String>,
    /// What it last said about itself.
    pub report: Option<NodeReport>,
}
