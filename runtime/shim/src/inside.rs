//! Reads and makes files in a container's root without trusting anything in it. The root's content is the image's and, after a
//! restart, the container's: a symbolic link in it must never lead out. Every look-up resolves below the root's descriptor
//! (`openat2` with `RESOLVE_IN_ROOT`), follows no magic link, and reads regular files of limited size only.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, open, openat2};
use rustix::io::Errno;

/// `/etc/passwd` and `/etc/group` of real images are a few kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A folder that look-ups cannot leave.
#[derive(Debug)]
pub(crate) struct Inside {
    root: OwnedFd,
}

impl Inside {
    /// Opens the root itself; `path` is the shim's own and trusted.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let root = open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root })
    }

    fn find(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    /// A file's text. `None` if there is no such regular file; a file that is too large or no text counts as absent too, for a damaged
    /// `/etc/passwd` names nobody.
    pub(crate) fn read(&self, path: &str) -> io::Result<Option<String>> {
        // Without O_NONBLOCK a FIFO in the image would stop the shim here.
        let file =
            match self.find(Path::new(path), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
                Ok(file) => file,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
        if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let mut text = String::new();
        match File::from(file).take(FILE_BYTES_MAX + 1).read_to_string(&mut text) {
            Ok(length) if length as u64 <= FILE_BYTES_MAX => Ok(Some(text)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a folder and its parents where missing, following links inside the root.
    pub(crate) fn make_folders(&self, path: &Path) -> io::Result<()> {
        let mut so_far = PathBuf::from("/");
        for component in path.components() {
            let Component::Normal(name) = component else {
                if component == Component::ParentDir {
                    so_far.push("..");
                }
                continue;
            };
            let parent = self.find(&so_far, OFlags::PATH | OFlags::DIRECTORY)?;
            so_far.push(name);
            match self.find(&so_far, OFlags::PATH | OFlags::DIRECTORY) {
                Ok(_) => {}
                Err(Errno::NOENT) => mkdirat(parent.as_fd(), name, Mode::from_raw_mode(0o755))?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_never_lead_out_of_the_root() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("passwd"), "evil:x:0:0::/:\n").unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        symlink(outside.path().join("passwd"), root.path().join("etc/passwd")).unwrap();
        symlink(outside.path(), root.path().join("out")).unwrap();
        symlink("/../../../../..", root.path().join("up")).unwrap();
        let inside = Inside::open(root.path()).unwrap();
        assert_eq!(inside.read("/etc/passwd").unwrap(), None);
        assert!(inside.make_folders(Path::new("/out/made")).is_err());
        inside.make_folders(Path::new("/up/made/here")).unwrap();
        assert!(root.path().join("made/here").is_dir());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn links_inside_the_root_are_followed() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/etc")).unwrap();
        fs::write(root.path().join("usr/etc/passwd"), "me").unwrap();
        symlink("/usr/etc", root.path().join("etc")).unwrap();
        let inside = Inside::open(root.path()).unwrap();
        assert_eq!(inside.read("/etc/passwd").unwrap().as_deref(), Some("me"));
    }

    #[test]
    fn pipe_or_huge_file_in_place_of_passwd_counts_as_absent() {
        let root = tempfile::tempdir().unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.path().join("passwd"),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        fs::write(root.path().join("group"), vec![b'x'; (FILE_BYTES_MAX + 1) as usize]).unwrap();
        let inside = Inside::open(root.path()).unwrap();
        assert_eq!(inside.read("/passwd").unwrap(), None);
        assert_eq!(inside.read("/group").unwrap(), None);
    }
}
