//! Reads a tar archive entry by entry. The `tar` crate knows the header's fields; the walk over entries is our own, because an image's
//! long names and pax records must not be read into memory at whatever length they claim, and because extended attributes
//! are binary, newlines included.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::UnpackError;
use super::stream::read_error;

const BLOCK: usize = 512;

/// Long names and links. Linux allows paths of 4,096 bytes.
const NAME_BYTES_MAX: u64 = 8 << 10;

/// pax records of one entry: a long path, a long link, and extended attributes of at most 64 KiB each.
const PAX_BYTES_MAX: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Symlink,
    Hardlink,
    Fifo,
    Device,
}

/// One entry, its content not included.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    /// Target of a link; empty otherwise.
    pub(super) link: Vec<u8>,
    pub(super) kind: Kind,
    /// Permission bits with set-user-id, set-group-id and sticky.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime_seconds: i64,
    pub(super) mtime_nanoseconds: u32,
    pub(super) size: u64,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A tar archive being read.
pub(super) struct Archive<R> {
    inner: R,
    /// Content of the current entry not read yet, and the padding behind it.
    content: u64,
    padding: u64,
}

/// What pax records and GNU's long names override in the header that follows them.
#[derive(Default)]
struct Overrides {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

fn damaged(what: impl Into<String>) -> UnpackError {
    UnpackError::Archive(what.into())
}

impl<R: Read> Archive<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, content: 0, padding: 0 }
    }

    pub(super) fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry; `None` at the end. The content of the one before is read or skipped first.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>, UnpackError> {
        let mut overrides = Overrides::default();
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.entry_size().map_err(|error| damaged(error.to_string()))?;
            match header.entry_type() {
                EntryType::GNULongName => overrides.path = Some(self.name(size)?),
                EntryType::GNULongLink => overrides.link = Some(self.name(size)?),
                EntryType::XHeader => overrides.read(&self.small(size, PAX_BYTES_MAX)?)?,
                // Global records carry comments; git archives have one.
                EntryType::XGlobalHeader => drop(self.small(size, PAX_BYTES_MAX)?),
                kind => {
                    let entry = overrides.apply(&header, kind_of(kind)?, size)?;
                    self.begin(entry.size);
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Leaves the rest of the current entry's content.
    pub(super) fn skip_content(&mut self) -> Result<(), UnpackError> {
        let rest = self.content + self.padding;
        (self.content, self.padding) = (0, 0);
        let skipped = io::copy(&mut (&mut self.inner).take(rest), &mut io::sink());
        match skipped.map_err(|error| read_error(error, 0))? {
            skipped if skipped == rest => Ok(()),
            _ => Err(damaged("it ends within an entry")),
        }
    }

    fn begin(&mut self, size: u64) {
        self.content = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    /// The next header. A block of zeros, or the end of the stream between entries, ends the archive.
    fn header(&mut self) -> Result<Option<Header>, UnpackError> {
        let mut header = Header::new_old();
        let mut filled = 0;
        while filled < BLOCK {
            let rest = header.as_mut_bytes().get_mut(filled..).unwrap_or_default();
            match self.inner.read(rest) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(damaged("it ends within a header")),
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read_error(error, 0)),
            }
        }
        let bytes = header.as_bytes();
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum: u32 = bytes
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
            .sum();
        match header.cksum() {
            Ok(expected) if expected == sum => Ok(Some(header)),
            _ => Err(damaged("a header's checksum is wrong")),
        }
    }

    fn name(&mut self, size: u64) -> Result<Vec<u8>, UnpackError> {
        let mut name = self.small(size, NAME_BYTES_MAX)?;
        while name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    /// The whole content of a small entry.
    fn small(&mut self, size: u64, most: u64) -> Result<Vec<u8>, UnpackError> {
        if size > most {
            return Err(damaged(format!(
                "{size} bytes about an entry are more than the {most} allowed"
            )));
        }
        self.begin(size);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(|error| read_error(error, 0))?;
        if bytes.len() as u64 != size {
            return Err(damaged("it ends within a header"));
        }
        self.skip_content()?;
        Ok(bytes)
    }
}

/// Reads the current entry's content.
impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.by_ref().take(self.content).read(buffer)?;
        self.content -= length as u64;
        Ok(length)
    }
}

fn kind_of(kind: EntryType) -> Result<Kind, UnpackError> {
    Ok(match kind {
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Folder,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Link => Kind::Hardlink,
        EntryType::Fifo => Kind::Fifo,
        EntryType::Block | EntryType::Char => Kind::Device,
        other => {
            return Err(damaged(format!(
                "entries of type {:?} are not known",
                char::from(other.as_byte())
            )));
        }
    })
}

impl Overrides {
    /// Reads pax records: `<length> <key>=<value>\n`, where the length counts all of the record.
    fn read(&mut self, mut records: &[u8]) -> Result<(), UnpackError> {
        let bad = || damaged("a pax record is malformed");
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
            let length: usize = number(records.get(..space).unwrap_or_default()).ok_or_else(bad)?;
            let record = records.get(space + 1..length).ok_or_else(bad)?;
            let record = record.strip_suffix(b"\n").ok_or_else(bad)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
            let (key, value) =
                (record.get(..equals).ok_or_else(bad)?, record.get(equals + 1..).ok_or_else(bad)?);
            self.take(key, value).ok_or_else(bad)?;
            records = records.get(length..).unwrap_or_default();
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number(value)?),
            b"uid" => self.uid = Some(number(value)?),
            b"gid" => self.gid = Some(number(value)?),
            b"mtime" => self.mtime = Some(pax_time(value)?),
            key => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
                // A sparse file's content is a map and pieces; taking it for the content would be wrong.
                if key.starts_with(b"GNU.sparse.") {
                    return None;
                }
            }
        }
        Some(())
    }

    fn apply(self, header: &Header, kind: Kind, header_size: u64) -> Result<Entry, UnpackError> {
        let old = header.as_old();
        let field = |bytes: &[u8], value: io::Result<u64>| match value {
            // Some writers leave out what does not matter to them.
            Err(_) if bytes.iter().all(|byte| matches!(byte, 0 | b' ')) => Ok(0),
            value => value.map_err(|error| damaged(error.to_string())),
        };
        let small =
            |number: u64| u32::try_from(number).map_err(|_| damaged("a number is too large"));
        let path = self.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = self.link.unwrap_or_else(|| {
            header.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default()
        });
        // Old archives mark a folder by its name only.
        let kind = if kind == Kind::File && path.ends_with(b"/") { Kind::Folder } else { kind };
        let (mtime_seconds, mtime_nanoseconds) = match self.mtime {
            Some(time) => time,
            None => (
                i64::try_from(field(&old.mtime, header.mtime())?)
                    .map_err(|_| damaged("a time is out of range"))?,
                0,
            ),
        };
        let size = if kind == Kind::File { self.size.unwrap_or(header_size) } else { header_size };
        Ok(Entry {
            path,
            link,
            kind,
            mode: small(field(&old.mode, header.mode().map(u64::from))?)? & 0o7777,
            uid: self.uid.map_or_else(|| field(&old.uid, header.uid()).and_then(small), Ok)?,
            gid: self.gid.map_or_else(|| field(&old.gid, header.gid()).and_then(small), Ok)?,
            mtime_seconds,
            mtime_nanoseconds,
            size,
            xattrs: self.xattrs,
        })
    }
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with any number of decimals, possibly negative.
fn pax_time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let mut nanoseconds = 0;
    let mut unit = 100_000_000;
    for digit in decimals.chars() {
        nanoseconds += digit.to_digit(10)? * unit;
        unit /= 10;
    }
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_times_are_read_to_the_nanosecond() {
        assert_eq!(pax_time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(pax_time(b"12.0000000019"), Some((12, 1)));
        assert_eq!(pax_time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(pax_time(b"7"), Some((7, 0)));
        assert_eq!(pax_time(b"x"), None);
    }

    #[test]
    fn pax_records_may_hold_newlines_and_lie_about_their_length() {
        let mut overrides = Overrides::default();
        overrides.read(b"30 SCHILY.xattr.user.a=x\ny\n=z\n").unwrap();
        assert_eq!(overrides.xattrs, [(b"user.a".to_vec(), b"x\ny\n=z".to_vec())]);
        for bad in [
            &b"5 a=b\n"[..],
            b"999 a=b\n",
            b"x a=b\n",
            b"6 a=b\n\n",
            b"0 a=b\n",
            b"6 ab\n",
            b"-1 a=b\n",
            b"26 GNU.sparse.name=secret\n",
        ] {
            assert!(Overrides::default().read(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }
}
