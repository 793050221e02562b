//! From entries to the bytes that a client sees.

use jiff::Timestamp;

use super::entry::Entry;
use super::{LogOptions, LogOrigin};

/// Whether the client's limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    LimitReached,
}

/// Filters and formats entries.
pub(super) struct Format {
    since: Option<Timestamp>,
    stream: Option<LogOrigin>,
    timestamps: bool,
    left: Option<u64>,
    /// The next entry begins a line.
    at_line_start: bool,
}

impl Format {
    pub(super) fn new(options: &LogOptions) -> Self {
        Self {
            since: options.since,
            stream: options.stream,
            timestamps: options.timestamps,
            left: options.limit_bytes,
            at_line_start: true,
        }
    }

    /// Appends what the client sees of whole lines of the log. A line that is no entry is left out.
    pub(super) fn write(&mut self, lines: &[u8], out: &mut Vec<u8>) -> Progress {
        for entry in lines.split_inclusive(|byte| *byte == b'\n').filter_map(Entry::parse) {
            if !self.wants(&entry) {
                continue;
            }
            let start = out.len();
            if self.timestamps && self.at_line_start {
                out.extend_from_slice(entry.time.as_bytes());
                out.push(b' ');
            }
            out.extend_from_slice(entry.text);
            if !entry.partial {
                out.push(b'\n');
            }
            self.at_line_start = !entry.partial;
            if let Some(left) = &mut self.left {
                let written = u64::try_from(out.len() - start).unwrap_or(u64::MAX);
                if written >= *left {
                    out.truncate(start + usize::try_from(*left).unwrap_or(usize::MAX));
                    *left = 0;
                    return Progress::LimitReached;
                }
                *left -= written;
            }
        }
        Progress::More
    }

    fn wants(&self, entry: &Entry<'_>) -> bool {
        let late_enough = self
            .since
            .is_none_or(|since| entry.time.parse::<Timestamp>().is_ok_and(|time| time >= since));
        late_enough && self.stream.is_none_or(|stream| stream == entry.origin)
    }
}
