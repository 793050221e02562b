//! How everything is written down: one frame for every record on a disk and every message.
//!
//! ```text
//!   u32 length of what follows the checksum │ u32 CRC-32C of the length and of all the rest
//!   u8 kind │ u8 version │ payload: postcard of the type frozen for (kind, version)
//! ```
//!
//! All integers are little-endian. Postcard does not describe itself, so a type that was released
//! never changes: a new shape is a new version beside it, written only once the cluster's feature
//! level allows it. `tests/golden` holds bytes of every version that must decode for ever.
//!
//! Invariant: only types of [`v1`] (and later siblings) are serialised, never one of openraft's nor
//! one that the rest of the crate works with.

pub(crate) mod convert;
#[cfg(test)]
mod golden;
pub(crate) mod v1;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Length and checksum.
pub(crate) const HEAD_BYTES: usize = 8;
/// No frame is longer. Larger than any transaction and any batch of replicated records.
pub(crate) const FRAME_LIMIT_BYTES: usize = 64 * 1024 * 1024;

/// What a frame holds. The numbers are on disks and never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Segment = 1,
    Entry = 2,
    Truncate = 3,
    Reset = 4,
    Committed = 5,
    Vote = 16,
    Damage = 17,
    SnapshotHead = 32,
    SnapshotRecords = 33,
    SnapshotOutcomes = 34,
    SnapshotEnd = 35,
    AppendRequest = 64,
    VoteRequest = 65,
    SnapshotPart = 66,
    ReadIndexRequest = 67,
    ForwardRequest = 68,
    TransferRequest = 69,
    Reply = 80,
}

impl Kind {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Segment,
            2 => Self::Entry,
            3 => Self::Truncate,
            4 => Self::Reset,
            5 => Self::Committed,
            16 => Self::Vote,
            17 => Self::Damage,
            32 => Self::SnapshotHead,
            33 => Self::SnapshotRecords,
            34 => Self::SnapshotOutcomes,
            35 => Self::SnapshotEnd,
            64 => Self::AppendRequest,
            65 => Self::VoteRequest,
            66 => Self::SnapshotPart,
            67 => Self::ReadIndexRequest,
            68 => Self::ForwardRequest,
            69 => Self::TransferRequest,
            80 => Self::Reply,
            _ => return None,
        })
    }
}

/// A type frozen for one kind and version.
pub(crate) trait Frozen: Serialize + DeserializeOwned {
    const KIND: Kind;
    const VERSION: u8;
}

/// Why bytes are not a frame, or not the one that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    /// Four zero bytes where a length would be: nothing was written here.
    #[error("nothing is written here")]
    Blank,
    /// The bytes end within the frame.
    #[error("the bytes end within a frame")]
    Short,
    /// The checksum or the length is wrong.
    #[error("a checksum is wrong")]
    Corrupt,
    /// The checksum holds, and this program does not know what it is.
    #[error("a record of kind {kind}, version {version} is not known to this program")]
    Unknown { kind: u8, version: u8 },
    /// The checksum holds, and the payload is not what kind and version say.
    #[error("a record of kind {kind}, version {version} does not decode")]
    Malformed { kind: u8, version: u8 },
}

/// One frame, checked, not yet decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u8,
    pub(crate) version: u8,
    pub(crate) payload: &'a [u8],
    /// Bytes of the whole frame.
    pub(crate) length: usize,
}

impl<'a> Frame<'a> {
    /// The frame at the start of `bytes`.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES).ok_or_else(|| short(bytes))?;
        let (length, checksum) = head.split_at(4);
        let body_bytes = little(length) as usize;
        if body_bytes == 0 {
            return Err(if little(checksum) == 0 {
                FormatError::Blank
            } else {
                FormatError::Corrupt
            });
        }
        if !(2..=FRAME_LIMIT_BYTES).contains(&body_bytes) {
            return Err(FormatError::Corrupt);
        }
        let body = rest.get(..body_bytes).ok_or(FormatError::Short)?;
        if crc32c::crc32c_append(crc32c::crc32c(length), body) != little(checksum) {
            return Err(FormatError::Corrupt);
        }
        let (tags, payload) = body.split_at(2);
        Ok(Self { kind: tags[0], version: tags[1], payload, length: HEAD_BYTES + body_bytes })
    }

    pub(crate) fn is<T: Frozen>(&self) -> bool {
        self.kind == T::KIND as u8 && self.version == T::VERSION
    }

    /// Decodes a frame that [`Frame::is`] of this type.
    pub(crate) fn decode<T: Frozen>(&self) -> Result<T, FormatError> {
        let (kind, version) = (self.kind, self.version);
        if !self.is::<T>() {
            return Err(FormatError::Unknown { kind, version });
        }
        let malformed = FormatError::Malformed { kind, version };
        match postcard::take_from_bytes(self.payload) {
            Ok((value, [])) => Ok(value),
            Ok(_) | Err(_) => Err(malformed),
        }
    }
}

fn short(bytes: &[u8]) -> FormatError {
    if bytes.iter().all(|byte| *byte == 0) { FormatError::Blank } else { FormatError::Short }
}

fn little(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// Appends the frame of a value.
pub(crate) fn write<T: Frozen>(value: &T, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES]);
    out.extend_from_slice(&[T::KIND as u8, T::VERSION]);
    let taken = std::mem::take(out);
    *out = postcard::to_extend(value, taken).expect("writing to memory does not fail");
    let body = out.len() - start - HEAD_BYTES;
    let length = u32::try_from(body).expect("a frame is far below 4 GiB").to_le_bytes();
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&length), &out[start + HEAD_BYTES..]);
    out[start..start + 4].copy_from_slice(&length);
    out[start + 4..start + HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

/// The frame of a value, alone.
pub(crate) fn to_vec<T: Frozen>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    write(value, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::{FormatError, Frame, to_vec};
    use crate::format::v1::{Position, Vote};

    fn vote() -> Vote {
        Vote { member: 7, sequence: 300, term: 4, voted_for: 9, committed: true }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = to_vec(&vote());
        assert_eq!(Frame::read(&bytes).unwrap().decode::<Vote>().unwrap(), vote());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::read(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let bytes = to_vec(&vote());
        for length in 0..bytes.len() {
            assert!(Frame::read(&bytes[..length]).is_err(), "cut at {length}");
        }
        assert_eq!(Frame::read(&[0; 3]), Err(FormatError::Blank));
        assert_eq!(Frame::read(&[0; 30]), Err(FormatError::Blank));
    }

    #[test]
    fn another_kind_is_not_decoded() {
        #[derive(serde::Serialize, serde::Deserialize, Debug)]
        struct Newer(Position);
        impl super::Frozen for Newer {
            const KIND: super::Kind = super::Kind::Vote;
            const VERSION: u8 = 9;
        }
        let bytes = to_vec(&Newer(Position { term: 1, index: 2 }));
        let error = Frame::read(&bytes).unwrap().decode::<Vote>().unwrap_err();
        assert_eq!(error, FormatError::Unknown { kind: 16, version: 9 });
    }
}
