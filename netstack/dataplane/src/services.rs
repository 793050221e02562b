//! What the kernel should do with connections to services: a table, and the difference between two of them.
//!
//! Pure. The table is a view that the node computes from Services and EndpointSlices; [`changes`] says what must be told to
//! the kernel when it turns into another one, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// A transport protocol that services have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The number in an IP header (IANA).
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol with this number in an IP header.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(|protocol| protocol.number() == number)
    }
}

/// What clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceAddress {
    /// The cluster IP.
    pub address: Ipv4Addr,
    /// The protocol.
    pub protocol: Protocol,
    /// The service's port.
    pub port: u16,
}

/// Where a connection ends up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// A pod's, or a node's, address.
    pub address: Ipv4Addr,
    /// The port there.
    pub port: u16,
}

/// All services of the cluster. One without endpoints is refused by the kernel, so it may be left out.
pub type ServiceTable = BTreeMap<ServiceAddress, BTreeSet<Endpoint>>;

/// One thing to tell the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A service gets its first endpoints.
    Add(ServiceAddress, BTreeSet<Endpoint>),
    /// A service gets other endpoints.
    Replace(ServiceAddress, BTreeSet<Endpoint>),
    /// A service loses its last endpoint, or is gone.
    Remove(ServiceAddress),
}

/// What turns `programmed` into `desired`. Removals come first, then the rest in the table's order.
#[must_use]
pub fn changes(programmed: &ServiceTable, desired: &ServiceTable) -> Vec<Change> {
    let has_endpoints = |table: &ServiceTable, service: &ServiceAddress| {
        table.get(service).is_some_and(|all| !all.is_empty())
    };
    let gone = programmed
        .keys()
        .filter(|service| !has_endpoints(desired, service))
        .map(|it| Change::Remove(*it));
    let rest = desired.iter().filter(|(_, endpoints)| !endpoints.is_empty()).filter_map(
        |(service, endpoints)| match programmed.get(service) {
            None => Some(Change::Add(*service, endpoints.clone())),
            Some(had) if had != endpoints => Some(Change::Replace(*service, endpoints.clone())),
            Some(_) => None,
        },
    );
    gone.chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn service(last: u8) -> ServiceAddress {
        ServiceAddress {
            address: Ipv4Addr::new(10, 96, 0, last),
            protocol: Protocol::Tcp,
            port: 80,
        }
    }

    fn endpoint(last: u8) -> Endpoint {
        Endpoint { address: Ipv4Addr::new(10, 244, 0, last), port: 8080 }
    }

    fn tables() -> impl Strategy<Value = ServiceTable> {
        prop::collection::btree_map(0u8..6, prop::collection::btree_set(0u8..4, 0..4), 0..6)
            .prop_map(|table| {
                let endpoints = |all: BTreeSet<u8>| all.into_iter().map(endpoint).collect();
                table.into_iter().map(|(last, all)| (service(last), endpoints(all))).collect()
            })
    }

    fn apply(programmed: &mut ServiceTable, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Add(service, endpoints) => {
                    assert_eq!(programmed.insert(service, endpoints), None);
                }
                Change::Replace(service, endpoints) => {
                    assert!(programmed.insert(service, endpoints).is_some());
                }
                Change::Remove(service) => assert!(programmed.remove(&service).is_some()),
            }
        }
    }

    proptest! {
        #[test]
        fn changes_lead_to_the_desired_table_and_then_there_are_none(from in tables(), to in tables()) {
            let mut programmed = ServiceTable::new();
            apply(&mut programmed, changes(&ServiceTable::new(), &from));
            let second = changes(&programmed, &to);
            apply(&mut programmed, second);
            let served: ServiceTable = to.iter().filter(|(_, all)| !all.is_empty()).map(|(a, b)| (*a, b.clone())).collect();
            prop_assert_eq!(&programmed, &served);
            prop_assert_eq!(changes(&programmed, &to), Vec::new());
        }
    }

    #[test]
    fn an_unchanged_service_is_not_touched() {
        let table = |last| {
            ServiceTable::from([
                (service(1), BTreeSet::from([endpoint(1)])),
                (service(2), BTreeSet::from([endpoint(last)])),
            ])
        };
        let expected = vec![Change::Replace(service(2), BTreeSet::from([endpoint(3)]))];
        assert_eq!(changes(&table(2), &table(3)), expected);
    }
}
