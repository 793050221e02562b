//! Makes an archive's entries in a folder, every step relative to an open descriptor. A parent is opened with `RESOLVE_BENEATH`: links that
//! an earlier entry made are followed only as long as they stay inside, and one that leads out is an error.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
    XattrFlags, chownat, fchmod, fchown, fsetxattr, fsync, futimens, linkat, mkdirat, mknodat,
    open, openat, openat2, statat, symlinkat, syncfs, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::UnpackError;
use super::tar::{Archive, Entry};

/// How overlayfs marks a folder that shows nothing of the layers below.
const OPAQUE: &str = "trusted.overlay.opaque";

/// An entry's place in the tree: names without `.` and `..`. Empty is the root itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    names: Vec<Vec<u8>>,
}

impl Place {
    /// Reads a path as archives write it, `./` and repeated slashes included.
    pub(super) fn of(path: &[u8]) -> Result<Self, UnpackError> {
        let escape = || UnpackError::Escape { path: display(path) };
        if path.is_empty() || path.starts_with(b"/") || path.contains(&0) {
            return Err(escape());
        }
        let mut names = Vec::new();
        for name in path.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." => return Err(escape()),
                name => names.push(name.to_vec()),
            }
        }
        Ok(Self { names })
    }

    /// The last name; `None` for the root.
    pub(super) fn name(&self) -> Option<&[u8]> {
        self.names.last().map(Vec::as_slice)
    }

    fn parent(&self) -> Self {
        let names = self.names.split_last().map(|(_, parent)| parent.to_vec()).unwrap_or_default();
        Self { names }
    }

    fn to_path(&self) -> Vec<u8> {
        if self.names.is_empty() { b".".to_vec() } else { self.names.join(&b'/') }
    }

    pub(super) fn display(&self) -> String {
        display(&self.to_path())
    }
}

fn display(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

/// The folder being filled.
pub(super) struct Tree {
    root: OwnedFd,
    /// Folders' times, set at the end: every entry made in a folder changes its own.
    times: Vec<(Place, Timestamps)>,
}

impl Tree {
    pub(super) fn open(target: &Path) -> Result<Self, UnpackError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(target, flags, Mode::empty())
            .map_err(|error| io_error("open", &target.display().to_string(), error))?;
        Ok(Self { root, times: Vec::new() })
    }

    /// Opens an existing folder of the tree.
    fn find(&self, place: &Place) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, os(&place.to_path()), flags, Mode::empty(), resolve)
    }

    /// Opens a folder, making it and its parents where missing.
    fn ensure(&self, place: &Place) -> Result<OwnedFd, UnpackError> {
        match self.find(place) {
            Ok(folder) => return Ok(folder),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(resolve_error(place, error)),
        }
        let Some(name) = place.name() else { return Err(resolve_error(place, Errno::NOENT)) };
        let parent = self.ensure(&place.parent())?;
        mkdirat(&parent, os(name), Mode::from_raw_mode(0o755))
            .map_err(|error| io_error("make the folder", &place.display(), error))?;
        self.find(place).map_err(|error| resolve_error(place, error))
    }

    /// The open parent and the name in it, with whatever had that name before taken away: of two entries, the later counts.
    fn fresh<'a>(&self, place: &'a Place) -> Result<(OwnedFd, &'a OsStr), UnpackError> {
        let Some(name) = place.name() else {
            return Err(UnpackError::Archive("the root of the layer is not a folder".to_owned()));
        };
        let parent = self.ensure(&place.parent())?;
        let name = os(name);
        match unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => {
                remove_folder(parent.as_fd(), name)
                    .map_err(|error| io_error("replace", &place.display(), error))?;
            }
            Err(error) => return Err(io_error("replace", &place.display(), error)),
        }
        Ok((parent, name))
    }

    /// Makes a regular file with the archive's current content.
    pub(super) fn file<R: Read>(
        &mut self,
        place: &Place,
        entry: &Entry,
        archive: &mut Archive<R>,
    ) -> Result<(), UnpackError> {
        let failed = |error| io_error("make", &place.display(), error);
        let (parent, name) = self.fresh(place)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&parent, name, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
        let mut file = File::from(file);
        copy(archive, &mut file, entry.size, place)?;
        self.dress(file.as_fd(), entry).map_err(failed)
    }

    /// Makes a folder, or gives an existing one these attributes.
    pub(super) fn folder(&mut self, place: &Place, entry: &Entry) -> Result<(), UnpackError> {
        let failed = |error| io_error("make the folder", &place.display(), error);
        if let Some(name) = place.name() {
            let parent = self.ensure(&place.parent())?;
            let before = statat(&parent, os(name), AtFlags::SYMLINK_NOFOLLOW).ok();
            if before.as_ref().is_none_or(|before| kind(before) != FileType::Directory) {
                let (parent, name) = self.fresh(place)?;
                mkdirat(&parent, name, Mode::from_raw_mode(0o755)).map_err(failed)?;
                if before.as_ref().is_some_and(is_whiteout) {
                    // The layer said first that the lower folder is gone, then made a new one.
                    let folder = self.find(place).map_err(failed)?;
                    fsetxattr(&folder, OPAQUE, b"y", XattrFlags::empty()).map_err(failed)?;
                }
            }
        }
        let folder = self.find(place).map_err(|error| resolve_error(place, error))?;
        self.dress(folder.as_fd(), entry).map_err(failed)?;
        self.times.push((place.clone(), times(entry)));
        Ok(())
    }

    pub(super) fn symlink(&mut self, place: &Place, entry: &Entry) -> Result<(), UnpackError> {
        let failed = |error| io_error("make the link", &place.display(), error);
        // Where it leads does not matter: it is followed inside a container only.
        let (parent, name) = self.fresh(place)?;
        symlinkat(os(&entry.link), &parent, name).map_err(failed)?;
        let (uid, gid) = owner(entry);
        chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        utimensat(&parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
    }

    /// Makes another name for a file of this layer.
    pub(super) fn hardlink(&mut self, place: &Place, entry: &Entry) -> Result<(), UnpackError> {
        let target = Place::of(&entry.link)?;
        let Some(target_name) = target.name() else {
            return Err(UnpackError::Escape { path: target.display() });
        };
        let folder = self.find(&target.parent()).map_err(|error| resolve_error(&target, error))?;
        let failed = |error| io_error("link", &place.display(), error);
        let found = statat(&folder, os(target_name), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        if kind(&found) == FileType::Directory || is_whiteout(&found) {
            return Err(UnpackError::Archive(format!(
                "{:?} is linked to something that is no file",
                place.display()
            )));
        }
        if target == *place {
            return Ok(());
        }
        let (parent, name) = self.fresh(place)?;
        linkat(&folder, os(target_name), &parent, name, AtFlags::empty()).map_err(failed)
    }

    pub(super) fn fifo(&mut self, place: &Place, entry: &Entry) -> Result<(), UnpackError> {
        let failed = |error| io_error("make the pipe", &place.display(), error);
        let (parent, name) = self.fresh(place)?;
        mknodat(&parent, name, FileType::Fifo, Mode::from_raw_mode(entry.mode & 0o777), 0)
            .map_err(failed)?;
        let (uid, gid) = owner(entry);
        chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        utimensat(&parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
    }

    /// Hides the whole lower content of the whiteout's folder.
    pub(super) fn make_opaque(&mut self, place: &Place) -> Result<(), UnpackError> {
        let parent = place.parent();
        let folder = self.ensure(&parent)?;
        fsetxattr(&folder, OPAQUE, b"y", XattrFlags::empty())
            .map_err(|error| io_error("mark as opaque", &parent.display(), error))
    }

    /// Hides `name` of the lower layers, beside the whiteout. What this layer itself has under that name stays.
    pub(super) fn hide(&mut self, place: &Place, name: &[u8]) -> Result<(), UnpackError> {
        if matches!(name, b"" | b"." | b"..") {
            return Err(UnpackError::Escape { path: place.display() });
        }
        let failed = |error| io_error("hide what is below", &place.display(), error);
        let parent = self.ensure(&place.parent())?;
        match statat(&parent, os(name), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {
                mknodat(&parent, os(name), FileType::CharacterDevice, Mode::empty(), 0)
                    .map_err(failed)
            }
            Ok(own) if kind(&own) == FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let folder = openat(&parent, os(name), flags, Mode::empty()).map_err(failed)?;
                fsetxattr(&folder, OPAQUE, b"y", XattrFlags::empty()).map_err(failed)
            }
            Ok(_) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Owner, mode, attributes and times. The order matters: a change of owner clears set-user-id bits and capabilities.
    fn dress(&self, file: BorrowedFd<'_>, entry: &Entry) -> Result<(), Errno> {
        let (uid, gid) = owner(entry);
        fchown(file, Some(uid), Some(gid))?;
        fchmod(file, Mode::from_raw_mode(entry.mode))?;
        for (name, value) in &entry.xattrs {
            // `trusted.overlay.…` would speak to overlayfs; other families mean something to this machine only.
            if name.starts_with(b"user.") || name == b"security.capability" {
                match fsetxattr(file, os(name), value, XattrFlags::empty()) {
                    // Not every filesystem or kind of file takes every attribute; programs cope.
                    Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        futimens(file, &times(entry))
    }

    /// Sets folders' times, inner ones first, and makes everything durable.
    pub(super) fn finish(self) -> Result<(), UnpackError> {
        for (place, times) in self.times.iter().rev() {
            // A later entry may have replaced the folder.
            if let Ok(folder) = self.find(place) {
                futimens(&folder, times)
                    .map_err(|error| io_error("set the time of", &place.display(), error))?;
            }
        }
        // One call for the whole filesystem costs less than one for each of a layer's thousands of files.
        syncfs(&self.root).map_err(|error| io_error("sync", ".", error))?;
        fsync(&self.root).map_err(|error| io_error("sync", ".", error))
    }
}

fn copy<R: Read>(
    archive: &mut Archive<R>,
    file: &mut File,
    size: u64,
    place: &Place,
) -> Result<(), UnpackError> {
    use io::Write as _;
    let mut buffer = vec![0; 64 << 10];
    let mut copied = 0;
    loop {
        let length = match archive.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(super::stream::read_error(error, 0)),
        };
        let piece = buffer.get(..length).unwrap_or_default();
        file.write_all(piece).map_err(|source| UnpackError::Io {
            action: "write",
            path: place.display(),
            source,
        })?;
        copied += length as u64;
    }
    if copied == size {
        Ok(())
    } else {
        Err(UnpackError::Archive("it ends within a file".to_owned()))
    }
}

/// Removes a folder with everything in it, never following a link.
fn remove_folder(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = openat(parent, name, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&folder)? {
        let entry = entry?;
        let inner = os(entry.file_name().to_bytes());
        if matches!(inner.as_bytes(), b"." | b"..") {
            continue;
        }
        match unlinkat(&folder, inner, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::ISDIR | Errno::PERM) => remove_folder(folder.as_fd(), inner)?,
            Err(error) => return Err(error),
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn is_whiteout(stat: &Stat) -> bool {
    kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn owner(entry: &Entry) -> (Uid, Gid) {
    (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid))
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime_seconds, tv_nsec: entry.mtime_nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn io_error(action: &'static str, path: &str, error: Errno) -> UnpackError {
    UnpackError::Io { action, path: path.to_owned(), source: error.into() }
}

/// What it means that a folder of the tree could not be opened.
fn resolve_error(place: &Place, error: Errno) -> UnpackError {
    match error {
        // The kernel's word for "would leave".
        Errno::XDEV | Errno::LOOP => UnpackError::Escape { path: place.display() },
        Errno::NOTDIR => UnpackError::Archive(format!(
            "{:?} goes through something that is no folder",
            place.display()
        )),
        error => io_error("open", &place.display(), error),
    }
}
