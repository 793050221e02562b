//! The nf_tables table `podium`: which chains, sets and rules it has, and how changes become transactions.
//!
//! ```text
//! chain prerouting, output (nat)   destination . protocol . port → map "services" → jump to the service's chain
//! chain <service>                  a random number → map "<service>" → rewrite the destination
//! chain postrouting (nat)          hairpin: source = destination in set "hairpin" → the node's pod address
//!                                  outside: from a pod, to no pod, service or node → masquerade
//! chain forward, output-filter     a service address that is still there has no endpoint → refused
//! chain raw-prerouting, raw-output the DNS address is not tracked
//! ```
//!
//! Every packet costs one map look-up however many services there are, and a service's change touches its own chain and map
//! only. Maps are named: the kernel's search for a free anonymous name grows with the square of their number.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use podium_link::Cidr;

use crate::nft::expression::{Expressions, Header, Register, Verdict};
use crate::nft::message::{self, Attributes, Batch, Kind, attribute, attributes};
use crate::nft::socket::{NftError, NftSocket};
use crate::services::{Change, Endpoint, Protocol, ServiceAddress, ServiceTable};
use crate::{DataplaneConfig, DataplaneError, pods};

const TABLE: &str = "podium";
const SERVICES: &str = "services";
const HAIRPIN: &str = "hairpin";
const NODES: &str = "nodes";

/// nft's data types, by which `nft list` knows how to print a set; the kernel does not look at them.
mod data_type {
    pub(super) const INTEGER: u32 = 4;
    pub(super) const IPV4: u32 = 7;
    const PROTOCOL: u32 = 12;
    const PORT: u32 = 13;
    pub(super) const VERDICT: u32 = 0xffff_ff00;
    /// Concatenations are written six bits a part.
    pub(super) const ADDRESS_PORT: u32 = (IPV4 << 6) | PORT;
    pub(super) const ADDRESS_ADDRESS: u32 = (IPV4 << 6) | IPV4;
    pub(super) const SERVICE: u32 = (IPV4 << 12) | (PROTOCOL << 6) | PORT;
}

/// `enum nf_inet_hooks`.
#[derive(Clone, Copy)]
enum Hook {
    Prerouting = 0,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// The address ranges that the rules compare with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ranges {
    node: Ipv4Addr,
    node_pods: Range,
    cluster_pods: Range,
    services: Range,
    dns: Ipv4Addr,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    network: [u8; 4],
    mask: [u8; 4],
}

impl Range {
    fn new(cidr: Cidr) -> Result<Self, DataplaneError> {
        let IpAddr::V4(network) = cidr.network().address else {
            return Err(DataplaneError::Family(cidr));
        };
        let mask = u32::MAX.checked_shl(32 - u32::from(cidr.prefix_length)).unwrap_or(0);
        Ok(Self { network: network.octets(), mask: mask.to_be_bytes() })
    }
}

impl Ranges {
    pub(crate) fn new(config: &DataplaneConfig) -> Result<Self, DataplaneError> {
        Ok(Self {
            node: pods::node_address(config)?,
            node_pods: Range::new(config.node_pods)?,
            cluster_pods: Range::new(config.cluster_pods)?,
            services: Range::new(config.services)?,
            dns: config.dns,
        })
    }
}

#[derive(Debug)]
pub(crate) struct Table {
    socket: NftSocket,
    nodes: BTreeSet<Ipv4Addr>,
}

impl Table {
    /// Makes the table, or brings the base rules of one that is there up to date, in one transaction.
    pub(crate) fn open(ranges: Ranges) -> Result<Self, DataplaneError> {
        let socket = NftSocket::open().map_err(failed("connect"))?;
        socket.commit(base(&ranges)).map_err(failed("make the table"))?;
        let mut table = Self { socket, nodes: BTreeSet::new() };
        let nodes = table.elements(NODES)?;
        table.nodes =
            nodes.iter().filter_map(|element| address_of(element.key.as_slice())).collect();
        Ok(table)
    }

    /// The services that the kernel has now.
    pub(crate) fn read_back(&self) -> Result<ServiceTable, DataplaneError> {
        let mut services = ServiceTable::new();
        for element in self.elements(SERVICES)? {
            let Some(service) = service_of(&element.key) else { continue };
            let values = self.elements(&name_of(&service))?;
            let endpoints = values.iter().filter_map(|it| endpoint_of(&it.value)).collect();
            services.insert(service, endpoints);
        }
        Ok(services)
    }

    pub(crate) fn apply(&self, changes: &[Change]) -> Result<(), DataplaneError> {
        let mut batch = Batch::new();
        for change in changes {
            match change {
                Change::Add(service, endpoints) => add_service(&mut batch, service, endpoints),
                Change::Replace(service, endpoints) => fill_service(&mut batch, service, endpoints),
                Change::Remove(service) => remove_service(&mut batch, service),
            }
        }
        self.socket.commit(batch).map_err(failed("change services"))
    }

    pub(crate) fn apply_nodes(
        &mut self,
        desired: &BTreeSet<Ipv4Addr>,
    ) -> Result<(), DataplaneError> {
        let mut batch = Batch::new();
        let gone = self.nodes.difference(desired);
        gone.for_each(|node| {
            change_element(&mut batch, Kind::DeleteElement, NODES, &node.octets());
        });
        let new = desired.difference(&self.nodes);
        new.for_each(|node| change_element(&mut batch, Kind::NewElement, NODES, &node.octets()));
        self.socket.commit(batch).map_err(failed("change the nodes' addresses"))?;
        self.nodes.clone_from(desired);
        Ok(())
    }

    pub(crate) fn add_pod(&self, address: Ipv4Addr) -> Result<(), DataplaneError> {
        let mut batch = Batch::new();
        change_element(&mut batch, Kind::NewElement, HAIRPIN, &hairpin_key(address));
        self.socket.commit(batch).map_err(failed("add a pod"))
    }

    pub(crate) fn remove_pod(&self, address: Ipv4Addr) -> Result<(), DataplaneError> {
        let mut batch = Batch::new();
        change_element(&mut batch, Kind::DeleteElement, HAIRPIN, &hairpin_key(address));
        match self.socket.commit(batch) {
            // It was not there.
            Err(NftError::Refused { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(())
            }
            result => result.map_err(failed("remove a pod")),
        }
    }

    fn elements(&self, set: &str) -> Result<Vec<Element>, DataplaneError> {
        let request = message::dump(Kind::GetElement, |it| {
            it.string(1, TABLE).string(2, set);
        });
        let messages = self.socket.dump(&request).map_err(failed("read a set"))?;
        let elements = |message: &Vec<u8>| -> Vec<Element> {
            let list = attribute(message, 3).unwrap_or_default();
            attributes(list).filter_map(|(_, element)| Element::parse(element)).collect()
        };
        Ok(messages.iter().flat_map(elements).collect())
    }
}

fn failed(what: &'static str) -> impl Fn(NftError) -> DataplaneError {
    move |error| DataplaneError::Nft { what, source: Box::new(error) }
}

/// One element of a set or map, as the kernel tells it.
#[derive(Debug)]
struct Element {
    key: Vec<u8>,
    /// Empty for sets and for maps to verdicts.
    value: Vec<u8>,
}

impl Element {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let data =
            |kind| attribute(bytes, kind).and_then(|nest| attribute(nest, 1)).map(<[u8]>::to_vec);
        Some(Self { key: data(1)?, value: data(2).unwrap_or_default() })
    }
}

/// A service's chain and map have one name. Links of names are readable in `nft list ruleset`.
fn name_of(service: &ServiceAddress) -> String {
    let [a, b, c, d] = service.address.octets();
    format!("service-{a}-{b}-{c}-{d}-{}-{}", service.protocol.number(), service.port)
}

/// Each part of a concatenated key starts at a multiple of four bytes.
fn service_key(service: &ServiceAddress) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&service.address.octets());
    key[4] = service.protocol.number();
    key[8..10].copy_from_slice(&service.port.to_be_bytes());
    key
}

fn service_of(key: &[u8]) -> Option<ServiceAddress> {
    let protocol = Protocol::from_number(*key.get(4)?)?;
    let port = u16::from_be_bytes(*key.get(8..)?.first_chunk()?);
    Some(ServiceAddress { address: address_of(key)?, protocol, port })
}

fn endpoint_value(endpoint: &Endpoint) -> [u8; 8] {
    let mut value = [0; 8];
    value[..4].copy_from_slice(&endpoint.address.octets());
    value[4..6].copy_from_slice(&endpoint.port.to_be_bytes());
    value
}

fn endpoint_of(value: &[u8]) -> Option<Endpoint> {
    let port = u16::from_be_bytes(*value.get(4..)?.first_chunk()?);
    Some(Endpoint { address: address_of(value)?, port })
}

fn address_of(bytes: &[u8]) -> Option<Ipv4Addr> {
    bytes.first_chunk::<4>().copied().map(Ipv4Addr::from)
}

fn hairpin_key(address: Ipv4Addr) -> Vec<u8> {
    address.octets().repeat(2)
}

fn add_service(batch: &mut Batch, service: &ServiceAddress, endpoints: &BTreeSet<Endpoint>) {
    let name = name_of(service);
    add_chain(batch, &name);
    add_set(batch, &name, (data_type::INTEGER, 4), Some((data_type::ADDRESS_PORT, 8)));
    fill_service(batch, service, endpoints);
    batch.create(Kind::NewElement, |it| {
        it.string(1, TABLE).string(2, SERVICES).nest(3, |it| {
            it.nest(1, |it| {
                key(it, &service_key(service));
                jump(it, &name);
            });
        });
    });
}

/// Empties the service's map and chain, and fills them anew; inside the transaction nobody sees them empty.
fn fill_service(batch: &mut Batch, service: &ServiceAddress, endpoints: &BTreeSet<Endpoint>) {
    let name = name_of(service);
    empty_chain(batch, &name);
    batch.delete(Kind::DeleteElement, |it| {
        it.string(1, TABLE).string(2, &name);
    });
    batch.create(Kind::NewElement, |it| {
        it.string(1, TABLE).string(2, &name).nest(3, |it| {
            for (index, endpoint) in (0u32..).zip(endpoints) {
                it.nest(1, |it| {
                    key(it, &index.to_ne_bytes());
                    value(it, &endpoint_value(endpoint));
                });
            }
        });
    });
    let count = u32::try_from(endpoints.len()).unwrap_or(u32::MAX);
    add_rule(batch, &name, |it| {
        let (number, address, port) = (Register(0), Register(0), Register(1));
        it.random(number, count).value_by_map(&name, number, address).destination(address, port);
    });
}

fn remove_service(batch: &mut Batch, service: &ServiceAddress) {
    let name = name_of(service);
    change_element(batch, Kind::DeleteElement, SERVICES, &service_key(service));
    empty_chain(batch, &name);
    batch.delete(Kind::DeleteChain, |it| {
        it.string(1, TABLE).string(3, &name);
    });
    batch.delete(Kind::DeleteSet, |it| {
        it.string(1, TABLE).string(2, &name);
    });
}

/// The table's fixed part: what is there stays, except the rules of the base chains, which are written anew.
fn base(ranges: &Ranges) -> Batch {
    let mut batch = Batch::new();
    batch.create(Kind::NewTable, |it| {
        it.string(1, TABLE);
    });
    add_set(&mut batch, SERVICES, (data_type::SERVICE, 12), Some((data_type::VERDICT, 0)));
    add_set(&mut batch, HAIRPIN, (data_type::ADDRESS_ADDRESS, 8), None);
    add_set(&mut batch, NODES, (data_type::IPV4, 4), None);
    for (name, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        // NF_IP_PRI_NAT_DST.
        add_base_chain(&mut batch, name, "nat", hook, -100);
        add_rule(&mut batch, name, |it| {
            let (address, protocol, port) = (Register(0), Register(1), Register(2));
            it.payload(address, Header::Network, 16, 4).protocol(protocol);
            it.payload(port, Header::Transport, 2, 2).verdict_by_map(SERVICES, address);
        });
    }
    postrouting(&mut batch, ranges);
    for (name, hook) in [("forward", Hook::Forward), ("output-filter", Hook::Output)] {
        add_base_chain(&mut batch, name, "filter", hook, 0);
        add_rule(&mut batch, name, |it| {
            destination(it, ranges.services, true);
            it.payload(Register(0), Header::Network, 16, 4).compare(
                Register(0),
                false,
                &ranges.dns.octets(),
            );
            it.refuse();
        });
    }
    for (name, hook) in [("raw-prerouting", Hook::Prerouting), ("raw-output", Hook::Output)] {
        // NF_IP_PRI_RAW: before conntrack.
        add_base_chain(&mut batch, name, "filter", hook, -300);
        for (address_offset, port_offset) in [(16, 2), (12, 0)] {
            // Questions to the DNS address, and its answers.
            add_rule(&mut batch, name, |it| {
                it.payload(Register(0), Header::Network, address_offset, 4);
                it.compare(Register(0), true, &ranges.dns.octets());
                it.payload(Register(0), Header::Transport, port_offset, 2);
                it.compare(Register(0), true, &53u16.to_be_bytes()).no_track();
            });
        }
    }
    batch
}

fn postrouting(batch: &mut Batch, ranges: &Ranges) {
    // NF_IP_PRI_NAT_SRC.
    add_base_chain(batch, "postrouting", "nat", Hook::Postrouting, 100);
    add_rule(batch, "postrouting", |it| {
        it.payload(Register(0), Header::Network, 12, 4).payload(
            Register(1),
            Header::Network,
            16,
            4,
        );
        it.in_set(HAIRPIN, Register(0))
            .constant(Register(2), &ranges.node.octets())
            .source(Register(2));
    });
    add_rule(batch, "postrouting", |it| {
        it.payload(Register(0), Header::Network, 16, 4)
            .in_set(NODES, Register(0))
            .verdict(Verdict::Accept);
    });
    add_rule(batch, "postrouting", |it| {
        it.payload(Register(0), Header::Network, 12, 4).mask(Register(0), ranges.node_pods.mask);
        it.compare(Register(0), true, &ranges.node_pods.network);
        destination(it, ranges.cluster_pods, false);
        it.masquerade();
    });
}

/// Goes on only if the destination is (or is not) in the range.
fn destination(it: &mut Expressions<'_>, range: Range, inside: bool) {
    it.payload(Register(0), Header::Network, 16, 4).mask(Register(0), range.mask);
    it.compare(Register(0), inside, &range.network);
}

fn add_chain(batch: &mut Batch, name: &str) {
    batch.create(Kind::NewChain, |it| {
        it.string(1, TABLE).string(3, name);
    });
}

fn add_base_chain(batch: &mut Batch, name: &str, kind: &str, hook: Hook, priority: i32) {
    const NF_ACCEPT: u32 = 1;
    batch.create(Kind::NewChain, |it| {
        it.string(1, TABLE).string(3, name).nest(4, |it| {
            it.number(1, hook as u32).bytes(2, &priority.to_be_bytes());
        });
        it.number(5, NF_ACCEPT).string(7, kind);
    });
    empty_chain(batch, name);
}

fn empty_chain(batch: &mut Batch, name: &str) {
    batch.delete(Kind::DeleteRule, |it| {
        it.string(1, TABLE).string(2, name);
    });
}

fn add_rule(batch: &mut Batch, chain: &str, fill: impl FnOnce(&mut Expressions<'_>)) {
    batch.append(Kind::NewRule, |it| {
        it.string(1, TABLE).string(2, chain).nest(4, |it| fill(&mut Expressions(it)));
    });
}

fn add_set(batch: &mut Batch, name: &str, (key, key_bytes): (u32, u32), value: Option<(u32, u32)>) {
    const MAP: u32 = 8;
    batch.create(Kind::NewSet, |it| {
        it.string(1, TABLE).string(2, name).number(3, if value.is_some() { MAP } else { 0 });
        it.number(4, key).number(5, key_bytes);
        if let Some((data, data_bytes)) = value {
            it.number(6, data);
            if data_bytes > 0 {
                it.number(7, data_bytes);
            }
        }
        // The kernel wants a number that is unique in the transaction, to name a set that has no name yet; ours have.
        it.number(10, 1);
    });
}

fn change_element(batch: &mut Batch, kind: Kind, set: &str, bytes: &[u8]) {
    let fill = |it: &mut Attributes| {
        it.string(1, TABLE).string(2, set).nest(3, |it| {
            it.nest(1, |it| key(it, bytes));
        });
    };
    match kind {
        Kind::NewElement => batch.create(kind, fill),
        _ => batch.delete(kind, fill),
    }
}

fn key(it: &mut Attributes, bytes: &[u8]) {
    it.nest(1, |it| {
        it.bytes(1, bytes);
    });
}

fn value(it: &mut Attributes, bytes: &[u8]) {
    it.nest(2, |it| {
        it.bytes(1, bytes);
    });
}

fn jump(it: &mut Attributes, chain: &str) {
    const NFT_JUMP: i32 = -3;
    it.nest(2, |it| {
        it.nest(2, |it| {
            it.bytes(1, &NFT_JUMP.to_be_bytes()).string(2, chain);
        });
    });
}
