//! Links, addresses, routes and DHCP, synchronously.

mod cidr;

pub use cidr::{Cidr, CidrError};
