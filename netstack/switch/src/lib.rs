//! The QEMU rig's network: a userspace Ethernet switch, and the gateway behind it.
//!
//! Every VM's network card is a pair of unix datagram sockets, one Ethernet frame per datagram, so no root, no bridge and no
//! tap device are needed, and a VM or the switch may restart without the other noticing more than lost frames. One thread
//! runs everything: [`fabric`] decides where a frame goes (and which link condition it meets), [`capture`] keeps what passed,
//! [`gateway`] is the one host on the LAN that is not a VM. The gateway leases addresses, answers names, gives the VMs access to host ports that the rig
//! names, and gives the host access to the VMs' ports on 127.0.0.1.
//!
//! Deliberately elsewhere: starting QEMU (`podium-qemu-tests`), and any packet of a pod on a real machine: the kernel moves
//! those.
//!
//! Invariants: a frame never leaves by the port it came in; the gateway reaches no host port that was not named; all
//! host-side listeners are on 127.0.0.1.

pub mod capture;
mod dhcp;
pub mod fabric;
mod flow;
pub mod gateway;
mod names;
mod port;
mod run;

pub use capture::{Capture, Captured};
pub use dhcp::Lease;
pub use fabric::{LinkCondition, PortId};
pub use run::{Counters, Switch, SwitchError};

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// An Ethernet address, in transmission order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address of the rig's `index`-th VM: locally administered, the same in every rig.
    #[must_use]
    pub fn of_vm(index: u16) -> Self {
        let [high, low] = index.to_be_bytes();
        Self([0x52, 0x54, 0x00, 0x70, high, low])
    }
}

impl std::fmt::Display for MacAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// One VM's connection to the switch.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// The card's address; frames are switched by what a port really sends, this names the lease.
    pub mac: MacAddress,
    /// The address that DHCP leases to `mac`.
    pub address: Ipv4Addr,
    /// The name that DHCP gives to `mac`: a DNS label.
    pub name: String,
    /// The socket that the switch binds, QEMU's `remote.path`.
    pub switch_path: PathBuf,
    /// The socket that QEMU binds, its `local.path`.
    pub guest_path: PathBuf,
}

/// A host port that the VMs may reach, as `gateway address : port`.
#[derive(Clone, Copy, Debug)]
pub struct OutsidePort {
    /// The port on the gateway's address.
    pub port: u16,
    /// Where it leads on the host.
    pub target: SocketAddr,
}

/// What a switch is made from. The LAN is a /24.
#[derive(Clone, Debug)]
pub struct SwitchConfig {
    /// The gateway's address; its /24 is the LAN.
    pub gateway: Ipv4Addr,
    /// One entry per VM.
    pub ports: Vec<PortConfig>,
    /// What the VMs may reach on the host.
    pub outside: Vec<OutsidePort>,
    /// Names that the gateway's DNS answers, lower case, without a trailing dot.
    pub names: Vec<(String, Ipv4Addr)>,
    /// Where other names are asked; without it they do not exist.
    pub upstream: Option<SocketAddr>,
    /// Decides which frames bad links lose, duplicate and hold back, so that a failing run can be repeated.
    pub seed: u64,
}
