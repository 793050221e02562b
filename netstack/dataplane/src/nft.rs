//! nf_tables over netlink, without the `nft` program: the few messages and expressions that the data path uses.
//!
//! [`message`] builds bytes, [`expression`] rules, [`socket`] sends a batch, which the kernel applies as one transaction:
//! all of it or nothing, and no packet sees half of it. The names and numbers are those of the kernel's
//! `include/uapi/linux/netfilter/nf_tables.h`.

pub(crate) mod expression;
pub(crate) mod message;
pub(crate) mod socket;
