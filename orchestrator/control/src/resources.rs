//! What pods ask for and what nodes have, as numbers that can be added.
//!
//! Units are the smallest that Kubernetes reserves: thousandths of a CPU, bytes, and whole items of anything else.
//! Quantities that do not parse count as zero: validation refuses them before they get here. Sums saturate.

use std::collections::BTreeMap;

use podium_types::k8s::api::core::v1::{Container, Node, Pod, PodSpec};
use podium_types::k8s::apimachinery::pkg::api::resource::Quantity;

/// Amounts by name of the resource; absent is zero. CPU is in thousandths, everything else in whole units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources(BTreeMap<String, i64>);

impl Resources {
    /// The amount of one resource.
    #[must_use]
    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Every resource that is not zero, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    fn set(&mut self, name: &str, amount: i64) {
        if amount == 0 {
            self.0.remove(name);
        } else {
            self.0.insert(name.to_owned(), amount);
        }
    }

    fn add(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            self.set(name, self.get(name).saturating_add(amount));
        }
    }

    fn subtract(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            self.set(name, self.get(name).saturating_sub(amount));
        }
    }

    fn raise(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            self.set(name, self.get(name).max(amount));
        }
    }
}

impl From<&BTreeMap<String, Quantity>> for Resources {
    fn from(list: &BTreeMap<String, Quantity>) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in list {
            resources.set(name, amount(name, &quantity.0));
        }
        resources
    }
}

/// What a pod reserves: its containers' requests together or, where larger, what an init container needs beside the
/// sidecars started before it; plus its overhead. Requests of the pod as a whole replace the sum.
#[must_use]
pub fn pod_requests(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&container_requests(container));
    }
    let mut sidecars = Resources::default();
    let mut largest_init = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut beside = container_requests(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&beside);
            beside = Resources::default();
        }
        beside.add(&sidecars);
        largest_init.raise(&beside);
    }
    total.add(&sidecars);
    total.raise(&largest_init);
    let whole = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    for (name, amount) in whole.map(Resources::from).unwrap_or_default().iter() {
        total.set(name, amount);
    }
    if let Some(overhead) = &spec.overhead {
        total.add(&Resources::from(overhead));
    }
    total
}

fn container_requests(container: &Container) -> Resources {
    let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    requests.map(Resources::from).unwrap_or_default()
}

/// What a node offers to pods.
#[must_use]
pub fn allocatable(node: &Node) -> Resources {
    let status = node.status.as_ref();
    let list = status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
    list.map(Resources::from).unwrap_or_default()
}

/// A port of the node that a pod takes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// Number.
    pub port: i32,
    /// `TCP`, `UDP`, `SCTP`.
    pub protocol: String,
    /// The address it is taken on; `0.0.0.0` for all.
    pub address: String,
}

impl HostPort {
    /// Whether both cannot be taken at once.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        let any = |port: &Self| matches!(port.address.as_str(), "0.0.0.0" | "::");
        self.port == other.port
            && self.protocol == other.protocol
            && (any(self) || any(other) || self.address == other.address)
    }
}

/// The host ports a pod takes.
#[must_use]
pub fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let on_host = spec.host_network == Some(true);
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let number = match port.host_port.filter(|port| *port > 0) {
                Some(number) => number,
                None if on_host => port.container_port,
                None => return None,
            };
            Some(HostPort {
                port: number,
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                address: port
                    .host_ip
                    .clone()
                    .filter(|address| !address.is_empty())
                    .unwrap_or_else(|| "0.0.0.0".into()),
            })
        })
        .collect()
}

/// What the pods of one node take together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// The sum of their requests.
    pub requests: Resources,
    /// How many pods.
    pub pods: usize,
    /// The ports of the node that they take, and how many pods each.
    pub host_ports: BTreeMap<HostPort, usize>,
}

impl Usage {
    /// Counts a pod in.
    pub fn add(&mut self, pod: &Pod) {
        self.pods += 1;
        self.requests.add(&pod_requests(pod));
        for port in pod.spec.iter().flat_map(host_ports) {
            *self.host_ports.entry(port).or_default() += 1;
        }
    }

    /// Counts a pod out that was counted in.
    pub fn subtract(&mut self, pod: &Pod) {
        self.pods = self.pods.saturating_sub(1);
        self.requests.subtract(&pod_requests(pod));
        for port in pod.spec.iter().flat_map(host_ports) {
            if let Some(count) = self.host_ports.get_mut(&port) {
                *count -= 1;
                if *count == 0 {
                    self.host_ports.remove(&port);
                }
            }
        }
    }
}

/// The number a quantity stands for, in the unit of its resource, rounded up as Kubernetes rounds reservations.
fn amount(name: &str, quantity: &str) -> i64 {
    let quantity = podium_types::quantity::Quantity::parse(quantity).unwrap_or(ZERO);
    if name == "cpu" { quantity.milli_value() } else { quantity.value() }
}

const ZERO: podium_types::quantity::Quantity = podium_types::quantity::Quantity::ZERO;
