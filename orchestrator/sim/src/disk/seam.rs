//! The store's `Disk` on the simulated one.

use std::fmt;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use podium_store::{Disk, DiskFile};

use super::content::Change;
use super::{NameChange, SimDisk, State};
use crate::executor;
use crate::fault::Fault;
use crate::runtime::Sleep;

/// What a changing operation takes that only reaches the page cache.
const WRITE: Duration = Duration::from_micros(20);
/// The range of what a sync takes on a healthy drive.
const SYNC: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(3));

/// An open file of a simulated disk.
struct SimFile {
    disk: SimDisk,
    id: u64,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDisk({})", self.node)
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFile({}, {})", self.disk.node, self.id)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if let Some(file) = self.disk.state().files.get_mut(&self.id) {
            file.handles = file.handles.saturating_sub(1);
        }
    }
}

impl SimDisk {
    fn handle(&self, state: &mut State, id: u64) -> Arc<dyn DiskFile> {
        if let Some(file) = state.files.get_mut(&id) {
            file.handles += 1;
        }
        Arc::new(SimFile { disk: self.clone(), id })
    }

    /// Does `change` after the time it takes; the power may go just before or just after.
    async fn changing<T>(
        &self,
        takes: Duration,
        change: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let weather = self.state().weather;
        let (slowness, cut, before) = executor::with(|core| {
            let slowness = core.between(Duration::ZERO, weather.slowness);
            (slowness, core.one_in(weather.cut_one_in), core.one_in(2))
        });
        if slowness > Duration::from_millis(10) {
            self.coverage.count(Fault::SlowDisk);
        }
        Sleep::after(takes + slowness).await;
        if cut && before {
            self.lose_power().await;
        }
        let result = change(&mut self.state());
        if let Err(error) = &result
            && error.kind() == io::ErrorKind::StorageFull
        {
            self.coverage.count(Fault::FullDisk);
        }
        if cut {
            self.lose_power().await;
        }
        result
    }

    async fn lose_power(&self) {
        tracing::info!(node = self.node, "power lost inside a disk operation");
        self.coverage.count(Fault::CrashInDisk);
        executor::with(|core| core.request_crash(self.node));
        pending::<()>().await;
    }

    async fn syncing(&self, change: impl FnOnce(&mut State) -> io::Result<()>) -> io::Result<()> {
        let takes = executor::with(|core| core.between(SYNC.0, SYNC.1));
        self.changing(takes, change).await
    }
}

impl Disk for SimDisk {
    fn open(&self, name: &str) -> BoxFuture<'_, io::Result<Option<Arc<dyn DiskFile>>>> {
        let name = name.to_owned();
        Box::pin(async move {
            let mut state = self.state();
            let id = state.names.get(&name).copied();
            Ok(id.map(|id| self.handle(&mut state, id)))
        })
    }

    fn create(&self, name: &str) -> BoxFuture<'_, io::Result<Arc<dyn DiskFile>>> {
        let name = name.to_owned();
        Box::pin(self.changing(WRITE, move |state| {
            state.next_file += 1;
            let id = state.next_file;
            state.files.insert(id, super::File::default());
            state.change_names(NameChange::Link(name, id));
            Ok(self.handle(state, id))
        }))
    }

    fn rename(&self, from: &str, to: &str) -> BoxFuture<'_, io::Result<()>> {
        let (from, to) = (from.to_owned(), to.to_owned());
        Box::pin(self.changing(WRITE, move |state| {
            if !state.names.contains_key(&from) {
                return Err(io::Error::new(io::ErrorKind::NotFound, format!("no file {from}")));
            }
            state.change_names(NameChange::Rename(from, to));
            Ok(())
        }))
    }

    fn remove(&self, name: &str) -> BoxFuture<'_, io::Result<()>> {
        let name = name.to_owned();
        Box::pin(self.changing(WRITE, move |state| {
            if state.names.contains_key(&name) {
                state.change_names(NameChange::Unlink(name));
            }
            Ok(())
        }))
    }

    fn list(&self) -> BoxFuture<'_, io::Result<Vec<String>>> {
        Box::pin(async move { Ok(self.state().names.keys().cloned().collect()) })
    }

    fn sync_names(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.syncing(|state| {
            state.sync_names();
            Ok(())
        }))
    }
}

impl DiskFile for SimFile {
    fn length(&self) -> BoxFuture<'_, io::Result<u64>> {
        Box::pin(async move { Ok(self.disk.state().file(self.id)?.content.length() as u64) })
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        Box::pin(async move {
            Ok(self.disk.state().file(self.id)?.content.read(index(offset)?, length))
        })
    }

    fn write(&self, offset: u64, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.disk.changing(WRITE, move |state| {
            state.change_file(self.id, Change::Write { offset: index(offset)?, bytes })
        }))
    }

    fn reserve(&self, length: u64) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.disk.changing(WRITE, move |state| {
            state.change_file(self.id, Change::Reserve(index(length)?))
        }))
    }

    fn truncate(&self, length: u64) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.disk.changing(WRITE, move |state| {
            state.change_file(self.id, Change::Truncate(index(length)?))
        }))
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.disk.syncing(|state| state.sync_file(self.id)))
    }
}

fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}
