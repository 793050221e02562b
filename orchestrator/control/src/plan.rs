//! What a controller wants done: a list of steps, each of them one call of the API.
//!
//! Steps are data. The driver applies them through the API's own write pipeline, so validation, admission and the
//! authorizer see controllers like any other client. A step that is refused does not stop the others; the key is planned
//! again on a newer world.

use std::time::Duration;

use podium_types::{GroupResource, ObjectKey};
use serde_json::Value;

/// What to do about one key, and when to look again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Calls to make. Steps that name the same object are applied in this order, and a later one is dropped if an earlier
    /// one failed; steps on different objects are independent and may overlap.
    pub steps: Vec<Step>,
    /// Plan this key again after this long, even if no event asks for it.
    pub wake_after: Option<Duration>,
}

impl Plan {
    /// Nothing to do until something changes.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Whether there is nothing to do now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Adds a step and gives its index.
    pub fn push(&mut self, step: Step) -> usize {
        self.steps.push(step);
        self.steps.len() - 1
    }

    /// Looks again after `after` at the latest.
    pub fn wake(&mut self, after: Duration) {
        self.wake_after = Some(self.wake_after.map_or(after, |before| before.min(after)));
    }
}

/// How the dependents of a deleted object are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// The object goes at once, the collector removes its dependents afterwards.
    Background,
    /// The object stays, marked, until its blocking dependents are gone.
    Foreground,
    /// Dependents stay, without the reference.
    Orphan,
}

impl Propagation {
    /// As `DeleteOptions.propagationPolicy` spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Foreground => "Foreground",
            Self::Orphan => "Orphan",
        }
    }
}

/// One call of the API.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Create `object`. Its name is set and is a function of the decision, so making the same decision twice is refused as
    /// `AlreadyExists`.
    Create {
        /// The resource to create it in.
        resource: GroupResource,
        /// The whole object; `metadata.namespace` says where.
        object: Value,
    },
    /// Replace the object, or its subresource, if it is still as it was: `object` carries uid and resourceVersion.
    Update {
        /// The object.
        key: ObjectKey,
        /// `status`, `finalize`; `None` for the object itself.
        subresource: Option<&'static str>,
        /// The whole object.
        object: Value,
    },
    /// JSON merge patch (RFC 7386). It always carries `metadata.uid`, and `metadata.resourceVersion` where what it sets was
    /// decided from what was there; without one it applies to whatever the object is now.
    Patch {
        /// The object.
        key: ObjectKey,
        /// As for [`Step::Update`].
        subresource: Option<&'static str>,
        /// The patch.
        patch: Value,
    },
    /// Delete the object if it still has this uid.
    Delete {
        /// The object.
        key: ObjectKey,
        /// Precondition.
        uid: String,
        /// `DeleteOptions.gracePeriodSeconds`; `None` for the kind's default.
        grace_seconds: Option<i64>,
        /// `DeleteOptions.propagationPolicy`.
        propagation: Propagation,
    },
    /// Bind pods to a node, each of them only if it has this uid and is not bound or terminating yet. One that is refused does
    /// not keep the others from being bound.
    Bind {
        /// The pods, with their uids.
        pods: Vec<(ObjectKey, String)>,
        /// Name of the node.
        node: String,
    },
    /// Report something to the user.
    Event(EventStep),
}

/// The severity of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventKind {
    /// As it should be.
    Normal,
    /// Something the user may have to act on.
    Warning,
}

impl EventKind {
    /// As `Event.type` spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Something to report about an object; [`crate::event::record`] makes the API object of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventStep {
    /// What it is about.
    pub regarding: Regarding,
    /// Severity.
    pub kind: EventKind,
    /// A short CamelCase word: `FailedScheduling`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// What was done: `Scheduling`; shown by events.k8s.io.
    pub action: &'static str,
    /// Who reports: `default-scheduler`.
    pub component: &'static str,
    /// Index of the step in the same plan that this reports; the event is dropped if that step failed.
    pub reports: Option<usize>,
}

/// The object that an event is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Regarding {
    /// Where it is.
    pub key: ObjectKey,
    /// `apps/v1`.
    pub api_version: String,
    /// `Deployment`.
    pub kind: String,
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion when the decision was made.
    pub resource_version: String,
    /// The part of it: `spec.containers{web}`; empty for all of it.
    pub field_path: String,
}
