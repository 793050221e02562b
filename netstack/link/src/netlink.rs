//! A blocking rtnetlink client (rtnetlink(7)): one request, one answer, errors with what was being done.
//!
//! A socket belongs to the network namespace it was opened in, so a client opened inside a pod's namespace keeps
//! speaking about that namespace. Changes are idempotent: adding what is there and removing what is not are no errors.
//! What only networks of several nodes need (tunnels, static neighbours) is in `netlink/overlay.rs`.

use std::io;
use std::net::IpAddr;
use std::num::NonZeroI32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::Cidr;

mod overlay;

pub use overlay::{Neighbour, NeighbourTable, Vxlan};

const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const EADDRNOTAVAIL: i32 = 99;
/// rtnetlink's multicast group for changes of links (RTNLGRP_LINK).
const GROUP_LINK: u32 = 1;

/// Why the kernel did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket failed.
    #[error("talking to the kernel while {doing}")]
    Socket {
        /// What was being done.
        doing: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The kernel refused.
    #[error("{doing}")]
    Refused {
        /// What was being done.
        doing: String,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// The answer made no sense.
    #[error("the kernel's answer while {0} could not be read")]
    Answer(String),
}

/// One link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it.
    pub index: u32,
    /// As `eth0`.
    pub name: String,
    /// The hardware address, if it has one of six bytes.
    pub mac: Option<[u8; 6]>,
    /// In bytes.
    pub mtu: u32,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether the other end answers.
    pub carrier: bool,
    /// Whether it is Ethernet (also virtual).
    pub ethernet: bool,
    /// The kind of a virtual link, as `bridge`; none for hardware.
    pub kind: Option<String>,
}

/// A route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The network that is reached; prefix length 0 is the default route.
    pub destination: Cidr,
    /// The router, if it is not directly attached.
    pub gateway: Option<IpAddr>,
    /// The link's index.
    pub link: u32,
    /// The address to send from.
    pub preferred_source: Option<IpAddr>,
    /// Lower wins.
    pub metric: u32,
    /// The router is at the link's other end although no address of the link says so.
    pub onlink: bool,
}

/// A connection to the kernel's routing subsystem.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a connection in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub fn open() -> Result<Self, NetlinkError> {
        let doing = |source| NetlinkError::Socket {
            doing: "opening an rtnetlink socket".to_owned(),
            source,
        };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(doing)?;
        socket.bind_auto().map_err(doing)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(doing)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// All links, by index.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.call(request, NLM_F_DUMP, "listing the links")?;
        Ok(answers.into_iter().filter_map(|answer| link(&answer)).collect())
    }

    /// The link of that name, if there is one.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        Ok(self.links()?.into_iter().find(|link| link.name == name))
    }

    /// Switches a link on or off.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn set_up(&mut self, index: u32, up: bool) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        let doing = format!("switching link {index} {}", if up { "on" } else { "off" });
        self.call(RouteNetlinkMessage::SetLink(message), NLM_F_ACK, &doing).map(|_| ())
    }

    /// Sets the largest packet of a link.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::Mtu(mtu));
        let doing = format!("setting the MTU of link {index} to {mtu}");
        self.call(RouteNetlinkMessage::SetLink(message), NLM_F_ACK, &doing).map(|_| ())
    }

    /// Makes a dummy link; one of that name that exists already is kept.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn add_dummy(&mut self, name: &str) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Dummy)]));
        let doing = format!("making the dummy link {name}");
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.call_unless(RouteNetlinkMessage::NewLink(message), flags, &doing, &[EEXIST])
    }

    /// Makes a pair of links, `name` here and `peer_name` in another namespace, both with that MTU; if there is a link `name`
    /// already, it is kept.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn add_veth(
        &mut self,
        name: &str,
        peer_name: &str,
        peer_namespace: BorrowedFd<'_>,
        mtu: u32,
    ) -> Result<(), NetlinkError> {
        let named = |name: &str| {
            let mut message = LinkMessage::default();
            message.attributes.push(LinkAttribute::IfName(name.to_owned()));
            message.attributes.push(LinkAttribute::Mtu(mtu));
            message
        };
        let mut peer = named(peer_name);
        peer.attributes.push(LinkAttribute::NetNsFd(peer_namespace.as_raw_fd()));
        let mut message = named(name);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        let doing = format!("making the link pair {name}");
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.call_unless(RouteNetlinkMessage::NewLink(message), flags, &doing, &[EEXIST])
    }

    /// Removes a link, which may be gone already: one end of a pair goes with the namespace of the other.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn delete_link(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let doing = format!("removing link {index}");
        self.call_unless(RouteNetlinkMessage::DelLink(message), NLM_F_ACK, &doing, &[ENODEV])
    }

    /// The addresses of a link.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn addresses(&mut self, index: u32) -> Result<Vec<Cidr>, NetlinkError> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.call(request, NLM_F_DUMP, "listing the addresses")?;
        Ok(answers.into_iter().filter_map(|answer| address(&answer, index)).collect())
    }

    /// Gives a link an address.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn add_address(&mut self, index: u32, address: Cidr) -> Result<(), NetlinkError> {
        let message = address_message(index, address);
        let doing = format!("adding {address} to link {index}");
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.call_unless(RouteNetlinkMessage::NewAddress(message), flags, &doing, &[EEXIST])
    }

    /// Takes an address from a link.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn delete_address(&mut self, index: u32, address: Cidr) -> Result<(), NetlinkError> {
        let message = address_message(index, address);
        let doing = format!("removing {address} from link {index}");
        self.call_unless(
            RouteNetlinkMessage::DelAddress(message),
            NLM_F_ACK,
            &doing,
            &[EADDRNOTAVAIL],
        )
    }

    /// The routes of the main table, IPv4 and IPv6, default routes included.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let answers = self.call(
                RouteNetlinkMessage::GetRoute(message),
                NLM_F_DUMP,
                "listing the routes",
            )?;
            routes.extend(answers.into_iter().filter_map(|answer| route(&answer)));
        }
        Ok(routes)
    }

    /// Adds a route, or replaces the one to the same destination with the same metric.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn replace_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        let doing = format!("routing {}", route.destination);
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.call(RouteNetlinkMessage::NewRoute(route_message(route)), flags, &doing).map(|_| ())
    }

    /// Removes a route.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn delete_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        let doing = format!("removing the route to {}", route.destination);
        let message = RouteNetlinkMessage::DelRoute(route_message(route));
        self.call_unless(message, NLM_F_ACK, &doing, &[ESRCH, ENOENT])
    }

    fn call_unless(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        doing: &str,
        harmless: &[i32],
    ) -> Result<(), NetlinkError> {
        match self.call(message, flags, doing) {
            Ok(_) => Ok(()),
            Err(NetlinkError::Refused { source, .. })
                if source.raw_os_error().is_some_and(|code| harmless.contains(&code)) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Sends one request and collects the answers up to the end of the dump or the acknowledgement.
    fn call(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        doing: &str,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let failed = |source| NetlinkError::Socket { doing: doing.to_owned(), source };
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(failed)?;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full().map_err(failed)?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|_| NetlinkError::Answer(doing.to_owned()))?;
                let length = usize::try_from(answer.header.length)
                    .unwrap_or(usize::MAX)
                    .next_multiple_of(4)
                    .max(16);
                rest = rest.get(length..).unwrap_or_default();
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) => {
                        return acknowledged(error.code, doing).map(|()| answers);
                    }
                    NetlinkPayload::InnerMessage(message) => answers.push(message),
                    _ => {}
                }
            }
        }
    }
}

fn acknowledged(code: Option<NonZeroI32>, doing: &str) -> Result<(), NetlinkError> {
    let Some(code) = code else { return Ok(()) };
    let source = io::Error::from_raw_os_error(code.get().saturating_abs());
    Err(NetlinkError::Refused { doing: doing.to_owned(), source })
}

/// A socket that becomes readable when a link appears, goes, or changes.
#[derive(Debug)]
pub struct LinkWatch {
    socket: Socket,
}

impl LinkWatch {
    /// Starts listening.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub fn open() -> Result<Self, NetlinkError> {
        let doing = |source| NetlinkError::Socket {
            doing: "listening for link changes".to_owned(),
            source,
        };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(doing)?;
        socket.bind_auto().map_err(doing)?;
        socket.add_membership(GROUP_LINK).map_err(doing)?;
        socket.set_non_blocking(true).map_err(doing)?;
        Ok(Self { socket })
    }

    /// Waits until there is a notice, and forgets all that there are.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub fn wait(&mut self) -> Result<(), NetlinkError> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let failed = |error: nix::Error| NetlinkError::Socket {
            doing: "waiting for link changes".to_owned(),
            source: error.into(),
        };
        loop {
            let mut sockets = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut sockets, PollTimeout::NONE) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(error) => return Err(failed(error)),
            }
            if self.drain() {
                return Ok(());
            }
        }
    }

    /// Forgets all notices so far; whether there were any. What changed is to be read afresh from [`Netlink::links`].
    pub fn drain(&mut self) -> bool {
        let mut any = false;
        // An overrun (ENOBUFS) also means that something changed.
        while match self.socket.recv_from_full() {
            Ok(_) => true,
            Err(error) => {
                error.kind() != io::ErrorKind::WouldBlock && error.raw_os_error() == Some(105)
            }
        } {
            any = true;
        }
        any
    }
}

impl AsFd for LinkWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn link(message: &RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let mut found = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        kind: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name.clone_from(name),
            LinkAttribute::Address(bytes) => found.mac = bytes.as_slice().try_into().ok(),
            LinkAttribute::Mtu(mtu) => found.mtu = *mtu,
            LinkAttribute::LinkInfo(infos) => {
                found.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(found)
}

fn address(message: &RouteNetlinkMessage, index: u32) -> Option<Cidr> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    if message.header.index != index {
        return None;
    }
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    Some(Cidr::new(local.or(any)?, message.header.prefix_len))
}

fn address_message(index: u32, address: Cidr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = address.prefix_length;
    message.header.family = family(address.address);
    message.header.scope = AddressScope::Universe;
    message.attributes.push(AddressAttribute::Local(address.address));
    message.attributes.push(AddressAttribute::Address(address.address));
    message
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn route(message: &RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    if message.header.table != RouteHeader::RT_TABLE_MAIN
        || message.header.kind != RouteType::Unicast
    {
        return None;
    }
    let any = if message.header.address_family == AddressFamily::Inet {
        IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)
    };
    let mut found = Route {
        destination: Cidr::new(any, message.header.destination_prefix_length),
        gateway: None,
        link: 0,
        preferred_source: None,
        metric: 0,
        onlink: message.header.flags.contains(RouteFlags::Onlink),
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => {
                found.destination.address = ip(address).unwrap_or(any);
            }
            RouteAttribute::Gateway(address) => found.gateway = ip(address),
            RouteAttribute::PrefSource(address) => found.preferred_source = ip(address),
            RouteAttribute::Oif(index) => found.link = *index,
            RouteAttribute::Priority(metric) => found.metric = *metric,
            _ => {}
        }
    }
    Some(found)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn route_message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.destination.address);
    message.header.destination_prefix_length = route.destination.prefix_length;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope =
        if route.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
    message.header.kind = RouteType::Unicast;
    if route.onlink {
        message.header.flags = RouteFlags::Onlink;
    }
    if route.destination.prefix_length > 0 {
        message
            .attributes
            .push(RouteAttribute::Destination(route.destination.network().address.into()));
    }
    if let Some(gateway) = route.gateway {
        message.attributes.push(RouteAttribute::Gateway(gateway.into()));
    }
    if let Some(source) = route.preferred_source {
        message.attributes.push(RouteAttribute::PrefSource(source.into()));
    }
    message.attributes.push(RouteAttribute::Oif(route.link));
    if route.metric > 0 {
        message.attributes.push(RouteAttribute::Priority(route.metric));
    }
    message
}
