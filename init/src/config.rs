//! The machine config: one YAML document (`kind: MachineConfig`) that every machine of a cluster may share.
//!
//! [`decode`] is strict: an unknown key, a missing key or a value that cannot be meant is a [`Problem`] that names the
//! field, the line and the reason, and all problems of a document are reported at once as far as it can be read.
//! The shape of the YAML is in [`document`]; this module holds the checked values that programs use. Where a config
//! comes from (fw_cfg, the ESP, the last good copy) is the binary's business.
//!
//! Invariant: a [`MachineConfig`] can only be made by [`decode`] (or by postcard, from a program that decoded it), so
//! whoever holds one need not check it again.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

pub use podium_link::Cidr;

mod check;
pub mod document;
mod outline;

#[cfg(test)]
mod tests;

/// The `apiVersion` that [`decode`] accepts.
pub const API_VERSION: &str = "podium.dev/v1";
/// The `kind` that [`decode`] accepts.
pub const KIND: &str = "MachineConfig";
/// A token proves membership against anybody on the wire: 128 bits are beyond guessing, fewer are not.
pub const TOKEN_MIN_BYTES: usize = 16;
/// Where machines of a cluster speak to each other: TCP, and UDP for announcements.
pub const PEER_PORT: u16 = 6444;

/// Everything that a machine is told before it can talk to its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineConfig {
    /// Which cluster the machine belongs to.
    pub cluster: Cluster,
    /// What is special about this machine.
    pub machine: Machine,
    /// Where container images come from; registries that are not listed are asked directly.
    pub registries: Vec<Registry>,
    /// How patient the machine is.
    pub timings: Timings,
}

/// The cluster's name, secrets and address ranges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// A DNS label.
    pub name: String,
    /// The shared secret by which machines recognise each other.
    pub token: Token,
    /// The administrator's public key: SubjectPublicKeyInfo in DER, ECDSA P-256, 91 bytes.
    pub admin_key: Vec<u8>,
    /// How many machines must see each other before they form the cluster; at least 1.
    pub expect: u32,
    /// Where other machines may be found, besides those that the local network shows.
    pub peers: Vec<SocketAddr>,
    /// Pod addresses; each node gets a part of it. IPv4, host bits zero.
    pub pod_cidr: Cidr,
    /// Service addresses; `kubernetes` is the first and DNS the tenth. IPv4, host bits zero.
    pub service_cidr: Cidr,
    /// How packets of pods reach other machines; the same on all machines of a cluster.
    pub overlay: Overlay,
}

/// How packets of pods reach other machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Overlay {
    /// Encrypted: UDP port 51820.
    #[default]
    WireGuard,
    /// In the clear, over any network: UDP port 4789.
    Vxlan,
    /// As they are: the machines share one Ethernet, which lets pods' addresses pass.
    Routes,
}

/// The shared secret of a cluster, at least [`TOKEN_MIN_BYTES`] long. Its `Debug` form does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token(Vec<u8>);

impl Token {
    /// The secret's bytes, to be proven, never to be sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Token({} bits)", self.0.len() * 8)
    }
}

/// What belongs to one machine only. All of it may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// A DNS label; without it the name comes from DHCP or from the first link's address.
    pub hostname: Option<String>,
    /// The disk that may hold STATE, as `/dev/vda`; without it only the rule for the only disk applies.
    pub state_disk: Option<String>,
    /// How the first Ethernet link gets its address.
    pub network: Network,
    /// Time servers (names or addresses), tried in order; empty means those that DHCP names.
    pub time_servers: Vec<String>,
}

/// How the machine gets its address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// Ask a DHCPv4 server on every Ethernet link.
    #[default]
    Dhcp,
    /// Use fixed addresses on one link.
    Static {
        /// The link's name; without it the first Ethernet link.
        link: Option<String>,
        /// The machine's addresses with their prefixes; at least one.
        addresses: Vec<Cidr>,
        /// The default router.
        gateway: Option<IpAddr>,
        /// DNS servers, in order.
        nameservers: Vec<IpAddr>,
    },
}

/// A registry host and the places to ask in its stead, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    /// The host in image references, as `k8s.gcr.io`.
    pub host: String,
    /// Tried in order, before the host itself.
    pub mirrors: Vec<Mirror>,
}

/// One place that serves the images of a registry.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// `https://host[:port]`.
    pub url: String,
    /// PEM certificates to trust for this mirror, besides none: without it the public roots apply.
    pub ca_pem: Option<String>,
    /// Basic authentication.
    pub credential: Option<Credential>,
}

/// A name and a password for HTTP basic authentication. Its `Debug` form does not show the password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// The user's name.
    pub username: String,
    /// The secret.
    pub password: String,
}

impl fmt::Debug for Mirror {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Mirror")
            .field("url", &self.url)
            .field("own_ca", &self.ca_pem.is_some())
            .field("credential", &self.credential)
            .finish()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

/// How patient the machine is. Production values are the programs' own; a machine emulated in software is slower by a
/// factor, and everything that waits for it must be as much slower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    /// Multiplies every time-out and interval (heartbeats, elections, probes); 1 to 100.
    pub factor: u32,
}

impl Default for Timings {
    fn default() -> Self {
        Self { factor: 1 }
    }
}

/// One thing that is wrong with a config, for the person who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The field's path, as `cluster.token` or `registries[0].mirrors[1].url`; empty for the document as a whole.
    pub field: String,
    /// The line in the document, from 1, where it is known.
    pub line: Option<u32>,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = if self.field.is_empty() { "the document" } else { &self.field };
        match self.line {
            Some(line) => write!(out, "{field} (line {line}): {}", self.reason),
            None => write!(out, "{field}: {}", self.reason),
        }
    }
}

/// A document that is no machine config, and everything that is wrong with it (at least one problem).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("the machine config is not usable: {}", join(.problems))]
pub struct ConfigError {
    /// In the order of the document's fields.
    pub problems: Vec<Problem>,
}

fn join(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Reads a machine config and checks every value.
///
/// # Errors
/// All problems that could be found: a document that is no YAML, or has an unknown key or a value of the wrong type,
/// yields one; otherwise every value that cannot be meant yields its own.
pub fn decode(yaml: &str) -> Result<MachineConfig, ConfigError> {
    let outline = outline::Outline::of(yaml);
    let document = document::parse(yaml, &outline)
        .map_err(|problem| ConfigError { problems: vec![problem] })?;
    check::check(document, &outline).map_err(|problems| ConfigError { problems })
}
