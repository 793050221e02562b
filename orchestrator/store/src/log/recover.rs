//! Reading the log back, and telling a torn end from damage.
//!
//! A power cut may leave the last write in pieces. Nobody was told that it is durable, so what is
//! left of it is cut off. Any other record that fails its checksum was acknowledged: that is
//! damage, and a member that silently forgot it could help to elect a leader that lacks it too.
//!
//! What tells them apart: every record names an offset in its file up to which all was synced
//! before it was written. So if, behind a bad record, there is a good one that names an offset
//! beyond it, or a later file, then the bad one had been durable. To have such a witness for the
//! last write of a quiet member too, the writer notes what is committed behind it.
//!
//! Damage cuts the log where it begins, and leaves a mark on the disk first. Whoever starts with
//! the mark must not vote until a leader has filled the log again (`store::repair`).

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::Memory;
use crate::bugs::{Bug, Bugs};
use crate::consensus::{Entry, log_id, payload_from_v1};
use crate::disk::{Disk, DiskFile};
use crate::error::StoreError;
use crate::format::{self, FormatError, Frame, Frozen, v1};
use crate::member::MemberId;
use crate::state::Position;

const MARK: &str = "damaged";

/// The name of a file of the log.
pub(crate) fn segment_name(sequence: u64) -> String {
    format!("log-{sequence:016x}")
}

fn sequence_of(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("log-")?, 16).ok()
}

/// A file of the log that is not written any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) sequence: u64,
    /// The last entry in it or in front of it.
    pub(crate) last: Option<Position>,
}

/// Where writing goes on.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) sequence: u64,
    pub(crate) offset: u64,
    pub(crate) reserved: u64,
}

/// What the log's files hold.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) memory: Memory,
    pub(crate) segments: Vec<Segment>,
    pub(crate) tail: Option<Tail>,
    pub(crate) next_sequence: u64,
    /// Where records are missing that others may count on.
    pub(crate) damage: Option<Damage>,
}

/// A place where the log was cut although it had been acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The first entry that is missing.
    pub(crate) from: u64,
    segment: u64,
    offset: u64,
}

/// Reads everything. Changes nothing on the disk except what nobody was ever told is durable.
pub(crate) async fn recover(
    disk: &dyn Disk,
    member: MemberId,
    bugs: Bugs,
) -> Result<Recovered, StoreError> {
    let names = disk.list().await.map_err(|error| StoreError::disk("listing the log", error))?;
    let sequences: Vec<u64> = names.iter().filter_map(|name| sequence_of(name)).collect();
    let mut reader = Reader { member, bugs, recovered: Recovered::default() };
    for (number, sequence) in sequences.iter().enumerate() {
        let later = &sequences[number + 1..];
        let gap =
            reader.recovered.segments.last().is_some_and(|last| last.sequence + 1 != *sequence);
        let (file, bytes) = read_segment(disk, *sequence).await?;
        let end = if gap { Some((0, true)) } else { reader.replay(*sequence, &bytes)? };
        let Some((offset, bad)) = end else {
            reader.keep(*sequence, file, bytes.len());
            continue;
        };
        if bad && (gap || is_damage(&bytes, offset, bugs) || any_record(disk, later).await?) {
            reader.recovered.damage = Some(Damage {
                from: reader.next_index(),
                segment: *sequence,
                offset: offset as u64,
            });
        }
        if bad && reader.recovered.damage.is_none() {
            tracing::info!(sequence, offset, "cutting a torn write off the log");
            reader.cut_torn(disk, &file, *sequence, &bytes, offset, later).await?;
        } else {
            reader.keep_at(*sequence, file, offset, bytes.len());
        }
        if bad {
            break;
        }
    }
    let mut recovered = reader.recovered;
    recovered.memory.flushed = recovered.memory.last();
    // Right behind what is kept: a gap in the numbers would be a lost file.
    recovered.next_sequence = recovered.segments.last().map_or(1, |last| last.sequence + 1);
    Ok(recovered)
}

async fn read_segment(
    disk: &dyn Disk,
    sequence: u64,
) -> Result<(Arc<dyn DiskFile>, Bytes), StoreError> {
    let name = segment_name(sequence);
    let failed = |error| StoreError::disk(format!("reading {name}"), error);
    let missing = || failed(io::ErrorKind::NotFound.into());
    let file = disk.open(&name).await.map_err(failed)?.ok_or_else(missing)?;
    let length = file.length().await.map_err(failed)?;
    let bytes = file.read(0, length as usize).await.map_err(failed)?;
    Ok((file, bytes))
}

/// Whether any of these files holds a record, so that whatever is in front of it was durable.
async fn any_record(disk: &dyn Disk, sequences: &[u64]) -> Result<bool, StoreError> {
    for sequence in sequences {
        let (_, bytes) = read_segment(disk, *sequence).await?;
        if (0..bytes.len()).any(|offset| record_at(&bytes, offset).is_some()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a good record behind `bad` says that it was written when `bad` was durable.
fn is_damage(bytes: &[u8], bad: usize, bugs: Bugs) -> bool {
    !bugs.has(Bug::TornTailKept)
        && (bad + 1..bytes.len())
            .filter_map(|offset| record_at(bytes, offset))
            .any(|durable| durable > bad as u64)
}

/// The first field of a good record of the log at an offset, if there is one.
fn record_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let tags = bytes.get(offset + format::HEAD_BYTES..offset + format::HEAD_BYTES + 2)?;
    if !(1..=5).contains(&tags[0]) {
        return None;
    }
    let frame = Frame::read(&bytes[offset..]).ok()?;
    postcard::take_from_bytes::<u64>(frame.payload).ok().map(|(durable, _)| durable)
}

struct Reader {
    member: MemberId,
    bugs: Bugs,
    recovered: Recovered,
}

impl Reader {
    fn next_index(&self) -> u64 {
        self.recovered.memory.last().map_or(0, |last| last.index + 1)
    }

    /// Replays one file. The end of what is good in it, and whether something bad follows; `None`
    /// if it is full to the last byte.
    fn replay(
        &mut self,
        sequence: u64,
        bytes: &Bytes,
    ) -> Result<Option<(usize, bool)>, StoreError> {
        let mut offset = 0;
        while offset < bytes.len() {
            let frame = match Frame::read(&bytes[offset..]) {
                Ok(frame) => frame,
                Err(FormatError::Blank) if bytes[offset..].iter().all(|byte| *byte == 0) => {
                    // A file without its first record was made and never written.
                    return Ok(Some((offset, offset == 0)));
                }
                Err(_) => return Ok(Some((offset, true))),
            };
            let decoded = self.record(sequence, offset == 0, &frame);
            match decoded {
                Ok(true) => offset += frame.length,
                Ok(false) => return Ok(Some((offset, true))),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Takes one record in; false if it cannot stand here.
    fn record(
        &mut self,
        sequence: u64,
        first: bool,
        frame: &Frame<'_>,
    ) -> Result<bool, StoreError> {
        if frame.is::<v1::Segment>() {
            let segment: v1::Segment = decode(frame)?;
            if segment.member != self.member.0 {
                let what = format!("the log belongs to member {}", MemberId(segment.member));
                return Err(StoreError::Damaged { what });
            }
            let previous = segment.previous.map(Position::from);
            if first && self.recovered.segments.is_empty() {
                self.recovered.memory.previous = previous;
            }
            return Ok(first
                && segment.sequence == sequence
                && self.recovered.memory.last() == previous);
        }
        if first {
            return Ok(false);
        }
        let memory = &mut self.recovered.memory;
        if frame.is::<v1::Entry>() {
            let entry: v1::Entry = decode(frame)?;
            return Ok(self.entry(entry));
        } else if frame.is::<v1::Truncate>() {
            let truncate: v1::Truncate = decode(frame)?;
            memory.truncate(truncate.from);
        } else if frame.is::<v1::Reset>() {
            let reset: v1::Reset = decode(frame)?;
            memory.truncate(0);
            memory.previous = Some(reset.to.into());
        } else if frame.is::<v1::Committed>() {
            let committed: v1::Committed = decode(frame)?;
            memory.committed = memory.committed.max(Some(committed.position.into()));
        } else {
            let what =
                format!("a record of kind {}, version {} in the log", frame.kind, frame.version);
            return Err(StoreError::Damaged { what });
        }
        Ok(true)
    }

    fn entry(&mut self, entry: v1::Entry) -> bool {
        let position = Position::from(entry.position);
        let next = self.next_index();
        let memory = &mut self.recovered.memory;
        let entry = Entry { log_id: log_id(position), payload: payload_from_v1(entry.payload) };
        if position.index != next {
            return false;
        }
        memory.push(entry);
        true
    }

    /// Remembers a file that is full.
    fn keep(&mut self, sequence: u64, file: Arc<dyn DiskFile>, length: usize) {
        self.keep_at(sequence, file, length, length);
    }

    /// Remembers a file of which `offset` bytes are good.
    fn keep_at(&mut self, sequence: u64, file: Arc<dyn DiskFile>, offset: usize, length: usize) {
        let last = self.recovered.memory.last();
        self.recovered.segments.push(Segment { sequence, last });
        let (offset, reserved) = (offset as u64, length as u64);
        self.recovered.tail = (offset > 0).then_some(Tail { file, sequence, offset, reserved });
    }

    /// Blanks what a torn write left, so that it can never be mistaken for records behind those
    /// that come next, and removes files that were made and never written.
    async fn cut_torn(
        &mut self,
        disk: &dyn Disk,
        file: &Arc<dyn DiskFile>,
        sequence: u64,
        bytes: &Bytes,
        offset: usize,
        later: &[u64],
    ) -> Result<(), StoreError> {
        let failed = |error| StoreError::disk("cutting a torn write off the log", error);
        for sequence in later.iter().rev() {
            disk.remove(&segment_name(*sequence)).await.map_err(failed)?;
        }
        if offset == 0 {
            disk.remove(&segment_name(sequence)).await.map_err(failed)?;
            return disk.sync_names().await.map_err(failed);
        }
        if self.bugs.has(Bug::TornTailKept) {
            let end = bytes.iter().rposition(|byte| *byte != 0).map_or(offset, |last| last + 1);
            self.keep_at(sequence, file.clone(), end, bytes.len());
            return Ok(());
        }
        blank(file, offset, bytes.len()).await.map_err(failed)?;
        self.keep_at(sequence, file.clone(), offset, bytes.len());
        disk.sync_names().await.map_err(failed)
    }
}

async fn blank(file: &Arc<dyn DiskFile>, from: usize, to: usize) -> io::Result<()> {
    file.write_synced(from as u64, Bytes::from(vec![0; to - from])).await
}

fn decode<T: Frozen>(frame: &Frame<'_>) -> Result<T, StoreError> {
    frame.decode().map_err(|error| StoreError::Damaged { what: format!("the log: {error}") })
}

/// Whether this member has lost a part of its log since it was last whole.
pub(crate) async fn is_marked(disk: &dyn Disk) -> Result<bool, StoreError> {
    let opened =
        disk.open(MARK).await.map_err(|error| StoreError::disk("looking for damage", error))?;
    Ok(opened.is_some())
}

/// Marks the disk durably as having lost entries, before anything is cut.
pub(crate) async fn mark(disk: &dyn Disk, from: u64) -> Result<(), StoreError> {
    let failed = |error| StoreError::disk("marking the log as damaged", error);
    let file = disk.create(MARK).await.map_err(failed)?;
    let bytes = Bytes::from(format::to_vec(&v1::Damage { from }));
    file.write_synced(0, bytes).await.map_err(failed)?;
    disk.sync_names().await.map_err(failed)
}

/// Takes the mark away: the log is whole again.
pub(crate) async fn unmark(disk: &dyn Disk) -> Result<(), StoreError> {
    let failed = |error| StoreError::disk("clearing the mark of damage", error);
    disk.remove(MARK).await.map_err(failed)?;
    disk.sync_names().await.map_err(failed)
}

/// Cuts a damaged log where the damage begins. The disk must have been marked.
pub(crate) async fn cut(disk: &dyn Disk, recovered: &Recovered) -> Result<(), StoreError> {
    let Some(damage) = recovered.damage else { return Ok(()) };
    let failed = |error| StoreError::disk("cutting the damaged log", error);
    let names = disk.list().await.map_err(failed)?;
    let from = if damage.offset == 0 { damage.segment } else { damage.segment + 1 };
    for sequence in names.iter().filter_map(|name| sequence_of(name)).rev() {
        if sequence >= from {
            disk.remove(&segment_name(sequence)).await.map_err(failed)?;
        }
    }
    if let Some(tail) = recovered.tail.as_ref().filter(|tail| tail.sequence == damage.segment) {
        blank(&tail.file, tail.offset as usize, tail.reserved as usize).await.map_err(failed)?;
    }
    disk.sync_names().await.map_err(failed)
}

/// Removes the whole log: what it stood on is gone.
pub(crate) async fn discard(disk: &dyn Disk) -> Result<(), StoreError> {
    let failed = |error| StoreError::disk("discarding the log", error);
    let names = disk.list().await.map_err(failed)?;
    for name in names.iter().rev().filter(|name| sequence_of(name).is_some()) {
        disk.remove(name).await.map_err(failed)?;
    }
    disk.sync_names().await.map_err(failed)
}
