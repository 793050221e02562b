//! What a network that spans nodes needs besides links, addresses and routes: tunnels, and neighbours that are told, not
//! learnt.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteType;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{EEXIST, ENOENT, ESRCH, Link, Netlink, NetlinkError, family};

/// A VXLAN link (RFC 7348) that learns nothing: where a hardware address is must be told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan<'a> {
    /// The link's name.
    pub name: &'a str,
    /// The network's number, 24 bits.
    pub id: u32,
    /// The UDP port, here and at all others.
    pub port: u16,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// The largest packet inside, in bytes.
    pub mtu: u32,
}

/// Which of the kernel's tables a neighbour stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NeighbourTable {
    /// Which hardware address an IPv4 address has (what ARP would find out).
    Addresses,
    /// Behind which underlay address a VXLAN link finds a hardware address (its forwarding database).
    Forwarding,
}

/// A neighbour that was told: it never ages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// The address in the table.
    pub address: IpAddr,
    /// The hardware address.
    pub mac: [u8; 6],
}

impl Netlink {
    /// Makes a WireGuard link; one of that name that exists already is kept.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn add_wireguard(&mut self, name: &str, mtu: u32) -> Result<(), NetlinkError> {
        let attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Wireguard)]),
        ];
        self.add_link(attributes, &format!("making the WireGuard link {name}"))
    }

    /// Makes a VXLAN link; one of that name that exists already is kept.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn add_vxlan(&mut self, vxlan: &Vxlan<'_>) -> Result<(), NetlinkError> {
        let data =
            vec![InfoVxlan::Id(vxlan.id), InfoVxlan::Port(vxlan.port), InfoVxlan::Learning(false)];
        let infos = vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(InfoData::Vxlan(data))];
        let attributes = vec![
            LinkAttribute::IfName(vxlan.name.to_owned()),
            LinkAttribute::Mtu(vxlan.mtu),
            LinkAttribute::Address(vxlan.mac.to_vec()),
            LinkAttribute::LinkInfo(infos),
        ];
        self.add_link(attributes, &format!("making the VXLAN link {}", vxlan.name))
    }

    fn add_link(
        &mut self,
        attributes: Vec<LinkAttribute>,
        doing: &str,
    ) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes = attributes;
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.call_unless(RouteNetlinkMessage::NewLink(message), flags, doing, &[EEXIST])
    }

    /// The link that has the address, if there is one.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn link_with(&mut self, address: IpAddr) -> Result<Option<Link>, NetlinkError> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.call(request, NLM_F_DUMP, "listing the addresses")?;
        let has = |attribute: &AddressAttribute| matches!(attribute, AddressAttribute::Local(found) | AddressAttribute::Address(found) if *found == address);
        let index = answers.iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(message) if message.attributes.iter().any(has) => {
                Some(message.header.index)
            }
            _ => None,
        });
        let Some(index) = index else { return Ok(None) };
        Ok(self.links()?.into_iter().find(|link| link.index == index))
    }

    /// The neighbours of a link that were told and never age.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn neighbours(
        &mut self,
        index: u32,
        table: NeighbourTable,
    ) -> Result<Vec<Neighbour>, NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = match table {
            NeighbourTable::Addresses => AddressFamily::Inet,
            NeighbourTable::Forwarding => AddressFamily::Bridge,
        };
        let request = RouteNetlinkMessage::GetNeighbour(message);
        let answers = self.call(request, NLM_F_DUMP, "listing the neighbours")?;
        Ok(answers.iter().filter_map(|answer| neighbour(answer, index)).collect())
    }

    /// Tells a neighbour, or replaces what was told about it.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn replace_neighbour(
        &mut self,
        index: u32,
        table: NeighbourTable,
        neighbour: &Neighbour,
    ) -> Result<(), NetlinkError> {
        let message = neighbour_message(index, table, neighbour);
        let doing = format!("telling link {index} of its neighbour {}", neighbour.address);
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.call(RouteNetlinkMessage::NewNeighbour(message), flags, &doing).map(|_| ())
    }

    /// Forgets a neighbour.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn delete_neighbour(
        &mut self,
        index: u32,
        table: NeighbourTable,
        neighbour: &Neighbour,
    ) -> Result<(), NetlinkError> {
        let message = neighbour_message(index, table, neighbour);
        let doing = format!("forgetting the neighbour {} of link {index}", neighbour.address);
        let message = RouteNetlinkMessage::DelNeighbour(message);
        self.call_unless(message, NLM_F_ACK, &doing, &[ESRCH, ENOENT])
    }
}

fn neighbour_message(index: u32, table: NeighbourTable, neighbour: &Neighbour) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unspec;
    match table {
        NeighbourTable::Addresses => message.header.family = family(neighbour.address),
        NeighbourTable::Forwarding => {
            message.header.family = AddressFamily::Bridge;
            message.header.flags = NeighbourFlags::Own;
        }
    }
    message.attributes.push(NeighbourAttribute::Destination(neighbour.address.into()));
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(neighbour.mac.to_vec()));
    message
}

fn neighbour(message: &RouteNetlinkMessage, index: u32) -> Option<Neighbour> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    if message.header.ifindex != index || message.header.state != NeighbourState::Permanent {
        return None;
    }
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(address) => ip(address),
        _ => None,
    })?;
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    })?;
    Some(Neighbour { address, mac })
}

/// The forwarding table's family says nothing about its addresses; their length does.
fn ip(address: &NeighbourAddress) -> Option<IpAddr> {
    let bytes = match address {
        NeighbourAddress::Inet(address) => return Some(IpAddr::V4(*address)),
        NeighbourAddress::Inet6(address) => return Some(IpAddr::V6(*address)),
        NeighbourAddress::Other(bytes) => bytes.as_slice(),
        _ => return None,
    };
    match bytes.len() {
        4 => bytes.first_chunk::<4>().map(|it| Ipv4Addr::from(*it).into()),
        16 => bytes.first_chunk::<16>().map(|it| Ipv6Addr::from(*it).into()),
        _ => None,
    }
}
