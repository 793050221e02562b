//! The node's data path: pods' links, the pod network's routes, and services, all programmed into the kernel over netlink.
//!
//! ```text
//!  pod ── eth0 ─┬─ veth ── route pod/32 ── routing ── uplink (masqueraded if it leaves the cluster)
//!               │                             │
//!               └ default via the node's      ├─ nat prerouting/output: cluster IP → endpoint  (maps, O(1) per packet)
//!                 pod address                 ├─ nat postrouting: outside and hairpin change their source
//!                                             └─ raw: look-ups at the DNS address are not tracked
//! ```
//!
//! Packets never pass through this code. [`Dataplane`] is level-triggered: every call says what should be, reads or remembers
//! what is, and tells the kernel the difference, as one transaction where nf_tables is concerned. A restarted node opens the
//! data path again and finds it as it was; nothing is flushed.
//!
//! Deliberately elsewhere: which endpoints a service has (the node computes a [`ServiceTable`] from its watch), the
//! machine's own address (PID 1), and names (`podium-dns`). The way to other nodes' pods is [`overlay`]'s.
//!
//! Invariants: no address translation between pods and nodes; a service's endpoints change for all packets at once.

mod nft;
pub mod overlay;
mod pods;
mod services;
mod table;

pub use pods::{PodLink, link_name};
pub use services::{Change, Endpoint, Protocol, ServiceAddress, ServiceTable, changes};

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};

use podium_link::Cidr;
use podium_link::netlink::{Netlink, NetlinkError};

use crate::table::Table;

/// The link that holds the node's addresses inside the cluster.
pub const NODE_LINK: &str = "podium0";

/// What a node's data path is made for. IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataplaneConfig {
    /// The node's part of the pod addresses; its first address is the node's own.
    pub node_pods: Cidr,
    /// All pod addresses of the cluster.
    pub cluster_pods: Cidr,
    /// All service addresses of the cluster.
    pub services: Cidr,
    /// The cluster's DNS address: every node answers it itself.
    pub dns: Ipv4Addr,
    /// The largest packet of pods, in bytes.
    pub mtu_bytes: u32,
}

/// Why the kernel's data path could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// A config that is not IPv4.
    #[error("{0} is not an IPv4 network")]
    Family(Cidr),
    /// Links, addresses or routes.
    #[error("program links and routes")]
    Route(#[from] NetlinkError),
    /// Services.
    #[error("program nf_tables: {what}")]
    Nft {
        /// What was being done.
        what: &'static str,
        /// The kernel's reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A pod's network namespace could not be entered.
    #[error("enter the network namespace of pod link {0}")]
    Namespace(String, #[source] std::io::Error),
}

/// The kernel's data path, of the network namespace in which it was opened. Calls block, briefly.
#[derive(Debug)]
pub struct Dataplane {
    config: DataplaneConfig,
    netlink: Netlink,
    table: Table,
    programmed: ServiceTable,
    /// The namespaces of connected pods by their links' names. One that nobody else holds any more ends with the pod's
    /// link, at [`Dataplane::detach_pod`].
    pods: BTreeMap<String, OwnedFd>,
}

impl Dataplane {
    /// Makes the node's link, addresses, routes and base rules if they are missing, and reads back the services that an
    /// earlier node programmed.
    ///
    /// # Errors
    /// The kernel lacks a module, or refuses.
    pub fn open(config: DataplaneConfig) -> Result<Self, DataplaneError> {
        let ranges = table::Ranges::new(&config)?;
        let mut netlink = Netlink::open()?;
        pods::ensure_node_link(&mut netlink, &config)?;
        let table = Table::open(ranges)?;
        let programmed = table.read_back()?;
        Ok(Self { config, netlink, table, programmed, pods: BTreeMap::new() })
    }

    /// What the kernel does with services now.
    #[must_use]
    pub fn programmed(&self) -> &ServiceTable {
        &self.programmed
    }

    /// Makes the kernel serve `desired`, in one transaction, and returns how many services changed.
    ///
    /// # Errors
    /// The kernel refuses; then nothing has changed.
    pub fn apply_services(&mut self, desired: &ServiceTable) -> Result<usize, DataplaneError> {
        let changes = changes(&self.programmed, desired);
        self.table.apply(&changes)?;
        for change in &changes {
            match change {
                Change::Add(service, endpoints) | Change::Replace(service, endpoints) => {
                    self.programmed.insert(*service, endpoints.clone());
                }
                Change::Remove(service) => {
                    self.programmed.remove(service);
                }
            }
        }
        Ok(changes.len())
    }

    /// Says which addresses are nodes': pods reach those without masquerade.
    ///
    /// # Errors
    /// The kernel refuses; then nothing has changed.
    pub fn apply_nodes(&mut self, desired: &BTreeSet<Ipv4Addr>) -> Result<(), DataplaneError> {
        self.table.apply_nodes(desired)
    }

    /// Connects a pod's network namespace, or finds it connected.
    ///
    /// # Errors
    /// The kernel refuses, or the namespace cannot be entered.
    pub fn attach_pod(&mut self, pod: &PodLink<'_>) -> Result<(), DataplaneError> {
        pods::attach(&mut self.netlink, &self.config, pod)?;
        let failed = |error| DataplaneError::Namespace(pod.name.to_owned(), error);
        let held = pod.namespace.try_clone_to_owned().map_err(failed)?;
        self.pods.insert(pod.name.to_owned(), held);
        self.table.add_pod(pod.address)
    }

    /// Disconnects a pod, by the name of its link and its address. One that is not connected is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn detach_pod(&mut self, link: &str, address: Ipv4Addr) -> Result<(), DataplaneError> {
        self.table.remove_pod(address)?;
        self.pods.remove(link);
        if let Some(link) = self.netlink.link(link)? {
            self.netlink.delete_link(link.index)?;
        }
        Ok(())
    }

    /// Sets the largest packet of all pods, in bytes: of those that were attached, and of those to come. Returns how many
    /// links were changed.
    ///
    /// # Errors
    /// The kernel refuses one of them, or its namespace cannot be entered; the others are changed.
    pub fn apply_mtu(&mut self, mtu_bytes: u32) -> Result<usize, DataplaneError> {
        self.config.mtu_bytes = mtu_bytes;
        let (mut changed, mut refused) = (0, None);
        for (name, namespace) in &self.pods {
            match pods::set_mtu(&mut self.netlink, name, namespace.as_fd(), mtu_bytes) {
                Ok(different) => changed += usize::from(different),
                Err(error) => refused = Some(error),
            }
        }
        refused.map_or(Ok(changed), Err)
    }

    /// The names of the links of all connected pods.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn attached(&mut self) -> Result<BTreeSet<String>, DataplaneError> {
        let names = self.netlink.links()?.into_iter().map(|link| link.name);
        Ok(names.filter(|name| name.starts_with(pods::LINK_PREFIX)).collect())
    }
}
