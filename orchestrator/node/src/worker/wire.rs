//! What is said on a `podium-node/1` session.
//!
//! Postcard in frames. A session is either one [`Ask::Follow`], answered by [`News`] for ever, or calls and requests for
//! certificates, one after the other, each with its [`Answer`]. Objects are JSON.

use std::sync::Arc;

pub(super) use podium_api::share::PATIENCE;
use podium_control::{Propagation, Step};
use podium_store::{MirrorChange, MirrorNews, Record, Revision};
use podium_types::{GroupResource, ObjectKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use podium_form::client::Refusal;

/// The largest value of the store (1.5 MiB) and what belongs to it; a share comes in parts of this size at most.
pub(super) const FRAME_BYTES: usize = 4 * 1024 * 1024;

/// From the node. The order of variants and fields is the format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Send the node's share, and what becomes of it.
    Follow,
    Get {
        key: Key,
    },
    Create {
        group: String,
        resource: String,
        object: Vec<u8>,
    },
    Update {
        key: Key,
        subresource: Option<String>,
        object: Vec<u8>,
    },
    Patch {
        key: Key,
        subresource: Option<String>,
        patch: Vec<u8>,
    },
    Delete {
        key: Key,
        uid: String,
        grace_seconds: Option<i64>,
    },
    /// A certificate for the node as a client of the API.
    Certify {
        /// PKCS#10, DER.
        request: Vec<u8>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Key {
    group: String,
    resource: String,
    namespace: String,
    name: String,
}

/// To a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    Object(Option<Vec<u8>>),
    Done {
        revision: u64,
    },
    Refused {
        code: u16,
        reason: String,
        message: String,
    },
    /// The certificate, in PEM.
    Certified(String),
}

/// To [`Ask::Follow`]: parts of the share, then that it is whole, then changes; and who votes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum News {
    Part(Vec<Put>),
    Whole {
        revision: u64,
    },
    /// All changes up to a revision; none if only time has passed.
    Changes {
        revision: u64,
        changes: Vec<Change>,
    },
    /// The public keys of all who vote; said first, and whenever it changes.
    Voters(Vec<Vec<u8>>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Put {
    key: String,
    value: Vec<u8>,
    create_revision: u64,
    mod_revision: u64,
    version: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Change {
    Put(Put),
    Delete(String),
}

impl From<MirrorNews> for News {
    fn from(news: MirrorNews) -> Self {
        match news {
            MirrorNews::Part(records) => Self::Part(records.iter().map(Put::from).collect()),
            MirrorNews::Whole(revision) => Self::Whole { revision: revision.0 },
            MirrorNews::Changes { revision, changes } => {
                let changes = changes.iter().map(Change::from).collect();
                Self::Changes { revision: revision.0, changes }
            }
        }
    }
}

impl News {
    /// What is said of the share; else who votes.
    pub(super) fn of_share(self) -> Result<MirrorNews, Vec<Vec<u8>>> {
        Ok(match self {
            Self::Part(records) => {
                MirrorNews::Part(records.into_iter().map(Record::from).collect())
            }
            Self::Whole { revision } => MirrorNews::Whole(Revision(revision)),
            Self::Changes { revision, changes } => {
                let changes = changes.into_iter().map(MirrorChange::from).collect();
                MirrorNews::Changes { revision: Revision(revision), changes }
            }
            Self::Voters(keys) => return Err(keys),
        })
    }
}

impl From<&ObjectKey> for Key {
    fn from(key: &ObjectKey) -> Self {
        Self {
            group: key.resource.group.to_string(),
            resource: key.resource.resource.to_string(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
        }
    }
}

impl From<Key> for ObjectKey {
    fn from(key: Key) -> Self {
        let resource = GroupResource { group: key.group.into(), resource: key.resource.into() };
        Self::new(resource, key.namespace, key.name)
    }
}

impl From<&Record> for Put {
    fn from(record: &Record) -> Self {
        Self {
            key: record.key.to_string(),
            value: record.value.to_vec(),
            create_revision: record.create_revision.0,
            mod_revision: record.mod_revision.0,
            version: record.version,
        }
    }
}

impl From<Put> for Record {
    fn from(put: Put) -> Self {
        Self {
            key: put.key.into(),
            value: put.value.into(),
            create_revision: Revision(put.create_revision),
            mod_revision: Revision(put.mod_revision),
            version: put.version,
        }
    }
}

impl From<&MirrorChange> for Change {
    fn from(change: &MirrorChange) -> Self {
        match change {
            MirrorChange::Put(record) => Self::Put((&**record).into()),
            MirrorChange::Delete(key) => Self::Delete(key.to_string()),
        }
    }
}

impl From<Change> for MirrorChange {
    fn from(change: Change) -> Self {
        match change {
            Change::Put(put) => Self::Put(Arc::new(put.into())),
            Change::Delete(key) => Self::Delete(key.into()),
        }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let Refusal { code, reason, message } = refusal;
        Self::Refused { code, reason, message }
    }
}

impl Ask {
    /// The call; `None` for a step that nodes do not make.
    pub(super) fn call(step: Step) -> Option<Self> {
        let json = |object: Value| object.to_string().into_bytes();
        let part = |subresource: Option<&'static str>| subresource.map(str::to_owned);
        Some(match step {
            Step::Create { resource, object } => Self::Create {
                group: resource.group.to_string(),
                resource: resource.resource.to_string(),
                object: json(object),
            },
            Step::Update { key, subresource, object } => Self::Update {
                key: (&key).into(),
                subresource: part(subresource),
                object: json(object),
            },
            Step::Patch { key, subresource, patch } => Self::Patch {
                key: (&key).into(),
                subresource: part(subresource),
                patch: json(patch),
            },
            Step::Delete { key, uid, grace_seconds, propagation: Propagation::Background } => {
                Self::Delete { key: (&key).into(), uid, grace_seconds }
            }
            Step::Delete { .. } | Step::Bind { .. } | Step::Event(_) => return None,
        })
    }

    /// The step that is asked for; for what is no call, or no JSON, an error that says so.
    pub(super) fn step(self) -> Result<Step, String> {
        let json = |bytes: &[u8]| -> Result<Value, String> {
            serde_json::from_slice(bytes).map_err(|error| format!("the object is no JSON: {error}"))
        };
        Ok(match self {
            Self::Create { group, resource, object } => Step::Create {
                resource: GroupResource { group: group.into(), resource: resource.into() },
                object: json(&object)?,
            },
            Self::Update { key, subresource, object } => Step::Update {
                key: key.into(),
                subresource: known_part(subresource)?,
                object: json(&object)?,
            },
            Self::Patch { key, subresource, patch } => Step::Patch {
                key: key.into(),
                subresource: known_part(subresource)?,
                patch: json(&patch)?,
            },
            Self::Delete { key, uid, grace_seconds } => Step::Delete {
                key: key.into(),
                uid,
                grace_seconds,
                propagation: Propagation::Background,
            },
            Self::Follow | Self::Get { .. } | Self::Certify { .. } => {
                return Err("this is no call".to_owned());
            }
        })
    }
}

/// Nodes write objects and their status.
fn known_part(part: Option<String>) -> Result<Option<&'static str>, String> {
    match part.as_deref() {
        None => Ok(None),
        Some("status") => Ok(Some("status")),
        Some(other) => Err(format!("nodes do not write the subresource {other}")),
    }
}
