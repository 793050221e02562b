//! The gateway's DHCP server (RFC 2131): fixed leases, decided from the card's address alone.
//!
//! Pure: a request in, the reply out. A card that no lease names gets no answer, because an address that two rigs' runs give
//! to different machines makes a failing test lie.

use std::net::Ipv4Addr;

use smoltcp::wire::{DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr};

use crate::MacAddress;

/// Long enough that a rig never sees it end, short enough that renewal (at half of it) happens in an hour-long soak.
const LEASE_SECONDS: u32 = 3600;
const OPTION_HOST_NAME: u8 = 12;

/// One card's address and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The card.
    pub mac: MacAddress,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its machine's name, a DNS label (RFC 2132, 3.14: Host Name).
    pub name: String,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) gateway: Ipv4Addr,
    pub(crate) leases: Vec<Lease>,
}

impl Server {
    /// The reply to a client's datagram, to be broadcast to port 68.
    pub(crate) fn answer(&self, request: &[u8]) -> Option<Vec<u8>> {
        let packet = DhcpPacket::new_checked(request).ok()?;
        let request = DhcpRepr::parse(&packet).ok()?;
        let mac = MacAddress(request.client_hardware_address.0);
        let lease = self.leases.iter().find(|lease| lease.mac == mac)?;
        let message_type = match request.message_type {
            DhcpMessageType::Discover => DhcpMessageType::Offer,
            DhcpMessageType::Request => self.judge(&request, lease)?,
            _ => return None,
        };
        let name = DhcpOption { kind: OPTION_HOST_NAME, data: lease.name.as_bytes() };
        let mut reply = self.reply(&request, lease, message_type);
        if message_type != DhcpMessageType::Nak && !lease.name.is_empty() {
            reply.additional_options = std::slice::from_ref(&name);
        }
        encode(&reply)
    }

    fn judge(&self, request: &DhcpRepr<'_>, lease: &Lease) -> Option<DhcpMessageType> {
        if request.server_identifier.is_some_and(|server| server != self.gateway) {
            return None;
        }
        let wanted = request.requested_ip.unwrap_or(request.client_ip);
        Some(if wanted == lease.address { DhcpMessageType::Ack } else { DhcpMessageType::Nak })
    }

    fn reply<'a>(
        &self,
        request: &DhcpRepr<'_>,
        lease: &Lease,
        message_type: DhcpMessageType,
    ) -> DhcpRepr<'a> {
        let granted = message_type != DhcpMessageType::Nak;
        let mut reply = DhcpRepr {
            message_type,
            transaction_id: request.transaction_id,
            secs: 0,
            client_hardware_address: request.client_hardware_address,
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: if granted { lease.address } else { Ipv4Addr::UNSPECIFIED },
            server_ip: self.gateway,
            router: granted.then_some(self.gateway),
            subnet_mask: granted.then_some(Ipv4Addr::new(255, 255, 255, 0)),
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: true,
            requested_ip: None,
            client_identifier: None,
            server_identifier: Some(self.gateway),
            parameter_request_list: None,
            dns_servers: granted.then(Default::default),
            max_size: None,
            lease_duration: granted.then_some(LEASE_SECONDS),
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        };
        if let Some(servers) = reply.dns_servers.as_mut() {
            servers.push(self.gateway).expect("an empty list of three takes one");
        }
        reply
    }
}

fn encode(reply: &DhcpRepr<'_>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; reply.buffer_len()];
    reply.emit(&mut DhcpPacket::new_unchecked(&mut bytes)).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::wire::EthernetAddress;

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);

    fn server() -> Server {
        let lease = Lease { mac: MacAddress::of_vm(1), address: ADDRESS, name: "n2".to_owned() };
        Server { gateway: GATEWAY, leases: vec![lease] }
    }

    fn ask(
        mac: MacAddress,
        kind: DhcpMessageType,
        wanted: Option<Ipv4Addr>,
        named_server: Option<Ipv4Addr>,
    ) -> Option<(DhcpMessageType, Ipv4Addr)> {
        let template = server().reply(
            &blank(mac),
            &Lease { mac, address: Ipv4Addr::UNSPECIFIED, name: String::new() },
            DhcpMessageType::Nak,
        );
        let request = DhcpRepr {
            message_type: kind,
            requested_ip: wanted,
            server_identifier: named_server,
            ..template
        };
        let bytes = server().answer(&encode(&request)?)?;
        let packet = DhcpPacket::new_checked(bytes.as_slice()).ok()?;
        let reply = DhcpRepr::parse(&packet).ok()?;
        Some((reply.message_type, reply.your_ip))
    }

    fn blank(mac: MacAddress) -> DhcpRepr<'static> {
        DhcpRepr {
            message_type: DhcpMessageType::Discover,
            transaction_id: 77,
            secs: 0,
            client_hardware_address: EthernetAddress(mac.0),
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: Ipv4Addr::UNSPECIFIED,
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: None,
            subnet_mask: None,
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: true,
            requested_ip: None,
            client_identifier: None,
            server_identifier: None,
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: None,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        }
    }

    #[test]
    fn a_known_card_is_offered_and_granted_its_address() {
        let mac = MacAddress::of_vm(1);
        let offer = ask(mac, DhcpMessageType::Discover, None, None);
        assert_eq!(offer, Some((DhcpMessageType::Offer, ADDRESS)));
        let ack = ask(mac, DhcpMessageType::Request, Some(ADDRESS), Some(GATEWAY));
        assert_eq!(ack, Some((DhcpMessageType::Ack, ADDRESS)));
    }

    #[test]
    fn a_granted_lease_carries_the_machines_name() {
        let request = encode(&blank(MacAddress::of_vm(1))).expect("a request");
        let offer = server().answer(&request).expect("an offer");
        assert!(offer.windows(4).any(|it| it == [OPTION_HOST_NAME, 2, b'n', b'2']), "{offer:?}");
    }

    #[test]
    fn a_wrong_address_is_refused() {
        let wrong = Some(Ipv4Addr::new(10, 77, 0, 99));
        let nak = ask(MacAddress::of_vm(1), DhcpMessageType::Request, wrong, Some(GATEWAY));
        assert_eq!(nak, Some((DhcpMessageType::Nak, Ipv4Addr::UNSPECIFIED)));
    }

    #[test]
    fn a_request_to_another_server_is_left_alone() {
        let other = Some(Ipv4Addr::new(10, 77, 0, 2));
        let silence = ask(MacAddress::of_vm(1), DhcpMessageType::Request, Some(ADDRESS), other);
        assert_eq!(silence, None);
    }

    #[test]
    fn an_unknown_card_gets_no_answer() {
        assert_eq!(ask(MacAddress::of_vm(2), DhcpMessageType::Discover, None, None), None);
    }

    proptest::proptest! {
        #[test]
        fn no_datagram_makes_it_panic(bytes in proptest::collection::vec(0u8.., 0..400)) {
            let _ = server().answer(&bytes);
        }
    }
}
