//! What the store holds and how it is changed: records, guards, transactions, outcomes.
//!
//! Plain data. Nothing here is written to a disk or a wire as it stands: [`crate::format`] owns
//! the frozen shapes, and converts.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::StoreError;

/// The most bytes one value may have: etcd's limit, which clients already live with.
pub const VALUE_LIMIT_BYTES: usize = 1536 * 1024;
/// The most bytes a key may have. Kubernetes names end at 253, four of them and a prefix fit.
pub const KEY_LIMIT_BYTES: usize = 1536;
/// The most operations in one transaction. A scheduler's batch is the largest that we make.
pub const OPERATION_LIMIT: usize = 1024;
/// The most bytes of all keys and values of one transaction, so that a log record stays far
/// below the limit of a frame.
pub const TRANSACTION_LIMIT_BYTES: usize = 8 * 1024 * 1024;

/// A point in the history of the whole cluster.
///
/// Grows by exactly one with every committed transaction; the first is 1, and 0 is the empty
/// store. It is what the API calls `resourceVersion`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

impl Revision {
    /// The empty store, before any transaction.
    pub const ZERO: Self = Self(0);

    /// The revision that the next committed transaction gets.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// One key and what it holds.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// The whole key.
    pub key: Arc<str>,
    /// What was last put.
    pub value: Bytes,
    /// The revision that created the key, or created it again after its last deletion.
    pub create_revision: Revision,
    /// The revision of the last put. This is what [`Guard::At`] compares.
    pub mod_revision: Revision,
    /// How many puts the key has had since `create_revision`, starting with 1.
    pub version: u64,
}

impl fmt::Debug for Record {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, create_revision, mod_revision, version } = self;
        let bytes = value.len();
        write!(formatter, "{key}@{mod_revision} (created {create_revision}, v{version}, {bytes} B)")
    }
}

/// A condition on the state in front of a transaction. One that fails refuses the whole of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// The key is not there.
    Absent(Arc<str>),
    /// The key is there and was last changed at exactly this revision.
    At(Arc<str>, Revision),
    /// The key is there.
    Exists(Arc<str>),
}

impl Guard {
    /// The key the guard looks at.
    #[must_use]
    pub fn key(&self) -> &Arc<str> {
        match self {
            Self::Absent(key) | Self::At(key, _) | Self::Exists(key) => key,
        }
    }
}

/// One change. A transaction has at most one for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Creates or replaces the key.
    Put {
        /// The key.
        key: Arc<str>,
        /// Its new value.
        value: Bytes,
    },
    /// Removes the key. Without the key there is nothing to do and nobody is told.
    Delete {
        /// The key.
        key: Arc<str>,
    },
}

impl Operation {
    /// The key that is changed.
    #[must_use]
    pub fn key(&self) -> &Arc<str> {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Put { key, value } => key.len() + value.len(),
            Self::Delete { key } => key.len(),
        }
    }
}

/// Names a transaction for ever. Drawn at random by whoever makes it; a retry keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub u128);

impl fmt::Display for TransactionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

/// Guards and operations that happen together or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Who it is. The same id again is answered with the first answer and changes nothing.
    pub id: TransactionId,
    /// What must hold.
    pub guards: Vec<Guard>,
    /// What then changes.
    pub operations: Vec<Operation>,
}

impl Transaction {
    /// Whether the store takes a transaction of this shape at all, whatever it holds.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] or [`StoreError::Invalid`], with the reason.
    pub fn validate(&self) -> Result<(), StoreError> {
        let invalid = |reason: String| Err(StoreError::Invalid { reason });
        if self.operations.len() > OPERATION_LIMIT || self.guards.len() > OPERATION_LIMIT {
            return invalid(format!("more than {OPERATION_LIMIT} guards or operations"));
        }
        let keys =
            self.guards.iter().map(Guard::key).chain(self.operations.iter().map(Operation::key));
        for key in keys {
            if key.is_empty() || key.len() > KEY_LIMIT_BYTES {
                return invalid(format!("a key of {} bytes", key.len()));
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        let mut total = 0;
        for operation in &self.operations {
            if !seen.insert(operation.key()) {
                return invalid(format!("two operations for {}", operation.key()));
            }
            if let Operation::Put { value, .. } = operation
                && value.len() > VALUE_LIMIT_BYTES
            {
                return Err(StoreError::TooLarge { bytes: value.len(), limit: VALUE_LIMIT_BYTES });
            }
            total += operation.bytes();
        }
        if total > TRANSACTION_LIMIT_BYTES {
            return Err(StoreError::TooLarge { bytes: total, limit: TRANSACTION_LIMIT_BYTES });
        }
        Ok(())
    }
}

/// The answer to a transaction. Remembered under its id for a while, so that a retry is answered
/// alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Every guard held and every operation happened, at this revision.
    Committed {
        /// The revision of the transaction, unique to it.
        revision: Revision,
    },
    /// A guard failed and nothing happened.
    Refused {
        /// Which guard, as an index into the transaction's guards. The first that failed.
        guard: usize,
        /// What the guard's key held.
        current: Option<Arc<Record>>,
    },
}
