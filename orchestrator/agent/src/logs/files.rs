//! The files of one log, from the oldest part to the newest.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What makes a file the same file under another name.
pub(super) type Identity = (u64, u64);

/// Where in a log to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) offset: u64,
}

pub(super) fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// Another file has the log's name now.
pub(super) fn is_replaced(log: &Path, held: Identity) -> bool {
    fs::metadata(log).is_ok_and(|metadata| identity(&metadata) != held)
}

/// Where to begin: at the start of the oldest part, or `tail` entries before the end; `None` if there is no file.
pub(super) fn begin(log: &Path, tail: Option<u64>) -> io::Result<Option<Place>> {
    let parts = parts(log)?;
    let Some(mut left) = tail else {
        return Ok(parts.into_iter().next().map(|path| Place { path, offset: 0 }));
    };
    let mut place = None;
    for path in parts.into_iter().rev() {
        let (offset, found) = tail_offset(&path, left)?;
        place = Some(Place { path, offset });
        left = left.saturating_sub(found);
        if left == 0 {
            break;
        }
    }
    Ok(place)
}

/// The part that was begun after the one that is held, which may have another name by now. A part that is gone was
/// older than all that are left.
pub(super) fn after(log: &Path, held: Identity) -> io::Result<Option<PathBuf>> {
    let parts = parts(log)?;
    let mut known = Vec::with_capacity(parts.len());
    for path in parts {
        let Ok(metadata) = fs::metadata(&path) else { continue };
        known.push((identity(&metadata), path));
    }
    let position = known.iter().position(|(identity, _)| *identity == held);
    let next = position.map_or(0, |position| position + 1);
    Ok(known.into_iter().nth(next).map(|(_, path)| path))
}

/// The parts of a log that exist, the oldest first: `<log>.n` … `<log>.1`, `<log>`.
fn parts(log: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(folder), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str()))
    else {
        return Ok(Vec::new());
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut parts = Vec::new();
    for entry in entries {
        let entry = entry?;
        let file = entry.file_name();
        let Some(rest) = file.to_str().and_then(|file| file.strip_prefix(name)) else { continue };
        let age = if rest.is_empty() {
            Some(0)
        } else {
            rest.strip_prefix('.').and_then(|age| age.parse::<u32>().ok())
        };
        if let Some(age) = age {
            parts.push((age, entry.path()));
        }
    }
    parts.sort_by_key(|(age, _)| std::cmp::Reverse(*age));
    Ok(parts.into_iter().map(|(_, path)| path).collect())
}

/// Where the last `count` lines of a file begin, and how many there are.
fn tail_offset(path: &Path, count: u64) -> io::Result<(u64, u64)> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut buffer = vec![0; 64 << 10];
    let (mut end, mut seen) = (length, 0);
    while end > 0 {
        let size = end.min(64 << 10);
        let start = end - size;
        file.seek(SeekFrom::Start(start))?;
        let chunk = buffer.get_mut(..usize::try_from(size).unwrap_or(0)).unwrap_or_default();
        file.read_exact(chunk)?;
        for (after, byte) in (start + 1..=end).rev().zip(chunk.iter().rev()) {
            // The line end at the very end closes the last line, and begins none.
            if *byte == b'\n' && after != length {
                seen += 1;
                if seen == count {
                    return Ok((after, count));
                }
            }
        }
        end = start;
    }
    if count == 0 { Ok((length, 0)) } else { Ok((0, seen + u64::from(length > 0))) }
}
