//! Which field stands on which line of a YAML document.
//!
//! The decoder knows lines, the checks know fields; a person wants both. This reads only the indentation of block
//! style, which is how configs are written: keys inside `{…}` count as the key that holds the braces.
//! It never fails: on a document that it cannot follow, paths are shorter or lines are missing.

/// The block-style keys of a document, in order.
#[derive(Debug, Default)]
pub(super) struct Outline {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// From 1.
    line: u32,
    path: String,
}

/// An open block: everything indented deeper belongs to it.
struct Level {
    indent: usize,
    path: String,
    /// Items seen so far, if this is a sequence's level.
    items: Option<usize>,
}

impl Outline {
    /// Reads the keys of `yaml`.
    pub(super) fn of(yaml: &str) -> Self {
        let mut entries = Vec::new();
        let mut levels: Vec<Level> = Vec::new();
        let mut literal_deeper_than: Option<usize> = None;
        for (number, line) in yaml.lines().enumerate() {
            let number = u32::try_from(number + 1).unwrap_or(u32::MAX);
            let mut rest = line.trim_start_matches(' ');
            let mut indent = line.len() - rest.len();
            if rest.is_empty() || rest.starts_with('#') {
                continue;
            }
            if literal_deeper_than.is_some_and(|of| indent > of) {
                continue;
            }
            literal_deeper_than = None;
            while let Some(item) = rest.strip_prefix("- ").or_else(|| (rest == "-").then_some("")) {
                open_item(&mut levels, indent);
                let deeper = item.trim_start_matches(' ');
                indent += rest.len() - deeper.len();
                rest = deeper;
                entries.push(Entry { line: number, path: current(&levels) });
            }
            let Some((key, value)) = split_key(rest) else { continue };
            close_to(&mut levels, indent);
            let parent = current(&levels);
            let path = if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") };
            entries.push(Entry { line: number, path: path.clone() });
            levels.push(Level { indent, path, items: None });
            if matches!(value.trim().chars().next(), Some('|' | '>')) {
                literal_deeper_than = Some(indent);
            }
        }
        Self { entries }
    }

    /// The deepest field that begins on `line` or last before it; empty before the first key.
    pub(super) fn path_at(&self, line: u32) -> String {
        self.entries
            .iter()
            .rev()
            .find(|entry| entry.line <= line)
            .map(|entry| entry.path.clone())
            .unwrap_or_default()
    }

    /// The line where `path`, or else its nearest ancestor, begins.
    pub(super) fn line_of(&self, path: &str) -> Option<u32> {
        let mut path = path;
        loop {
            if let Some(entry) = self.entries.iter().find(|entry| entry.path == path) {
                return Some(entry.line);
            }
            path = path.get(..path.rfind(['.', '['])?)?;
        }
    }

    /// The mapping that an unknown `key` was found in, when the decoder stopped at `at`.
    pub(super) fn parent_for(&self, at: &str, key: &str) -> String {
        match at.strip_suffix(key) {
            Some(parent) if parent.is_empty() || parent.ends_with('.') => {
                parent.trim_end_matches('.').to_owned()
            }
            _ => at.to_owned(),
        }
    }

    /// The mapping that lacks a key, when the decoder stopped at `at`: the mapping's first key, or its own.
    pub(super) fn parent_of_missing(&self, at: &str) -> String {
        let has_children = self.entries.iter().any(|entry| {
            entry
                .path
                .strip_prefix(at)
                .is_some_and(|rest| rest.starts_with('.') || rest.starts_with('['))
        });
        if has_children || at.ends_with(']') {
            return at.to_owned();
        }
        at.rfind('.').and_then(|dot| at.get(..dot)).unwrap_or_default().to_owned()
    }
}

/// Ends every block that is not the parent of a key at `indent`.
fn close_to(levels: &mut Vec<Level>, indent: usize) {
    while levels.last().is_some_and(|level| level.indent >= indent) {
        levels.pop();
    }
}

/// Begins the next item of the sequence at `indent`, which may stand as deep as the key that holds it.
fn open_item(levels: &mut Vec<Level>, indent: usize) {
    while levels.last().is_some_and(|level| level.indent > indent) {
        levels.pop();
    }
    let is_sequence =
        levels.last().is_some_and(|level| level.items.is_some() && level.indent == indent);
    let parent = if is_sequence { levels.pop() } else { None };
    let (base, next) = match parent {
        Some(level) => (base_of(&level.path).to_owned(), level.items.map_or(0, |items| items + 1)),
        None => (current(levels), 0),
    };
    levels.push(Level { indent, path: format!("{base}[{next}]"), items: Some(next) });
}

fn base_of(path: &str) -> &str {
    path.rfind('[').and_then(|bracket| path.get(..bracket)).unwrap_or(path)
}

fn current(levels: &[Level]) -> String {
    levels.last().map(|level| level.path.clone()).unwrap_or_default()
}

/// `key: value` or `key:`; quotes around the key are dropped.
fn split_key(text: &str) -> Option<(&str, &str)> {
    let colon = text.find(": ").or_else(|| text.ends_with(':').then(|| text.len() - 1))?;
    let (key, value) = text.split_at(colon);
    let key = key.trim().trim_matches(['"', '\'']);
    let plain = !key.is_empty() && !key.contains(['{', '[', '#', ' ']);
    plain.then(|| (key, value.get(1..).unwrap_or_default()))
}
