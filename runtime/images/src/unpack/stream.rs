//! The way from a downloaded layer to its plain archive: decompression, counting, hashing.

use std::io::{self, BufRead, BufReader, Read};

use sha2::{Digest as _, Sha256};

use super::UnpackError;
use crate::reference::Digest;

/// A layer decompressed, as its first bytes say that it was compressed: what a registry says about the type is not needed. More than
/// one gzip member or zstd frame is read to the end, as other runtimes do.
pub(super) fn decompress<'a>(layer: impl Read + 'a) -> Result<Box<dyn Read + 'a>, UnpackError> {
    const GZIP: &[u8] = &[0x1f, 0x8b];
    const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
    let mut layer = BufReader::with_capacity(128 << 10, layer);
    let start = layer.fill_buf().map_err(UnpackError::Read)?;
    if start.starts_with(GZIP) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(layer)));
    }
    if start.starts_with(ZSTD) {
        let mut decoder =
            zstd::stream::read::Decoder::with_buffer(layer).map_err(UnpackError::Read)?;
        // A frame may ask for a window as large as it likes; 128 MiB is what zstd's own tool allows.
        decoder.window_log_max(27).map_err(UnpackError::Read)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(layer))
}

/// Counts and hashes what is read, and ends with an error where more than allowed comes.
pub(super) struct Counted<R> {
    inner: R,
    hash: Sha256,
    bytes: u64,
    allowed: u64,
    exhausted: bool,
}

impl<R: Read> Counted<R> {
    pub(super) fn new(inner: R, allowed: u64) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0, allowed, exhausted: false }
    }

    /// Whether more came than was allowed.
    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// Reads what an archive has behind its end, and gives digest and length of everything.
    pub(super) fn finish(mut self) -> io::Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((Digest::from_bytes(&self.hash.finalize()), self.bytes))
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.bytes += length as u64;
        if self.bytes > self.allowed {
            self.exhausted = true;
            return Err(io::Error::other("more bytes than allowed"));
        }
        self.hash.update(buffer.get(..length).unwrap_or_default());
        Ok(length)
    }
}

/// What a failed read of the archive means.
pub(super) fn read_error(error: io::Error, allowed: u64) -> UnpackError {
    match error.kind() {
        io::ErrorKind::Other if error.to_string().contains("more bytes than allowed") => {
            UnpackError::TooLarge(format!("the layer unpacks to more than {allowed} bytes"))
        }
        // Decompressors report damage as any of these.
        io::ErrorKind::InvalidData
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::Other => UnpackError::Archive(error.to_string()),
        _ => UnpackError::Read(error),
    }
}
