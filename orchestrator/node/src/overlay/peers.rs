//! Who the peers are: a view of Machines and Nodes. Pure.
//!
//! A peer is a Machine with a Node of the same name: the Node has the part of the pod addresses, the Machine the way to it.
//! What one machine says must not harm the way to another: a range outside the cluster's pod addresses, or one that this
//! node or another peer has, is ignored and named.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use podium_dataplane::overlay::{OverlayConfig, OverlayPeer, PublicKey};
use podium_link::Cidr;
use podium_types::k8s::api::core::v1::{Node, NodeAddress};
use podium_types::{Machine, ObjectKey};
use serde::de::DeserializeOwned;

use crate::follow::News;

/// What is known of other nodes.
pub(super) struct Peers {
    own: String,
    node_pods: Cidr,
    cluster_pods: Cidr,
    /// For machines that publish no endpoint.
    port: u16,
    machines: BTreeMap<String, Machine>,
    nodes: BTreeMap<String, Node>,
}

/// Where packets should go.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// By the node's name.
    pub(super) peers: BTreeMap<String, OverlayPeer>,
    /// What was left out, and why; for people.
    pub(super) ignored: Vec<String>,
}

impl Peers {
    /// Nobody, seen from the node `own`.
    pub(super) fn new(own: String, config: &OverlayConfig) -> Self {
        Self {
            own,
            node_pods: config.node_pods,
            cluster_pods: config.cluster_pods,
            port: config.mode.port().unwrap_or_default(),
            machines: BTreeMap::new(),
            nodes: BTreeMap::new(),
        }
    }

    /// Takes in news of Machines.
    pub(super) fn machines(&mut self, news: &News) {
        take(&mut self.machines, news);
    }

    /// Takes in news of Nodes.
    pub(super) fn nodes(&mut self, news: &News) {
        take(&mut self.nodes, news);
    }

    /// Where packets should go. A range, a key or an address that two have is a voter's before a worker's, then the one's whose
    /// name is first.
    pub(super) fn table(&self) -> Table {
        let mut table = Table::default();
        let (mut ranges, mut keys) = (vec![self.node_pods], BTreeSet::new());
        let mut hosts = BTreeSet::new();
        let votes = |machine: &Machine| {
            machine.status.as_ref().and_then(|status| status.voter).unwrap_or_default()
        };
        let mut machines: Vec<_> = self.machines.iter().collect();
        machines.sort_by_key(|(_, machine)| !votes(machine));
        for (name, machine) in machines {
            let Some(node) = self.nodes.get(name).filter(|_| *name != self.own) else { continue };
            let mut pods = Vec::new();
            for cidr in pod_cidrs(node) {
                let taken = ranges.iter().find(|it| it.overlaps(cidr));
                if !self.is_part(cidr) || taken.is_some() {
                    table.ignored.push(format!("node {name}: its pod range {cidr} is not its own"));
                } else {
                    ranges.push(cidr);
                    pods.push(cidr);
                }
            }
            let Some(endpoint) = self.endpoint(machine) else { continue };
            if pods.is_empty() {
                continue;
            }
            let public_key = machine.spec.public_key.as_ref().and_then(|text| {
                let parsed = text.parse::<PublicKey>();
                let problem = match parsed {
                    Ok(key) if keys.insert(key) => return Some(key),
                    Ok(_) => "another machine has its public key".to_owned(),
                    Err(error) => format!("its public key: {error}"),
                };
                table.ignored.push(format!("machine {name}: {problem}"));
                None
            });
            let mut addresses: BTreeSet<IpAddr> = addresses(machine).collect();
            addresses.insert(endpoint.ip());
            addresses.retain(|it| !self.cluster_pods.contains(*it) && hosts.insert(*it));
            table.peers.insert(name.clone(), OverlayPeer { public_key, endpoint, addresses, pods });
        }
        table
    }

    fn is_part(&self, cidr: Cidr) -> bool {
        self.cluster_pods.contains(cidr.address)
            && cidr.prefix_length > self.cluster_pods.prefix_length
    }

    fn endpoint(&self, machine: &Machine) -> Option<SocketAddr> {
        let published = machine.spec.endpoint.as_ref().and_then(|text| text.parse().ok());
        published.or_else(|| addresses(machine).next().map(|it| SocketAddr::new(it, self.port)))
    }
}

fn pod_cidrs(node: &Node) -> Vec<Cidr> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let listed = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    let mut parsed = Vec::new();
    for cidr in listed.filter_map(|text| text.parse::<Cidr>().ok()) {
        // The single field repeats the first of the list.
        if !parsed.contains(&cidr.network()) {
            parsed.push(cidr.network());
        }
    }
    parsed
}

fn addresses(machine: &Machine) -> impl Iterator<Item = IpAddr> {
    let listed = machine.status.iter().flat_map(|status| &status.addresses);
    listed
        .filter(|it| it.type_ != "Hostname")
        .filter_map(|it: &NodeAddress| it.address.parse().ok())
}

/// Takes in objects of one kind, by name; one that does not fit its kind is as good as gone.
fn take<T: DeserializeOwned>(known: &mut BTreeMap<String, T>, news: &News) {
    let decoded = |key: &str, value: &[u8]| match serde_json::from_slice(value) {
        Ok(object) => Some(object),
        Err(error) => {
            tracing::error!(key, %error, "an object does not fit its kind");
            None
        }
    };
    match news {
        News::All(records) => {
            let all = records
                .iter()
                .filter_map(|it| Some((name(&it.key)?, decoded(&it.key, &it.value)?)));
            *known = all.collect();
        }
        News::Changes(events) => {
            for event in events {
                let Some(name) = name(&event.key) else { continue };
                let record = event.record.as_ref();
                match record.and_then(|it: &Arc<_>| decoded(&event.key, &it.value)) {
                    Some(object) => drop(known.insert(name, object)),
                    None => drop(known.remove(&name)),
                }
            }
        }
    }
}

fn name(key: &str) -> Option<String> {
    ObjectKey::parse(key).map(|key| key.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use podium_dataplane::overlay::{OverlayMode, PrivateKey};
    use serde_json::{Value, json};

    fn key(fill: u8) -> PublicKey {
        PrivateKey::new([fill; 32]).public()
    }

    /// Seen from `n1`, which has 10.244.0.0/24.
    fn peers() -> Peers {
        let config = OverlayConfig {
            mode: OverlayMode::WireGuard(PrivateKey::new([1; 32])),
            node_pods: "10.244.0.0/24".parse().expect("a range"),
            cluster_pods: "10.244.0.0/16".parse().expect("a range"),
        };
        let mut peers = Peers::new("n1".to_owned(), &config);
        peers.add("n1", 1, "10.244.0.0/24");
        peers
    }

    fn parse<T: DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("an object")
    }

    impl Peers {
        fn add(&mut self, name: &str, number: u8, pods: &str) {
            let machine = json!({"metadata": {"name": name},
                "spec": {"publicKey": key(number).to_string(), "endpoint": format!("10.77.0.{number}:51820")},
                "status": {"addresses": [
                    {"type": "InternalIP", "address": format!("10.77.0.{number}")},
                    {"type": "InternalIP", "address": format!("192.0.2.{number}")},
                    {"type": "Hostname", "address": name}]}});
            self.machines.insert(name.to_owned(), parse(machine));
            let node =
                json!({"metadata": {"name": name}, "spec": {"podCIDR": pods, "podCIDRs": [pods]}});
            self.nodes.insert(name.to_owned(), parse(node));
        }
    }

    #[test]
    fn every_other_node_is_a_peer() {
        let mut peers = peers();
        peers.add("n2", 2, "10.244.1.0/24");
        let expected = OverlayPeer {
            public_key: Some(key(2)),
            endpoint: SocketAddr::from(([10, 77, 0, 2], 51820)),
            addresses: BTreeSet::from([IpAddr::from([10, 77, 0, 2]), IpAddr::from([192, 0, 2, 2])]),
            pods: vec!["10.244.1.0/24".parse().expect("a range")],
        };
        let table = peers.table();
        assert_eq!(table.peers, BTreeMap::from([("n2".to_owned(), expected)]));
        assert_eq!(table.ignored, Vec::<String>::new());
    }

    #[test]
    fn a_machine_whose_node_is_gone_is_no_peer() {
        let mut peers = peers();
        peers.add("n2", 2, "10.244.1.0/24");
        peers.nodes.remove("n2");
        assert_eq!(peers.table(), Table::default());
    }

    #[test]
    fn nobody_takes_what_is_not_its_own() {
        for range in
            ["10.244.0.0/24", "10.244.0.128/25", "0.0.0.0/0", "10.96.0.0/24", "10.244.0.0/16"]
        {
            let mut peers = peers();
            peers.add("n2", 2, range);
            peers.add("n3", 3, "10.244.2.0/24");
            let table = peers.table();
            assert_eq!(table.peers.keys().collect::<Vec<_>>(), ["n3"], "{range}");
            let said = format!("node n2: its pod range {range} is not its own");
            assert_eq!(table.ignored, [said]);
        }
    }

    #[test]
    fn what_two_have_is_the_first_ones() {
        let mut peers = peers();
        peers.add("n2", 2, "10.244.1.0/24");
        peers.add("n3", 2, "10.244.2.0/24");
        peers.add("n4", 4, "10.244.1.0/24");
        let table = peers.table();
        assert_eq!(table.peers.keys().collect::<Vec<_>>(), ["n2", "n3"]);
        assert_eq!(table.peers["n3"].public_key, None);
        assert_eq!(table.peers["n3"].addresses, BTreeSet::new());
        assert_eq!(table.ignored.len(), 2, "{:?}", table.ignored);
    }

    #[test]
    fn a_worker_takes_nothing_of_a_voter_by_its_name() {
        let mut peers = peers();
        peers.add("a-worker", 2, "10.244.1.0/24");
        peers.add("n2", 2, "10.244.1.0/24");
        let status = peers.machines.get_mut("n2").and_then(|machine| machine.status.as_mut());
        status.expect("a status").voter = Some(true);
        assert_eq!(peers.table().peers.keys().collect::<Vec<_>>(), ["n2"]);
    }

    #[test]
    fn a_machine_without_an_endpoint_is_reached_at_its_first_address() {
        let mut peers = peers();
        peers.add("n2", 2, "10.244.1.0/24");
        if let Some(machine) = peers.machines.get_mut("n2") {
            machine.spec.endpoint = None;
        }
        let endpoint = peers.table().peers["n2"].endpoint;
        assert_eq!(endpoint, SocketAddr::from(([10, 77, 0, 2], 51820)));
        if let Some(machine) = peers.machines.get_mut("n2") {
            machine.status = None;
        }
        assert_eq!(peers.table(), Table::default());
    }
}
