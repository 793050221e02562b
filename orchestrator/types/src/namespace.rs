//! The namespaces that every cluster has.

/// Where objects go that name none.
pub const DEFAULT: &str = "default";
/// The cluster's own.
pub const SYSTEM: &str = "kube-system";
/// What everybody may read.
pub const PUBLIC: &str = "kube-public";
/// The Leases of nodes.
pub const NODE_LEASES: &str = "kube-node-lease";

/// All of them.
pub const ALL: [&str; 4] = [DEFAULT, SYSTEM, PUBLIC, NODE_LEASES];
