//! Who asks, and what they may.
//!
//! Users come from certificates ([`certificate`]), are nodes whose key was checked ([`User::node`]), or are parts of this
//! program ([`User::system`]). The [`Authorizer`] is asked about every request, those of controllers too.

pub mod certificate;
mod node;
mod rules;

use std::net::IpAddr;

use futures::future::BoxFuture;
use podium_store::View;

use crate::registry::Resource;

pub use node::identity;
pub use rules::ClusterRules;

/// Everybody who has proven who they are.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Everybody else.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// May do everything.
pub const MASTERS: &str = "system:masters";
/// The nodes' certificates have this as organization.
pub const NODES: &str = "system:nodes";
/// Parts of this program that write through the pipeline. No certificate is given this group.
pub const INTERNAL: &str = "podium:internal";
/// The name of a node's user, before the node's name.
pub const NODE_PREFIX: &str = "system:node:";
/// Kubernetes' attribute of a certificate's subject for [`User::uid`].
pub const UID_ATTRIBUTE: [u64; 8] = [1, 3, 6, 1, 4, 1, 57683, 2];

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name; for people `admin`, for our own parts `system:…`.
    pub name: String,
    /// In the order of the certificate, then the one that tells whether anything was proven.
    pub groups: Vec<String>,
    /// Which of those who ever had the name; `None` if that was not proven. For a node, the fingerprint of the machine's key, see
    /// [`identity`].
    pub uid: Option<String>,
    /// Where a machine is that speaks for itself, on a connection by its own key. Nobody else has this.
    pub address: Option<IpAddr>,
}

impl User {
    /// Somebody who has proven a name and groups.
    #[must_use]
    pub fn authenticated(
        name: impl Into<String>,
        groups: impl IntoIterator<Item = String>,
    ) -> Self {
        let mut groups: Vec<String> = groups.into_iter().collect();
        groups.push(AUTHENTICATED.to_owned());
        Self { name: name.into(), groups, uid: None, address: None }
    }

    /// The node of this name, as its certificate would say. `address`: where its machine is, if it speaks for itself.
    #[must_use]
    pub fn node(name: &str, address: Option<IpAddr>) -> Self {
        let user = Self::authenticated(format!("{NODE_PREFIX}{name}"), [NODES.to_owned()]);
        Self { address, ..user }
    }

    /// The administrator.
    #[must_use]
    pub fn admin() -> Self {
        Self::authenticated("admin", [MASTERS.to_owned()])
    }

    /// A part of this program: `controller:deployment` is the user `system:controller:deployment`.
    #[must_use]
    pub fn system(part: &str) -> Self {
        Self::authenticated(format!("system:{part}"), [INTERNAL.to_owned()])
    }

    /// Somebody who has proven nothing.
    #[must_use]
    pub fn anonymous() -> Self {
        let groups = vec![UNAUTHENTICATED.to_owned()];
        Self { name: "system:anonymous".to_owned(), groups, uid: None, address: None }
    }

    /// Whether they are in a group.
    #[must_use]
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|of| of == group)
    }

    /// The node that this is, and no part of a voter: its name.
    #[must_use]
    pub fn as_node(&self) -> Option<&str> {
        self.name.strip_prefix(NODE_PREFIX).filter(|_| self.is_in(NODES) && !self.is_in(INTERNAL))
    }

    /// Whether they have proven nothing.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.is_in(UNAUTHENTICATED)
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// Who.
    pub user: &'a User,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: &'a str,
    /// On what.
    pub subject: Subject<'a>,
    /// Of a collection: only objects whose fields are so (`spec.nodeName=n1`). Empty: all.
    pub fields: &'a str,
}

/// What a request is about.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// Objects.
    Object {
        /// Of this resource.
        resource: &'static Resource,
        /// `status`; empty for the objects themselves.
        subresource: &'a str,
        /// Empty for the cluster scope, and for all namespaces.
        namespace: &'a str,
        /// Empty for collections.
        name: &'a str,
    },
    /// A path that is not of a resource: `/version`.
    Path(&'a str),
}

/// The answer of an authorizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may be done.
    Allow,
    /// It may not; a sentence for the message, or empty.
    Deny(String),
}

/// Decides who may do what.
pub trait Authorizer: Send + Sync {
    /// Decides one request. `state` is what this server knows now.
    fn authorize<'a>(&'a self, request: Attributes<'a>, state: View) -> BoxFuture<'a, Decision>;
}
