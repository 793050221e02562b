//! What outlives the node program: the pod's record on disk, and what its shim still holds.
//!
//! The record is written before an instance is handed to the runtime and after one has ended, so that attempts are
//! never used twice and no end is forgotten. Its encoding is postcard, which does not describe itself: a variant of
//! [`PodRecord`] is frozen once it has shipped, and a change is a new variant.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::interface::{Exit, ImageFacts};

/// A pod's record, by version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodRecord {
    /// The first form.
    V1(PodRecordV1),
}

impl PodRecord {
    /// The record in the newest form.
    #[must_use]
    pub fn into_latest(self) -> PodRecordV1 {
        match self {
            Self::V1(record) => record,
        }
    }

    /// The uid of the pod it belongs to.
    #[must_use]
    pub fn uid(&self) -> &str {
        match self {
            Self::V1(record) => &record.uid,
        }
    }
}

/// What a node must not forget about a pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PodRecordV1 {
    /// The pod's uid.
    pub uid: String,
    /// The pod's namespace, for cleaning up when the object is gone.
    pub namespace: String,
    /// The pod's name, for cleaning up when the object is gone.
    pub name: String,
    /// When the node first saw the pod.
    pub started_at: Option<Timestamp>,
    /// The addresses it last had.
    pub addresses: Vec<IpAddr>,
    /// Containers of both kinds by name.
    pub containers: BTreeMap<String, ContainerRecord>,
}

/// What a node must not forget about a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// The attempt that was handed to the runtime and whose end is not recorded.
    pub running: Option<u32>,
    /// How many attempts are used up; the next instance gets this number.
    pub next: u32,
    /// It ended and is not to be started again.
    pub done: bool,
    /// The end of the newest attempt, unless a newer one runs.
    pub ended: Option<Termination>,
    /// The end of the attempt before that.
    pub previous: Option<Termination>,
    /// The image the newest attempt was made from.
    pub image: Option<ImageFacts>,
    /// The restart delay that applies, in milliseconds, and when it was last raised.
    pub back_off: Option<(u64, Timestamp)>,
    /// It ended and waits for that delay; otherwise, if it is to run again, it may at once.
    pub crash_looping: bool,
}

/// The end of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Termination {
    /// Which attempt.
    pub attempt: u32,
    /// How it ended.
    pub exit: Exit,
    /// The word that the status shows.
    pub reason: String,
}

/// What is left of a pod's sandbox when the node program starts.
#[derive(Debug, Clone, Default)]
pub struct Sandbox {
    /// The shim runs and answers.
    pub alive: bool,
    /// Every instance the shim's directory knows.
    pub instances: BTreeMap<super::Instance, InstanceState>,
}

/// Where an instance stands in its shim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstanceState {
    /// Created, its program not started.
    Created,
    /// Running.
    Running {
        /// When its process was started.
        started_at: Timestamp,
    },
    /// Ended.
    Exited(Exit),
}
