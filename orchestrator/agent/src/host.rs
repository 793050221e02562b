//! What all pods' tasks share: settings, the seams, and how much may go on at once.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use podium_types::Now;
use tokio::sync::Semaphore;

use crate::config::AgentConfig;
use crate::fields::FieldFacts;
use crate::node::Capacity;
use crate::seams::{EventSink, ImageStore, PodNetwork, References, ShimLauncher, StatusSink};

/// Everything outside the agent that it uses.
#[derive(Clone)]
pub struct Seams {
    /// ConfigMaps, Secrets and Services.
    pub references: Arc<dyn References>,
    /// Where statuses go.
    pub statuses: Arc<dyn StatusSink>,
    /// Where events go.
    pub events: Arc<dyn EventSink>,
    /// The pod network.
    pub network: Arc<dyn PodNetwork>,
    /// Images.
    pub images: Arc<dyn ImageStore>,
    /// Starts shims; [`crate::ProcessLauncher`] is the one that ships.
    pub launcher: Arc<dyn ShimLauncher>,
}

/// What all pods' tasks share.
pub(crate) struct Host {
    pub(crate) config: AgentConfig,
    pub(crate) seams: Seams,
    pub(crate) capacity: Capacity,
    pub(crate) starts: Semaphore,
    pub(crate) pulls: Semaphore,
    origin: Instant,
}

impl Host {
    pub(crate) fn new(config: AgentConfig, seams: Seams, capacity: Capacity) -> Self {
        Self {
            starts: Semaphore::new(config.starts_at_once.max(1)),
            pulls: Semaphore::new(config.pulls_at_once.max(1)),
            origin: Instant::now(),
            capacity,
            config,
            seams,
        }
    }

    /// Both clocks.
    pub(crate) fn now(&self) -> Now {
        Now { monotonic: self.origin.elapsed(), wall: Timestamp::now() }
    }

    /// The moment at which the monotonic clock shows this.
    pub(crate) fn instant(&self, monotonic: std::time::Duration) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.origin + monotonic)
    }

    /// What fields of the downward API may need of the node.
    pub(crate) fn field_facts(&self, pod_addresses: Vec<std::net::IpAddr>) -> FieldFacts {
        FieldFacts {
            node_name: self.config.node_name.clone(),
            host_addresses: self.config.host_addresses.clone(),
            pod_addresses,
            allocatable: (
                i64::try_from(self.capacity.allocatable_cpu_milli(&self.config))
                    .unwrap_or(i64::MAX),
                i64::try_from(self.capacity.allocatable_memory_bytes(&self.config))
                    .unwrap_or(i64::MAX),
            ),
        }
    }
}
