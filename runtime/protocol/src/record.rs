//! Files that one program writes and another reads: replaced in one step, and found whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::frame::VERSION;

/// Why a record could not be read or written.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The disk refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file does not hold what it should.
    #[error("{} is damaged or of another version", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
}

/// Writes a record durably: afterwards `path` holds all of it, whatever happens to the machine; before, the old content.
///
/// # Errors
///
/// [`RecordError::Io`] names the step that failed.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), RecordError> {
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| RecordError::Io { action, path, source }
    };
    let mut bytes = VERSION.to_le_bytes().to_vec();
    bytes = postcard::to_extend(value, bytes)
        .map_err(|_| RecordError::Damaged { path: path.to_owned() })?;
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary).map_err(io("create", &temporary))?;
    file.write_all(&bytes).map_err(io("write", &temporary))?;
    file.sync_all().map_err(io("sync", &temporary))?;
    fs::rename(&temporary, path).map_err(io("replace", path))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("sync", folder))
}

/// Reads a record. `None` if there is no such file.
///
/// # Errors
///
/// [`RecordError::Damaged`] if the content is not a record of this version.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RecordError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(RecordError::Io { action: "read", path: path.to_owned(), source });
        }
    };
    let damaged = || RecordError::Damaged { path: path.to_owned() };
    let rest = bytes.strip_prefix(&VERSION.to_le_bytes()).ok_or_else(damaged)?;
    postcard::from_bytes(rest).map(Some).map_err(|_| damaged())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ExitRecord, WallTime};

    fn folder(name: &str) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("podium-record-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn record_reads_back_and_a_missing_one_is_none() {
        let folder = folder("roundtrip");
        let path = folder.join("exit");
        assert_eq!(read::<ExitRecord>(&path).unwrap(), None);
        let record = ExitRecord {
            code: 137,
            signal: Some(9),
            oom_killed: true,
            started_at: Some(WallTime { seconds: 1, nanoseconds: 2 }),
            finished_at: WallTime { seconds: 3, nanoseconds: 4 },
        };
        write(&path, &record).unwrap();
        assert_eq!(read::<ExitRecord>(&path).unwrap(), Some(record));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn cut_record_is_damaged_not_invented() {
        let folder = folder("cut");
        let path = folder.join("exit");
        fs::write(&path, [1]).unwrap();
        assert!(matches!(read::<ExitRecord>(&path), Err(RecordError::Damaged { .. })));
        fs::remove_dir_all(folder).unwrap();
    }
}
