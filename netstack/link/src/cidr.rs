//! An address with the length of its network prefix, as `10.0.2.15/24`.
//!
//! The host bits are kept: an interface address and a network are written alike, and [`Cidr::network`] tells them
//! apart. RFC 4632 (IPv4) and RFC 4291 section 2.3 (IPv6).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address and the number of leading bits that name its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cidr {
    /// The address, host bits included.
    pub address: IpAddr,
    /// Bits of the prefix: at most 32 for IPv4 and 128 for IPv6.
    pub prefix_length: u8,
}

/// Why a text is not an address with a prefix length.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// No `/` in the text.
    #[error("{0:?} has no prefix length: write it as 10.0.2.15/24")]
    NoPrefix(String),
    /// The part before the `/` is no address.
    #[error("{0:?} is not an IP address")]
    Address(String),
    /// The part after the `/` is no number that fits the family.
    #[error("{0:?} is not a prefix length from 0 to {1}")]
    Prefix(String, u8),
}

impl Cidr {
    /// Joins the two parts; a prefix longer than the family allows is cut to the family's length.
    pub fn new(address: IpAddr, prefix_length: u8) -> Self {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        Self { address, prefix_length: prefix_length.min(longest) }
    }

    /// Shorthand for an IPv4 address.
    pub fn v4(address: Ipv4Addr, prefix_length: u8) -> Self {
        Self::new(IpAddr::V4(address), prefix_length)
    }

    /// The same prefix with all host bits zero.
    pub fn network(self) -> Self {
        let address = match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix_length)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(address) & mask))
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix_length)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(address) & mask))
            }
        };
        Self { address, prefix_length: self.prefix_length }
    }

    /// Whether `address` lies inside this network.
    pub fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && Self::new(address, self.prefix_length).network() == self.network()
    }

    /// Whether the two networks share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.network().address) || other.contains(self.network().address)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.address, self.prefix_length)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) =
            text.split_once('/').ok_or_else(|| CidrError::NoPrefix(text.to_owned()))?;
        let address: IpAddr =
            address.parse().map_err(|_| CidrError::Address(address.to_owned()))?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix_length: u8 = prefix
            .parse()
            .ok()
            .filter(|length| *length <= longest)
            .ok_or_else(|| CidrError::Prefix(prefix.to_owned(), longest))?;
        Ok(Self { address, prefix_length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().expect("a valid prefix")
    }

    #[test]
    fn a_network_has_no_host_bits() {
        assert_eq!(cidr("10.0.2.15/24").network(), cidr("10.0.2.0/24"));
        assert_eq!(cidr("10.0.2.15/0").network(), cidr("0.0.0.0/0"));
        assert_eq!(cidr("fd00::1:2/64").network(), cidr("fd00::/64"));
    }

    #[test]
    fn overlap_is_symmetric_and_family_aware() {
        assert!(cidr("10.0.0.0/8").overlaps(cidr("10.96.0.0/16")));
        assert!(cidr("10.96.0.0/16").overlaps(cidr("10.0.0.0/8")));
        assert!(!cidr("10.244.0.0/16").overlaps(cidr("10.96.0.0/16")));
        assert!(!cidr("0.0.0.0/0").overlaps(cidr("::/0")));
    }

    #[test]
    fn bad_texts_say_what_is_wrong() {
        assert_eq!("10.0.2.15".parse::<Cidr>(), Err(CidrError::NoPrefix("10.0.2.15".into())));
        assert_eq!("10.0.2/24".parse::<Cidr>(), Err(CidrError::Address("10.0.2".into())));
        assert_eq!("10.0.2.0/33".parse::<Cidr>(), Err(CidrError::Prefix("33".into(), 32)));
    }
}
