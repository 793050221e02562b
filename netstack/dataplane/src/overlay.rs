//! The way to other nodes' pods: WireGuard, VXLAN, or plain routes.
//!
//! ```text
//!  pod ─ veth ─ routing ─ 10.244.1.0/24 dev podium-wg, src <the node's own pod address> ─ tunnel ─ uplink ─ the other node
//! ```
//!
//! [`Overlay::apply`] is level-triggered: it reads what the kernel holds, [`plan`] says what differs, and only that is
//! changed, one step after the other, going on past a step that fails. A restarted node finds its tunnels up and leaves them
//! so. The tunnels are no truth of their own: who the peers are is the node's business.
//!
//! Ours, and so changed and removed here: the links [`WIREGUARD_LINK`] and [`VXLAN_LINK`] with all that hangs on them, and
//! routes through a gateway to a part of the cluster's pod addresses that prefer the node's own pod address.
//!
//! Needs the node's own pod address to be on the node ([`crate::Dataplane::open`]): routes prefer it as the source.
//!
//! Specifications: the WireGuard protocol (its data message adds 32 bytes to UDP and IP), RFC 7348 (VXLAN).

mod key;
mod plan;
mod wireguard;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use podium_link::Cidr;
use podium_link::netlink::{Link, NeighbourTable, Netlink, NetlinkError, Route, Vxlan};

pub use key::{KeyError, PrivateKey, PublicKey};
pub use wireguard::WireGuardError;

use crate::overlay::plan::{Step, Tables, Tunnel, plan};
use crate::overlay::wireguard::WireGuard;

/// The WireGuard link.
pub const WIREGUARD_LINK: &str = "podium-wg";
/// The VXLAN link.
pub const VXLAN_LINK: &str = "podium-vx";
/// WireGuard has no registered port; this is the one that its documentation uses.
pub const WIREGUARD_PORT: u16 = 51820;
/// RFC 7348, section 5.
pub const VXLAN_PORT: u16 = 4789;
/// One network is enough: pods are told apart by address.
const VXLAN_ID: u32 = 1;

/// How packets reach other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OverlayMode {
    /// Encrypted, with this node's key.
    WireGuard(PrivateKey),
    /// In UDP, in the clear.
    Vxlan,
    /// As they are: all nodes must be on one link, and it must let pods' addresses pass.
    Routes,
}

impl OverlayMode {
    /// The UDP port at which the tunnel receives; none without a tunnel.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::WireGuard(_) => Some(WIREGUARD_PORT),
            Self::Vxlan => Some(VXLAN_PORT),
            Self::Routes => None,
        }
    }

    /// What the tunnel adds to a packet, in bytes, if nodes reach each other at addresses of this family.
    #[must_use]
    pub fn overhead_bytes(&self, underlay: IpAddr) -> u32 {
        // 20 or 40 for IP, 8 for UDP; WireGuard's header and tag are 32, VXLAN's header and the inner Ethernet header 22.
        let ip = if underlay.is_ipv4() { 20 } else { 40 };
        match self {
            Self::WireGuard(_) => ip + 8 + 32,
            Self::Vxlan => ip + 8 + 22,
            Self::Routes => 0,
        }
    }

    fn link(&self) -> Option<&'static str> {
        match self {
            Self::WireGuard(_) => Some(WIREGUARD_LINK),
            Self::Vxlan => Some(VXLAN_LINK),
            Self::Routes => None,
        }
    }
}

/// What an overlay is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayConfig {
    /// How packets reach other nodes; the same on all of them.
    pub mode: OverlayMode,
    /// This node's part of the pod addresses; the first address is the node's own. IPv4.
    pub node_pods: Cidr,
    /// All pod addresses of the cluster. IPv4.
    pub cluster_pods: Cidr,
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayPeer {
    /// Its WireGuard key; without one, WireGuard leaves the peer out.
    pub public_key: Option<PublicKey>,
    /// Where its tunnel receives; the address alone matters without WireGuard.
    pub endpoint: SocketAddr,
    /// All its addresses outside the cluster: what it sends from them to pods is accepted.
    pub addresses: BTreeSet<IpAddr>,
    /// Its parts of the pod addresses; the first one's first address is the node's own.
    pub pods: Vec<Cidr>,
}

/// What [`Overlay::apply`] did.
#[derive(Debug, Default)]
pub struct Applied {
    /// The largest packet that fits through the overlay, in bytes: the pods' links must carry no larger one.
    pub mtu_bytes: u32,
    /// How many things were changed.
    pub changed: usize,
    /// What was refused; it is tried again at the next call.
    pub refused: Vec<OverlayError>,
}

/// Why the kernel's part of the overlay could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// A network that is not IPv4.
    #[error("{0} is not an IPv4 network")]
    Family(Cidr),
    /// The machine's own address is on none of its links.
    #[error("no link has this machine's address {0}")]
    NoUplink(IpAddr),
    /// Links, routes or neighbours.
    #[error("program the overlay's links and routes")]
    Route(#[from] NetlinkError),
    /// WireGuard's own settings.
    #[error("program WireGuard")]
    WireGuard(#[from] WireGuardError),
}

/// The overlay of the network namespace in which it was opened. Calls block, briefly.
#[derive(Debug)]
pub struct Overlay {
    config: OverlayConfig,
    node: Ipv4Addr,
    netlink: Netlink,
    /// Opened when the link is there: before, the kernel may not have the module.
    wireguard: Option<WireGuard>,
    /// The endpoints that were set last. One that has moved since is where the peer's packets come from: it stays.
    told: BTreeMap<PublicKey, SocketAddr>,
}

impl Overlay {
    /// Opens the overlay and changes nothing yet.
    ///
    /// # Errors
    /// The kernel does not answer, or the config is not IPv4.
    pub fn open(config: OverlayConfig) -> Result<Self, OverlayError> {
        let node = first(config.node_pods).ok_or(OverlayError::Family(config.node_pods))?;
        let netlink = Netlink::open()?;
        Ok(Self { config, node, netlink, wireguard: None, told: BTreeMap::new() })
    }

    /// Makes the kernel reach `peers` from this machine's address `own`, changing what differs and nothing else.
    ///
    /// # Errors
    /// No link has the address, or the overlay's link cannot be made or read. What fails for one peer does not keep others
    /// from being programmed: it is in [`Applied::refused`].
    pub fn apply(
        &mut self,
        own: IpAddr,
        peers: &BTreeMap<String, OverlayPeer>,
    ) -> Result<Applied, OverlayError> {
        let uplink = self.netlink.link_with(own)?.ok_or(OverlayError::NoUplink(own))?;
        let mtu_bytes = uplink.mtu.saturating_sub(self.config.mode.overhead_bytes(own));
        let mut applied = Applied { mtu_bytes, ..Applied::default() };
        self.remove_others(&mut applied)?;
        let device = self.ensure_device(mtu_bytes, &mut applied)?;
        let link = device.as_ref().map_or(uplink.index, |device| device.index);
        let want = self.want(link, peers);
        let have = self.observe(device.as_ref(), &want)?;
        for step in plan(&want, &have) {
            match self.perform(link, &step) {
                Ok(()) => applied.changed += 1,
                Err(error) => applied.refused.push(error),
            }
        }
        self.told.retain(|key, _| want.tunnels.contains_key(key));
        Ok(applied)
    }

    /// The links of other modes: the config may have changed since the last start.
    fn remove_others(&mut self, applied: &mut Applied) -> Result<(), OverlayError> {
        for (name, kind) in [(WIREGUARD_LINK, "wireguard"), (VXLAN_LINK, "vxlan")] {
            if self.config.mode.link() == Some(name) {
                continue;
            }
            if let Some(link) = self.netlink.link(name)?.filter(|link| is(link, kind)) {
                self.netlink.delete_link(link.index)?;
                applied.changed += 1;
            }
        }
        Ok(())
    }

    /// The overlay's own link, as it should be; none without a tunnel.
    fn ensure_device(
        &mut self,
        mtu: u32,
        applied: &mut Applied,
    ) -> Result<Option<Link>, OverlayError> {
        let device = match &self.config.mode {
            OverlayMode::WireGuard(_) => self.ensure_wireguard(mtu, applied)?,
            OverlayMode::Vxlan => self.ensure_vxlan(mtu, applied)?,
            OverlayMode::Routes => return Ok(None),
        };
        if device.mtu != mtu {
            self.netlink.set_mtu(device.index, mtu)?;
            applied.changed += 1;
        }
        if !device.up {
            self.netlink.set_up(device.index, true)?;
            applied.changed += 1;
        }
        Ok(Some(device))
    }

    fn ensure_wireguard(&mut self, mtu: u32, applied: &mut Applied) -> Result<Link, OverlayError> {
        let device = match self.netlink.link(WIREGUARD_LINK)? {
            Some(device) => device,
            None => {
                self.netlink.add_wireguard(WIREGUARD_LINK, mtu)?;
                applied.changed += 1;
                self.find(WIREGUARD_LINK)?
            }
        };
        let OverlayMode::WireGuard(key) = &self.config.mode else { return Ok(device) };
        let wireguard = match &mut self.wireguard {
            Some(wireguard) => wireguard,
            none => none.insert(WireGuard::open()?),
        };
        if wireguard.ensure_device(device.index, key, WIREGUARD_PORT)? {
            applied.changed += 1;
        }
        Ok(device)
    }

    fn ensure_vxlan(&mut self, mtu: u32, applied: &mut Applied) -> Result<Link, OverlayError> {
        let mac = hardware_address(self.node);
        if let Some(device) = self.netlink.link(VXLAN_LINK)? {
            if device.mac == Some(mac) {
                return Ok(device);
            }
            // Another part of the pod addresses: nothing that hangs on the link is right any more.
            self.netlink.delete_link(device.index)?;
        }
        let vxlan = Vxlan { name: VXLAN_LINK, id: VXLAN_ID, port: VXLAN_PORT, mac, mtu };
        self.netlink.add_vxlan(&vxlan)?;
        applied.changed += 1;
        self.find(VXLAN_LINK)
    }

    fn find(&mut self, name: &str) -> Result<Link, OverlayError> {
        let absent = || NetlinkError::Answer(format!("looking for the link {name}"));
        Ok(self.netlink.link(name)?.ok_or_else(absent)?)
    }

    /// What the kernel should hold. `link` is the overlay's own, or else the uplink.
    fn want(&self, link: u32, peers: &BTreeMap<String, OverlayPeer>) -> Tables {
        let mut want = Tables::default();
        for peer in peers.values() {
            let pods: Vec<Cidr> =
                peer.pods.iter().map(|it| it.network()).filter(|it| it.address.is_ipv4()).collect();
            let Some(gateway) = pods.first().and_then(|cidr| first(*cidr)) else { continue };
            let underlay = peer.endpoint.ip();
            let gateway = match &self.config.mode {
                OverlayMode::WireGuard(_) => {
                    let Some(key) = peer.public_key else { continue };
                    let hosts = peer.addresses.iter().map(|it| Cidr::new(*it, 128));
                    let allowed = pods.iter().copied().chain(hosts).collect();
                    want.tunnels.insert(key, Tunnel { endpoint: Some(peer.endpoint), allowed });
                    None
                }
                OverlayMode::Vxlan => {
                    let mac = hardware_address(gateway);
                    want.neighbours.insert(IpAddr::V4(gateway), mac);
                    want.forwarding.insert(mac, underlay);
                    Some(IpAddr::V4(gateway))
                }
                OverlayMode::Routes => Some(underlay),
            };
            let route = |destination| Route {
                destination,
                gateway,
                link,
                preferred_source: Some(IpAddr::V4(self.node)),
                metric: 0,
                // The far end of a VXLAN link has no address that shares a network with ours.
                onlink: self.config.mode == OverlayMode::Vxlan,
            };
            want.routes.extend(pods.iter().map(|cidr| (*cidr, route(*cidr))));
        }
        want
    }

    /// What the kernel holds of ours.
    fn observe(&mut self, device: Option<&Link>, want: &Tables) -> Result<Tables, OverlayError> {
        let mut have = Tables::default();
        let own_link = device.map(|device| device.index);
        let routes = self.netlink.routes()?.into_iter();
        have.routes =
            routes.filter(|it| self.is_ours(it, own_link)).map(|it| (it.destination, it)).collect();
        let Some(device) = device else { return Ok(have) };
        if let Some(wireguard) = &mut self.wireguard {
            have.tunnels = wireguard.tunnels(device.index)?;
            for (key, tunnel) in &mut have.tunnels {
                let wanted = want.tunnels.get(key).and_then(|it| it.endpoint);
                if wanted.is_some() && self.told.get(key) == wanted.as_ref() {
                    tunnel.endpoint = wanted;
                }
            }
        } else {
            let neighbours = self.netlink.neighbours(device.index, NeighbourTable::Addresses)?;
            have.neighbours = neighbours.iter().map(|it| (it.address, it.mac)).collect();
            let forwarding = self.netlink.neighbours(device.index, NeighbourTable::Forwarding)?;
            have.forwarding = forwarding.iter().map(|it| (it.mac, it.address)).collect();
        }
        Ok(have)
    }

    fn is_ours(&self, route: &Route, own_link: Option<u32>) -> bool {
        let to_pods = self.config.cluster_pods.contains(route.destination.address)
            && route.destination.prefix_length > self.config.cluster_pods.prefix_length;
        let through_gateway = route.gateway.is_some()
            && route.preferred_source == Some(IpAddr::V4(self.node))
            && to_pods;
        route.destination.address.is_ipv4() && (own_link == Some(route.link) || through_gateway)
    }

    fn perform(&mut self, link: u32, step: &Step) -> Result<(), OverlayError> {
        match step {
            Step::SetTunnel { key, endpoint, allowed, replace } => {
                let Some(wireguard) = &mut self.wireguard else { return Ok(()) };
                wireguard.set_tunnel(link, *key, *endpoint, allowed, *replace)?;
                if let Some(endpoint) = endpoint {
                    self.told.insert(*key, *endpoint);
                }
            }
            Step::RemoveTunnel(key) => {
                let Some(wireguard) = &mut self.wireguard else { return Ok(()) };
                wireguard.remove_tunnel(link, *key)?;
            }
            Step::Tell(table, neighbour) => {
                self.netlink.replace_neighbour(link, *table, neighbour)?;
            }
            Step::Forget(table, neighbour) => {
                self.netlink.delete_neighbour(link, *table, neighbour)?;
            }
            Step::Route(route) => self.netlink.replace_route(route)?,
            Step::Unroute(route) => self.netlink.delete_route(route)?,
        }
        Ok(())
    }
}

fn is(link: &Link, kind: &str) -> bool {
    link.kind.as_deref() == Some(kind)
}

/// A network's first address: the node's own, of its part of the pod addresses.
fn first(cidr: Cidr) -> Option<Ipv4Addr> {
    match cidr.network().address {
        IpAddr::V4(network) => Some(Ipv4Addr::from(u32::from(network).wrapping_add(1))),
        IpAddr::V6(_) => None,
    }
}

/// The hardware address of a node's VXLAN link, which all others can compute: locally administered (IEEE 802, bit 1 of
/// the first byte), and the rest is the node's own pod address.
fn hardware_address(node: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = node.octets();
    [0x02, 0x50, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_of_the_largest_size_still_fits_the_underlay() {
        let key = OverlayMode::WireGuard(PrivateKey::new([1; 32]));
        let v4 = IpAddr::from([10, 0, 0, 1]);
        let v6: IpAddr = "fd00::1".parse().expect("an address");
        assert_eq!((key.overhead_bytes(v4), key.overhead_bytes(v6)), (60, 80));
        let others = [OverlayMode::Vxlan, OverlayMode::Routes].map(|mode| mode.overhead_bytes(v4));
        assert_eq!(others, [50, 0]);
    }
}
