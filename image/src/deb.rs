//! The files of a Debian package: an `ar` archive whose member `data.tar.xz` is the tree (deb(5)).
//!
//! Decompression is liblzma's, linked statically, so that a build needs no program of the machine's for it; the same
//! decoder turns Debian's `.ko.xz` into the modules that the image carries.

use std::collections::BTreeMap;
use std::io::Read;

use crate::bytes::{self, Truncated};

/// The regular files of a package by path, without the leading `./`.
pub type Tree = BTreeMap<String, Vec<u8>>;

/// Why bytes are no Debian package.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// No `ar` archive.
    #[error("the file is no Debian package")]
    Magic,
    /// The archive ends early.
    #[error("reading the package's members")]
    Truncated(#[from] Truncated),
    /// A member's size is no number.
    #[error("a member of the package has no size")]
    Size,
    /// The tree is not there, or compressed in another way.
    #[error("the package has no data.tar.xz")]
    NoData,
    /// The tree cannot be decompressed or read.
    #[error("unpacking the package's files")]
    Unpack(#[source] std::io::Error),
}

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER_BYTES: usize = 60;

/// What was taken from a package.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// The wanted files.
    pub files: Tree,
    /// When the newest of them was made, in seconds since 1970: Debian sets it from the changelog.
    pub modified_seconds: u64,
}

/// Unpacks the files whose path `wanted` accepts. Links and folders are left out: nothing that we take is one.
///
/// # Errors
/// [`DebError`].
pub fn files(package: &[u8], wanted: impl Fn(&str) -> bool) -> Result<Contents, DebError> {
    let data = member(package, "data.tar.xz")?;
    let mut archive = tar::Archive::new(liblzma::read::XzDecoder::new(data));
    let mut contents = Contents::default();
    for entry in archive.entries().map_err(DebError::Unpack)? {
        let mut entry = entry.map_err(DebError::Unpack)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry
            .path()
            .map_err(DebError::Unpack)?
            .to_string_lossy()
            .trim_start_matches("./")
            .to_owned();
        if wanted(&path) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(DebError::Unpack)?;
            contents.files.insert(path, bytes);
            let modified = entry.header().mtime().map_err(DebError::Unpack)?;
            contents.modified_seconds = contents.modified_seconds.max(modified);
        }
    }
    Ok(contents)
}

/// Decompresses an `.xz` file.
///
/// # Errors
/// [`DebError::Unpack`].
pub fn unxz(compressed: &[u8]) -> Result<Vec<u8>, DebError> {
    let mut bytes = Vec::new();
    liblzma::read::XzDecoder::new(compressed).read_to_end(&mut bytes).map_err(DebError::Unpack)?;
    Ok(bytes)
}

/// One member of the `ar` archive: a header of 60 bytes with name and decimal size, then the data, padded to even.
fn member<'a>(package: &'a [u8], name: &str) -> Result<&'a [u8], DebError> {
    if !package.starts_with(MAGIC) {
        return Err(DebError::Magic);
    }
    let mut at = MAGIC.len();
    while at < package.len() {
        let header = bytes::slice(package, at, HEADER_BYTES)?;
        let text = |from, length| {
            bytes::slice(header, from, length)
                .map(|field| String::from_utf8_lossy(field).into_owned())
        };
        let size: usize = text(48, 10)?.trim().parse().map_err(|_| DebError::Size)?;
        let data = bytes::slice(package, at + HEADER_BYTES, size)?;
        if text(0, 16)?.trim_end().trim_end_matches('/') == name {
            return Ok(data);
        }
        at += HEADER_BYTES + bytes::align(size, 2);
    }
    Err(DebError::NoData)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn package(tree: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, bytes) in tree {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, format!("./{path}"), *bytes).expect("a member");
        }
        let tar = builder.into_inner().expect("a tar");
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(&tar).expect("compresses");
        let data = encoder.finish().expect("compresses");
        let mut deb = MAGIC.to_vec();
        for (name, bytes) in [
            ("debian-binary", b"2.0\n".as_slice()),
            ("control.tar.xz", b"odd"),
            ("data.tar.xz", &data),
        ] {
            deb.extend(
                format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, bytes.len())
                    .as_bytes(),
            );
            deb.extend(bytes);
            deb.resize(bytes::align(deb.len(), 2), b'\n');
        }
        deb
    }

    #[test]
    fn only_wanted_files_come_out() {
        let deb = package(&[("boot/vmlinuz", b"kernel"), ("usr/share/doc/x", b"text")]);
        let tree = files(&deb, |path| path.starts_with("boot/")).expect("a package").files;
        assert_eq!(
            tree.into_iter().collect::<Vec<_>>(),
            [("boot/vmlinuz".to_owned(), b"kernel".to_vec())]
        );
    }

    #[test]
    fn a_cut_package_is_an_error() {
        let deb = package(&[("boot/vmlinuz", b"kernel")]);
        let cut = deb.get(..deb.len() / 2).expect("half");
        assert!(files(cut, |_| true).is_err());
        assert!(matches!(files(b"PK", |_| true), Err(DebError::Magic)));
    }
}
