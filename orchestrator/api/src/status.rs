//! Why a request was not carried out, in the words of Kubernetes.
//!
//! Clients act on code and reason, people read the message; both are part of the contract (apimachinery's
//! `api/errors`). One type for all verbs, because that is what the wire has.

use podium_store::StoreError;
use podium_types::validation::{self, Cause};
use podium_types::{GroupResource, Kind};
use serde_json::{Map, Value, json};

/// An answer that is not the object asked for.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// The HTTP status.
    pub code: u16,
    /// For programs: `NotFound`; empty if there is no name for it.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// What it is about.
    pub details: Box<Details>,
    /// With `Expired`: where to go on.
    pub continue_token: Option<String>,
    /// The change may have been made all the same, or may yet be.
    pub outcome_unknown: bool,
}

/// What a [`Status`] is about.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Details {
    /// Of the object.
    pub name: String,
    /// Of the resource.
    pub group: String,
    /// The plural resource, or for `Invalid` the kind.
    pub kind: String,
    /// Of the object.
    pub uid: String,
    /// `(reason, message, field)` each; an empty field is left out.
    pub causes: Vec<(String, String, String)>,
    /// When to try again.
    pub retry_after_seconds: Option<u64>,
}

impl Details {
    fn of(resource: &GroupResource, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            group: resource.group.to_string(),
            kind: resource.resource.to_string(),
            ..Self::default()
        }
    }

    fn to_json(&self) -> Value {
        let mut details = Map::new();
        let texts = [
            ("name", &self.name),
            ("group", &self.group),
            ("kind", &self.kind),
            ("uid", &self.uid),
        ];
        for (field, text) in texts {
            if !text.is_empty() {
                details.insert(field.to_owned(), json!(text));
            }
        }
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(|(reason, message, field)| {
                let mut cause = json!({"reason": reason, "message": message});
                if !field.is_empty() {
                    cause["field"] = json!(field);
                }
                cause
            });
            details.insert("causes".to_owned(), causes.collect());
        }
        if let Some(seconds) = self.retry_after_seconds {
            details.insert("retryAfterSeconds".to_owned(), json!(seconds));
        }
        Value::Object(details)
    }
}

impl Status {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: Box::default(),
            continue_token: None,
            outcome_unknown: false,
        }
    }

    fn about(mut self, resource: &GroupResource, name: &str) -> Self {
        self.details = Box::new(Details::of(resource, name));
        self
    }

    fn cause(mut self, reason: &str, message: impl Into<String>, field: &str) -> Self {
        self.details.causes.push((reason.to_owned(), message.into(), field.to_owned()));
        self
    }

    /// The request makes no sense.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// Nobody knows who is asking.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// It may not be done; `why` says by which rule. An empty name stands for the collection.
    #[must_use]
    pub fn forbidden(resource: &GroupResource, name: &str, why: &str) -> Self {
        let subject =
            if name.is_empty() { resource.to_string() } else { format!("{resource} {name:?}") };
        Self::new(403, "Forbidden", format!("{subject} is forbidden: {why}")).about(resource, name)
    }

    /// A path that is not a resource may not be read.
    #[must_use]
    pub fn forbidden_path(user: &str, verb: &str, path: &str) -> Self {
        Self::new(403, "Forbidden", format!("forbidden: User {user:?} cannot {verb} path {path:?}"))
    }

    /// An object cannot be created in a namespace that is going.
    #[must_use]
    pub fn namespace_terminating(resource: &GroupResource, name: &str, namespace: &str) -> Self {
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        let message = format!("namespace {namespace} is being terminated");
        Self::forbidden(resource, name, &why).cause(
            "NamespaceTerminating",
            message,
            "metadata.namespace",
        )
    }

    /// There is no such object.
    #[must_use]
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{resource} {name:?} not found")).about(resource, name)
    }

    /// There is no such resource.
    #[must_use]
    pub fn no_such_resource() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// The resource does not know the verb.
    #[must_use]
    pub fn method_not_allowed(resource: &GroupResource, verb: &str) -> Self {
        let message =
            format!("{verb} is not supported on resources of kind {:?}", resource.to_string());
        Self::new(405, "MethodNotAllowed", message).about(resource, "")
    }

    /// The path does not know the method.
    #[must_use]
    pub fn method_not_allowed_on_path() -> Self {
        Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    /// The client takes none of the forms that there are.
    #[must_use]
    pub fn not_acceptable(accepted: &str) -> Self {
        let message = format!("only the following media types are accepted: {accepted}");
        Self::new(406, "NotAcceptable", message)
    }

    /// The body has a form that is not read.
    #[must_use]
    pub fn unsupported_media_type(found: &str, accepted: &str) -> Self {
        let message = match found {
            "application/vnd.kubernetes.protobuf" => format!(
                "the body of the request was in protobuf, which this server does not read yet - accepted media types \
                 include: {accepted}"
            ),
            _ => format!(
                "the body of the request was in an unknown format - accepted media types include: {accepted}"
            ),
        };
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// An object of that name is there.
    #[must_use]
    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{resource} {name:?} already exists"))
            .about(resource, name)
    }

    /// No free name was found for `generateName`.
    #[must_use]
    pub fn no_unique_name(resource: &GroupResource, name: &str) -> Self {
        let message = format!(
            "{resource} {name:?} already exists, the server was not able to generate a unique name for the object"
        );
        Self::new(409, "AlreadyExists", message).about(resource, name)
    }

    /// The object is not as the request supposes.
    #[must_use]
    pub fn conflict(resource: &GroupResource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
        Self::new(409, "Conflict", message).about(resource, name)
    }

    /// The object was changed by somebody else.
    #[must_use]
    pub fn modified(resource: &GroupResource, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// The uid is that of another object.
    #[must_use]
    pub fn other_uid(resource: &GroupResource, name: &str, wanted: &str, found: &str) -> Self {
        let why = format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"
        );
        Self::conflict(resource, name, &why)
    }

    /// History that the request needs has been forgotten.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// A watch wants to begin before the oldest event.
    #[must_use]
    pub fn too_old(asked: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {asked} ({oldest})"))
    }

    /// The body is larger than any object may be.
    #[must_use]
    pub fn too_large(limit_bytes: usize) -> Self {
        let message = format!("Request entity is too large: limit is {limit_bytes}");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// The object breaks the rules of its kind.
    #[must_use]
    pub fn invalid(kind: Kind, name: &str, causes: &[Cause]) -> Self {
        let mut status = Self::new(422, "Invalid", validation::invalid_message(kind, name, causes));
        status.details = Box::new(Details {
            name: name.to_owned(),
            group: kind.group().to_owned(),
            kind: kind.name().to_owned(),
            ..Details::default()
        });
        for cause in causes {
            let message = cause.message.clone();
            status = status.cause(cause.reason.as_str(), message, &cause.field);
        }
        status
    }

    /// A request (its options, its patch) breaks a rule: one cause, already in words.
    #[must_use]
    pub fn invalid_field(subject: &str, field: &str, reason: &str, message: &str) -> Self {
        let text = format!("{subject} is invalid: {field}: {message}");
        Self::new(422, "Invalid", text).cause(reason, message, field)
    }

    /// A patch cannot be applied to the object as it is.
    #[must_use]
    pub fn unprocessable(why: impl Into<String>) -> Self {
        let message = "the server rejected our request due to an error in our request";
        Self::new(422, "Invalid", message).cause("UnexpectedServerResponse", why, "patch")
    }

    /// Something is wrong here.
    #[must_use]
    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {message}")).cause(
            "",
            message.to_string(),
            "",
        )
    }

    /// Not now.
    #[must_use]
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// No answer in time.
    #[must_use]
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(504, "Timeout", format!("Timeout: {}", message.into()))
    }

    /// The client has seen a revision that this server has not.
    #[must_use]
    pub fn from_the_future(asked: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {asked}, current: {current}");
        let mut status = Self::timeout(message);
        status.details.retry_after_seconds = Some(1);
        status.cause("ResourceVersionTooLarge", "Too large resource version", "")
    }

    /// What an error of the store means to a client.
    #[must_use]
    pub fn from_store(error: &StoreError) -> Self {
        let mut status = match error {
            StoreError::TooOld { .. } => {
                Self::expired("The resourceVersion for the provided list is too old.")
            }
            StoreError::Future { asked, current } => Self::from_the_future(asked.0, current.0),
            StoreError::TooLarge { limit, .. } => Self::too_large(*limit),
            StoreError::Timeout | StoreError::Expired => Self::timeout(error.to_string()),
            StoreError::NotLeader { .. } | StoreError::Stopped { .. } => {
                Self::service_unavailable(error.to_string())
            }
            StoreError::DiskFull { .. } => {
                let mut status = Self::new(507, "InsufficientStorage", error.to_string());
                status.details.retry_after_seconds = Some(10);
                status
            }
            _ => Self::internal(error),
        };
        status.outcome_unknown = error.outcome_is_unknown();
        status
    }

    /// The object on the wire.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut metadata = json!({});
        if let Some(token) = &self.continue_token {
            metadata["continue"] = json!(token);
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if *self.details != Details::default() || matches!(self.code, 404 | 405) {
            status["details"] = self.details.to_json();
        }
        status
    }
}

/// The answer to a deletion that has been carried out: `Success`, and what is gone.
#[must_use]
pub fn success(resource: &GroupResource, name: &str, uid: &str) -> Value {
    let details = Details { uid: uid.to_owned(), ..Details::of(resource, name) };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details.to_json(),
    })
}
