//! A container's log in the CRI format: `<time> <stream> <tag> <text>\n` for each line, where the tag is `F` for a whole line and `P`
//! for a piece that the next entry of the same stream goes on with. Joining the texts of a stream, with a newline after each `F`, gives
//! back the bytes that the container wrote, all of them.
//!
//! What arrives is written at once, in pieces as they arrive: a half line is an entry of its own, so nothing waits in
//! memory, and a prompt without a newline shows.
//!
//! A disk that refuses never stops the container: what cannot be written is counted and dropped, the file is cut back to its last whole
//! entry, and the first write that succeeds again is preceded by one line that says how much is missing and why.

mod entry;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use podium_shim_protocol::{LogLimits, WallTime};

pub(crate) use entry::Stream;

/// Room for entries that is kept from one write to the next. Output in very short lines needs more for a moment.
const ENTRIES_BYTES_KEPT: usize = 64 << 10;

/// One container attempt's log.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    limits: LogLimits,
    /// `None` before the first successful open, and while it fails.
    file: Option<File>,
    size: u64,
    lost: Lost,
    entries: Vec<u8>,
}

/// Output that could not be written.
#[derive(Debug, Default)]
struct Lost {
    /// Since the container was made.
    total_bytes: u64,
    /// Not yet mentioned in the log, and why.
    unmentioned: Option<(u64, String)>,
}

impl Log {
    /// A log at `path`. Folder and file are made at the first write if they cannot be made now.
    pub(crate) fn open(path: PathBuf, limits: LogLimits) -> Self {
        let mut log =
            Self { path, limits, file: None, size: 0, lost: Lost::default(), entries: Vec::new() };
        // A failure is met again, and counted, when there is something to write.
        let _ = log.file();
        log
    }

    /// Bytes of output lost since the container was made.
    pub(crate) fn lost_bytes(&self) -> u64 {
        self.lost.total_bytes
    }

    /// Logs what `stream` wrote.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8], now: WallTime) {
        let mut entries = std::mem::take(&mut self.entries);
        entries.clear();
        let mut notice_bytes = 0;
        if let Some((count, reason)) = &self.lost.unmentioned {
            let notice = format!("podium: {count} bytes of output are missing here: {reason}\n");
            entry::append(&mut entries, Stream::Stderr, notice.as_bytes(), now);
            notice_bytes = entries.len();
        }
        entry::append(&mut entries, stream, bytes, now);
        let (written, result) = self.put(&entries);
        if written >= notice_bytes {
            self.lost.unmentioned = None;
        }
        if let Err(error) = result {
            let rest = entries.get(written.max(notice_bytes)..).unwrap_or_default();
            self.lose(entry::text_bytes(rest), &error);
        }
        if entries.capacity() <= ENTRIES_BYTES_KEPT {
            self.entries = entries;
        }
    }

    fn lose(&mut self, count: u64, error: &io::Error) {
        self.lost.total_bytes += count;
        let earlier = self.lost.unmentioned.take().map_or(0, |(count, _)| count);
        self.lost.unmentioned = Some((earlier + count, error.to_string()));
    }

    /// Writes whole entries, rotating between them, and returns how many bytes of `entries` are in a file now.
    fn put(&mut self, entries: &[u8]) -> (usize, io::Result<()>) {
        let mut rest = entries;
        while !rest.is_empty() {
            let part = rest.get(..self.fitting(rest)).unwrap_or(rest);
            let result = if part.is_empty() { self.rotate() } else { self.append(part) };
            if let Err(error) = result {
                return (entries.len() - rest.len(), Err(error));
            }
            rest = rest.get(part.len()..).unwrap_or_default();
        }
        (entries.len(), Ok(()))
    }

    /// How much of `entries`, in whole entries, the current file may take. An entry that is larger than a whole file goes into an
    /// empty one.
    fn fitting(&self, entries: &[u8]) -> usize {
        let room =
            usize::try_from(self.limits.file_bytes.saturating_sub(self.size)).unwrap_or(usize::MAX);
        if entries.len() <= room {
            return entries.len();
        }
        let last_end =
            |window: &[u8]| window.iter().rposition(|byte| *byte == b'\n').map(|end| end + 1);
        match entries.get(..room).and_then(last_end) {
            Some(end) => end,
            None if self.size > 0 => 0,
            None => {
                entries.iter().position(|byte| *byte == b'\n').map_or(entries.len(), |end| end + 1)
            }
        }
    }

    fn append(&mut self, part: &[u8]) -> io::Result<()> {
        self.file()?;
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        if let Err(error) = file.write_all(part) {
            // Nothing of a torn entry may stay. If even this fails, the next open starts from what is there.
            let _ = file.set_len(self.size);
            self.file = None;
            return Err(error);
        }
        self.size += part.len() as u64;
        Ok(())
    }

    fn file(&mut self) -> io::Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().append(true).create(true).open(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Moves every file one number up and begins a new one; the oldest beyond the limit is overwritten or removed.
    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        let kept = self.limits.files.max(1) - 1;
        if kept == 0 {
            fs::remove_file(&self.path)?;
        }
        for number in (0..kept).rev() {
            match fs::rename(numbered(&self.path, number), numbered(&self.path, number + 1)) {
                Err(error) if number == 0 || error.kind() != io::ErrorKind::NotFound => {
                    return Err(error);
                }
                _ => {}
            }
        }
        self.size = 0;
        self.file()
    }
}

/// The name of the file that was rotated `number` times.
fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallTime = WallTime { seconds: 0, nanoseconds: 0 };

    fn limits(file_bytes: u64, files: u32) -> LogLimits {
        LogLimits { file_bytes, files }
    }

    #[test]
    fn rotation_keeps_so_many_files_and_loses_nothing_between_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web/0.log");
        let mut log = Log::open(path.clone(), limits(200, 3));
        for number in 0..20 {
            log.write(Stream::Stdout, format!("line {number:02}\n").as_bytes(), NOW);
        }
        let mut names: Vec<String> = fs::read_dir(folder.path().join("web"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["0.log", "0.log.1", "0.log.2"]);
        let all: String = (0..3)
            .rev()
            .map(|number| fs::read_to_string(numbered(&path, number)).unwrap())
            .collect();
        let numbers: Vec<&str> = all.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
        let first: usize = numbers[0].parse().unwrap();
        let expected: Vec<String> = (first..20).map(|number| format!("{number:02}")).collect();
        assert_eq!(numbers, expected);
        for number in 0..3 {
            assert!(fs::metadata(numbered(&path, number)).unwrap().len() <= 200);
        }
    }

    #[test]
    fn single_file_limit_starts_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = Log::open(path.clone(), limits(60, 1));
        log.write(Stream::Stdout, b"first\n", NOW);
        log.write(Stream::Stdout, b"second\n", NOW);
        assert!(fs::read_to_string(&path).unwrap().ends_with("second\n"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn full_disk_drops_whole_entries_and_says_so_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        // A file-size limit would kill the test; a device that is always full does the same to write(2).
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let mut log = Log::open(path.clone(), LogLimits::default());
        log.write(Stream::Stdout, b"lost one\n", NOW);
        log.write(Stream::Stdout, b"lost two\n", NOW);
        assert_eq!(log.lost_bytes(), 18);
        fs::remove_file(&path).unwrap();
        log.write(Stream::Stdout, b"kept\n", NOW);
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(
            lines[0]
                .contains(" stderr F podium: 18 bytes of output are missing here: No space left"),
            "{text}"
        );
        assert!(lines[1].ends_with(" stdout F kept"), "{text}");
        assert_eq!(log.lost_bytes(), 18);
    }
}
