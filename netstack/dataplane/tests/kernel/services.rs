//! One node and its pods: their links, services, and what a restart finds.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;

use podium_dataplane::{
    Dataplane, DataplaneConfig, Endpoint, NODE_LINK, PodLink, Protocol, ServiceAddress,
    ServiceTable, link_name,
};
use podium_link::netlink::Netlink;

use crate::namespace::{Namespace, cidr};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 50);
const NODE: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);

fn pod_address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, 0, last)
}

fn uid(last: u8) -> String {
    format!("{last:08x}-0000-4000-8000-000000000000")
}

/// A node with pods .2, .3, ….
struct Node {
    namespace: Namespace,
    pods: Vec<Namespace>,
}

impl Node {
    fn new(pods: u8) -> Self {
        let namespace = Namespace::new();
        namespace.run(|| {
            // Not every kernel that tests run on has dummies; any link of the right name will do.
            let own = File::open("/proc/thread-self/ns/net").expect("this namespace");
            let mut netlink = Netlink::open().expect("rtnetlink");
            netlink.add_veth(NODE_LINK, "other-end", own.as_fd(), 1500).expect("the node's link");
            crate::namespace::route_packets();
        });
        let node = Self { namespace, pods: (0..pods).map(|_| Namespace::new()).collect() };
        let mut dataplane = node.open();
        for (last, pod) in (2..).zip(&node.pods) {
            node.attach(&mut dataplane, last, pod);
        }
        node
    }

    fn open(&self) -> Dataplane {
        self.namespace.run(|| {
            Dataplane::open(DataplaneConfig {
                node_pods: cidr("10.244.0.0/24"),
                cluster_pods: cidr("10.244.0.0/16"),
                services: cidr("10.96.0.0/16"),
                dns: Ipv4Addr::new(10, 96, 0, 10),
                mtu_bytes: 1500,
            })
            .expect("a data path")
        })
    }

    fn attach(&self, dataplane: &mut Dataplane, last: u8, pod: &Namespace) {
        let name = link_name(&uid(last));
        let link = PodLink { name: &name, namespace: pod.as_fd(), address: pod_address(last) };
        self.namespace.run(|| dataplane.attach_pod(&link)).expect("attach");
    }
}

fn service() -> ServiceAddress {
    ServiceAddress { address: SERVICE, protocol: Protocol::Tcp, port: 80 }
}

fn table(endpoints: &[u8]) -> ServiceTable {
    let endpoint = |last: &u8| Endpoint { address: pod_address(*last), port: 8080 };
    ServiceTable::from([(service(), endpoints.iter().map(endpoint).collect::<BTreeSet<_>>())])
}

#[test]
fn pods_and_node_reach_each_other_with_their_own_addresses() {
    let node = Node::new(2);
    node.pods[1].serve(8080, "second");
    node.namespace.serve(9090, "node");
    assert_eq!(
        node.pods[0].ask(pod_address(3), 8080).expect("pod to pod"),
        ("second".into(), pod_address(2).into())
    );
    assert_eq!(
        node.namespace.ask(pod_address(3), 8080).expect("node to pod"),
        ("second".into(), NODE.into())
    );
    assert_eq!(
        node.pods[0].ask(NODE, 9090).expect("pod to node"),
        ("node".into(), pod_address(2).into())
    );
}

#[test]
fn a_service_is_reached_from_pods_from_the_node_and_from_its_own_pod() {
    let node = Node::new(2);
    node.pods[1].serve(8080, "second");
    let mut dataplane = node.open();
    assert_eq!(dataplane.apply_services(&table(&[3])).expect("apply"), 1);
    assert_eq!(
        node.pods[0].ask(SERVICE, 80).expect("from a pod"),
        ("second".into(), pod_address(2).into())
    );
    assert_eq!(
        node.namespace.ask(SERVICE, 80).expect("from the node"),
        ("second".into(), NODE.into())
    );
    // Hairpin: the pod must not see its own address as the client's.
    assert_eq!(node.pods[1].ask(SERVICE, 80).expect("from itself"), ("second".into(), NODE.into()));
}

#[test]
fn a_service_without_endpoints_refuses_at_once() {
    let node = Node::new(1);
    let mut dataplane = node.open();
    dataplane.apply_services(&table(&[])).expect("apply");
    for client in [&node.pods[0], &node.namespace] {
        let error = client.ask(SERVICE, 80).expect_err("no endpoint");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}

#[test]
fn connections_spread_evenly_over_the_endpoints_and_follow_changes() {
    let node = Node::new(4);
    for (pod, name) in node.pods[1..].iter().zip(["a", "b", "c"]) {
        pod.serve(8080, name);
    }
    let mut dataplane = node.open();
    dataplane.apply_services(&table(&[3, 4, 5])).expect("apply");
    let mut counts = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..300 {
        *counts.entry(node.pods[0].ask(SERVICE, 80).expect("an answer").0).or_default() += 1;
    }
    // Binomial, n = 300, p = 1/3: 60 to 140 is nearly five standard deviations.
    assert!(
        counts.len() == 3 && counts.values().all(|count| (60..=140).contains(count)),
        "{counts:?}"
    );
    dataplane.apply_services(&table(&[4])).expect("apply");
    for _ in 0..20 {
        assert_eq!(node.pods[0].ask(SERVICE, 80).expect("an answer").0, "b");
    }
}

#[test]
fn a_restarted_node_finds_everything_as_it_was() {
    let node = Node::new(2);
    node.pods[1].serve(8080, "second");
    let mut first = node.open();
    first.apply_services(&table(&[3])).expect("apply");
    drop(first);
    let mut second = node.open();
    assert_eq!(second.programmed(), &table(&[3]));
    assert_eq!(node.pods[0].ask(SERVICE, 80).expect("an answer").0, "second");
    assert_eq!(second.apply_services(&table(&[3])).expect("apply"), 0);
    assert_eq!(node.namespace.run(|| second.attached()).expect("links").len(), 2);
}

#[test]
fn a_service_can_go_and_come_back() {
    let node = Node::new(2);
    node.pods[1].serve(8080, "second");
    let mut dataplane = node.open();
    for _ in 0..3 {
        dataplane.apply_services(&table(&[3])).expect("add");
        assert!(node.pods[0].ask(SERVICE, 80).is_ok());
        dataplane.apply_services(&ServiceTable::new()).expect("remove");
        assert!(node.pods[0].ask(SERVICE, 80).is_err());
    }
}

#[test]
fn a_detached_pod_is_gone_and_detaching_twice_is_no_error() {
    let node = Node::new(1);
    let mut dataplane = node.open();
    let name = link_name(&uid(2));
    node.namespace.run(|| {
        for _ in 0..2 {
            dataplane.detach_pod(&name, pod_address(2)).expect("detach");
        }
        assert!(dataplane.attached().expect("links").is_empty());
    });
}

#[test]
fn a_thousand_services_are_one_transaction_and_one_change_is_one_change() {
    let node = Node::new(1);
    let mut dataplane = node.open();
    let services = (0..1000u16).map(|index| {
        let [high, low] = index.to_be_bytes();
        let address = Ipv4Addr::new(10, 96, 16 + high, low);
        let endpoints =
            (2..5).map(|last| Endpoint { address: pod_address(last), port: 8080 }).collect();
        (ServiceAddress { address, protocol: Protocol::Tcp, port: 80 }, endpoints)
    });
    let mut table: ServiceTable = services.collect();
    assert_eq!(dataplane.apply_services(&table).expect("a thousand"), 1000);
    if let Some(endpoints) = table.values_mut().next() {
        endpoints.pop_first();
    }
    assert_eq!(dataplane.apply_services(&table).expect("one"), 1);
    assert_eq!(node.open().programmed(), &table);
}
