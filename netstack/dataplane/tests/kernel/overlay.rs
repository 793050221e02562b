//! Several nodes on one wire, and the pods on them. WireGuard is tested where the kernel has it: the shipped one does, and
//! the scenario that runs these tests on it asks for it by `PODIUM_TEST_WIREGUARD`, so that its absence is a failure there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use podium_dataplane::overlay::{
    Applied, Overlay, OverlayConfig, OverlayMode, OverlayPeer, PrivateKey, VXLAN_LINK, VXLAN_PORT,
    WIREGUARD_PORT,
};
use podium_dataplane::{
    Dataplane, DataplaneConfig, Endpoint, NODE_LINK, PodLink, Protocol, ServiceAddress,
    ServiceTable, link_name,
};
use podium_link::Cidr;
use podium_link::netlink::{Netlink, Route};

use crate::namespace::{LIMIT, Namespace, cidr, route_packets};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 50);
const UPLINK: &str = "eth0";
const UPLINK_MTU: u32 = 1500;
const ECHO: u16 = 7;
/// Of an IPv4 and a UDP header.
const HEADERS: usize = 28;

/// How packets reach other nodes, without the node's own key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    WireGuard,
    Vxlan,
    Routes,
}

impl Mode {
    fn of(self, number: u8) -> OverlayMode {
        match self {
            Self::WireGuard => OverlayMode::WireGuard(key(number)),
            Self::Vxlan => OverlayMode::Vxlan,
            Self::Routes => OverlayMode::Routes,
        }
    }

    fn overhead_bytes(self) -> u32 {
        self.of(1).overhead_bytes(IpAddr::V4(underlay(1)))
    }
}

fn key(number: u8) -> PrivateKey {
    PrivateKey::new([number; 32])
}

/// The modes that this kernel has.
fn modes() -> Vec<Mode> {
    let mut modes = vec![Mode::Vxlan, Mode::Routes];
    let make = || Netlink::open().expect("rtnetlink").add_wireguard("probe", 1420);
    let made = Namespace::new().run(make);
    if made.is_ok() {
        modes.push(Mode::WireGuard);
    } else {
        assert!(std::env::var_os("PODIUM_TEST_WIREGUARD").is_none(), "{made:?}");
    }
    modes
}

/// A wire with machines on it.
struct Wire(Namespace);

impl Wire {
    fn new() -> Self {
        let wire = Namespace::new();
        wire.run(|| {
            let made =
                Command::new("ip").args("link add name wire type bridge".split(' ')).status();
            assert!(made.expect("ip of iproute2").success());
            let mut netlink = Netlink::open().expect("rtnetlink");
            let bridge = netlink.link("wire").expect("links").expect("the bridge");
            netlink.set_up(bridge.index, true).expect("up");
        });
        Self(wire)
    }

    /// Plugs a machine in, with an address.
    fn plug(&self, machine: &Namespace, last: u8) {
        let port = format!("port{last}");
        self.0.run(|| {
            let mut netlink = Netlink::open().expect("rtnetlink");
            netlink.add_veth(&port, UPLINK, machine.as_fd(), UPLINK_MTU).expect("a cable");
            let set = format!("link set dev {port} master wire up");
            let plugged = Command::new("ip").args(set.split(' ')).status();
            assert!(plugged.expect("ip of iproute2").success());
        });
        machine.run(|| {
            let mut netlink = Netlink::open().expect("rtnetlink");
            let uplink = netlink.link(UPLINK).expect("links").expect("the uplink");
            netlink.add_address(uplink.index, Cidr::v4(underlay(last), 24)).expect("an address");
            netlink.set_up(uplink.index, true).expect("up");
        });
    }
}

fn underlay(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, last)
}

fn part(number: u8) -> Cidr {
    Cidr::v4(Ipv4Addr::new(10, 244, number, 0), 24)
}

fn node_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, number, 1)
}

fn pod_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, number, 2)
}

/// A node with the underlay address .`number`, the part `number` of the pod addresses, and one pod.
struct Node {
    number: u8,
    mode: Mode,
    namespace: Namespace,
    pod: Namespace,
    dataplane: Dataplane,
    overlay: Overlay,
}

impl Node {
    fn new(wire: &Wire, number: u8, mode: Mode) -> Self {
        let (namespace, pod) = (Namespace::new(), Namespace::new());
        wire.plug(&namespace, number);
        let mut dataplane = namespace.run(|| {
            // Not every kernel that tests run on has dummies; any link of the right name will do.
            let own = File::open("/proc/thread-self/ns/net").expect("this namespace");
            let mut netlink = Netlink::open().expect("rtnetlink");
            netlink.add_veth(NODE_LINK, "other-end", own.as_fd(), 1500).expect("the node's link");
            route_packets();
            open_dataplane(number)
        });
        let name = link_name("0b1a1a6e-3f0e-4a57-9f0c-0f3f6e9f1a2b");
        let address = pod_address(number);
        let link = PodLink { name: &name, namespace: pod.as_fd(), address };
        namespace.run(|| dataplane.attach_pod(&link)).expect("attach");
        let overlay = namespace.run(|| open_overlay(number, mode));
        Self { number, mode, namespace, pod, dataplane, overlay }
    }

    /// What a restart of the node does: everything is opened anew.
    fn restart(&mut self) {
        let (number, mode) = (self.number, self.mode);
        let opened = self.namespace.run(|| (open_dataplane(number), open_overlay(number, mode)));
        (self.dataplane, self.overlay) = opened;
    }

    fn apply(&mut self, numbers: &[u8]) -> Applied {
        let all: BTreeMap<String, OverlayPeer> = numbers
            .iter()
            .filter(|number| **number != self.number)
            .map(|number| (format!("n{number}"), peer(self.mode, *number)))
            .collect();
        let own = IpAddr::V4(underlay(self.number));
        let overlay = &mut self.overlay;
        let applied = self.namespace.run(|| overlay.apply(own, &all)).expect("apply");
        assert!(applied.refused.is_empty(), "{:?}", applied.refused);
        let dataplane = &mut self.dataplane;
        self.namespace.run(|| dataplane.apply_mtu(applied.mtu_bytes)).expect("the pods' links");
        let nodes = numbers.iter().map(|number| underlay(*number)).collect();
        self.dataplane.apply_nodes(&nodes).expect("the nodes' addresses");
        applied
    }

    fn routes(&self) -> Vec<Route> {
        self.namespace.run(|| Netlink::open().expect("rtnetlink").routes()).expect("routes")
    }
}

fn open_dataplane(number: u8) -> Dataplane {
    let config = DataplaneConfig {
        node_pods: part(number),
        cluster_pods: cidr("10.244.0.0/16"),
        services: cidr("10.96.0.0/16"),
        dns: Ipv4Addr::new(10, 96, 0, 10),
        mtu_bytes: UPLINK_MTU,
    };
    Dataplane::open(config).expect("a data path")
}

fn open_overlay(number: u8, mode: Mode) -> Overlay {
    let cluster_pods = cidr("10.244.0.0/16");
    let config = OverlayConfig { mode: mode.of(number), node_pods: part(number), cluster_pods };
    Overlay::open(config).expect("an overlay")
}

fn peer(mode: Mode, number: u8) -> OverlayPeer {
    OverlayPeer {
        public_key: Some(key(number).public()),
        endpoint: endpoint(mode, number),
        addresses: BTreeSet::from([IpAddr::V4(underlay(number))]),
        pods: vec![part(number)],
    }
}

fn endpoint(mode: Mode, last: u8) -> SocketAddr {
    let port = if mode == Mode::WireGuard { WIREGUARD_PORT } else { VXLAN_PORT };
    SocketAddr::from((underlay(last), port))
}

/// Nodes 1 to `count`, each with the others as peers.
fn cluster(wire: &Wire, count: u8, mode: Mode) -> Vec<Node> {
    let mut nodes: Vec<Node> = (1..=count).map(|number| Node::new(wire, number, mode)).collect();
    let numbers: Vec<u8> = (1..=count).collect();
    for node in &mut nodes {
        assert!(node.apply(&numbers).changed > 0);
    }
    nodes
}

/// A server that sends every datagram back.
fn echo(namespace: &Namespace) {
    let socket = namespace.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, ECHO)).expect("bind"));
    std::thread::spawn(move || {
        let mut buffer = [0; 65536];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).expect("receive");
            // The asker may be gone, and then its port answers so.
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
}

/// A socket whose packets are never cut into pieces, connected to an [`echo`].
fn uncut(namespace: &Namespace, to: Ipv4Addr) -> UdpSocket {
    use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};
    let socket = namespace.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind"));
    set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DO).expect("do not cut");
    socket.set_read_timeout(Some(LIMIT)).expect("a limit");
    socket.connect((to, ECHO)).expect("connect");
    socket
}

/// Whether a packet of this size, headers included, comes back.
fn comes_back(socket: &UdpSocket, packet_bytes: usize) -> std::io::Result<bool> {
    let sent = vec![7; packet_bytes - HEADERS];
    socket.send(&sent)?;
    let mut received = vec![0; 65536];
    let length = socket.recv(&mut received)?;
    Ok(received[..length] == sent)
}

#[test]
fn pods_and_nodes_reach_those_of_other_nodes_with_their_own_addresses() {
    for mode in modes() {
        let wire = Wire::new();
        let nodes = cluster(&wire, 3, mode);
        nodes[1].pod.serve(8080, "pod");
        nodes[1].namespace.serve(9090, "node");
        let second = (pod_address(2), node_address(2));
        let ask = |from: &Namespace, to, port| from.ask(to, port).expect("an answer");
        for node in [&nodes[0], &nodes[2]] {
            let pod = IpAddr::V4(pod_address(node.number));
            let own = IpAddr::V4(node_address(node.number));
            assert_eq!(ask(&node.pod, second.0, 8080), ("pod".into(), pod), "{mode:?}");
            assert_eq!(ask(&node.namespace, second.0, 8080), ("pod".into(), own), "{mode:?}");
            assert_eq!(ask(&node.pod, second.1, 9090), ("node".into(), pod), "{mode:?}");
            assert_eq!(ask(&node.namespace, second.1, 9090), ("node".into(), own), "{mode:?}");
            // The node's address on the wire, too: no translation between pods and nodes.
            assert_eq!(ask(&node.pod, underlay(2), 9090), ("node".into(), pod), "{mode:?}");
        }
    }
}

#[test]
fn who_is_no_node_sees_the_nodes_address() {
    let wire = Wire::new();
    let nodes = cluster(&wire, 1, Mode::Vxlan);
    let outside = Namespace::new();
    wire.plug(&outside, 99);
    outside.serve(80, "outside");
    let seen = nodes[0].pod.ask(underlay(99), 80).expect("an answer");
    assert_eq!(seen, ("outside".into(), IpAddr::V4(underlay(1))));
}

#[test]
fn a_service_reaches_an_endpoint_on_another_node() {
    for mode in modes() {
        let wire = Wire::new();
        let mut nodes = cluster(&wire, 2, mode);
        nodes[1].pod.serve(8080, "remote");
        let service = ServiceAddress { address: SERVICE, protocol: Protocol::Tcp, port: 80 };
        let endpoint = Endpoint { address: pod_address(2), port: 8080 };
        let table = ServiceTable::from([(service, BTreeSet::from([endpoint]))]);
        nodes[0].dataplane.apply_services(&table).expect("the service");
        let (pod, own) = (IpAddr::V4(pod_address(1)), IpAddr::V4(node_address(1)));
        let from_pod = nodes[0].pod.ask(SERVICE, 80).expect("from a pod");
        assert_eq!(from_pod, ("remote".into(), pod), "{mode:?}");
        let from_node = nodes[0].namespace.ask(SERVICE, 80).expect("from the node");
        assert_eq!(from_node, ("remote".into(), own), "{mode:?}");
    }
}

#[test]
fn a_packet_of_the_largest_size_passes_whole_and_a_larger_one_is_refused() {
    for mode in modes() {
        let wire = Wire::new();
        let nodes = cluster(&wire, 2, mode);
        echo(&nodes[1].pod);
        let mtu = UPLINK_MTU - mode.overhead_bytes();
        let largest = usize::try_from(mtu).expect("a size");
        let socket = uncut(&nodes[0].pod, pod_address(2));
        assert!(comes_back(&socket, largest).expect("the largest packet"), "{mode:?}");
        let error = comes_back(&socket, largest + 1).expect_err("one byte more");
        // EMSGSIZE.
        assert_eq!(error.raw_os_error(), Some(90), "{mode:?}");
        for node in &nodes {
            assert_eq!(pieces(&node.namespace), 0, "{mode:?}: the underlay cut a packet");
        }
    }
}

/// How many pieces of packets the namespace made.
fn pieces(namespace: &Namespace) -> u64 {
    let text = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"));
    let text = text.expect("the counters");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Ip: "));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let found = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "FragCreates");
    found.expect("FragCreates").1.parse().expect("a number")
}

#[test]
fn the_largest_packet_follows_the_uplink() {
    for mode in modes() {
        let wire = Wire::new();
        let mut nodes = cluster(&wire, 2, mode);
        echo(&nodes[1].pod);
        let overhead = mode.overhead_bytes();
        for uplink_mtu in [1300, 1450] {
            for node in &mut nodes {
                node.namespace.run(|| {
                    let mut netlink = Netlink::open().expect("rtnetlink");
                    let uplink = netlink.link(UPLINK).expect("links").expect("the uplink");
                    netlink.set_mtu(uplink.index, uplink_mtu).expect("another MTU");
                });
                assert_eq!(node.apply(&[1, 2]).mtu_bytes, uplink_mtu - overhead, "{mode:?}");
            }
            let largest = usize::try_from(uplink_mtu - overhead).expect("a size");
            let socket = uncut(&nodes[0].pod, pod_address(2));
            assert!(comes_back(&socket, largest).expect("the largest packet"), "{mode:?}");
            assert!(comes_back(&socket, largest + 1).is_err(), "{mode:?}");
        }
    }
}

#[test]
fn restarts_lose_no_packet_and_change_nothing() {
    for mode in modes() {
        let wire = Wire::new();
        let mut nodes = cluster(&wire, 2, mode);
        echo(&nodes[1].pod);
        let socket = uncut(&nodes[0].pod, pod_address(2));
        let (running, over) = (AtomicBool::new(false), AtomicBool::new(false));
        let exchanged = std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let mut exchanged = 0;
                while !over.load(Ordering::Relaxed) {
                    // A lost packet would be waited for up to the limit, and fail.
                    assert!(comes_back(&socket, 100).expect("no packet is lost"));
                    exchanged += 1;
                    running.store(true, Ordering::Relaxed);
                }
                exchanged
            });
            while !running.load(Ordering::Relaxed) && !asking.is_finished() {
                std::thread::yield_now();
            }
            for _ in 0..10 {
                for node in &mut nodes {
                    node.restart();
                    assert_eq!(node.apply(&[1, 2]).changed, 0, "{mode:?}");
                }
            }
            over.store(true, Ordering::Relaxed);
            asking.join().expect("the asking thread")
        });
        assert!(exchanged > 10, "{mode:?}: {exchanged}");
    }
}

#[test]
fn peers_come_go_and_move_and_the_rest_stays() {
    for mode in modes() {
        let wire = Wire::new();
        let mut nodes = cluster(&wire, 2, mode);
        nodes[1].pod.serve(8080, "pod");
        let foreign = Route {
            destination: cidr("192.0.2.0/24"),
            gateway: Some(IpAddr::V4(underlay(2))),
            link: nodes[0].namespace.run(|| {
                let found = Netlink::open().expect("rtnetlink").link(UPLINK).expect("links");
                found.expect("the uplink").index
            }),
            preferred_source: None,
            metric: 0,
            onlink: false,
        };
        let add = || Netlink::open().expect("rtnetlink").replace_route(&foreign);
        nodes[0].namespace.run(add).expect("a route of somebody else");
        let way = |node: &Node| node.routes().iter().any(|route| route.destination == part(2));
        assert!(way(&nodes[0]));
        let gone = nodes[0].apply(&[1]).changed;
        assert!(gone >= 1 && !way(&nodes[0]), "{mode:?}");
        assert!(nodes[0].routes().contains(&foreign), "{mode:?}");
        assert_eq!(nodes[0].apply(&[1, 2]).changed, gone, "{mode:?}");
        assert!(nodes[0].pod.ask(pod_address(2), 8080).is_ok(), "{mode:?}");
        // The second machine gets another address; the first is told, and before of one that nobody has.
        nodes[1].namespace.run(|| {
            let mut netlink = Netlink::open().expect("rtnetlink");
            let uplink = netlink.link(UPLINK).expect("links").expect("the uplink").index;
            netlink.delete_address(uplink, Cidr::v4(underlay(2), 24)).expect("the old one");
            netlink.add_address(uplink, Cidr::v4(underlay(12), 24)).expect("an address");
        });
        let mut tell = |at| {
            let moved = OverlayPeer { endpoint: endpoint(mode, at), ..peer(mode, 2) };
            let (own, peers) =
                (IpAddr::V4(underlay(1)), BTreeMap::from([("n2".to_owned(), moved)]));
            let Node { overlay, namespace, .. } = &mut nodes[0];
            namespace.run(|| overlay.apply(own, &peers)).expect("apply")
        };
        let nowhere = tell(13);
        assert_eq!(nowhere.changed, 1, "{mode:?}: {nowhere:?}");
        // WireGuard sends to where a peer's last packet came from, so it may know before it is told.
        let least = usize::from(mode != Mode::WireGuard);
        let moved = tell(12);
        assert!((least..=1).contains(&moved.changed), "{mode:?}: {moved:?}");
        let Node { overlay, namespace, .. } = &mut nodes[1];
        let (own, peers) =
            (IpAddr::V4(underlay(12)), BTreeMap::from([("n1".to_owned(), peer(mode, 1))]));
        namespace.run(|| overlay.apply(own, &peers)).expect("apply");
        assert!(nodes[0].pod.ask(pod_address(2), 8080).is_ok(), "{mode:?}");
    }
}

#[test]
fn another_mode_takes_the_place_of_the_first() {
    let wire = Wire::new();
    let mut nodes = cluster(&wire, 2, Mode::Vxlan);
    nodes[1].pod.serve(8080, "pod");
    for mode in [Mode::Routes, Mode::Vxlan] {
        for node in &mut nodes {
            node.mode = mode;
            node.restart();
            node.apply(&[1, 2]);
            let netlink = || Netlink::open().expect("rtnetlink").link(VXLAN_LINK);
            let link = node.namespace.run(netlink).expect("links");
            assert_eq!(link.is_some(), mode == Mode::Vxlan);
        }
        assert!(nodes[0].pod.ask(pod_address(2), 8080).is_ok(), "{mode:?}");
    }
}

#[test]
fn an_address_that_no_link_has_is_named() {
    let wire = Wire::new();
    let mut node = Node::new(&wire, 1, Mode::Vxlan);
    let (own, peers) = (IpAddr::V4(underlay(99)), BTreeMap::new());
    let overlay = &mut node.overlay;
    let error = node.namespace.run(|| overlay.apply(own, &peers)).expect_err("no such address");
    assert_eq!(error.to_string(), "no link has this machine's address 10.77.0.99");
}
