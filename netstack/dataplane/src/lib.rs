//! The pod network and the service tables, programmed over netlink.
