//! DHCP messages as Ethernet frames and back, with smoltcp's codecs.
//!
//! UDP checksums are not verified: a hypervisor's link hands over frames whose checksum is still to be computed, and
//! Ethernet has its own. What we do not need of a message is not looked at.

use std::net::Ipv4Addr;
use std::time::Duration;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr,
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Packet,
    Ipv4Repr, UdpPacket, UdpRepr,
};

use super::Lease;
use crate::Cidr;

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
const OPTION_HOST_NAME: u8 = 12;
const OPTION_DOMAIN: u8 = 15;
const OPTION_MTU: u8 = 26;
const OPTION_TIME_SERVERS: u8 = 42;
const OPTION_ROUTERS: u8 = 3;
/// Mask, router, DNS, host name, domain, MTU, time servers, lease, renewal and rebinding times.
const PARAMETERS: &[u8] = &[1, 3, 6, 12, 15, 26, 42, 51, 58, 59];
/// What a server may send without asking: the size of our buffer less the headers.
const MAX_MESSAGE_BYTES: u16 = 1472;
/// Below this IPv4 does not work (RFC 791); such an option is ignored.
const SMALLEST_MTU: u16 = 576;

/// A message to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Repeated by the answer.
    pub transaction: u32,
    /// Since the exchange began.
    pub seconds: u16,
    /// What it says.
    pub kind: Kind,
}

/// What a message to a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Who is there?
    Discover,
    /// I take this offer.
    Request {
        /// Whose.
        server: Ipv4Addr,
        /// Which.
        address: Ipv4Addr,
    },
    /// I should like to keep my address: asked of one server, or of any.
    Renew {
        /// Whom.
        server: Option<Ipv4Addr>,
        /// Our address.
        ours: Ipv4Addr,
    },
}

/// A message from a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// An address could be had.
    Offer {
        /// Of our question.
        transaction: u32,
        /// Whose.
        server: Ipv4Addr,
        /// Which.
        address: Ipv4Addr,
    },
    /// The address is ours.
    Ack {
        /// Of our question.
        transaction: u32,
        /// With everything that comes along.
        lease: Lease,
    },
    /// The address is not ours.
    Nak {
        /// Of our question.
        transaction: u32,
        /// Who says so.
        server: Ipv4Addr,
    },
}

/// The frame of a message. Everything is broadcast, also renewals: that needs no neighbour lookup from a raw socket,
/// and servers answer to the address that the message carries.
pub fn encode(mac: [u8; 6], hostname: Option<&str>, message: &Outgoing) -> Vec<u8> {
    let mac = EthernetAddress(mac);
    let (ours, requested, server, message_type) = match message.kind {
        Kind::Discover => (Ipv4Addr::UNSPECIFIED, None, None, DhcpMessageType::Discover),
        Kind::Request { server, address } => {
            (Ipv4Addr::UNSPECIFIED, Some(address), Some(server), DhcpMessageType::Request)
        }
        Kind::Renew { ours, .. } => (ours, None, None, DhcpMessageType::Request),
    };
    let name = hostname.map(|name| DhcpOption { kind: OPTION_HOST_NAME, data: name.as_bytes() });
    let options: Vec<DhcpOption<'_>> = name.into_iter().collect();
    let dhcp = DhcpRepr {
        message_type,
        transaction_id: message.transaction,
        secs: message.seconds,
        client_hardware_address: mac,
        client_ip: ours,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: ours.is_unspecified(),
        requested_ip: requested,
        client_identifier: Some(mac),
        server_identifier: server,
        parameter_request_list: Some(PARAMETERS),
        dns_servers: None,
        max_size: Some(MAX_MESSAGE_BYTES),
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &options,
    };
    let udp = UdpRepr { src_port: CLIENT_PORT, dst_port: SERVER_PORT };
    let payload_len = dhcp.buffer_len();
    let ip = Ipv4Repr {
        src_addr: ours,
        dst_addr: Ipv4Addr::BROADCAST,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + payload_len,
        hop_limit: 64,
    };
    let ethernet = EthernetRepr {
        src_addr: mac,
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Ipv4,
    };
    let mut bytes =
        vec![0; ethernet.buffer_len() + ip.buffer_len() + udp.header_len() + payload_len];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    ethernet.emit(&mut frame);
    let checksums = ChecksumCapabilities::default();
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet, &checksums);
    let mut datagram = UdpPacket::new_unchecked(packet.payload_mut());
    let write = |payload: &mut [u8]| {
        // The buffer was sized by the same description, so this cannot fail; a failure would be an empty message.
        let _ = dhcp.emit(&mut DhcpPacket::new_unchecked(payload));
    };
    udp.emit(
        &mut datagram,
        &ip.src_addr.into(),
        &ip.dst_addr.into(),
        payload_len,
        write,
        &checksums,
    );
    bytes
}

/// The message in a frame, if it is a DHCP message from a server to this client.
pub fn decode(mac: [u8; 6], frame: &[u8]) -> Option<Incoming> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    if packet.next_header() != IpProtocol::Udp || packet.frag_offset() != 0 || packet.more_frags() {
        return None;
    }
    let datagram = UdpPacket::new_checked(packet.payload()).ok()?;
    if datagram.src_port() != SERVER_PORT || datagram.dst_port() != CLIENT_PORT {
        return None;
    }
    let dhcp = DhcpPacket::new_checked(datagram.payload()).ok()?;
    let repr = DhcpRepr::parse(&dhcp).ok()?;
    if repr.client_hardware_address != EthernetAddress(mac) {
        return None;
    }
    let server = repr.server_identifier.unwrap_or(packet.src_addr());
    let transaction = repr.transaction_id;
    match repr.message_type {
        DhcpMessageType::Offer => {
            Some(Incoming::Offer { transaction, server, address: usable(repr.your_ip)? })
        }
        DhcpMessageType::Ack => {
            Some(Incoming::Ack { transaction, lease: lease(&dhcp, &repr, server)? })
        }
        DhcpMessageType::Nak => Some(Incoming::Nak { transaction, server }),
        _ => None,
    }
}

fn usable(address: Ipv4Addr) -> Option<Ipv4Addr> {
    let bad = address.is_unspecified()
        || address.is_broadcast()
        || address.is_loopback()
        || address.is_multicast();
    (!bad).then_some(address)
}

fn lease(dhcp: &DhcpPacket<&[u8]>, repr: &DhcpRepr<'_>, server: Ipv4Addr) -> Option<Lease> {
    let mask = u32::from(repr.subnet_mask.unwrap_or(Ipv4Addr::new(255, 255, 255, 0)));
    let prefix_length = u8::try_from(mask.leading_ones()).ok()?;
    if mask.count_ones() != mask.leading_ones() {
        return None;
    }
    let seconds = |value: Option<u32>| Duration::from_secs(value.unwrap_or_default().into());
    let text = |kind| option(dhcp, kind).and_then(plain_text);
    Some(Lease {
        address: Cidr::v4(usable(repr.your_ip)?, prefix_length),
        routers: option(dhcp, OPTION_ROUTERS).map(addresses).unwrap_or_default(),
        nameservers: repr
            .dns_servers
            .iter()
            .flatten()
            .copied()
            .filter(|server| usable(*server).is_some())
            .collect(),
        domain: text(OPTION_DOMAIN),
        hostname: text(OPTION_HOST_NAME),
        time_servers: option(dhcp, OPTION_TIME_SERVERS).map(addresses).unwrap_or_default(),
        mtu: option(dhcp, OPTION_MTU)
            .and_then(|data| data.try_into().ok())
            .map(u16::from_be_bytes)
            .filter(|mtu| *mtu >= SMALLEST_MTU),
        server,
        valid_for: seconds(repr.lease_duration),
        renew_after: seconds(repr.renew_duration),
        rebind_after: seconds(repr.rebind_duration),
    })
}

fn option(dhcp: &DhcpPacket<&[u8]>, kind: u8) -> Option<Vec<u8>> {
    dhcp.options().find(|option| option.kind == kind).map(|option| option.data.to_vec())
}

fn addresses(data: Vec<u8>) -> Vec<Ipv4Addr> {
    let quads = data.as_chunks::<4>().0;
    quads
        .iter()
        .map(|quad| Ipv4Addr::from(*quad))
        .filter(|address| usable(*address).is_some())
        .collect()
}

/// A name from the network, which ends up in files and on the console: letters, digits, `-`, `_` and `.` only.
fn plain_text(data: Vec<u8>) -> Option<String> {
    let text = std::str::from_utf8(&data).ok()?.trim_end_matches('\0');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (!text.is_empty() && text.len() <= 253 && text.chars().all(plain)).then(|| text.to_owned())
}

/// A gratuitous ARP frame: neighbours that knew another machine by this address forget it (RFC 5227 section 3).
pub fn announcement(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let mac = EthernetAddress(mac);
    let arp = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: mac,
        source_protocol_addr: address,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: address,
    };
    let ethernet = EthernetRepr {
        src_addr: mac,
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Arp,
    };
    let mut bytes = vec![0; ethernet.buffer_len() + arp.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    ethernet.emit(&mut frame);
    arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    bytes
}
