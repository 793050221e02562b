//! Messages between members: made from and turned into frozen shapes.

use bytes::Bytes;

use crate::format::{self, FormatError, Frame, Frozen, HEAD_BYTES, Kind, v1};
use crate::transport::{Message, MessageKind};

impl Message {
    /// Takes what a transport carried. Only the kind is looked at; the checksum is when the
    /// message is handled. `None` if it is no message of a version that this program knows.
    #[must_use]
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        let kind = match Kind::from_byte(*bytes.get(HEAD_BYTES)?)? {
            Kind::AppendRequest => MessageKind::Append,
            Kind::VoteRequest => MessageKind::Vote,
            Kind::SnapshotPart => MessageKind::Snapshot,
            Kind::ReadIndexRequest => MessageKind::ReadIndex,
            Kind::ForwardRequest => MessageKind::Forward,
            Kind::TransferRequest => MessageKind::Transfer,
            Kind::Reply => MessageKind::Reply,
            Kind::Segment
            | Kind::Entry
            | Kind::Truncate
            | Kind::Reset
            | Kind::Committed
            | Kind::Vote
            | Kind::Damage
            | Kind::SnapshotHead
            | Kind::SnapshotRecords
            | Kind::SnapshotOutcomes
            | Kind::SnapshotEnd => return None,
        };
        Some(Self { kind, bytes })
    }

    pub(crate) fn encode<T: Frozen>(kind: MessageKind, value: &T) -> Self {
        Self { kind, bytes: Bytes::from(format::to_vec(value)) }
    }

    pub(crate) fn reply(reply: &v1::Reply) -> Self {
        Self::encode(MessageKind::Reply, reply)
    }

    pub(crate) fn decode<T: Frozen>(&self) -> Result<T, FormatError> {
        let frame = Frame::read(&self.bytes)?;
        if frame.length != self.bytes.len() {
            return Err(FormatError::Corrupt);
        }
        frame.decode()
    }
}
