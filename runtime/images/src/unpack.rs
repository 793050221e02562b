//! Turns a layer, a possibly compressed tar archive, into a folder that overlayfs takes as a lower layer: contents, modes with set-user-id
//! bits, owners, times, hard links and extended attributes as archived; a whiteout (`.wh.<name>`) as character device 0:0 and an opaque
//! folder (`.wh..wh..opq`) as `trusted.overlay.opaque=y`.
//!
//! An archive is the work of strangers. Nothing in it may reach outside the folder, be a device, speak to overlayfs directly, or
//! take more than the limits allow; anything of the kind ends the unpacking with an error that names the entry.
//!
//! Formats: the OCI image specification's layer format, over POSIX pax and GNU tar.

mod stream;
mod tar;
mod tree;

use std::io::{self, Read};
use std::path::Path;

use thiserror::Error;

use crate::config::Limits;
use crate::reference::Digest;
use stream::Counted;
use tar::{Archive, Kind};
use tree::Tree;

/// Why a layer cannot be unpacked.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// The archive is broken or of an unknown kind.
    #[error("the archive is damaged: {0}")]
    Archive(String),
    /// An entry's path leads out of the layer.
    #[error("{path:?} leads out of the layer")]
    Escape {
        /// The entry's path or link target.
        path: String,
    },
    /// An entry is a device.
    #[error("{path:?} is a device, which images may not contain")]
    Device {
        /// The entry's path.
        path: String,
    },
    /// The layer is larger than the limits allow.
    #[error("{0}")]
    TooLarge(String),
    /// The disk refused.
    #[error("cannot {action} {path:?}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which entry.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The download could not be read back.
    #[error("cannot read the downloaded layer")]
    Read(#[source] io::Error),
}

/// What came out of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// The digest of the uncompressed archive.
    pub(crate) diff_id: Digest,
    /// Bytes of the uncompressed archive.
    pub(crate) bytes: u64,
}

/// Unpacks `layer`, of `compressed_bytes`, into the empty folder `target`. Whatever the result, the caller disposes of the folder
/// unless it likes the digest. Blocks.
pub(crate) fn unpack(
    layer: impl Read,
    compressed_bytes: u64,
    target: &Path,
    limits: &Limits,
) -> Result<Unpacked, UnpackError> {
    let plain = stream::decompress(layer)?;
    let allowed = limits
        .layer_bytes
        .min(limits.ratio_from_bytes.max(compressed_bytes.saturating_mul(limits.ratio)));
    let mut archive = Archive::new(Counted::new(plain, allowed));
    let result = extract(&mut archive, target, limits);
    let source = archive.into_inner();
    if source.is_exhausted() {
        let reason = if allowed == limits.layer_bytes {
            "a layer may have"
        } else {
            "its compressed size makes believable"
        };
        return Err(UnpackError::TooLarge(format!(
            "the layer unpacks to more than the {allowed} bytes that {reason}"
        )));
    }
    result?;
    let (diff_id, bytes) = source.finish().map_err(|error| stream::read_error(error, allowed))?;
    Ok(Unpacked { diff_id, bytes })
}

fn extract<R: Read>(
    archive: &mut Archive<R>,
    target: &Path,
    limits: &Limits,
) -> Result<(), UnpackError> {
    let mut tree = Tree::open(target)?;
    let mut entries = 0;
    while let Some(entry) = archive.next_entry()? {
        entries += 1;
        if entries > limits.layer_entries {
            let most = limits.layer_entries;
            return Err(UnpackError::TooLarge(format!("the layer has more than {most} entries")));
        }
        let place = tree::Place::of(&entry.path)?;
        match (&place, whiteout(&place)) {
            (_, Some(Whiteout::Opaque)) => tree.make_opaque(&place)?,
            (_, Some(Whiteout::Hide(name))) => tree.hide(&place, name)?,
            (_, Some(Whiteout::Ignored)) => {}
            (_, None) => match entry.kind {
                Kind::File => tree.file(&place, &entry, archive)?,
                Kind::Folder => tree.folder(&place, &entry)?,
                Kind::Symlink => tree.symlink(&place, &entry)?,
                Kind::Hardlink => tree.hardlink(&place, &entry)?,
                Kind::Fifo => tree.fifo(&place, &entry)?,
                Kind::Device => return Err(UnpackError::Device { path: place.display() }),
            },
        }
        archive.skip_content()?;
    }
    tree.finish()
}

/// What an entry's name says about the layers below.
enum Whiteout<'a> {
    /// Nothing of this folder's lower content shows.
    Opaque,
    /// This name of the lower layers does not show.
    Hide(&'a [u8]),
    /// A mark of aufs that means nothing elsewhere.
    Ignored,
}

fn whiteout(place: &tree::Place) -> Option<Whiteout<'_>> {
    let name = place.name()?.strip_prefix(b".wh.")?;
    Some(match name {
        b".wh..opq" => Whiteout::Opaque,
        other if other.starts_with(b".wh.") => Whiteout::Ignored,
        other => Whiteout::Hide(other),
    })
}

#[cfg(test)]
mod tests;
