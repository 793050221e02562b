//! Links, addresses, routes and DHCP, synchronously.
//!
//! - [`netlink`]: a blocking rtnetlink client for what a small OS needs: links, addresses, routes.
//! - [`dhcp`]: a DHCPv4 client whose decisions are pure: messages and time in, messages and configuration out.
//! - [`packet`]: whole Ethernet frames on a link that has no address yet.
//! - [`sntp`]: asking a time server, and judging its answer.
//!
//! No thread and no asynchronous runtime: PID 1's network child drives all of it from one loop. The pods' data path
//! (bridges, overlays, nftables) is elsewhere; the client may be used there too, inside any namespace.

mod cidr;
pub mod dhcp;
pub mod netlink;
pub mod packet;
pub mod sntp;

pub use cidr::{Cidr, CidrError};
