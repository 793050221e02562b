//! What stands between a request and the store, in two lists: stages that may change an object, then stages that may
//! only refuse it. Both may wait for something (a webhook is one more stage).
//!
//! Validation by the rules of a kind comes between the two lists; it belongs to `podium-types`.

mod node_restriction;
mod priority;
mod service_account;

use std::sync::Arc;

use futures::future::BoxFuture;
use podium_store::View;
use serde_json::Value;

use crate::auth::User;
use crate::registry::Resource;
use crate::status::Status;

pub use node_restriction::NodeRestriction;
pub use priority::Priority;
pub use service_account::DefaultServiceAccount;

/// What is being done to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It is new.
    Create,
    /// It, or a part of it, changes.
    Update,
    /// It is to go.
    Delete,
}

/// A request, as stages see it.
#[derive(Debug, Clone, Copy)]
pub struct Review<'a> {
    /// Who asks.
    pub user: &'a User,
    /// What for.
    pub operation: Operation,
    /// On which resource.
    pub resource: &'static Resource,
    /// On which part; empty for the object itself.
    pub subresource: &'a str,
    /// Where; empty for the cluster scope.
    pub namespace: &'a str,
    /// The object as stored (in its stored form); `None` for one that is new.
    pub old: Option<&'a Value>,
    /// The cluster as this request sees it.
    pub state: &'a View,
    /// Whether nothing will be written: no side effects then.
    pub dry_run: bool,
}

/// May change an object (in its stored form). Runs again if the write has to be tried again.
pub trait Mutating: Send + Sync {
    /// Changes the object, or refuses it.
    fn admit<'a>(
        &'a self,
        review: Review<'a>,
        object: &'a mut Value,
    ) -> BoxFuture<'a, Result<(), Status>>;
}

/// May refuse an object.
pub trait Validating: Send + Sync {
    /// Looks at the object as it will be stored; for a deletion, at the one that is to go.
    fn admit<'a>(
        &'a self,
        review: Review<'a>,
        object: &'a Value,
    ) -> BoxFuture<'a, Result<(), Status>>;
}

/// The two lists.
#[derive(Clone)]
pub struct Admission {
    /// In this order, each sees what the one before made.
    pub mutating: Vec<Arc<dyn Mutating>>,
    /// In this order; the first refusal counts.
    pub validating: Vec<Arc<dyn Validating>>,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            mutating: vec![Arc::new(DefaultServiceAccount), Arc::new(Priority)],
            validating: vec![Arc::new(NodeRestriction)],
        }
    }
}
