//! A blocking client of the kernel's rtnetlink (rtnetlink(7)): links, addresses and routes of one network namespace.
//!
//! It serves PID 1, which has no async runtime, and the data path, whose calls are short. Every "add" is level-triggered: what
//! is there already, as asked, is no error. One request is under way at a time.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::Cidr;

/// The kernel sends at most 32 KiB per datagram of a dump, unless asked for more.
const RECEIVE_BYTES: usize = 64 * 1024;

/// Why a link, an address or a route could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum RtnlError {
    /// The socket failed.
    #[error("talk to rtnetlink")]
    Socket(#[source] io::Error),
    /// The kernel's answer could not be read.
    #[error("read rtnetlink's answer: {0}")]
    Malformed(String),
    /// The kernel refused.
    #[error("{what}")]
    Refused {
        /// What was asked.
        what: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

impl RtnlError {
    /// Whether the thing that was named is not there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        use rustix::io::Errno;
        let Self::Refused { source, .. } = self else { return false };
        let code = source.raw_os_error().map(Errno::from_raw_os_error);
        matches!(code, Some(Errno::NODEV | Errno::NOENT | Errno::ADDRNOTAVAIL | Errno::SRCH))
    }
}

/// A network link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it, in its namespace.
    pub index: u32,
    /// Its name, as `eth0`.
    pub name: String,
    /// Its hardware address; empty for links without one.
    pub mac: Vec<u8>,
    /// The largest packet that it carries, in bytes.
    pub mtu_bytes: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it has a carrier.
    pub running: bool,
    /// Whether it is `lo`.
    pub loopback: bool,
    /// `veth`, `dummy`, `wireguard`, …; `None` for hardware.
    pub kind: Option<String>,
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads; `0.0.0.0/0` is the default route.
    pub destination: Cidr,
    /// The next hop; `None`: the destination is on the link itself.
    pub gateway: Option<IpAddr>,
    /// The link's index.
    pub link: u32,
    /// The source address that the kernel prefers for it.
    pub source: Option<IpAddr>,
}

/// A connection to rtnetlink of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Rtnl {
    socket: Socket,
    sequence: u32,
}

impl Rtnl {
    /// Connects, in the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub fn open() -> Result<Self, RtnlError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(RtnlError::Socket)?;
        socket.bind_auto().map_err(RtnlError::Socket)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(RtnlError::Socket)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// All links, in the kernel's order.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn links(&mut self) -> Result<Vec<Link>, RtnlError> {
        let answers =
            self.dump("list links", RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        let link = |answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Some(link_of(&message)),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(link).collect())
    }

    /// The link of that name, if there is one.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, RtnlError> {
        Ok(self.links()?.into_iter().find(|link| link.name == name))
    }

    /// Brings a link up.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_up(&mut self, link: u32) -> Result<(), RtnlError> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.change(&format!("bring link {link} up"), RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Sets a link's MTU.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_mtu(&mut self, link: u32, mtu_bytes: u32) -> Result<(), RtnlError> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.attributes.push(LinkAttribute::Mtu(mtu_bytes));
        self.change(
            &format!("set link {link}'s MTU to {mtu_bytes}"),
            RouteNetlinkMessage::SetLink(message),
            0,
        )
    }

    /// Makes a dummy link, or finds the one of that name, and returns its index.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add_dummy(&mut self, name: &str) -> Result<u32, RtnlError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Dummy)]));
        self.create_link(name, message)
    }

    /// Makes a pair of links, `name` here and `peer_name` in the namespace `peer_namespace`, or finds the one here, and
    /// returns its index.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add_veth(
        &mut self,
        name: &str,
        peer_name: &str,
        peer_namespace: BorrowedFd<'_>,
        mtu_bytes: u32,
    ) -> Result<u32, RtnlError> {
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName(peer_name.to_owned()));
        peer.attributes.push(LinkAttribute::Mtu(mtu_bytes));
        peer.attributes.push(LinkAttribute::NetNsFd(peer_namespace.as_raw_fd()));
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::Mtu(mtu_bytes));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.create_link(name, message)
    }

    /// Removes a link; one that is not there is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn delete_link(&mut self, name: &str) -> Result<(), RtnlError> {
        let Some(link) = self.link(name)? else { return Ok(()) };
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        let deleted =
            self.change(&format!("delete link {name}"), RouteNetlinkMessage::DelLink(message), 0);
        deleted.or_else(|error| if error.is_absent() { Ok(()) } else { Err(error) })
    }

    /// A link's addresses.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn addresses(&mut self, link: u32) -> Result<Vec<Cidr>, RtnlError> {
        let answers = self
            .dump("list addresses", RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
        let address = |answer| match answer {
            RouteNetlinkMessage::NewAddress(message) if message.header.index == link => {
                address_of(&message)
            }
            _ => None,
        };
        Ok(answers.into_iter().filter_map(address).collect())
    }

    /// Gives a link an address.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add_address(&mut self, link: u32, address: Cidr) -> Result<(), RtnlError> {
        let what = format!("give link {link} the address {address}");
        let message = RouteNetlinkMessage::NewAddress(address_message(link, address));
        self.change(&what, message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Takes an address from a link; one that it does not have is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_address(&mut self, link: u32, address: Cidr) -> Result<(), RtnlError> {
        let what = format!("take the address {address} from link {link}");
        let removed =
            self.change(&what, RouteNetlinkMessage::DelAddress(address_message(link, address)), 0);
        removed.or_else(|error| if error.is_absent() { Ok(()) } else { Err(error) })
    }

    /// The unicast routes of the main table.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn routes(&mut self) -> Result<Vec<Route>, RtnlError> {
        let answers =
            self.dump("list routes", RouteNetlinkMessage::GetRoute(RouteMessage::default()))?;
        let route = |answer| match answer {
            RouteNetlinkMessage::NewRoute(message) => route_of(&message),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(route).collect())
    }

    /// Adds a route, in place of any other to the same destination with the same metric.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add_route(&mut self, route: &Route) -> Result<(), RtnlError> {
        let what = format!("add the route to {}", route.destination);
        self.change(
            &what,
            RouteNetlinkMessage::NewRoute(route_message(route)),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    /// Removes a route; one that is not there is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_route(&mut self, route: &Route) -> Result<(), RtnlError> {
        let what = format!("remove the route to {}", route.destination);
        let removed = self.change(&what, RouteNetlinkMessage::DelRoute(route_message(route)), 0);
        removed.or_else(|error| if error.is_absent() { Ok(()) } else { Err(error) })
    }

    fn create_link(&mut self, name: &str, message: LinkMessage) -> Result<u32, RtnlError> {
        if let Some(link) = self.link(name)? {
            return Ok(link.index);
        }
        let what = format!("make link {name}");
        self.change(&what, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)?;
        let made = self.link(name)?;
        made.map(|link| link.index)
            .ok_or(RtnlError::Malformed(format!("link {name} is not there after it was made")))
    }

    fn change(
        &mut self,
        what: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), RtnlError> {
        self.exchange(what, message, NLM_F_REQUEST | NLM_F_ACK | flags).map(|_| ())
    }

    fn dump(
        &mut self,
        what: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, RtnlError> {
        self.exchange(what, message, NLM_F_REQUEST | NLM_F_DUMP)
    }

    /// Sends one request and collects its answers up to the acknowledgement or the dump's end.
    fn exchange(
        &mut self,
        what: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, RtnlError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet =
            NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(message));
        packet.header.flags = flags;
        packet.header.sequence_number = self.sequence;
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(RtnlError::Socket)?;
        let mut answers = Vec::new();
        loop {
            let mut datagram = Vec::with_capacity(RECEIVE_BYTES);
            self.socket.recv(&mut datagram, 0).map_err(RtnlError::Socket)?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| RtnlError::Malformed(error.to_string()))?;
                let length = usize::try_from(answer.header.length).unwrap_or(usize::MAX);
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => answers.push(message),
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            None => Ok(answers),
                            Some(_) => Err(RtnlError::Refused {
                                what: what.to_owned(),
                                source: error.to_io(),
                            }),
                        };
                    }
                    _ => {}
                }
            }
        }
    }
}

fn link_of(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: Vec::new(),
        mtu_bytes: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        running: message.header.flags.contains(LinkFlags::Running),
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        kind: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(mac) => link.mac.clone_from(mac),
            LinkAttribute::Mtu(mtu) => link.mtu_bytes = *mtu,
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    link
}

fn family_of(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn address_of(message: &AddressMessage) -> Option<Cidr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    // IPv6 has no "local" attribute.
    let peer = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    local.or(peer).map(|address| Cidr::new(address, message.header.prefix_len))
}

fn address_message(link: u32, address: Cidr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family_of(address.address);
    message.header.prefix_len = address.prefix_length;
    message.header.index = link;
    message.attributes.push(AddressAttribute::Local(address.address));
    message.attributes.push(AddressAttribute::Address(address.address));
    message
}

fn route_of(message: &RouteMessage) -> Option<Route> {
    if message.header.table != RouteHeader::RT_TABLE_MAIN
        || message.header.kind != RouteType::Unicast
    {
        return None;
    }
    let unspecified: IpAddr = match message.header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut route = Route {
        destination: Cidr::new(unspecified, message.header.destination_prefix_length),
        gateway: None,
        link: 0,
        source: None,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => route.destination.address = ip_of(address)?,
            RouteAttribute::Gateway(address) => route.gateway = ip_of(address),
            RouteAttribute::Oif(link) => route.link = *link,
            RouteAttribute::PrefSource(address) => route.source = ip_of(address),
            _ => {}
        }
    }
    Some(route)
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn route_message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(route.destination.address);
    message.header.destination_prefix_length = route.destination.prefix_length;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.scope =
        if route.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
    let address = |address: IpAddr| RouteAddress::from(address);
    if route.destination.prefix_length > 0 {
        message
            .attributes
            .push(RouteAttribute::Destination(address(route.destination.network().address)));
    }
    message.attributes.push(RouteAttribute::Oif(route.link));
    message
        .attributes
        .extend(route.gateway.map(|gateway| RouteAttribute::Gateway(address(gateway))));
    message
        .attributes
        .extend(route.source.map(|source| RouteAttribute::PrefSource(address(source))));
    message
}

#[cfg(test)]
mod tests;
