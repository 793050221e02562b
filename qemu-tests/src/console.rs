//! What a machine prints on its serial console, as the rig reads it.

use std::path::{Path, PathBuf};

/// Follows a console's file, line by line.
#[derive(Debug)]
pub struct Console {
    path: PathBuf,
    read_bytes: usize,
}

impl Console {
    /// From the start of the file, which need not exist yet.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        Self { path: path.to_owned(), read_bytes: 0 }
    }

    /// The whole lines that have come since the last call, without the terminal's control sequences.
    pub fn lines(&mut self) -> Vec<String> {
        let bytes = std::fs::read(&self.path).unwrap_or_default();
        let new = bytes.get(self.read_bytes..).unwrap_or_default();
        let Some(end) = new.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        self.read_bytes += end + 1;
        let whole = String::from_utf8_lossy(new.get(..end).unwrap_or_default()).into_owned();
        whole.lines().map(|line| plain(line.trim_end_matches('\r'))).collect()
    }
}

/// The last `count` lines of a console, for an error's message.
#[must_use]
pub fn tail(path: &Path, count: usize) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<String> = text.lines().map(plain).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Drops control characters, and ANSI's CSI sequences (ECMA-48, 5.4) whole.
fn plain(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line.chars().peekable();
    while let Some(letter) = rest.next() {
        if letter == '\u{1b}' && rest.next_if_eq(&'[').is_some() {
            while rest.next_if(|it| !('@'..='~').contains(it)).is_some() {}
            rest.next();
        } else if !letter.is_control() {
            out.push(letter);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_are_read_and_each_once() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut console = Console::open(file.path());
        assert!(console.lines().is_empty());
        std::fs::write(file.path(), "one\r\ntw").expect("write");
        assert_eq!(console.lines(), ["one"]);
        std::fs::write(file.path(), "one\r\ntwo\n").expect("write");
        assert_eq!(console.lines(), ["two"]);
        assert!(console.lines().is_empty());
    }

    #[test]
    fn control_sequences_are_dropped() {
        assert_eq!(plain("\u{1b}[2J\u{1b}[01;01Hready\u{7}"), "ready");
    }
}
