//! The frozen shapes of version 1. Nothing here may change, not even the order of fields or
//! variants: the golden bytes in `tests/golden` would no longer decode, and nor would disks.
//!
//! The names are those of the types they are the written form of.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Frozen, Kind};

macro_rules! frozen {
    ($($name:ident => $kind:ident),+ $(,)?) => {
        $(impl Frozen for $name {
            const KIND: Kind = Kind::$kind;
            const VERSION: u8 = 1;
        })+
    };
}

frozen! {
    Segment => Segment,
    Entry => Entry,
    Truncate => Truncate,
    Reset => Reset,
    Committed => Committed,
    Vote => Vote,
    Damage => Damage,
    SnapshotHead => SnapshotHead,
    SnapshotRecords => SnapshotRecords,
    SnapshotOutcomes => SnapshotOutcomes,
    SnapshotEnd => SnapshotEnd,
    AppendRequest => AppendRequest,
    VoteRequest => VoteRequest,
    SnapshotPart => SnapshotPart,
    ReadIndexRequest => ReadIndexRequest,
    ForwardRequest => ForwardRequest,
    TransferRequest => TransferRequest,
    Reply => Reply,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(crate) term: u64,
    pub(crate) index: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) id: u64,
    pub(crate) public_key: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Membership {
    pub(crate) members: Vec<Member>,
    pub(crate) voters: Vec<Vec<u64>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Guard {
    Absent(Arc<str>),
    At(Arc<str>, u64),
    Exists(Arc<str>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Operation {
    Put(Arc<str>, Bytes),
    Delete(Arc<str>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    Transact { id: u128, basis: u64, guards: Vec<Guard>, operations: Vec<Operation> },
    Compact { before: u64 },
    Announce { member: u64, knows: u32 },
    Raise { to: u32 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Payload {
    Blank,
    Command(Command),
    Membership(Membership),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) key: Arc<str>,
    pub(crate) value: Bytes,
    pub(crate) create_revision: u64,
    pub(crate) mod_revision: u64,
    pub(crate) version: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Committed(u64),
    Refused { guard: u32, current: Option<Record> },
}

// The log. In each record of it, `durable` is an offset in its own file: everything before it
// was synced before this record was written.

/// The first record of a file of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Segment {
    pub(crate) durable: u64,
    pub(crate) member: u64,
    pub(crate) sequence: u64,
    /// The last entry in front of this file, purged or not.
    pub(crate) previous: Option<Position>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) durable: u64,
    pub(crate) position: Position,
    pub(crate) payload: Payload,
}

/// The entries from this index on are void.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Truncate {
    pub(crate) durable: u64,
    pub(crate) from: u64,
}

/// All entries are void; the next one follows this position, which a snapshot covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reset {
    pub(crate) durable: u64,
    pub(crate) to: Position,
}

/// Everything up to here is known to be committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Committed {
    pub(crate) durable: u64,
    pub(crate) position: Position,
}

/// A vote, in one of the two places of its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Vote {
    pub(crate) member: u64,
    /// Counts the votes that were written.
    pub(crate) sequence: u64,
    pub(crate) term: u64,
    pub(crate) voted_for: u64,
    pub(crate) committed: bool,
}

/// That a part of the log was lost, and from where on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Damage {
    pub(crate) from: u64,
}

// Snapshots.

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotHead {
    pub(crate) member: u64,
    pub(crate) applied: Option<Position>,
    pub(crate) membership_position: Option<Position>,
    pub(crate) membership: Membership,
    pub(crate) revision: u64,
    pub(crate) compacted: u64,
    pub(crate) level: u32,
    pub(crate) announced: Vec<(u64, u32)>,
    pub(crate) forgotten: u64,
    pub(crate) records: u64,
    pub(crate) outcomes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotRecords {
    pub(crate) records: Vec<Record>,
}

/// Log index, id, outcome; oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotOutcomes {
    pub(crate) outcomes: Vec<(u64, u128, Outcome)>,
}

/// The last frame. The checksum is the CRC-32C of every byte in front of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotEnd {
    pub(crate) checksum: u32,
}

// Messages.

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ballot {
    pub(crate) term: u64,
    pub(crate) voted_for: u64,
    pub(crate) committed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppendRequest {
    pub(crate) vote: Ballot,
    pub(crate) previous: Option<Position>,
    pub(crate) entries: Vec<(Position, Payload)>,
    pub(crate) commit: Option<Position>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteRequest {
    pub(crate) vote: Ballot,
    pub(crate) last: Option<Position>,
    /// Only ask, promise nothing.
    pub(crate) pre: bool,
    /// The leader asked for this election.
    pub(crate) transfer: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotPart {
    pub(crate) vote: Ballot,
    pub(crate) applied: Option<Position>,
    pub(crate) membership_position: Option<Position>,
    pub(crate) membership: Membership,
    pub(crate) total: u64,
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReadIndexRequest {}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ForwardRequest {
    pub(crate) command: Command,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TransferRequest {
    pub(crate) from: Ballot,
    pub(crate) to: u64,
    pub(crate) last: Option<Position>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Nothing was done, for this reason.
    Failed(String),
    /// Ask this member instead.
    NotLeader(Option<u64>),
    Appended,
    AppendedUpTo(Option<Position>),
    Conflict,
    HigherVote(Ballot),
    Vote {
        vote: Ballot,
        granted: bool,
        last: Option<Position>,
    },
    /// Send the snapshot from this offset on.
    SnapshotNext(u64),
    SnapshotInstalled(Ballot),
    /// What arrived fails its checksum.
    SnapshotCorrupt,
    ReadIndex {
        index: u64,
        last: Option<Position>,
    },
    Outcome(Outcome),
    Expired,
    NotKnownBy(u64),
    Done,
    TransferAccepted,
    DiskFull {
        outcome_unknown: bool,
    },
    Unknown,
}
