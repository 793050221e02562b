//! The real disk: files in a folder, on threads of their own.
//!
//! `fdatasync` blocks for as long as the device likes, so no file is touched on the caller's
//! thread. There are two threads: one for the log and the vote, where a transaction's time goes,
//! and one for snapshots, whose syncs are long.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;

use bytes::Bytes;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::BoxFuture;

use super::{Disk, DiskFile};

/// Zeros are written in pieces of this size: large enough to be cheap, small enough to keep around.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

type Job = Box<dyn FnOnce() + Send>;

/// A thread that does one thing after the other. It ends with its last handle.
#[derive(Debug, Clone)]
struct Lane {
    jobs: mpsc::Sender<Job>,
}

impl Lane {
    fn start(name: &str) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let work = move || queue.into_iter().for_each(|job| job());
        thread::Builder::new().name(name.into()).stack_size(128 * 1024).spawn(work)?;
        Ok(Self { jobs })
    }

    fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> BoxFuture<'static, io::Result<T>> {
        let (reply, answer) = oneshot::channel();
        let job = move || {
            // The caller may have stopped waiting; what it asked for is done all the same.
            let _ = reply.send(job());
        };
        let sent = self.jobs.send(Box::new(job));
        async move {
            sent.map_err(|_| io::Error::other("the disk's thread has ended"))?;
            answer.await.map_err(|_| io::Error::other("the disk's thread has ended"))?
        }
        .boxed()
    }
}

/// A folder of the file system.
#[derive(Debug)]
pub struct OsDisk {
    folder: Arc<Path>,
    log: Lane,
    snapshots: Lane,
}

impl OsDisk {
    /// Opens the folder, and makes it durably if it is not there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = make(folder.into())?;
        let log = Lane::start("store-log")?;
        let snapshots = Lane::start("store-snapshot")?;
        Ok(Self { folder, log, snapshots })
    }

    /// Opens another folder as [`OsDisk::open`] does, on the same threads.
    ///
    /// # Errors
    /// What the file system says.
    pub fn beside(&self, folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = make(folder.into())?;
        Ok(Self { folder, log: self.log.clone(), snapshots: self.snapshots.clone() })
    }

    fn lane(&self, name: &str) -> &Lane {
        if name.starts_with("snapshot") { &self.snapshots } else { &self.log }
    }
}

/// Makes a folder, durably, if it is not there.
fn make(folder: PathBuf) -> io::Result<Arc<Path>> {
    if !folder.is_dir() {
        fs::create_dir_all(&folder)?;
        if let Some(parent) = folder.parent() {
            File::open(parent)?.sync_all()?;
        }
    }
    Ok(folder.into())
}

impl Disk for OsDisk {
    fn open(&self, name: &str) -> BoxFuture<'_, io::Result<Option<Arc<dyn DiskFile>>>> {
        let lane = self.lane(name).clone();
        let path = self.folder.join(name);
        let open = move || match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        async move { Ok(lane.run(open).await?.map(|file| OsFile::shared(file, lane))) }.boxed()
    }

    fn create(&self, name: &str) -> BoxFuture<'_, io::Result<Arc<dyn DiskFile>>> {
        let lane = self.lane(name).clone();
        let path = self.folder.join(name);
        let create = move || {
            // A new file, not a shortened one: who has the old one open goes on reading it.
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            OpenOptions::new().read(true).write(true).create_new(true).open(path)
        };
        async move { Ok(OsFile::shared(lane.run(create).await?, lane)) }.boxed()
    }

    fn rename(&self, from: &str, to: &str) -> BoxFuture<'_, io::Result<()>> {
        let (from, to, lane) = (self.folder.join(from), self.folder.join(to), self.lane(to));
        lane.run(move || fs::rename(from, to))
    }

    fn remove(&self, name: &str) -> BoxFuture<'_, io::Result<()>> {
        let path = self.folder.join(name);
        self.lane(name).run(move || match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        })
    }

    fn list(&self) -> BoxFuture<'_, io::Result<Vec<String>>> {
        let folder = self.folder.clone();
        self.log.run(move || {
            let mut names = Vec::new();
            for entry in fs::read_dir(folder)? {
                names.extend(entry?.file_name().into_string());
            }
            names.sort();
            Ok(names)
        })
    }

    fn sync_names(&self) -> BoxFuture<'_, io::Result<()>> {
        let folder = self.folder.clone();
        self.log.run(move || File::open(folder)?.sync_all())
    }
}

#[derive(Debug)]
struct OsFile {
    file: Arc<File>,
    lane: Lane,
}

impl OsFile {
    fn shared(file: File, lane: Lane) -> Arc<dyn DiskFile> {
        Arc::new(Self { file: Arc::new(file), lane })
    }

    fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&File) -> io::Result<T> + Send + 'static,
    ) -> BoxFuture<'_, io::Result<T>> {
        let file = self.file.clone();
        self.lane.run(move || job(&file))
    }
}

impl DiskFile for OsFile {
    fn length(&self) -> BoxFuture<'_, io::Result<u64>> {
        self.run(|file| Ok(file.metadata()?.len()))
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        self.run(move |file| read_up_to(file, offset, length))
    }

    fn write(&self, offset: u64, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
        self.run(move |file| file.write_all_at(&bytes, offset))
    }

    fn reserve(&self, length: u64) -> BoxFuture<'_, io::Result<()>> {
        self.run(move |file| fill_with_zeros(file, length))
    }

    fn truncate(&self, length: u64) -> BoxFuture<'_, io::Result<()>> {
        self.run(move |file| file.set_len(length))
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        self.run(File::sync_data)
    }

    fn write_synced(&self, offset: u64, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
        self.run(move |file| {
            file.write_all_at(&bytes, offset)?;
            file.sync_data()
        })
    }
}

fn read_up_to(file: &File, offset: u64, length: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(Bytes::from(buffer))
}

/// Really written, not only promised: a later write into them changes no metadata, which halves
/// the time of its sync.
fn fill_with_zeros(file: &File, length: u64) -> io::Result<()> {
    let mut offset = file.metadata()?.len();
    while offset < length {
        let count = (length - offset).min(ZEROS.len() as u64) as usize;
        file.write_all_at(&ZEROS[..count], offset)?;
        offset += count as u64;
    }
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::executor::block_on;

    use super::OsDisk;
    use crate::disk::Disk;

    #[test]
    fn removed_file_stays_readable_for_who_has_it_open() {
        let folder = tempfile::tempdir().unwrap();
        let disk = OsDisk::open(folder.path().join("raft")).unwrap();
        block_on(async {
            let old = disk.create("log-1").await.unwrap();
            old.write_synced(0, Bytes::from_static(b"old")).await.unwrap();
            let new = disk.create("log-1").await.unwrap();
            new.write(0, Bytes::from_static(b"new")).await.unwrap();
            assert_eq!(old.read(0, 10).await.unwrap(), "old");
            disk.rename("log-1", "log-2").await.unwrap();
            disk.sync_names().await.unwrap();
            assert_eq!(disk.list().await.unwrap(), ["log-2"]);
            let opened = disk.open("log-2").await.unwrap().unwrap();
            assert_eq!(opened.read(1, 10).await.unwrap(), "ew");
            disk.remove("log-2").await.unwrap();
            disk.remove("log-2").await.unwrap();
            assert!(disk.open("log-2").await.unwrap().is_none());
        });
    }

    #[test]
    fn reserved_room_is_zeros_and_is_never_shortened() {
        let folder = tempfile::tempdir().unwrap();
        let disk = OsDisk::open(folder.path()).unwrap();
        block_on(async {
            let file = disk.create("log-1").await.unwrap();
            file.write(0, Bytes::from_static(b"abc")).await.unwrap();
            file.reserve(200_000).await.unwrap();
            file.reserve(10).await.unwrap();
            assert_eq!(file.length().await.unwrap(), 200_000);
            let all = file.read(0, 300_000).await.unwrap();
            assert_eq!(&all[..3], b"abc");
            assert!(all[3..].iter().all(|byte| *byte == 0));
        });
    }
}
