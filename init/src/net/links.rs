//! Every Ethernet link of the machine: switched on, and configured by DHCP or as the config says.
//!
//! Virtual links (bridges, veths, overlays) belong to the node and are left alone.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use podium_init::config::{Cidr, Network};
use podium_init::protocol::{LinkStatus, NetworkStatus};
use podium_link::dhcp::{Action, Client, Event, Lease, message};
use podium_link::netlink::{Link, LinkWatch, Netlink, NetlinkError, Route};
use podium_link::packet::PacketSocket;

use super::child::report;
use super::{Orders, Report};
use crate::console::chain;

/// Routes of the first link win over those of the second.
const FIRST_METRIC: u32 = 100;

/// The links that are configured, by index.
#[derive(Debug)]
pub(super) struct Links {
    orders: Orders,
    netlink: Netlink,
    watch: LinkWatch,
    links: BTreeMap<u32, Configured>,
    fresh: bool,
}

#[derive(Debug)]
struct Configured {
    link: Link,
    mac: [u8; 6],
    client: Client,
    /// Only while an answer is awaited.
    socket: Option<PacketSocket>,
    /// Whether the fixed addresses are on the link.
    fixed: bool,
}

impl Links {
    pub(super) fn open(orders: Orders) -> Result<Self, NetlinkError> {
        let watch = LinkWatch::open()?;
        let mut netlink = Netlink::open()?;
        if let Some(lo) = netlink.link("lo")? {
            netlink.set_up(lo.index, true)?;
        }
        Ok(Self { orders, netlink, watch, links: BTreeMap::new(), fresh: true })
    }

    /// Looks at the links if the kernel announced a change, and lets every DHCP client do what is due.
    pub(super) fn step(&mut self, now: Duration) {
        if self.watch.drain() || self.fresh {
            self.fresh = false;
            if let Err(error) = self.look(now) {
                complain(&error);
            }
        }
        let indexes: Vec<u32> = self.links.keys().copied().collect();
        for index in indexes {
            self.receive(index, now);
            self.tell(index, now, Event::Tick);
        }
    }

    /// When to come back.
    pub(super) fn next_wake(&self) -> Option<Duration> {
        self.links.values().filter_map(|link| link.client.next_wake()).min()
    }

    /// What to wait for.
    pub(super) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let sockets =
            self.links.values().filter_map(|link| link.socket.as_ref()).map(PacketSocket::as_fd);
        std::iter::once(self.watch.as_fd()).chain(sockets).collect()
    }

    pub(super) fn status(&self) -> NetworkStatus {
        let leases = || self.links.values().filter_map(|link| link.client.lease());
        let mut status = NetworkStatus {
            links: self.links.values().map(|link| self.link_status(link)).collect(),
            gateways: leases()
                .flat_map(|lease| lease.routers.first())
                .map(|router| IpAddr::V4(*router))
                .collect(),
            nameservers: leases()
                .flat_map(|lease| &lease.nameservers)
                .map(|server| IpAddr::V4(*server))
                .collect(),
            domain: leases().find_map(|lease| lease.domain.clone()),
        };
        if let Network::Static { gateway, nameservers, .. } = &self.orders.network
            && self.links.values().any(|link| link.fixed)
        {
            status.gateways.extend(*gateway);
            status.nameservers.extend(nameservers);
        }
        status
    }

    fn link_status(&self, configured: &Configured) -> LinkStatus {
        let mut addresses: Vec<Cidr> =
            configured.client.lease().map(|lease| lease.address).into_iter().collect();
        let mut lease = configured.client.describe();
        if let Network::Static { addresses: fixed, .. } = &self.orders.network {
            lease = String::new();
            addresses.extend(fixed.iter().filter(|_| configured.fixed));
        }
        let Link { name, mtu, carrier, .. } = configured.link.clone();
        LinkStatus { name, mac: configured.mac, mtu, carrier, addresses, lease }
    }

    /// The name that a DHCP server gave.
    pub(super) fn hostname(&self) -> Option<String> {
        self.links
            .values()
            .filter_map(|link| link.client.lease())
            .find_map(|lease| lease.hostname.clone())
    }

    /// The time servers that DHCP servers named.
    pub(super) fn time_servers(&self) -> Vec<String> {
        let leases = self.links.values().filter_map(|link| link.client.lease());
        leases.flat_map(|lease| &lease.time_servers).map(Ipv4Addr::to_string).collect()
    }

    fn look(&mut self, now: Duration) -> Result<(), NetlinkError> {
        let present = self.netlink.links()?;
        self.links.retain(|index, _| present.iter().any(|link| link.index == *index));
        for link in present {
            let Some(mac) = link.mac.filter(|_| link.ethernet && link.kind.is_none()) else {
                continue;
            };
            let index = link.index;
            if !link.up
                && let Err(error) = self.netlink.set_up(index, true)
            {
                complain(&error);
            }
            let (carrier, known) = (link.carrier, self.links.contains_key(&index));
            let seed = mac.iter().fold(self.orders.seed ^ u64::from(index), |seed, byte| {
                seed << 8 ^ seed >> 56 ^ u64::from(*byte)
            });
            let configured = self.links.entry(index).or_insert_with(|| Configured {
                link: link.clone(),
                mac,
                client: Client::new(seed),
                socket: None,
                fixed: false,
            });
            let had_carrier = known && configured.link.carrier;
            configured.link = link;
            match self.orders.network.clone() {
                Network::Dhcp if carrier && !had_carrier => self.tell(index, now, Event::LinkUp),
                Network::Dhcp if !carrier && had_carrier => self.tell(index, now, Event::LinkDown),
                Network::Dhcp => {}
                Network::Static { link, addresses, gateway, .. } => {
                    self.fix(index, link.as_deref(), &addresses, gateway)?;
                }
            }
        }
        Ok(())
    }

    /// Puts the fixed addresses on the link that they are for.
    fn fix(
        &mut self,
        index: u32,
        wanted: Option<&str>,
        addresses: &[Cidr],
        gateway: Option<IpAddr>,
    ) -> Result<(), NetlinkError> {
        let taken = self.links.values().any(|link| link.fixed);
        let Some(configured) = self.links.get_mut(&index) else { return Ok(()) };
        if taken || wanted.is_some_and(|wanted| wanted != configured.link.name) {
            return Ok(());
        }
        configured.fixed = true;
        for address in addresses {
            self.netlink.add_address(index, *address)?;
        }
        match gateway {
            Some(gateway) => {
                self.netlink.replace_route(&default_route(index, gateway, FIRST_METRIC))
            }
            None => Ok(()),
        }
    }

    fn receive(&mut self, index: u32, now: Duration) {
        loop {
            let Some(configured) = self.links.get_mut(&index) else { return };
            let Some(socket) = &configured.socket else { return };
            match socket.receive() {
                Ok(Some(frame)) => {
                    if let Some(message) = message::decode(configured.mac, &frame) {
                        self.tell(index, now, Event::received(message));
                    }
                }
                Ok(None) => return,
                // The link went down under the socket; the kernel will announce it.
                Err(_) => configured.socket = None,
            }
        }
    }

    fn tell(&mut self, index: u32, now: Duration, event: Event) {
        let Some(configured) = self.links.get_mut(&index) else { return };
        let mut actions = Vec::new();
        configured.client.step(now, event, &mut actions);
        if configured.client.is_listening() && configured.socket.is_none() {
            match PacketSocket::open(index) {
                Ok(socket) => configured.socket = Some(socket),
                Err(error) => complain(&error),
            }
        }
        for action in actions {
            if let Err(error) = self.act(index, &action) {
                complain(&error);
            }
        }
        if let Some(configured) = self.links.get_mut(&index)
            && !configured.client.is_listening()
        {
            configured.socket = None;
        }
    }

    fn act(&mut self, index: u32, action: &Action) -> Result<(), NetlinkError> {
        let Some(configured) = self.links.get(&index) else { return Ok(()) };
        match action {
            Action::Send(outgoing) => {
                let frame =
                    message::encode(configured.mac, self.orders.hostname.as_deref(), outgoing);
                // A frame that is not sent is a frame that is lost; it will be repeated.
                let _ = configured.socket.as_ref().map(|socket| socket.send(&frame));
                Ok(())
            }
            Action::Configure(lease) => {
                if let (Some(socket), IpAddr::V4(ours)) =
                    (&configured.socket, lease.address.address)
                {
                    let _ = socket.send(&message::announcement(configured.mac, ours));
                }
                self.configure(index, lease)
            }
            Action::Release(lease) => self.netlink.delete_address(index, lease.address),
        }
    }

    fn configure(&mut self, index: u32, lease: &Lease) -> Result<(), NetlinkError> {
        let mtu = self.links.get(&index).map(|configured| configured.link.mtu);
        if let Some(wanted) = lease.mtu.map(u32::from).filter(|wanted| mtu != Some(*wanted)) {
            self.netlink.set_mtu(index, wanted)?;
        }
        self.netlink.add_address(index, lease.address)?;
        // The kernel drops a route with its address, so a default route is only ever added.
        let rank = self
            .links
            .keys()
            .position(|other| *other == index)
            .and_then(|rank| u32::try_from(rank).ok());
        if let Some(router) = lease.routers.first() {
            let metric = FIRST_METRIC + rank.unwrap_or_default();
            self.netlink.replace_route(&default_route(index, IpAddr::V4(*router), metric))?;
        }
        Ok(())
    }
}

fn default_route(link: u32, gateway: IpAddr, metric: u32) -> Route {
    let any = if gateway.is_ipv4() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)
    };
    Route {
        destination: Cidr::new(any, 0),
        gateway: Some(gateway),
        link,
        preferred_source: None,
        metric,
        onlink: false,
    }
}

fn complain(error: &dyn std::error::Error) {
    report(&Report::Said(chain(error)));
}
