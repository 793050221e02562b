//! Snapshots: the whole state in one file, written once, read once, front to back.
//!
//! ```text
//!   head (position, members, revision, counts) │ blocks of records │ blocks of outcomes │ end (checksum)
//! ```
//!
//! Every block is a frame of [`crate::format`] with its own checksum; the last holds one over
//! all bytes, so that a file from which a whole block is missing is not taken either. A file is
//! written under another name, synced, and renamed over the last, so there is always one that is
//! whole. Why it is not a database is in `docs/decisions/0001-own-snapshot-file.md`.

pub(crate) mod read;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::bugs::{Bug, Bugs};
use crate::disk::{Disk, DiskFile};
use crate::error::StoreError;
use crate::format::{self, Frame, v1};
use crate::member::{FeatureLevel, MemberId, Membership};
use crate::state::{Kept, Position, State};
use read::read;

/// The current one.
const NAME: &str = "snapshot";
/// One that this member writes.
const NEW: &str = "snapshot-new";
/// One that arrives from a leader.
const INCOMING: &str = "snapshot-incoming";
/// Records are gathered into blocks of about this size, and written in pieces of it.
const BLOCK_BYTES: usize = 128 * 1024;

/// A snapshot on the disk, checked.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) applied: Option<Position>,
    pub(crate) membership_position: Option<Position>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) bytes: u64,
    pub(crate) level: FeatureLevel,
    /// It stands under the incoming name, not the current one.
    incoming: bool,
}

/// The snapshots of one member.
#[derive(Debug)]
pub(crate) struct Snapshots {
    disk: Arc<dyn Disk>,
    member: MemberId,
    current: Mutex<Option<Snapshot>>,
    /// Held while names change, so that an older snapshot never replaces a newer.
    changing: futures::lock::Mutex<()>,
    /// The file of the current one turned out not to be what was written.
    distrusted: AtomicBool,
    bugs: Bugs,
}

impl Snapshots {
    /// Opens the current snapshot, if there is one. One that fails its checksums is
    /// [`StoreError::Damaged`].
    pub(crate) async fn open(
        disk: Arc<dyn Disk>,
        member: MemberId,
        bugs: Bugs,
    ) -> Result<(Self, Option<State>), StoreError> {
        let failed = |error| StoreError::disk("opening the snapshot", error);
        let file = disk.open(NAME).await.map_err(failed)?;
        let (current, state) = match file {
            None => (None, None),
            Some(file) => {
                let (state, bytes) = read(&file).await?;
                (Some(describe(&state, file, bytes, false)), Some(state))
            }
        };
        let changing = futures::lock::Mutex::new(());
        let distrusted = AtomicBool::new(false);
        Ok((Self { disk, member, current: Mutex::new(current), changing, distrusted, bugs }, state))
    }

    /// Without the one that is there: it is damaged, and replaced as soon as there is a state.
    pub(crate) fn damaged(disk: Arc<dyn Disk>, member: MemberId, bugs: Bugs) -> Self {
        let changing = futures::lock::Mutex::new(());
        let distrusted = AtomicBool::new(true);
        Self { disk, member, current: Mutex::new(None), changing, distrusted, bugs }
    }

    /// Has the current snapshot written again from memory.
    pub(crate) fn distrust(&self) {
        self.distrusted.store(true, Ordering::Release);
    }

    pub(crate) fn is_distrusted(&self) -> bool {
        self.distrusted.load(Ordering::Acquire)
    }

    /// The members, from a snapshot that is damaged elsewhere.
    pub(crate) async fn peek_membership(disk: &dyn Disk) -> Result<Option<Membership>, StoreError> {
        let failed = |error| StoreError::disk("opening the snapshot", error);
        let Some(file) = disk.open(NAME).await.map_err(failed)? else { return Ok(None) };
        let bytes = file.read(0, BLOCK_BYTES).await.map_err(failed)?;
        let head = Frame::read(&bytes).and_then(|frame| frame.decode::<v1::SnapshotHead>());
        Ok(head.ok().map(|head| head.membership.into()))
    }

    pub(crate) fn current(&self) -> Option<Snapshot> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes a state down and makes it the current snapshot, unless that is newer. Durable when
    /// it returns. A full disk leaves the current one.
    pub(crate) async fn write(&self, state: &State) -> io::Result<Snapshot> {
        let _changing = self.changing.lock().await;
        let newer = self.current().filter(|current| current.applied >= state.applied);
        if let Some(current) = newer.filter(|_| !self.is_distrusted()) {
            return Ok(current);
        }
        let written = self.write_new(state).await;
        if written.is_err() {
            // The room it took is needed; if even that fails, the next one replaces it.
            let _ = self.disk.remove(NEW).await;
        }
        let (file, bytes) = written?;
        let snapshot = describe(state, file, bytes, false);
        self.set_current(snapshot.clone());
        self.distrusted.store(false, Ordering::Release);
        Ok(snapshot)
    }

    async fn write_new(&self, state: &State) -> io::Result<(Arc<dyn DiskFile>, u64)> {
        let file = self.disk.create(NEW).await?;
        let bytes = Output::new(&file, self.bugs).state(self.member, state).await?;
        file.sync().await?;
        self.disk.rename(NEW, NAME).await?;
        self.disk.sync_names().await?;
        Ok((file, bytes))
    }

    /// Begins one that arrives.
    pub(crate) async fn begin_incoming(&self) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create(INCOMING).await
    }

    /// Checks one that has arrived, and makes its bytes durable.
    pub(crate) async fn finish_incoming(
        &self,
        file: Arc<dyn DiskFile>,
    ) -> Result<Snapshot, StoreError> {
        file.sync().await.map_err(|error| StoreError::disk("syncing a snapshot", error))?;
        let (state, bytes) = read(&file).await?;
        Ok(describe(&state, file, bytes, true))
    }

    /// Makes a snapshot that arrived the current one and returns its state.
    pub(crate) async fn install(&self, mut snapshot: Snapshot) -> Result<State, StoreError> {
        let _changing = self.changing.lock().await;
        let (state, _) = read(&snapshot.file).await?;
        let newer = self.current().is_none_or(|current| current.applied < snapshot.applied);
        if snapshot.incoming && newer {
            let failed = |error| StoreError::disk("installing a snapshot", error);
            self.disk.rename(INCOMING, NAME).await.map_err(failed)?;
            self.disk.sync_names().await.map_err(failed)?;
            snapshot.incoming = false;
            self.set_current(snapshot);
        }
        Ok(state)
    }

    fn set_current(&self, snapshot: Snapshot) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(snapshot);
    }
}

fn describe(state: &State, file: Arc<dyn DiskFile>, bytes: u64, incoming: bool) -> Snapshot {
    Snapshot {
        applied: state.applied,
        membership_position: state.membership_position,
        membership: state.membership.clone(),
        file,
        bytes,
        level: state.level,
        incoming,
    }
}

/// Writes a state to a file, block by block.
struct Output<'a> {
    file: &'a Arc<dyn DiskFile>,
    offset: u64,
    checksum: u32,
    pending: Vec<u8>,
    bugs: Bugs,
}

impl<'a> Output<'a> {
    fn new(file: &'a Arc<dyn DiskFile>, bugs: Bugs) -> Self {
        Self { file, offset: 0, checksum: 0, pending: Vec::new(), bugs }
    }

    async fn state(mut self, member: MemberId, state: &State) -> io::Result<u64> {
        self.frame(&head(member, state, self.bugs)).await?;
        self.records(state).await?;
        self.outcomes(state).await?;
        self.flush().await?;
        let end = v1::SnapshotEnd { checksum: self.checksum };
        self.frame(&end).await?;
        self.flush().await?;
        Ok(self.offset)
    }

    async fn records(&mut self, state: &State) -> io::Result<()> {
        let mut records = Vec::new();
        let mut bytes = 0;
        for record in kept_records(state, self.bugs) {
            bytes += record.key.len() + record.value.len() + 32;
            records.push(v1::Record::from(&**record));
            if bytes >= BLOCK_BYTES {
                self.frame(&v1::SnapshotRecords { records: std::mem::take(&mut records) }).await?;
                bytes = 0;
            }
        }
        if !records.is_empty() {
            self.frame(&v1::SnapshotRecords { records }).await?;
        }
        Ok(())
    }

    async fn outcomes(&mut self, state: &State) -> io::Result<()> {
        let mut outcomes = Vec::new();
        for (index, id, kept) in state.outcomes.iter() {
            let outcome = match kept {
                Kept::Committed(revision) => v1::Outcome::Committed(revision.0),
                Kept::Refused(refused) => v1::Outcome::Refused {
                    guard: refused.0 as u32,
                    current: refused.1.as_deref().map(Into::into),
                },
            };
            outcomes.push((index, id.0, outcome));
            if outcomes.len() == 1024 {
                self.frame(&v1::SnapshotOutcomes { outcomes: std::mem::take(&mut outcomes) })
                    .await?;
            }
        }
        if !outcomes.is_empty() {
            self.frame(&v1::SnapshotOutcomes { outcomes }).await?;
        }
        Ok(())
    }

    async fn frame<T: format::Frozen>(&mut self, value: &T) -> io::Result<()> {
        format::write(value, &mut self.pending);
        if self.pending.len() >= BLOCK_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        let bytes = Bytes::from(std::mem::take(&mut self.pending));
        self.checksum = crc32c::crc32c_append(self.checksum, &bytes);
        let offset = self.offset;
        self.offset += bytes.len() as u64;
        self.file.write(offset, bytes).await
    }
}

fn kept_records(state: &State, bugs: Bugs) -> impl Iterator<Item = &Arc<crate::record::Record>> {
    let drops = bugs.has(Bug::SnapshotDropsKey);
    let numbered = state.view.records.values().enumerate();
    numbered.filter(move |(number, _)| !(drops && number % 16 == 15)).map(|(_, record)| record)
}

fn head(member: MemberId, state: &State, bugs: Bugs) -> v1::SnapshotHead {
    v1::SnapshotHead {
        member: member.0,
        applied: state.applied.map(Into::into),
        membership_position: state.membership_position.map(Into::into),
        membership: (&*state.membership).into(),
        revision: state.view.revision.0,
        compacted: state.compacted.0,
        level: state.level.0,
        announced: state.announced.iter().map(|(id, knows)| (id.0, knows.0)).collect(),
        forgotten: state.outcomes.forgotten(),
        records: kept_records(state, bugs).count() as u64,
        outcomes: state.outcomes.iter().count() as u64,
    }
}
