//! From what was written to what is meant: checks every value of a [`Document`] and reports all that are wrong.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::document::{self, Document};
use super::outline::Outline;
use super::{
    API_VERSION, Cidr, Cluster, Credential, KIND, Machine, MachineConfig, Mirror, Network, Overlay,
    PEER_PORT, Problem, Registry, TOKEN_MIN_BYTES, Timings, Token,
};

/// SubjectPublicKeyInfo of an uncompressed P-256 key, up to the point itself (RFC 5480): the rest is always 65 bytes.
const P256_HEADER: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const P256_POINT_BYTES: usize = 65;
/// A pod network smaller than this has no room for two nodes; one wider than /8 cannot be meant.
const POD_PREFIXES: std::ops::RangeInclusive<u8> = 8..=23;
/// Room for the fixed addresses (.1 and .10) and some services; one wider than /8 cannot be meant.
const SERVICE_PREFIXES: std::ops::RangeInclusive<u8> = 8..=26;
/// More machines than this never form one cluster at once: only voters wait for each other.
const MOST_EXPECTED: u32 = 7;
/// Whoever lists more has no list of machines.
const MOST_PEERS: usize = 32;
/// Slower than this is a typing error rather than an emulator.
const MOST_PATIENT: u32 = 100;

/// Collects problems while the values are read; a value that is wrong is replaced by something harmless.
struct Checker<'a> {
    outline: &'a Outline,
    problems: Vec<Problem>,
}

pub(super) fn check(document: Document, outline: &Outline) -> Result<MachineConfig, Vec<Problem>> {
    let mut checker = Checker { outline, problems: Vec::new() };
    checker.expect_text("apiVersion", &document.api_version, API_VERSION);
    checker.expect_text("kind", &document.kind, KIND);
    let cluster = checker.cluster(document.cluster);
    let machine = checker.machine(document.machine.unwrap_or_default());
    let registries = checker.registries(document.registries);
    let factor = document.timings.and_then(|timings| timings.factor).unwrap_or(1);
    checker.within("timings.factor", factor, 1, MOST_PATIENT);
    if checker.problems.is_empty() {
        Ok(MachineConfig { cluster, machine, registries, timings: Timings { factor } })
    } else {
        Err(checker.problems)
    }
}

impl Checker<'_> {
    fn problem(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        let field = field.into();
        let line = self.outline.line_of(&field);
        self.problems.push(Problem { field, line, reason: reason.into() });
    }

    fn expect_text(&mut self, field: &str, found: &str, wanted: &str) {
        if found != wanted {
            self.problem(field, format!("must be {wanted}, found {found:?}"));
        }
    }

    fn within(&mut self, field: &str, found: u32, least: u32, most: u32) {
        if found < least || found > most {
            self.problem(field, format!("must be from {least} to {most}, found {found}"));
        }
    }

    /// A DNS label (RFC 1123): what a host, a cluster and an object may be called.
    fn label(&mut self, field: &str, name: &str) {
        let edge =
            |at: Option<char>| at.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let inner = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if name.len() > 63 || !inner || !edge(name.chars().next()) || !edge(name.chars().last()) {
            let rule =
                "must be 1 to 63 lower-case letters, digits and '-', with no '-' at either end";
            self.problem(field, format!("{rule}, found {name:?}"));
        }
    }

    fn parsed<T: FromStr>(&mut self, field: &str, text: &str) -> Option<T>
    where
        T::Err: std::fmt::Display,
    {
        text.parse()
            .map_err(|error: T::Err| self.problem(field, format!("{error}, found {text:?}")))
            .ok()
    }

    fn cluster(&mut self, cluster: document::Cluster) -> Cluster {
        self.label("cluster.name", &cluster.name);
        let token = self.token(&cluster.token);
        let admin_key = self.admin_key(&cluster.admin_key);
        let expect = cluster.expect.unwrap_or(1);
        self.within("cluster.expect", expect, 1, MOST_EXPECTED);
        let peers = self.peers(&cluster.peers);
        let pods = Cidr::v4(Ipv4Addr::new(10, 244, 0, 0), 16);
        let pod_cidr = self.range("cluster.podCIDR", cluster.pod_cidr, pods, POD_PREFIXES);
        let services = Cidr::v4(Ipv4Addr::new(10, 96, 0, 0), 16);
        let service_cidr =
            self.range("cluster.serviceCIDR", cluster.service_cidr, services, SERVICE_PREFIXES);
        if pod_cidr.overlaps(service_cidr) {
            self.problem(
                "cluster.serviceCIDR",
                format!("{service_cidr} overlaps podCIDR {pod_cidr}"),
            );
        }
        let overlay = self.overlay(cluster.overlay.as_deref());
        let name = cluster.name;
        Cluster { name, token, admin_key, expect, peers, pod_cidr, service_cidr, overlay }
    }

    fn overlay(&mut self, text: Option<&str>) -> Overlay {
        match text {
            None | Some("wireguard") => return Overlay::WireGuard,
            Some("vxlan") => return Overlay::Vxlan,
            Some("routes") => return Overlay::Routes,
            Some(other) => self.problem(
                "cluster.overlay",
                format!("must be wireguard, vxlan or routes, found {other:?}"),
            ),
        }
        Overlay::default()
    }

    fn peers(&mut self, peers: &[String]) -> Vec<SocketAddr> {
        if peers.len() > MOST_PEERS {
            let reason = format!("must be at most {MOST_PEERS} addresses, found {}", peers.len());
            self.problem("cluster.peers", reason);
        }
        let mut addresses = Vec::new();
        for (at, peer) in peers.iter().enumerate() {
            let address = match peer.parse::<IpAddr>() {
                Ok(address) => Some(SocketAddr::new(address, PEER_PORT)),
                Err(_) => peer.parse::<SocketAddr>().ok().filter(|address| address.port() != 0),
            };
            let usable = address.filter(|it| !it.ip().is_unspecified() && !it.ip().is_multicast());
            if usable.is_none() {
                self.problem(
                    format!("cluster.peers[{at}]"),
                    format!(
                        "must be a machine's address as 10.0.2.11 or 10.0.2.11:6444, found {peer:?}"
                    ),
                );
            }
            addresses.extend(usable);
        }
        addresses
    }

    /// The reason never repeats the token: it goes to a console that others may read.
    fn token(&mut self, text: &str) -> Token {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
        match bytes {
            Err(_) => {
                self.problem("cluster.token", "is not base64url (letters, digits, '-' and '_')");
            }
            Ok(bytes) if bytes.len() < TOKEN_MIN_BYTES => {
                let least = TOKEN_MIN_BYTES * 8;
                let found = bytes.len() * 8;
                self.problem(
                    "cluster.token",
                    format!("must hold at least {least} bits, found {found}"),
                );
            }
            Ok(bytes) => return Token(bytes),
        }
        Token(Vec::new())
    }

    fn admin_key(&mut self, text: &str) -> Vec<u8> {
        match STANDARD.decode(text) {
            Err(_) => self.problem("cluster.adminKey", "is not base64"),
            Ok(der)
                if der.len() != P256_HEADER.len() + P256_POINT_BYTES
                    || !der.starts_with(&P256_HEADER) =>
            {
                self.problem(
                    "cluster.adminKey",
                    "is not the SubjectPublicKeyInfo of an ECDSA P-256 key",
                );
            }
            Ok(der) => return der,
        }
        Vec::new()
    }

    fn range(
        &mut self,
        field: &str,
        text: Option<String>,
        default: Cidr,
        prefixes: std::ops::RangeInclusive<u8>,
    ) -> Cidr {
        let Some(text) = text else { return default };
        let Some(cidr) = self.parsed::<Cidr>(field, &text) else { return default };
        if !cidr.address.is_ipv4() {
            self.problem(field, format!("must be IPv4, found {cidr}"));
        } else if cidr.network() != cidr {
            self.problem(
                field,
                format!("has host bits set: {} is the network of {cidr}", cidr.network()),
            );
        } else if !prefixes.contains(&cidr.prefix_length) {
            let (least, most) = (prefixes.start(), prefixes.end());
            self.problem(
                field,
                format!("must have a prefix from /{least} to /{most}, found {cidr}"),
            );
        } else {
            return cidr;
        }
        default
    }

    fn machine(&mut self, machine: document::Machine) -> Machine {
        if let Some(hostname) = &machine.hostname {
            self.label("machine.hostname", hostname);
        }
        let state_disk = machine.state.map(|state| state.disk);
        if let Some(disk) = &state_disk
            && (!disk.starts_with("/dev/") || disk.contains("..") || disk.len() <= "/dev/".len())
        {
            self.problem(
                "machine.state.disk",
                format!("must be a disk as /dev/vda, found {disk:?}"),
            );
        }
        let network = machine.network.map_or(Network::Dhcp, |network| self.network(network));
        let time_servers = machine.time.map(|time| time.servers).unwrap_or_default();
        for (at, server) in time_servers.iter().enumerate() {
            self.host(&format!("machine.time.servers[{at}]"), server);
        }
        Machine { hostname: machine.hostname, state_disk, network, time_servers }
    }

    fn network(&mut self, network: document::Network) -> Network {
        let fixed = network.address.is_some();
        match (network.dhcp, fixed) {
            (Some(true), true) => {
                self.problem("machine.network", "has both dhcp: true and an address: choose one");
            }
            (Some(false), false) => {
                self.problem("machine.network", "has dhcp: false and no address");
            }
            (None, false) => self.problem("machine.network", "needs dhcp: true or an address"),
            (Some(true), false) | (Some(false) | None, true) => {}
        }
        if !fixed
            && (network.gateway.is_some()
                || !network.nameservers.is_empty()
                || network.link.is_some())
        {
            self.problem(
                "machine.network",
                "link, gateway and nameservers belong to a fixed address",
            );
        }
        let Some(address) = network.address else { return Network::Dhcp };
        let addresses: Vec<Cidr> =
            self.parsed("machine.network.address", &address).into_iter().collect();
        let gateway = network
            .gateway
            .and_then(|gateway| self.parsed::<IpAddr>("machine.network.gateway", &gateway));
        let mut nameservers = Vec::new();
        for (at, server) in network.nameservers.iter().enumerate() {
            nameservers.extend(
                self.parsed::<IpAddr>(&format!("machine.network.nameservers[{at}]"), server),
            );
        }
        Network::Static { link: network.link, addresses, gateway, nameservers }
    }

    /// A DNS name or an address.
    fn host(&mut self, field: &str, host: &str) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':');
        if host.is_empty() || host.len() > 253 || !host.chars().all(plain) {
            self.problem(field, format!("must be a host name or an address, found {host:?}"));
        }
    }

    fn registries(&mut self, registries: Vec<document::Registry>) -> Vec<Registry> {
        let mut seen = std::collections::BTreeSet::new();
        let mut checked = Vec::new();
        for (at, registry) in registries.into_iter().enumerate() {
            let field = format!("registries[{at}].host");
            self.host(&field, &registry.host);
            if !seen.insert(registry.host.clone()) {
                self.problem(
                    &field,
                    format!("{} is listed twice: put its mirrors together", registry.host),
                );
            }
            let mut mirrors = Vec::new();
            for (number, mirror) in registry.mirrors.into_iter().enumerate() {
                mirrors.push(self.mirror(&format!("registries[{at}].mirrors[{number}]"), mirror));
            }
            checked.push(Registry { host: registry.host, mirrors });
        }
        checked
    }

    fn mirror(&mut self, field: &str, mirror: document::Mirror) -> Mirror {
        match mirror.url.strip_prefix("https://") {
            Some(host) if !host.is_empty() && !host.contains('@') => {}
            Some(_) | None => {
                let reason = format!("must be https://host[:port], found {:?}", mirror.url);
                self.problem(format!("{field}.url"), reason);
            }
        }
        if mirror.ca.as_ref().is_some_and(|ca| !ca.contains("-----BEGIN CERTIFICATE-----")) {
            self.problem(format!("{field}.ca"), "holds no PEM certificate");
        }
        let credential = match (mirror.username, mirror.password) {
            (Some(username), Some(password)) => Some(Credential { username, password }),
            (None, None) => None,
            (Some(_), None) => {
                self.problem(
                    format!("{field}.password"),
                    "is missing: username and password go together",
                );
                None
            }
            (None, Some(_)) => {
                self.problem(
                    format!("{field}.username"),
                    "is missing: username and password go together",
                );
                None
            }
        };
        Mirror { url: mirror.url, ca_pem: mirror.ca, credential }
    }
}
