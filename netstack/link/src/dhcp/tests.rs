//! The client against a scripted server, and its frames against themselves.

use proptest::prelude::*;

use super::message::{announcement, decode, encode};
use super::*;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn lease() -> Lease {
    Lease {
        address: Cidr::v4(OURS, 24),
        routers: vec![SERVER],
        nameservers: vec![SERVER],
        domain: None,
        hostname: None,
        time_servers: Vec::new(),
        mtu: None,
        server: SERVER,
        valid_for: at(3600),
        renew_after: at(1800),
        rebind_after: at(3150),
    }
}

fn step(client: &mut Client, seconds: u64, event: Event) -> Vec<Action> {
    let mut out = Vec::new();
    client.step(at(seconds), event, &mut out);
    out
}

/// The transaction of the only message among the actions.
fn sent(actions: &[Action]) -> Outgoing {
    match actions {
        [.., Action::Send(message)] => message.clone(),
        other => panic!("a message was expected, found {other:?}"),
    }
}

/// A client that was granted [`lease`] at second 0.
fn bound() -> Client {
    let mut client = Client::new(1);
    let discover = sent(&step(&mut client, 0, Event::LinkUp));
    let offer =
        Incoming::Offer { transaction: discover.transaction, server: SERVER, address: OURS };
    let request = sent(&step(&mut client, 0, Event::received(offer)));
    assert_eq!(request.kind, Kind::Request { server: SERVER, address: OURS });
    let ack = Incoming::Ack { transaction: request.transaction, lease: lease() };
    assert_eq!(step(&mut client, 0, Event::received(ack)), [Action::Configure(lease())]);
    client
}

#[test]
fn the_first_lease_takes_four_messages_and_no_wait() {
    let client = bound();
    assert_eq!(client.lease(), Some(&lease()));
    assert!(!client.is_listening());
    assert_eq!(client.next_wake(), Some(at(1800)));
}

#[test]
fn a_lost_discover_is_repeated_after_a_second() {
    let mut client = Client::new(1);
    let first = sent(&step(&mut client, 0, Event::LinkUp));
    assert_eq!(client.next_wake(), Some(at(1)));
    assert!(step(&mut client, 0, Event::Tick).is_empty());
    let second = sent(&step(&mut client, 1, Event::Tick));
    assert_eq!(second.transaction, first.transaction);
    assert_eq!(second.seconds, 1);
}

#[test]
fn a_server_that_offers_and_is_silent_is_left() {
    let mut client = Client::new(1);
    let discover = sent(&step(&mut client, 0, Event::LinkUp));
    let offer =
        Incoming::Offer { transaction: discover.transaction, server: SERVER, address: OURS };
    let mut last = sent(&step(&mut client, 0, Event::received(offer)));
    for _ in 0..REQUEST_ATTEMPTS {
        let now = client.next_wake().expect("it waits for an answer");
        let mut out = Vec::new();
        client.step(now, Event::Tick, &mut out);
        last = sent(&out);
    }
    assert_eq!(last.kind, Kind::Discover);
    assert_ne!(last.transaction, discover.transaction);
}

#[test]
fn a_lease_is_renewed_at_half_its_time() {
    let mut client = bound();
    let renew = sent(&step(&mut client, 1800, Event::Tick));
    assert_eq!(renew.kind, Kind::Renew { server: Some(SERVER), ours: OURS });
    let ack = Incoming::Ack { transaction: renew.transaction, lease: lease() };
    assert_eq!(step(&mut client, 1801, Event::received(ack)), [Action::Configure(lease())]);
    assert_eq!(client.next_wake(), Some(at(3601)));
}

#[test]
fn a_silent_server_is_replaced_by_any_and_then_the_address_goes() {
    let mut client = bound();
    let mut kinds = Vec::new();
    let mut released = None;
    while released.is_none() {
        let now = client.next_wake().expect("something is due");
        let mut out = Vec::new();
        client.step(now, Event::Tick, &mut out);
        for action in out {
            match action {
                Action::Send(message) => kinds.push(message.kind),
                Action::Release(lease) => released = Some((now, lease)),
                Action::Configure(_) => panic!("nobody granted anything"),
            }
        }
    }
    assert!(kinds.contains(&Kind::Renew { server: Some(SERVER), ours: OURS }));
    assert!(kinds.contains(&Kind::Renew { server: None, ours: OURS }));
    assert_eq!(kinds.last(), Some(&Kind::Discover));
    assert_eq!(released, Some((at(3600), lease())));
    assert!(kinds.len() < 40, "a silent server was asked {} times", kinds.len());
}

#[test]
fn a_nak_takes_the_address_at_once() {
    let mut client = bound();
    let renew = sent(&step(&mut client, 1800, Event::Tick));
    let nak = Incoming::Nak { transaction: renew.transaction, server: SERVER };
    let actions = step(&mut client, 1801, Event::received(nak));
    assert_eq!(actions.first(), Some(&Action::Release(lease())));
    assert_eq!(sent(&actions).kind, Kind::Discover);
}

#[test]
fn a_new_address_replaces_the_old() {
    let mut client = bound();
    let renew = sent(&step(&mut client, 1800, Event::Tick));
    let other = Lease { address: Cidr::v4(Ipv4Addr::new(10, 0, 2, 99), 24), ..lease() };
    let ack = Incoming::Ack { transaction: renew.transaction, lease: other.clone() };
    assert_eq!(
        step(&mut client, 1801, Event::received(ack)),
        [Action::Release(lease()), Action::Configure(other)]
    );
}

#[test]
fn messages_of_others_change_nothing() {
    let mut client = Client::new(1);
    let discover = sent(&step(&mut client, 0, Event::LinkUp));
    let foreign =
        Incoming::Offer { transaction: discover.transaction ^ 1, server: SERVER, address: OURS };
    assert!(step(&mut client, 0, Event::received(foreign)).is_empty());
    let early = Incoming::Ack { transaction: discover.transaction, lease: lease() };
    assert!(step(&mut client, 0, Event::received(early)).is_empty());
    assert_eq!(client.lease(), None);
}

#[test]
fn a_link_that_went_down_asks_afresh() {
    let mut client = bound();
    assert_eq!(step(&mut client, 10, Event::LinkDown), [Action::Release(lease())]);
    assert_eq!(client.next_wake(), None);
    assert_eq!(sent(&step(&mut client, 20, Event::LinkUp)).kind, Kind::Discover);
}

#[test]
fn nonsensical_times_are_put_in_order() {
    let odd = Lease { valid_for: at(0), renew_after: at(50), rebind_after: at(20), ..lease() };
    let sane = sane(odd);
    assert!(sane.renew_after < sane.rebind_after && sane.rebind_after < sane.valid_for);
}

#[test]
fn a_servers_answer_is_read_from_a_frame() {
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::*;
    let mac = [2, 0, 0, 0, 0, 1];
    let question =
        encode(mac, Some("one"), &Outgoing { transaction: 77, seconds: 0, kind: Kind::Discover });
    assert_eq!(decode(mac, &question), None, "a client's message is not a server's");
    let options = [
        DhcpOption { kind: 42, data: &[10, 0, 2, 3, 10, 0, 2, 4] },
        DhcpOption { kind: 26, data: &[0x05, 0x78] },
        DhcpOption { kind: 12, data: b"two" },
        DhcpOption { kind: 15, data: b"lan; rm -rf" },
    ];
    let dhcp = DhcpRepr {
        message_type: DhcpMessageType::Ack,
        transaction_id: 77,
        secs: 0,
        client_hardware_address: EthernetAddress(mac),
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: OURS,
        server_ip: SERVER,
        router: Some(SERVER),
        subnet_mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: false,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(SERVER),
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: Some(3600),
        renew_duration: None,
        rebind_duration: None,
        additional_options: &options,
    };
    let udp = UdpRepr { src_port: 67, dst_port: 68 };
    let ip = Ipv4Repr {
        src_addr: SERVER,
        dst_addr: OURS,
        next_header: IpProtocol::Udp,
        payload_len: 8 + dhcp.buffer_len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; 14 + 20 + 8 + dhcp.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    EthernetRepr {
        src_addr: EthernetAddress([2; 6]),
        dst_addr: EthernetAddress(mac),
        ethertype: EthernetProtocol::Ipv4,
    }
    .emit(&mut frame);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet, &ChecksumCapabilities::default());
    let mut datagram = UdpPacket::new_unchecked(packet.payload_mut());
    udp.emit(
        &mut datagram,
        &SERVER.into(),
        &OURS.into(),
        dhcp.buffer_len(),
        |payload| dhcp.emit(&mut DhcpPacket::new_unchecked(payload)).expect("room"),
        &ChecksumCapabilities::default(),
    );
    let Some(Incoming::Ack { transaction: 77, lease }) = decode(mac, &bytes) else {
        panic!("an acknowledgement")
    };
    assert_eq!(lease.address, Cidr::v4(OURS, 24));
    assert_eq!(lease.time_servers, [Ipv4Addr::new(10, 0, 2, 3), Ipv4Addr::new(10, 0, 2, 4)]);
    assert_eq!(
        (lease.mtu, lease.hostname.as_deref(), lease.domain),
        (Some(1400), Some("two"), None)
    );
    assert_eq!(decode([2, 0, 0, 0, 0, 2], &bytes), None, "another machine's answer");
}

#[test]
fn an_announcement_is_one_small_broadcast() {
    let frame = announcement([2, 0, 0, 0, 0, 1], OURS);
    assert_eq!(frame.len(), 42);
    assert!(frame.starts_with(&[0xff; 6]));
}

proptest! {
    #[test]
    fn rubbish_frames_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode([2, 0, 0, 0, 0, 1], &bytes);
    }
}
