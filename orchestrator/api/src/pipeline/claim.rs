//! What an object takes that only one may have: the cluster addresses of Services, the pod addresses of Nodes.
//!
//! A claim is a key of its own, outside the objects. The transaction that writes the object puts the key under the
//! guard that nobody else has it, and the one that removes the object, or its use, removes the key. So an address is
//! never given twice, whoever decides at the same time.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::Arc;

use podium_store::{Guard, Operation, View};
use podium_types::validation::{Cause, CauseReason};
use podium_types::{Kind, object};
use serde_json::{Value, json};

use super::Config;
use crate::bugs::Bug;
use crate::status::Status;

const ADDRESSES: &str = "/claims/cluster-ip/";
const POD_RANGES: &str = "/claims/pod-cidr/";
/// The first addresses of a range are given only to those who ask for them by number: at most so many…
const MOST_STATIC: u32 = 256;
/// …at least so many, and in between one in so many.
const FEWEST_STATIC: u32 = 16;

/// A range of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    base: u32,
    prefix: u8,
}

/// Not an address and a prefix length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a range of IPv4 addresses such as 10.96.0.0/16")]
pub struct CidrError(String);

impl Cidr {
    /// The range around an address. More than 30 bits of prefix leave no room, and count as 30.
    #[must_use]
    pub fn new(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(30);
        let mask = u32::MAX.checked_shl(u32::from(32 - prefix)).unwrap_or_default();
        Self { base: address.to_bits() & mask, prefix }
    }

    /// Whether an address may be given to a Service: it is in the range, and not its first or last.
    #[must_use]
    pub fn gives(self, address: Ipv4Addr) -> bool {
        let offset = address.to_bits().wrapping_sub(self.base);
        offset >= 1 && offset <= self.last_offset()
    }

    /// The address of the Service `kubernetes`.
    #[must_use]
    pub fn first(self) -> Ipv4Addr {
        self.at(1)
    }

    /// Whether the other range is within this one.
    fn holds(self, other: Self) -> bool {
        other.prefix >= self.prefix && Self::new(Ipv4Addr::from(other.base), self.prefix) == self
    }

    fn at(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base + offset)
    }

    fn last_offset(self) -> u32 {
        u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or_default() - 1
    }

    /// How many addresses at the beginning are not given by themselves.
    fn static_count(self) -> u32 {
        let size = self.last_offset();
        (size / 16).clamp(FEWEST_STATIC, MOST_STATIC).min(size / 2)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let error = || CidrError(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(error)?;
        let address = address.parse().map_err(|_| error())?;
        let prefix: u8 = prefix.parse().ok().filter(|prefix| *prefix <= 30).ok_or_else(error)?;
        Ok(Self::new(address, prefix))
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.at(0), self.prefix)
    }
}

/// Pod addresses, and how they are divided among nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodRange {
    /// All of them.
    pub cidr: Cidr,
    /// The prefix length of one node's part; not shorter than that of `cidr`.
    pub node_prefix: u8,
}

impl PodRange {
    /// Every node's part, the lowest first.
    fn parts(self) -> impl Iterator<Item = Cidr> {
        let Self { cidr, node_prefix } = self;
        let bits = u32::from(node_prefix.saturating_sub(cidr.prefix)).min(31);
        let size = 1u32.checked_shl(32 - u32::from(node_prefix)).unwrap_or_default();
        (0..1u32 << bits).map(move |index| {
            Cidr::new(Ipv4Addr::from_bits(cidr.base.wrapping_add(index * size)), node_prefix)
        })
    }
}

/// The keys that an object holds.
pub(super) fn of(kind: Kind, object: &Value) -> BTreeSet<String> {
    if kind == Kind::Node {
        let ranges = object::list_at(object, &["spec", "podCIDRs"]).iter();
        return ranges.filter_map(Value::as_str).map(range_key).collect();
    }
    if kind != Kind::Service {
        return BTreeSet::new();
    }
    let spec = object::at(object, &["spec"]);
    let addresses = object::list_at(spec, &["clusterIPs"]).iter().filter_map(Value::as_str);
    let one = object::str_at(spec, &["clusterIP"]);
    let addresses = addresses.chain(one).filter_map(|text| text.parse::<Ipv4Addr>().ok());
    addresses.map(address_key).collect()
}

fn range_key(range: &str) -> String {
    format!("{POD_RANGES}{range}")
}

fn address_key(address: Ipv4Addr) -> String {
    format!("{ADDRESSES}{address}")
}

/// Gives an object what it wants and has not named, and checks what it has.
pub(super) fn fill(
    kind: Kind,
    object: &mut Value,
    config: &Config,
    view: &View,
    random: u128,
) -> Result<(), Status> {
    if kind == Kind::Node {
        let name = object::name(object).to_owned();
        return config.pods.map_or(Ok(()), |pods| {
            fill_pods(object, pods, view).map_err(|cause| Status::invalid(kind, &name, &[cause]))
        });
    }
    if kind != Kind::Service {
        return Ok(());
    }
    let owned = owned_by(object, view);
    let allocator = Allocator { config, view, random, owned };
    let name = object::name(object).to_owned();
    let causes = allocator.fill(object);
    if causes.is_empty() { Ok(()) } else { Err(Status::invalid(kind, &name, &causes)) }
}

/// Gives a Node the lowest free part of the pod addresses; one that it names must be free, or its own.
fn fill_pods(node: &mut Value, pods: PodRange, view: &View) -> Result<(), Cause> {
    let key = object::key_of(podium_types::kind::resources::NODES, node);
    let record = view.get(&key.storage_key());
    let stored = record.map(|record| super::served::parse(record)).unwrap_or_default();
    let owned = object::list_at(&stored, &["spec", "podCIDRs"]).to_vec();
    let given = object::list_at(node, &["spec", "podCIDRs"]).to_vec();
    let spec = object::child_mut(object::map_of(node), "spec");
    if given.is_empty() {
        let free = |part: &Cidr| view.get(&range_key(&part.to_string())).is_none();
        let ranges = match owned.is_empty() {
            false => owned,
            true => {
                pods.parts().find(free).map(|part| json!(part.to_string())).into_iter().collect()
            }
        };
        let Some(first) = ranges.first().cloned() else {
            return Err(invalid(
                "spec.podCIDRs",
                &Value::Null,
                "all pod addresses are given to nodes",
            ));
        };
        spec.insert("podCIDR".to_owned(), first);
        spec.insert("podCIDRs".to_owned(), ranges.into());
        return Ok(());
    }
    for range in given.iter().filter(|range| !owned.contains(range)) {
        let text = range.as_str().unwrap_or_default();
        let part = text.parse::<Cidr>().ok().filter(|part| pods.cidr.holds(*part));
        if part.is_none_or(|part| part.prefix != pods.node_prefix || part.to_string() != text) {
            let why = format!("must be a /{} of {}", pods.node_prefix, pods.cidr);
            return Err(invalid("spec.podCIDRs", range, &why));
        }
        if view.get(&range_key(text)).is_some() {
            return Err(invalid("spec.podCIDRs", range, "belongs to another node"));
        }
    }
    Ok(())
}

/// The claims that the stored object of that name holds already.
fn owned_by(object: &Value, view: &View) -> BTreeSet<String> {
    let key = object::key_of(podium_types::kind::resources::SERVICES, object);
    let record = view.get(&key.storage_key());
    record.map(|record| of(Kind::Service, &super::served::parse(record))).unwrap_or_default()
}

struct Allocator<'a> {
    config: &'a Config,
    view: &'a View,
    random: u128,
    owned: BTreeSet<String>,
}

impl Allocator<'_> {
    fn fill(&self, service: &mut Value) -> Vec<Cause> {
        let mut causes = Vec::new();
        let kind = object::str_at(service, &["spec", "type"]).unwrap_or("ClusterIP").to_owned();
        let spec = object::child_mut(object::map_of(service), "spec");
        if kind == "ExternalName" {
            return causes;
        }
        let given = spec.get("clusterIP").and_then(Value::as_str).unwrap_or_default().to_owned();
        let address = match given.as_str() {
            "" => match self.free_address() {
                Some(address) => Some(address.to_string()),
                None => {
                    causes.push(invalid(
                        "spec.clusterIPs",
                        &Value::Null,
                        "failed to allocate a serviceIP: range is full",
                    ));
                    None
                }
            },
            "None" => Some(given),
            _ => {
                causes.extend(self.check_address(&given));
                Some(given)
            }
        };
        if let Some(address) = address {
            spec.insert("clusterIPs".to_owned(), json!([address]));
            spec.insert("clusterIP".to_owned(), json!(address));
        }
        spec.entry("ipFamilies").or_insert_with(|| json!(["IPv4"]));
        spec.entry("ipFamilyPolicy").or_insert_with(|| json!("SingleStack"));
        causes
    }

    fn free_address(&self) -> Option<Ipv4Addr> {
        let cidr = self.config.service_cidr;
        let (first, last) = (cidr.static_count() + 1, cidr.last_offset());
        let size = u128::from(last - first + 1);
        if self.config.bugs.has(Bug::AddressReused) {
            return Some(cidr.at(first));
        }
        let start = (self.random % size) as u32;
        // The named ones come last: they are better left to those who ask for them.
        let dynamic = (first..=last).cycle().skip(start as usize).take((last - first + 1) as usize);
        let free = |offset: &u32| self.is_free(cidr.at(*offset));
        dynamic.chain(1..first).find(free).map(|offset| cidr.at(offset))
    }

    fn is_free(&self, address: Ipv4Addr) -> bool {
        !self.config.reserved.contains(&address) && self.view.get(&address_key(address)).is_none()
    }

    fn check_address(&self, given: &str) -> Option<Cause> {
        let address: Ipv4Addr = given.parse().ok()?;
        let range = self.config.service_cidr;
        let why = if !range.gives(address) {
            format!(
                "failed to allocate IP {given}: the provided IP ({given}) is not in the valid range. The range of valid IPs is {range}"
            )
        } else if !self.is_free(address) && !self.owned.contains(&address_key(address)) {
            format!("failed to allocate IP {given}: provided IP is already allocated")
        } else {
            return None;
        };
        Some(invalid("spec.clusterIPs", &json!([given]), &why))
    }
}

/// A rule that a value breaks.
pub(super) fn invalid(field: &str, value: &Value, why: &str) -> Cause {
    let message = match value {
        Value::Null => format!("Internal error: {why}"),
        value => format!("Invalid value: {value}: {why}"),
    };
    Cause { reason: CauseReason::Invalid, field: field.to_owned(), message }
}

/// Adds to a transaction what takes these claims for the object at `owner`.
pub(super) fn take(
    config: &Config,
    owner: &Arc<str>,
    claims: &BTreeSet<String>,
    guards: &mut Vec<Guard>,
    operations: &mut Vec<Operation>,
) {
    for claim in claims {
        let key: Arc<str> = claim.as_str().into();
        if !config.bugs.has(Bug::AddressReused) {
            guards.push(Guard::Absent(key.clone()));
        }
        operations.push(Operation::Put { key, value: owner.as_bytes().to_vec().into() });
    }
}

/// Adds to a transaction what gives these claims back.
pub(super) fn release(claims: &BTreeSet<String>, operations: &mut Vec<Operation>) {
    let delete = |claim: &String| Operation::Delete { key: claim.as_str().into() };
    operations.extend(claims.iter().map(delete));
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::{Cidr, PodRange};

    #[test]
    fn pod_addresses_are_divided_from_the_lowest() {
        let range = |text: &str, node_prefix| PodRange {
            cidr: text.parse().expect("a range"),
            node_prefix,
        };
        let parts = |range: PodRange| range.parts().map(|it| it.to_string()).collect::<Vec<_>>();
        let all = parts(range("10.244.0.0/16", 24));
        assert_eq!(
            (all.len(), all[0].as_str(), all[255].as_str()),
            (256, "10.244.0.0/24", "10.244.255.0/24")
        );
        assert_eq!(parts(range("10.244.0.0/24", 24)), ["10.244.0.0/24"]);
        assert_eq!(range("10.0.0.0/8", 24).parts().count(), 65536);
        let pods: Cidr = "10.244.0.0/16".parse().expect("a range");
        assert!(pods.holds("10.244.7.0/24".parse().expect("a range")));
        assert!(!pods.holds("10.245.7.0/24".parse().expect("a range")));
    }

    #[test]
    fn a_range_gives_neither_its_first_nor_its_last_address() {
        let cidr: Cidr = "10.96.0.0/24".parse().expect("a range");
        assert_eq!(cidr.to_string(), "10.96.0.0/24");
        assert_eq!(cidr.first(), Ipv4Addr::new(10, 96, 0, 1));
        for (last, gives) in [(0, false), (1, true), (254, true), (255, false)] {
            assert_eq!(cidr.gives(Ipv4Addr::new(10, 96, 0, last)), gives, "{last}");
        }
        assert!(!cidr.gives(Ipv4Addr::new(10, 95, 255, 255)));
        assert!(!cidr.gives(Ipv4Addr::new(10, 96, 1, 1)));
        assert_eq!(cidr.static_count(), 16);
        assert_eq!("10.96.3.4/16".parse::<Cidr>().map(Cidr::static_count), Ok(256));
        for bad in ["", "10.96.0.0", "10.96.0.0/31", "10.96.0/16", "a/8"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }
}
