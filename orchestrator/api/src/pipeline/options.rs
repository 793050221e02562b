//! What a request may ask for beside the object.

use crate::status::Status;

pub use podium_types::schema::FieldValidation;

/// Options of create, update and patch.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Do everything but write.
    pub dry_run: bool,
    /// What to do about fields that the kind does not have.
    pub field_validation: FieldValidation,
}

/// How `resource_version` is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// As it was then.
    Exact,
    /// As it was then, or later.
    NotOlderThan,
}

/// Options of get.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// Absent: the newest. 0: whatever this server has. Else: not older.
    pub resource_version: Option<u64>,
}

/// Options of list.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// `app in (a, b)`
    pub label_selector: String,
    /// `spec.nodeName=n1`
    pub field_selector: String,
    /// At most so many objects; the answer says where to go on.
    pub limit: Option<usize>,
    /// Where to go on.
    pub continue_token: Option<String>,
    /// Absent: the newest. 0: whatever this server has.
    pub resource_version: Option<u64>,
    /// How the version is meant; absent: not older than.
    pub resource_version_match: Option<Match>,
}

/// Options of watch.
#[derive(Debug, Clone, Default)]
pub struct WatchOptions {
    /// As for a list.
    pub label_selector: String,
    /// As for a list.
    pub field_selector: String,
    /// Events after this one. Absent or 0: first an event for each object that there is.
    pub resource_version: Option<u64>,
    /// Has to be `NotOlderThan` with `send_initial_events`, and absent without.
    pub resource_version_match: Option<Match>,
    /// First an event for each object, then (with bookmarks) one that says that these were all.
    pub send_initial_events: bool,
    /// Whether the client takes bookmarks.
    pub allow_bookmarks: bool,
}

impl WatchOptions {
    /// Refuses combinations that mean nothing, in the words of Kubernetes.
    pub(super) fn check(&self) -> Result<(), Status> {
        let refuse = |message: &str| {
            let subject = "ListOptions.meta.k8s.io \"\"";
            let field = "resourceVersionMatch";
            Err(Status::invalid_field(subject, field, "FieldValueForbidden", message))
        };
        match (self.send_initial_events, self.resource_version_match) {
            (true, Some(Match::NotOlderThan)) | (false, None) => Ok(()),
            (true, _) => refuse(
                "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
            (false, Some(_)) => refuse(
                "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ),
        }
    }
}

/// How the dependents of an object that goes are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They go afterwards.
    Background,
    /// They go first; the object stays, marked, until then.
    Foreground,
    /// They stay.
    Orphan,
}

/// Options of delete.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    /// Do everything but write.
    pub dry_run: bool,
    /// How long a pod has to end; absent: what the pod says.
    pub grace_period_seconds: Option<i64>,
    /// Only this object, not another one of the same name.
    pub uid: Option<String>,
    /// Only if it is still at this version.
    pub resource_version: Option<String>,
    /// Absent: background, or what the object's finalizers already say.
    pub propagation: Option<Propagation>,
}
