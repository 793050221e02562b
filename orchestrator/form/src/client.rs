//! The API as the parts of this node use it: they read and write objects as the node's user, wherever the API is.
//!
//! On a voter that is the pipeline of this process ([`Voter`]). The parts (place, status, events, registration) do not know.

use std::sync::Arc;

use futures::future::BoxFuture;
use podium_api::pipeline::ReadOptions;
use podium_api::{Pipeline, Status, Target, User};
use podium_control::Step;
use podium_types::ObjectKey;
use serde_json::Value;

use podium_lead::calls;

/// Shared by the parts.
pub type SharedClient = Arc<dyn Client>;

/// See the module.
pub trait Client: Send + Sync {
    /// The object as it is now, with its `metadata.resourceVersion`; `None` if there is none.
    fn get<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Option<Value>, Refusal>>;

    /// Makes one call and returns the revision by which it is done.
    fn call(&self, step: Step) -> BoxFuture<'_, Result<u64, Refusal>>;
}

/// Why the API did not do it: the part of a [`Status`] that a program or a log needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The HTTP status.
    pub code: u16,
    /// `NotFound`, `Conflict`, ….
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// Whether this is the reason.
    #[must_use]
    pub fn is(&self, reason: &str) -> bool {
        self.reason == reason
    }

    /// Whether it may go better later, without anything else being done.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.code >= 500 || self.code == 429
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self { code: status.code, reason: status.reason.to_owned(), message: status.message }
    }
}

/// The client of a node that has the API in its own process.
pub struct Voter {
    pipeline: Pipeline,
    user: User,
}

impl Voter {
    /// For the parts of the node of this name.
    #[must_use]
    pub fn new(pipeline: Pipeline, node: &str) -> Self {
        Self { pipeline, user: User::system(&format!("node:{node}")) }
    }
}

impl Client for Voter {
    fn get<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Option<Value>, Refusal>> {
        Box::pin(async move {
            let target = Target::object(key).ok_or_else(Status::no_such_resource)?;
            match self.pipeline.get(&self.user, &target, &ReadOptions::default()).await {
                Ok(served) => Ok(Some(served.value())),
                Err(status) if status.reason == "NotFound" => Ok(None),
                Err(status) => Err(status.into()),
            }
        })
    }

    fn call(&self, step: Step) -> BoxFuture<'_, Result<u64, Refusal>> {
        Box::pin(async move { Ok(calls::attempt(&self.pipeline, &self.user, step).await?) })
    }
}
