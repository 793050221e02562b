//! The names of a cluster, as a pure view of its services.
//!
//! Invariants: a name has at most one address record per address; names are lower case, without the trailing dot; replacing
//! a service removes every record that the service had and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The version of the specification that the zone follows, as its `dns-version` record says.
const SCHEMA_VERSION: &str = "1.1.0";

/// A service, as far as names are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What its name stands for.
    pub kind: ServiceKind,
    /// Its named and unnamed ports.
    pub ports: Vec<Port>,
}

/// What a service's name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// Virtual addresses.
    Cluster(Vec<IpAddr>),
    /// The pods themselves.
    Headless(Vec<Backend>),
    /// Another name.
    External(String),
}

/// A pod behind a headless service. Only ready ones belong here, unless the service publishes all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its address.
    pub address: IpAddr,
    /// Its name under the service's; made from the address if it has none.
    pub hostname: Option<String>,
    /// Its ports, by name, where they differ from the service's.
    pub ports: Vec<Port>,
}

/// A port that has an SRV record if it has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// May be empty.
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// The number.
    pub port: u16,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Data {
    /// A or AAAA.
    Address(IpAddr),
    /// CNAME.
    Alias(String),
    /// PTR.
    Pointer(String),
    /// SRV.
    Server {
        /// The port.
        port: u16,
        /// The name that has the address.
        target: String,
    },
    /// TXT.
    Text(String),
}

/// Which records a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A.
    V4,
    /// AAAA.
    V6,
    /// CNAME.
    Alias,
    /// PTR.
    Pointer,
    /// SRV.
    Server,
    /// TXT.
    Text,
    /// Anything else: the name may exist, but has no such records.
    Other,
}

/// What the zone says to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// These records.
    Records(Vec<Data>),
    /// The name is another one's alias, which is asked for next.
    Alias(String),
    /// The name exists without such records.
    NoData,
    /// The name does not exist.
    NoSuchName,
    /// The name is none of this zone's.
    Elsewhere,
}

/// All names of the cluster.
#[derive(Clone, Debug)]
pub struct Zone {
    domain: String,
    /// The records of a name, each with the services it comes from.
    names: BTreeMap<String, BTreeMap<Data, BTreeSet<(String, String)>>>,
    /// The names that have records of a service.
    owned: BTreeMap<(String, String), BTreeSet<String>>,
}

impl Zone {
    /// A zone without services. `domain` is usually `cluster.local`.
    #[must_use]
    pub fn new(domain: &str) -> Self {
        let domain = domain.trim_end_matches('.').to_ascii_lowercase();
        Self { domain, names: BTreeMap::new(), owned: BTreeMap::new() }
    }

    /// The cluster's domain.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Adds a service, or replaces the one of that name.
    pub fn replace(&mut self, service: &Service) {
        self.remove(&service.namespace, &service.name);
        let owner = (service.namespace.clone(), service.name.clone());
        for (name, data) in self.records_of(service) {
            self.owned.entry(owner.clone()).or_default().insert(name.clone());
            self.names.entry(name).or_default().entry(data).or_default().insert(owner.clone());
        }
    }

    /// Removes a service; one that is not there is no error.
    pub fn remove(&mut self, namespace: &str, name: &str) {
        let owner = (namespace.to_owned(), name.to_owned());
        for name in self.owned.remove(&owner).unwrap_or_default() {
            let Some(records) = self.names.get_mut(&name) else { continue };
            records.retain(|_, owners| {
                owners.remove(&owner);
                !owners.is_empty()
            });
            if records.is_empty() {
                self.names.remove(&name);
            }
        }
    }

    /// Answers a question. `name` may have any case and a trailing dot.
    #[must_use]
    pub fn lookup(&self, name: &str, kind: Kind) -> Answer {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if let Some(records) = self.names.get(&name) {
            return select(records.keys(), kind);
        }
        let Some(inside) = self.inside(&name) else {
            return Answer::Elsewhere;
        };
        if inside == "dns-version" {
            return select([Data::Text(SCHEMA_VERSION.to_owned())].iter(), kind);
        }
        if let Some(address) = pod_address(inside) {
            return select([Data::Address(address)].iter(), kind);
        }
        if inside.is_empty() || self.has_names_below(&name) {
            Answer::NoData
        } else {
            Answer::NoSuchName
        }
    }

    /// The part of `name` before the domain; `None` if it is outside. Empty for the domain itself.
    fn inside<'a>(&self, name: &'a str) -> Option<&'a str> {
        let before = name.strip_suffix(self.domain.as_str())?;
        if before.is_empty() { Some("") } else { before.strip_suffix('.') }
    }

    /// Whether a name is an inner node of the tree (RFC 8020): then it exists, though it has no records.
    fn has_names_below(&self, name: &str) -> bool {
        let suffix = format!(".{name}");
        self.names.keys().any(|other| other.ends_with(&suffix))
    }

    fn records_of(&self, service: &Service) -> Vec<(String, Data)> {
        let base = format!("{}.{}.svc.{}", service.name, service.namespace, self.domain);
        let mut records = Vec::new();
        match &service.kind {
            ServiceKind::External(target) => {
                let target = target.trim_end_matches('.').to_ascii_lowercase();
                records.push((base, Data::Alias(target)));
            }
            ServiceKind::Cluster(addresses) => {
                for address in addresses {
                    records.push((base.clone(), Data::Address(*address)));
                    records.push((reverse(*address), Data::Pointer(base.clone())));
                }
                add_servers(&mut records, &base, &base, &service.ports);
            }
            ServiceKind::Headless(backends) => {
                for backend in backends {
                    let label = backend.hostname.clone().unwrap_or_else(|| dashed(backend.address));
                    let own = format!("{label}.{base}");
                    records.push((base.clone(), Data::Address(backend.address)));
                    records.push((own.clone(), Data::Address(backend.address)));
                    records.push((reverse(backend.address), Data::Pointer(own.clone())));
                    let ports =
                        if backend.ports.is_empty() { &service.ports } else { &backend.ports };
                    add_servers(&mut records, &base, &own, ports);
                }
            }
        }
        records.into_iter().map(|(name, data)| (name.to_ascii_lowercase(), data)).collect()
    }
}

fn add_servers(records: &mut Vec<(String, Data)>, base: &str, target: &str, ports: &[Port]) {
    for port in ports.iter().filter(|port| !port.name.is_empty()) {
        let name = format!("_{}._{}.{base}", port.name, port.protocol);
        records.push((name, Data::Server { port: port.port, target: target.to_ascii_lowercase() }));
    }
}

fn select<'a>(records: impl Iterator<Item = &'a Data>, kind: Kind) -> Answer {
    let mut found = Vec::new();
    for data in records {
        let fits = match data {
            Data::Alias(target) if kind != Kind::Alias => return Answer::Alias(target.clone()),
            Data::Alias(_) => true,
            Data::Address(IpAddr::V4(_)) => kind == Kind::V4,
            Data::Address(IpAddr::V6(_)) => kind == Kind::V6,
            Data::Pointer(_) => kind == Kind::Pointer,
            Data::Server { .. } => kind == Kind::Server,
            Data::Text(_) => kind == Kind::Text,
        };
        if fits {
            found.push(data.clone());
        }
    }
    if found.is_empty() { Answer::NoData } else { Answer::Records(found) }
}

/// The address in `10-1-2-3.namespace.pod`: such names need no pod to exist.
fn pod_address(inside: &str) -> Option<IpAddr> {
    let mut parts = inside.split('.');
    let (dashed, _, kind) = (parts.next()?, parts.next()?, parts.next()?);
    if kind != "pod" || parts.next().is_some() {
        return None;
    }
    let v4 = dashed.replace('-', ".").parse::<std::net::Ipv4Addr>().map(IpAddr::V4);
    let v6 = || dashed.replace('-', ":").parse::<std::net::Ipv6Addr>().map(IpAddr::V6);
    v4.or_else(|_| v6()).ok()
}

/// An address as one label.
fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// The name of an address's PTR records (RFC 1035, 3.5; RFC 3596, 2.5).
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let nibbles =
                address.octets().into_iter().rev().flat_map(|byte| [byte & 0x0f, byte >> 4]);
            let labels: Vec<String> = nibbles.map(|nibble| format!("{nibble:x}")).collect();
            format!("{}.ip6.arpa", labels.join("."))
        }
    }
}

#[cfg(test)]
mod tests;
