//! The disk as the store sees it: one flat folder of files.
//!
//! [`os`] is the real one. The simulator brings its own, which tears, delays and flips what it
//! was not told to sync. The rules that both keep, and that the store is built on:
//!
//! - What was written is durable once [`DiskFile::sync`] of that file has answered `Ok`. Before
//!   that, after a power cut any subset of the written bytes may be there.
//! - That a file exists, was renamed or removed is durable once [`Disk::sync_names`] has answered.
//!   A rename happens whole or not at all.
//! - An open file stays readable after it was removed or replaced under its name.
//! - A lack of room is [`std::io::ErrorKind::StorageFull`] (or `QuotaExceeded`) and leaves what was
//!   there before untouched, except that the file may have grown by zeros.

pub mod memory;
pub mod os;

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

/// A folder that belongs to one store alone. Names hold no separator.
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Opens a file for reading and writing; `None` if there is none.
    fn open(&self, name: &str) -> BoxFuture<'_, io::Result<Option<Arc<dyn DiskFile>>>>;

    /// Makes an empty file, instead of any that has the name.
    fn create(&self, name: &str) -> BoxFuture<'_, io::Result<Arc<dyn DiskFile>>>;

    /// Gives a file another name, instead of any that has it.
    fn rename(&self, from: &str, to: &str) -> BoxFuture<'_, io::Result<()>>;

    /// Removes a file. It is no error if there is none.
    fn remove(&self, name: &str) -> BoxFuture<'_, io::Result<()>>;

    /// All names, in order.
    fn list(&self) -> BoxFuture<'_, io::Result<Vec<String>>>;

    /// Makes what was created, renamed and removed durable.
    fn sync_names(&self) -> BoxFuture<'_, io::Result<()>>;
}

/// One open file.
pub trait DiskFile: Send + Sync + fmt::Debug + 'static {
    /// Its length in bytes.
    fn length(&self) -> BoxFuture<'_, io::Result<u64>>;

    /// Up to `length` bytes from `offset`; fewer only at the end of the file.
    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, io::Result<Bytes>>;

    /// Writes all bytes at `offset`, growing the file as far as needed.
    fn write(&self, offset: u64, bytes: Bytes) -> BoxFuture<'_, io::Result<()>>;

    /// Fills the file with zeros up to `length` and makes sure that the room is really there:
    /// writes below `length` do not fail for a lack of it. Never shortens.
    fn reserve(&self, length: u64) -> BoxFuture<'_, io::Result<()>>;

    /// Cuts the file.
    fn truncate(&self, length: u64) -> BoxFuture<'_, io::Result<()>>;

    /// Makes everything that was written durable.
    fn sync(&self) -> BoxFuture<'_, io::Result<()>>;

    /// [`DiskFile::write`], then [`DiskFile::sync`], in one go where that is cheaper.
    fn write_synced(&self, offset: u64, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.write(offset, bytes).await?;
            self.sync().await
        })
    }
}

/// Whether an error says that there is no room, which passes, rather than that the disk is broken.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
