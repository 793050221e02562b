//! The last words of a container: its termination message.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use podium_types::k8s::api::core::v1::Container;

use crate::logs::entry;

/// The most of a message that a status carries, as in kubelet.
const MESSAGE_BYTES_MAX: u64 = 4096;

/// The most of a log that stands in for a message, as in kubelet: 80 lines or 2 KiB.
const LOG_BYTES_MAX: usize = 2048;
const LOG_LINES_MAX: usize = 80;

/// Reads the message that an instance left, or by the container's policy the end of its log.
pub(crate) fn message(
    container: &Container,
    file: &Path,
    log: &Path,
    failed: bool,
) -> Option<String> {
    let written = start_of(file).filter(|text| !text.is_empty());
    let fall_back =
        container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    match written {
        Some(text) => Some(text),
        None if fall_back && failed => end_of_log(log).filter(|text| !text.is_empty()),
        None => None,
    }
}

fn start_of(file: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(file).ok()?.take(MESSAGE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The text of the log's last lines. Reading eight times the limit leaves room for what each entry begins with.
fn end_of_log(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    let window = u64::try_from(LOG_BYTES_MAX * 8).unwrap_or(u64::MAX);
    file.seek(SeekFrom::Start(length.saturating_sub(window))).ok()?;
    let mut bytes = Vec::new();
    file.take(window).read_to_end(&mut bytes).ok()?;
    let entries: Vec<_> =
        bytes.split_inclusive(|byte| *byte == b'\n').filter_map(entry::Entry::parse).collect();
    let mut text = Vec::new();
    let skipped = entries.len().saturating_sub(LOG_LINES_MAX);
    for entry in entries.iter().skip(skipped) {
        text.extend_from_slice(entry.text);
        if !entry.partial {
            text.push(b'\n');
        }
    }
    let excess = text.len().saturating_sub(LOG_BYTES_MAX);
    Some(String::from_utf8_lossy(text.get(excess..).unwrap_or_default()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::message;
    use podium_types::k8s::api::core::v1::Container;
    use std::fs;

    #[test]
    fn message_comes_from_the_file_and_from_the_log_only_on_failure() {
        let dir = tempfile::tempdir().expect("a folder");
        let (file, log) = (dir.path().join("message"), dir.path().join("0.log"));
        fs::write(&log, "2026-11-21T10:00:00.0Z stdout F one\n2026-11-21T10:00:00.1Z stderr P two\n2026-11-21T10:00:00.2Z stderr F !\n")
            .expect("a log");
        let mut container = Container::default();
        assert_eq!(message(&container, &file, &log, true), None);
        container.termination_message_policy = Some("FallbackToLogsOnError".to_owned());
        assert_eq!(message(&container, &file, &log, true).as_deref(), Some("one\ntwo!\n"));
        assert_eq!(message(&container, &file, &log, false), None);
        fs::write(&file, "x".repeat(5000)).expect("a message");
        assert_eq!(message(&container, &file, &log, true).map(|text| text.len()), Some(4096));
    }
}
