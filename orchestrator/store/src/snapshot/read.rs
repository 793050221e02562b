//! Reading a snapshot: all of it is checked before any of it is believed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::disk::DiskFile;
use crate::error::StoreError;
use crate::format::{FormatError, Frame, v1};
use crate::member::{FeatureLevel, MemberId};
use crate::record::{Outcome, Record, Revision, TransactionId};
use crate::state::{Kept, Outcomes, State};
use crate::view::{Records, View};

/// How much is read at once. A block that is larger is read whole.
const READ_BYTES: usize = 256 * 1024;

/// The state in a file, and the file's length.
pub(crate) async fn read(file: &Arc<dyn DiskFile>) -> Result<(State, u64), StoreError> {
    let mut input = Input { file, offset: 0, window: Vec::new(), begin: 0, checksum: 0 };
    let head: v1::SnapshotHead = input.expect().await?;
    let mut content = Content::new(&head);
    loop {
        let (checksum, position) = (input.checksum, input.position());
        let frame = input.peek().await?;
        if frame.is::<v1::SnapshotRecords>() {
            content.records(frame.decode().map_err(damaged)?);
        } else if frame.is::<v1::SnapshotOutcomes>() {
            content.outcomes(frame.decode().map_err(damaged)?);
        } else if frame.is::<v1::SnapshotEnd>() {
            let end: v1::SnapshotEnd = frame.decode().map_err(damaged)?;
            if end.checksum != checksum {
                return Err(damaged(FormatError::Corrupt));
            }
            let length = frame.length as u64;
            let state = content.finish(head)?;
            return Ok((state, position + length));
        } else {
            return Err(damaged(FormatError::Unknown { kind: frame.kind, version: frame.version }));
        }
        let length = frame.length;
        input.skip(length);
    }
}

fn damaged(error: FormatError) -> StoreError {
    StoreError::Damaged { what: format!("the snapshot: {error}") }
}

struct Input<'a> {
    file: &'a Arc<dyn DiskFile>,
    /// Where the window ends in the file.
    offset: u64,
    window: Vec<u8>,
    /// How much of the window has been taken.
    begin: usize,
    checksum: u32,
}

impl Input<'_> {
    fn position(&self) -> u64 {
        self.offset - (self.window.len() - self.begin) as u64
    }

    /// The next frame, without taking it.
    async fn peek(&mut self) -> Result<Frame<'_>, StoreError> {
        loop {
            match Frame::read(&self.window[self.begin..]) {
                Ok(_) => break,
                Err(FormatError::Short | FormatError::Blank) => {
                    if !self.fill().await? {
                        return Err(damaged(FormatError::Short));
                    }
                }
                Err(error) => return Err(damaged(error)),
            }
        }
        Frame::read(&self.window[self.begin..]).map_err(damaged)
    }

    async fn fill(&mut self) -> Result<bool, StoreError> {
        self.window.drain(..self.begin);
        self.begin = 0;
        let bytes = self
            .file
            .read(self.offset, READ_BYTES)
            .await
            .map_err(|error| StoreError::disk("reading a snapshot", error))?;
        self.offset += bytes.len() as u64;
        self.window.extend_from_slice(&bytes);
        Ok(!bytes.is_empty())
    }

    fn skip(&mut self, length: usize) {
        let taken = &self.window[self.begin..self.begin + length];
        self.checksum = crc32c::crc32c_append(self.checksum, taken);
        self.begin += length;
    }

    async fn expect<T: crate::format::Frozen>(&mut self) -> Result<T, StoreError> {
        let frame = self.peek().await?;
        let value = frame.decode().map_err(damaged)?;
        let length = frame.length;
        self.skip(length);
        Ok(value)
    }
}

struct Content {
    records: Records,
    bytes: usize,
    outcomes: Outcomes,
    outcome_count: u64,
}

impl Content {
    fn new(head: &v1::SnapshotHead) -> Self {
        Self {
            records: Records::new(),
            bytes: 0,
            outcomes: Outcomes::after(head.forgotten),
            outcome_count: 0,
        }
    }

    fn records(&mut self, block: v1::SnapshotRecords) {
        for record in block.records {
            let record = Record::from(record);
            self.bytes += record.key.len() + record.value.len();
            self.records.insert(record.key.clone(), Arc::new(record));
        }
    }

    fn outcomes(&mut self, block: v1::SnapshotOutcomes) {
        for (index, id, outcome) in block.outcomes {
            let kept = match Outcome::from(outcome) {
                Outcome::Committed { revision } => Kept::Committed(revision),
                Outcome::Refused { guard, current } => Kept::Refused(Arc::new((guard, current))),
            };
            self.outcomes.restore(index, TransactionId(id), kept);
            self.outcome_count += 1;
        }
    }

    fn finish(self, head: v1::SnapshotHead) -> Result<State, StoreError> {
        if self.records.len() as u64 != head.records || self.outcome_count != head.outcomes {
            return Err(damaged(FormatError::Corrupt));
        }
        let announced: BTreeMap<_, _> = head
            .announced
            .into_iter()
            .map(|(id, knows)| (MemberId(id), FeatureLevel(knows)))
            .collect();
        Ok(State {
            view: View { revision: Revision(head.revision), records: self.records },
            outcomes: self.outcomes,
            compacted: Revision(head.compacted),
            level: FeatureLevel(head.level),
            announced: Arc::new(announced),
            applied: head.applied.map(Into::into),
            membership_position: head.membership_position.map(Into::into),
            membership: Arc::new(head.membership.into()),
            bytes: self.bytes,
        })
    }
}
