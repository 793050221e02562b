//! What must be told to the kernel so that it holds what it should. Pure.
//!
//! The order keeps packets flowing: ways are made from the far end to the near one (a tunnel before the route into it) and
//! unmade the other way round. Parts of the pod addresses that move from one tunnel to another never stand in none: the
//! kernel moves them when the other tunnel is told of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use podium_link::Cidr;
use podium_link::netlink::{Neighbour, NeighbourTable, Route};

use super::key::PublicKey;

/// What the kernel holds, or should hold, of one overlay. Tables that the mode does not use are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tables {
    pub(super) tunnels: BTreeMap<PublicKey, Tunnel>,
    pub(super) neighbours: BTreeMap<IpAddr, [u8; 6]>,
    pub(super) forwarding: BTreeMap<[u8; 6], IpAddr>,
    pub(super) routes: BTreeMap<Cidr, Route>,
}

/// A WireGuard peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tunnel {
    /// Where its packets are sent.
    pub(super) endpoint: Option<SocketAddr>,
    /// What may come from it, and is sent to it.
    pub(super) allowed: BTreeSet<Cidr>,
}

/// One thing to tell the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Makes a tunnel or changes one. Without `replace`, `allowed` is added to what it has.
    SetTunnel {
        key: PublicKey,
        endpoint: Option<SocketAddr>,
        allowed: BTreeSet<Cidr>,
        replace: bool,
    },
    RemoveTunnel(PublicKey),
    Tell(NeighbourTable, Neighbour),
    Forget(NeighbourTable, Neighbour),
    Route(Route),
    Unroute(Route),
}

/// What turns `have` into `want`.
pub(super) fn plan(want: &Tables, have: &Tables) -> Vec<Step> {
    let mut steps = Vec::new();
    steps.extend(
        want.tunnels
            .iter()
            .filter_map(|(key, tunnel)| set_tunnel(*key, tunnel, have.tunnels.get(key))),
    );
    let new = difference(&want.forwarding, &have.forwarding);
    steps.extend(new.map(|(mac, address)| {
        Step::Tell(NeighbourTable::Forwarding, Neighbour { address: *address, mac: *mac })
    }));
    let new = difference(&want.neighbours, &have.neighbours);
    steps.extend(new.map(|(address, mac)| {
        Step::Tell(NeighbourTable::Addresses, Neighbour { address: *address, mac: *mac })
    }));
    steps.extend(difference(&want.routes, &have.routes).map(|(_, route)| Step::Route(*route)));
    let gone = have.routes.iter().filter(|(cidr, _)| !want.routes.contains_key(cidr));
    steps.extend(gone.map(|(_, route)| Step::Unroute(*route)));
    let gone = have.neighbours.iter().filter(|(address, _)| !want.neighbours.contains_key(address));
    steps.extend(gone.map(|(address, mac)| {
        Step::Forget(NeighbourTable::Addresses, Neighbour { address: *address, mac: *mac })
    }));
    let gone = have.forwarding.iter().filter(|(mac, _)| !want.forwarding.contains_key(*mac));
    steps.extend(gone.map(|(mac, address)| {
        Step::Forget(NeighbourTable::Forwarding, Neighbour { address: *address, mac: *mac })
    }));
    let gone = have.tunnels.keys().filter(|key| !want.tunnels.contains_key(key));
    steps.extend(gone.map(|key| Step::RemoveTunnel(*key)));
    steps
}

/// Replacing what a tunnel may carry empties it for a moment, so that is done only if something must go.
fn set_tunnel(key: PublicKey, want: &Tunnel, have: Option<&Tunnel>) -> Option<Step> {
    let Some(have) = have else {
        let Tunnel { endpoint, allowed } = want.clone();
        return Some(Step::SetTunnel { key, endpoint, allowed, replace: true });
    };
    let endpoint = want.endpoint.filter(|endpoint| have.endpoint != Some(*endpoint));
    let replace = !have.allowed.is_subset(&want.allowed);
    let allowed: BTreeSet<Cidr> = if replace {
        want.allowed.clone()
    } else {
        want.allowed.difference(&have.allowed).copied().collect()
    };
    let same = endpoint.is_none() && !replace && allowed.is_empty();
    (!same).then_some(Step::SetTunnel { key, endpoint, allowed, replace })
}

/// The entries of `want` that `have` lacks or has otherwise.
fn difference<'a, K: Ord, V: PartialEq>(
    want: &'a BTreeMap<K, V>,
    have: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    want.iter().filter(|(key, value)| have.get(*key) != Some(*value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(fill: u8) -> PublicKey {
        PublicKey::from_bytes([fill; 32])
    }

    fn part(third: u8) -> Cidr {
        Cidr::new(IpAddr::from([10, 244, third, 0]), 24)
    }

    fn route(third: u8, last: u8) -> Route {
        Route {
            destination: part(third),
            gateway: Some(IpAddr::from([10, 77, 0, last])),
            link: 3,
            preferred_source: Some(IpAddr::from([10, 244, 0, 1])),
            metric: 0,
            onlink: false,
        }
    }

    /// Each part of the pod addresses belongs to one tunnel, as in the kernel.
    fn tables() -> impl Strategy<Value = Tables> {
        let owners = prop::collection::btree_map(0u8..6, (0u8..4, 0u8..3), 0..6);
        owners.prop_map(|owners| {
            let mut tables = Tables::default();
            for (third, (peer, last)) in owners {
                let tunnel = tables.tunnels.entry(key(peer)).or_default();
                tunnel.endpoint = Some(SocketAddr::from(([10, 77, 0, last], 51820)));
                tunnel.allowed.insert(part(third));
                tables.neighbours.insert(IpAddr::from([10, 244, third, 1]), [peer; 6]);
                tables.forwarding.insert([third; 6], IpAddr::from([10, 77, 0, last]));
                tables.routes.insert(part(third), route(third, last));
            }
            tables
        })
    }

    /// The kernel, as far as the steps go.
    fn apply(kernel: &mut Tables, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::SetTunnel { key, endpoint, allowed, replace } => {
                    for tunnel in kernel.tunnels.values_mut() {
                        tunnel.allowed.retain(|cidr| !allowed.contains(cidr));
                    }
                    let tunnel = kernel.tunnels.entry(key).or_default();
                    tunnel.endpoint = endpoint.or(tunnel.endpoint);
                    if replace {
                        tunnel.allowed.clear();
                    }
                    tunnel.allowed.extend(allowed);
                }
                Step::RemoveTunnel(key) => assert!(kernel.tunnels.remove(&key).is_some()),
                Step::Tell(NeighbourTable::Addresses, it) => {
                    kernel.neighbours.insert(it.address, it.mac);
                }
                Step::Tell(NeighbourTable::Forwarding, it) => {
                    kernel.forwarding.insert(it.mac, it.address);
                }
                Step::Forget(NeighbourTable::Addresses, it) => {
                    assert_eq!(kernel.neighbours.remove(&it.address), Some(it.mac));
                }
                Step::Forget(NeighbourTable::Forwarding, it) => {
                    assert_eq!(kernel.forwarding.remove(&it.mac), Some(it.address));
                }
                Step::Route(route) => drop(kernel.routes.insert(route.destination, route)),
                Step::Unroute(route) => {
                    assert_eq!(kernel.routes.remove(&route.destination), Some(route));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_plan_leads_to_what_is_wanted_and_then_there_is_none(from in tables(), to in tables()) {
            let mut kernel = from.clone();
            apply(&mut kernel, plan(&to, &from));
            prop_assert_eq!(&kernel, &to);
            prop_assert_eq!(plan(&to, &kernel), Vec::new());
        }
    }

    #[test]
    fn what_is_as_it_should_be_is_not_touched() {
        let mut have = Tables::default();
        have.routes.insert(part(1), route(1, 1));
        have.routes.insert(part(2), route(2, 2));
        let mut want = have.clone();
        want.routes.insert(part(2), route(2, 3));
        assert_eq!(plan(&want, &have), [Step::Route(route(2, 3))]);
    }

    #[test]
    fn a_tunnel_that_only_gains_is_never_emptied() {
        let tunnel = |parts: &[u8]| Tunnel {
            endpoint: Some(SocketAddr::from(([10, 77, 0, 1], 51820))),
            allowed: parts.iter().map(|third| part(*third)).collect(),
        };
        let gained = set_tunnel(key(1), &tunnel(&[1, 2]), Some(&tunnel(&[1])));
        let allowed = BTreeSet::from([part(2)]);
        let expected = Step::SetTunnel { key: key(1), endpoint: None, allowed, replace: false };
        assert_eq!(gained, Some(expected));
    }

    #[test]
    fn a_way_is_made_from_the_far_end_and_unmade_from_the_near_one() {
        let mut whole = Tables::default();
        whole.forwarding.insert([1; 6], IpAddr::from([10, 77, 0, 1]));
        whole.neighbours.insert(IpAddr::from([10, 244, 1, 1]), [1; 6]);
        whole.routes.insert(part(1), route(1, 1));
        let made = plan(&whole, &Tables::default());
        let is_route =
            |step: Option<&Step>| matches!(step, Some(Step::Route(_) | Step::Unroute(_)));
        assert!(is_route(made.last()), "{made:?}");
        let unmade = plan(&Tables::default(), &whole);
        assert!(is_route(unmade.first()), "{unmade:?}");
    }
}
