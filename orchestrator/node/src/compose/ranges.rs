//! Ranges of addresses: what follows from the config, and from the node's place in the cluster.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::bail;
use podium_api::pipeline::{Cidr as ApiCidr, Config as PipelineConfig, PodRange};
use podium_init::config::MachineConfig;
use podium_link::Cidr;

/// The cluster's DNS is the tenth address of services.
const DNS_OFFSET: u32 = 10;
/// Each node's part of the pod network: 253 pods, more than a machine takes.
const NODE_PREFIX_LENGTH: u8 = 24;

/// Addresses that follow from the config, and from the node's place in the cluster.
#[derive(Clone, Copy)]
pub(super) struct Ranges {
    pub(super) node_pods: Cidr,
    pub(super) cluster_pods: Cidr,
    pub(super) services: Cidr,
    /// The node's own address among its pods.
    pub(super) node: Ipv4Addr,
    pub(super) kubernetes: Ipv4Addr,
    pub(super) dns: Ipv4Addr,
}

impl Ranges {
    pub(super) fn new(config: &MachineConfig, node_pods: Cidr) -> anyhow::Result<Self> {
        let services = config.cluster.service_cidr.network();
        let (pods_first, services_first) = (
            first(node_pods, "the node's pod addresses")?,
            first(services, "cluster.serviceCIDR")?,
        );
        Ok(Self {
            node_pods,
            cluster_pods: config.cluster.pod_cidr.network(),
            services,
            node: Ipv4Addr::from(pods_first + 1),
            kubernetes: Ipv4Addr::from(services_first + 1),
            dns: Ipv4Addr::from(services_first + DNS_OFFSET),
        })
    }
}

fn first(cidr: Cidr, what: &str) -> anyhow::Result<u32> {
    match cidr.address {
        IpAddr::V4(address) => Ok(u32::from(address)),
        IpAddr::V6(_) => bail!("{what}: {cidr} is not IPv4"),
    }
}

/// What the API hands out of the config's ranges.
pub(super) fn pipeline_config(config: &MachineConfig) -> anyhow::Result<PipelineConfig> {
    let (pods, services) =
        (config.cluster.pod_cidr.network(), config.cluster.service_cidr.network());
    let services_first = first(services, "cluster.serviceCIDR")?;
    let pods_first = first(pods, "cluster.podCIDR")?;
    Ok(PipelineConfig {
        service_cidr: ApiCidr::new(Ipv4Addr::from(services_first), services.prefix_length),
        reserved: vec![Ipv4Addr::from(services_first + DNS_OFFSET)],
        pods: Some(PodRange {
            cidr: ApiCidr::new(Ipv4Addr::from(pods_first), pods.prefix_length),
            node_prefix: NODE_PREFIX_LENGTH.max(pods.prefix_length),
        }),
        ..PipelineConfig::default()
    })
}
