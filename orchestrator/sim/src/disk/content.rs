//! The bytes of a file, without the zeros at its end: a reserved log segment of megabytes costs nothing here.

use bytes::Bytes;

use crate::executor::Core;

/// A torn write is cut at a multiple of this half of the time: what a device writes atomically.
const SECTOR_BYTES: usize = 512;

#[derive(Clone, Default)]
pub(super) struct Content {
    bytes: Vec<u8>,
    /// Never less than `bytes.len()`; the rest is zeros.
    length: usize,
}

impl Content {
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// How many bytes may differ from zero.
    pub(super) fn stored(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn read(&self, offset: usize, length: usize) -> Bytes {
        let end = offset.saturating_add(length).min(self.length);
        let start = offset.min(end);
        let mut bytes = self.bytes.get(start..end.min(self.bytes.len())).unwrap_or(&[]).to_vec();
        bytes.resize(end - start, 0);
        bytes.into()
    }

    pub(super) fn flip(&mut self, bit: usize) {
        if let Some(byte) = self.bytes.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
    }
}

pub(super) enum Change {
    Write { offset: usize, bytes: Bytes },
    Reserve(usize),
    Truncate(usize),
}

impl Change {
    /// Where the file ends at least after this change, if it makes files longer.
    pub(super) fn end(&self) -> usize {
        match self {
            Self::Write { offset, bytes } => offset + bytes.len(),
            Self::Reserve(length) => *length,
            Self::Truncate(_) => 0,
        }
    }

    pub(super) fn apply(&self, content: &mut Content) {
        content.length = content.length.max(self.end());
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                // Most writes are at the end of a file: no zeros are written to be overwritten.
                if content.bytes.len() <= *offset {
                    content.bytes.resize(*offset, 0);
                    content.bytes.extend_from_slice(bytes);
                } else {
                    content.bytes.resize(end.max(content.bytes.len()), 0);
                    content.bytes[*offset..end].copy_from_slice(bytes);
                }
            }
            Self::Reserve(_) => {}
            Self::Truncate(length) => {
                content.length = content.length.min(*length);
                content.bytes.truncate(*length);
            }
        }
    }

    /// The part of a write that reached the plate, when the power went in its middle: some prefix of it, or all but a
    /// prefix. Nothing else can be half done.
    pub(super) fn tear(self, core: &Core) -> Option<Self> {
        let Self::Write { offset, bytes } = self else { return None };
        let mut cut = usize::try_from(core.below(bytes.len() as u64)).unwrap_or(0);
        if core.one_in(2) {
            cut = ((offset + cut) / SECTOR_BYTES * SECTOR_BYTES)
                .saturating_sub(offset)
                .min(bytes.len());
        }
        if core.one_in(4) {
            return Some(Self::Write { offset: offset + cut, bytes: bytes.slice(cut..) });
        }
        Some(Self::Write { offset, bytes: bytes.slice(..cut) })
    }
}
