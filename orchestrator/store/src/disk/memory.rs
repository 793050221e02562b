//! A disk in memory that knows what was synced, for tests.
//!
//! [`MemoryDisk::after_power_cut`] keeps what was synced and nothing else; what tears in between
//! is the simulator's disk's business. [`MemoryDisk::set_capacity`] makes it full.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};

use super::{Disk, DiskFile};

#[derive(Debug, Clone, Default)]
struct Contents {
    now: Vec<u8>,
    unsynced: Vec<Write>,
    durable: Vec<u8>,
}

#[derive(Debug, Clone)]
enum Write {
    Bytes(usize, Bytes),
    Length(usize),
}

impl Contents {
    fn write(&mut self, write: Write) {
        change(&mut self.now, &write);
        self.unsynced.push(write);
    }

    fn sync(&mut self) {
        for write in self.unsynced.drain(..) {
            change(&mut self.durable, &write);
        }
    }
}

fn change(bytes: &mut Vec<u8>, write: &Write) {
    match write {
        Write::Length(length) => bytes.resize(*length, 0),
        Write::Bytes(offset, new) => {
            let end = offset + new.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset..end].copy_from_slice(new);
        }
    }
}

#[derive(Debug, Default)]
struct Folder {
    files: BTreeMap<String, Arc<Mutex<Contents>>>,
    durable: BTreeMap<String, Arc<Mutex<Contents>>>,
    capacity: Option<usize>,
    syncs: usize,
}

impl Folder {
    fn has_room_for(&self, more: usize) -> bool {
        let used: usize = self.files.values().map(|file| lock(file).now.len()).sum();
        self.capacity.is_none_or(|capacity| used + more <= capacity)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the module. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    folder: Arc<Mutex<Folder>>,
}

impl MemoryDisk {
    /// An empty disk without a limit.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits the sum of all lengths; nothing grows beyond it.
    pub fn set_capacity(&self, bytes: Option<usize>) {
        lock(&self.folder).capacity = bytes;
    }

    /// What would be left if the power went now.
    #[must_use]
    pub fn after_power_cut(&self) -> Self {
        let mut folder = Folder::default();
        for (name, file) in &lock(&self.folder).durable {
            let bytes = lock(file).durable.clone();
            folder.insert(name, bytes);
        }
        Self { folder: Arc::new(Mutex::new(folder)) }
    }

    /// How often a file was synced.
    #[must_use]
    pub fn syncs(&self) -> usize {
        lock(&self.folder).syncs
    }

    /// The bytes of a file.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        lock(&self.folder).files.get(name).map(|file| lock(file).now.clone())
    }

    /// Puts a file there, durable.
    pub fn set_contents(&self, name: &str, bytes: Vec<u8>) {
        lock(&self.folder).insert(name, bytes);
    }
}

impl Folder {
    fn insert(&mut self, name: &str, bytes: Vec<u8>) {
        let contents = Contents { now: bytes.clone(), unsynced: Vec::new(), durable: bytes };
        let file = Arc::new(Mutex::new(contents));
        self.files.insert(name.to_owned(), file.clone());
        self.durable.insert(name.to_owned(), file);
    }
}

fn now<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    ready(value).boxed()
}

impl Disk for MemoryDisk {
    fn open(&self, name: &str) -> BoxFuture<'_, io::Result<Option<Arc<dyn DiskFile>>>> {
        let file = lock(&self.folder).files.get(name).cloned();
        let open = |file| Arc::new(MemoryFile { file, disk: self.clone() }) as Arc<dyn DiskFile>;
        now(Ok(file.map(open)))
    }

    fn create(&self, name: &str) -> BoxFuture<'_, io::Result<Arc<dyn DiskFile>>> {
        let file = Arc::<Mutex<Contents>>::default();
        lock(&self.folder).files.insert(name.to_owned(), file.clone());
        now(Ok(Arc::new(MemoryFile { file, disk: self.clone() })))
    }

    fn rename(&self, from: &str, to: &str) -> BoxFuture<'_, io::Result<()>> {
        let mut folder = lock(&self.folder);
        let Some(file) = folder.files.remove(from) else {
            return now(Err(io::ErrorKind::NotFound.into()));
        };
        folder.files.insert(to.to_owned(), file);
        now(Ok(()))
    }

    fn remove(&self, name: &str) -> BoxFuture<'_, io::Result<()>> {
        lock(&self.folder).files.remove(name);
        now(Ok(()))
    }

    fn list(&self) -> BoxFuture<'_, io::Result<Vec<String>>> {
        now(Ok(lock(&self.folder).files.keys().cloned().collect()))
    }

    fn sync_names(&self) -> BoxFuture<'_, io::Result<()>> {
        let mut folder = lock(&self.folder);
        folder.durable = folder.files.clone();
        now(Ok(()))
    }
}

#[derive(Debug)]
struct MemoryFile {
    file: Arc<Mutex<Contents>>,
    disk: MemoryDisk,
}

impl MemoryFile {
    fn grow(&self, end: usize, write: Write) -> io::Result<()> {
        let length = lock(&self.file).now.len();
        if end > length && !lock(&self.disk.folder).has_room_for(end - length) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        lock(&self.file).write(write);
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn length(&self) -> BoxFuture<'_, io::Result<u64>> {
        now(Ok(lock(&self.file).now.len() as u64))
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        let contents = lock(&self.file);
        let begin = (offset as usize).min(contents.now.len());
        let end = (begin + length).min(contents.now.len());
        now(Ok(Bytes::copy_from_slice(&contents.now[begin..end])))
    }

    fn write(&self, offset: u64, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
        let offset = offset as usize;
        now(self.grow(offset + bytes.len(), Write::Bytes(offset, bytes)))
    }

    fn reserve(&self, length: u64) -> BoxFuture<'_, io::Result<()>> {
        let length = length as usize;
        if length <= lock(&self.file).now.len() {
            return now(Ok(()));
        }
        now(self.grow(length, Write::Length(length)))
    }

    fn truncate(&self, length: u64) -> BoxFuture<'_, io::Result<()>> {
        lock(&self.file).write(Write::Length(length as usize));
        now(Ok(()))
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        lock(&self.file).sync();
        lock(&self.disk.folder).syncs += 1;
        now(Ok(()))
    }
}
