//! One entry of a log in the CRI's format: `2026-11-21T10:34:28.123456789Z stdout F text`.

use super::LogOrigin;

/// A parsed entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    /// The time as it stands there.
    pub(crate) time: &'a str,
    /// Which stream.
    pub(crate) origin: LogOrigin,
    /// The line goes on in the next entry.
    pub(crate) partial: bool,
    /// The text without a line end.
    pub(crate) text: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Reads one line; `None` for a torn or foreign one.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let origin = match parts.next()? {
            b"stdout" => LogOrigin::Stdout,
            b"stderr" => LogOrigin::Stderr,
            _ => return None,
        };
        let partial = match parts.next()? {
            b"F" => false,
            b"P" => true,
            _ => return None,
        };
        Some(Self { time, origin, partial, text: parts.next().unwrap_or_default() })
    }
}
