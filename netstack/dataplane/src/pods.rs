//! A pod's link: a veth pair, one address of /32 in the pod, one route to it on the node.
//!
//! There is no bridge, so pods share no broadcast domain: a pod sees only packets that are routed to it. Its next hop for
//! everything is the node's own pod address, which the kernel answers for on every link.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;

use podium_link::Cidr;
use podium_link::netlink::{Netlink, NetlinkError, Route};

use crate::{DataplaneConfig, DataplaneError, NODE_LINK};

pub(crate) const LINK_PREFIX: &str = "veth";
/// The link's name inside the pod.
const POD_LINK: &str = "eth0";

/// A pod to be connected.
#[derive(Clone, Copy, Debug)]
pub struct PodLink<'a> {
    /// The link's name on the node, from [`link_name`].
    pub name: &'a str,
    /// The pod's network namespace.
    pub namespace: BorrowedFd<'a>,
    /// The pod's address, out of the node's part.
    pub address: Ipv4Addr,
}

/// A pod's link name on the node: a link's name has at most 15 bytes, so it is the start of the uid's digits, which are
/// random (RFC 9562, version 4).
#[must_use]
pub fn link_name(pod_uid: &str) -> String {
    let digits = pod_uid.chars().filter(char::is_ascii_alphanumeric).take(11);
    LINK_PREFIX.chars().chain(digits).collect()
}

/// The node's own address among the pods': the first one.
pub(crate) fn node_address(config: &DataplaneConfig) -> Result<Ipv4Addr, DataplaneError> {
    match config.node_pods.network().address {
        IpAddr::V4(network) => Ok(Ipv4Addr::from(u32::from(network).wrapping_add(1))),
        IpAddr::V6(_) => Err(DataplaneError::Family(config.node_pods)),
    }
}

/// The link with the node's pod address and the DNS address, and the routes by which the node's own packets to pods and
/// services get that pod address as their source.
pub(crate) fn ensure_node_link(
    netlink: &mut Netlink,
    config: &DataplaneConfig,
) -> Result<(), DataplaneError> {
    let own = node_address(config)?;
    netlink.add_dummy(NODE_LINK)?;
    let link = index_of(netlink, NODE_LINK)?;
    netlink.set_up(link, true)?;
    for address in [own, config.dns] {
        netlink.add_address(link, Cidr::v4(address, 32))?;
    }
    for destination in [config.services, config.cluster_pods] {
        netlink.replace_route(&route(destination.network(), None, link, Some(own)))?;
    }
    Ok(())
}

pub(crate) fn attach(
    netlink: &mut Netlink,
    config: &DataplaneConfig,
    pod: &PodLink<'_>,
) -> Result<(), DataplaneError> {
    let own = node_address(config)?;
    netlink.add_veth(pod.name, POD_LINK, pod.namespace, config.mtu_bytes)?;
    let link = index_of(netlink, pod.name)?;
    netlink.set_up(link, true)?;
    in_namespace(pod.name, pod.namespace, || configure_inside(own, pod.address))?;
    set_mtu(netlink, pod.name, pod.namespace, config.mtu_bytes)?;
    Ok(netlink.replace_route(&route(Cidr::v4(pod.address, 32), None, link, Some(own)))?)
}

/// Sets the largest packet of both ends of a pod's link, if it is another. The pod's end is first: a failure in between
/// leaves this end as it was, which tells that there is something to do.
pub(crate) fn set_mtu(
    netlink: &mut Netlink,
    name: &str,
    namespace: BorrowedFd<'_>,
    mtu_bytes: u32,
) -> Result<bool, DataplaneError> {
    let absent = || NetlinkError::Answer(format!("looking for the link {name}"));
    let link = netlink.link(name)?.ok_or_else(absent)?;
    if link.mtu == mtu_bytes {
        return Ok(false);
    }
    in_namespace(name, namespace, || {
        let mut netlink = Netlink::open()?;
        let link = index_of(&mut netlink, POD_LINK)?;
        netlink.set_mtu(link, mtu_bytes)
    })?;
    netlink.set_mtu(link.index, mtu_bytes)?;
    Ok(true)
}

fn index_of(netlink: &mut Netlink, name: &str) -> Result<u32, NetlinkError> {
    let absent = || NetlinkError::Answer(format!("looking for the link {name}"));
    Ok(netlink.link(name)?.ok_or_else(absent)?.index)
}

fn route(
    destination: Cidr,
    gateway: Option<Ipv4Addr>,
    link: u32,
    source: Option<Ipv4Addr>,
) -> Route {
    Route {
        destination,
        gateway: gateway.map(IpAddr::V4),
        link,
        preferred_source: source.map(IpAddr::V4),
        metric: 0,
        onlink: false,
    }
}

fn configure_inside(node: Ipv4Addr, address: Ipv4Addr) -> Result<(), NetlinkError> {
    let mut netlink = Netlink::open()?;
    let link = index_of(&mut netlink, POD_LINK)?;
    netlink.add_address(link, Cidr::v4(address, 32))?;
    netlink.set_up(link, true)?;
    netlink.replace_route(&route(Cidr::v4(node, 32), None, link, None))?;
    netlink.replace_route(&route(Cidr::v4(Ipv4Addr::UNSPECIFIED, 0), Some(node), link, None))
}

/// Runs `work` on a thread of its own inside the pod's namespace: a thread's namespace cannot be lent.
fn in_namespace(
    name: &str,
    namespace: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<(), NetlinkError> + Send,
) -> Result<(), DataplaneError> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    let entered = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
            Ok::<_, rustix::io::Errno>(work())
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let failed =
        |error: rustix::io::Errno| DataplaneError::Namespace(name.to_owned(), error.into());
    Ok(entered.map_err(failed)??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_name_fits_and_tells_pods_apart() {
        let one = link_name("0b1a1a6e-3f0e-4a57-9f0c-0f3f6e9f1a2b");
        assert_eq!(one, "veth0b1a1a6e3f0");
        assert!(one.len() <= 15);
        assert_ne!(one, link_name("1b1a1a6e-3f0e-4a57-9f0c-0f3f6e9f1a2b"));
    }
}
