//! Frames on a stream: a length (u32, little endian), then so many bytes.
//!
//! Memory is taken as bytes arrive, never because a length says so, and a length above the limit ends the connection.

use std::io;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// Why a frame was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Its length says that it is larger than allowed.
    #[error("a frame of {bytes} bytes where {limit} are allowed")]
    TooLarge {
        /// What it says.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// In the middle of a frame or in front of one.
    #[error("the other end closed the connection")]
    Closed,
    /// Nothing came, or nothing was taken, for so long.
    #[error("nothing came for {0:?}")]
    Slow(Duration),
    /// The bytes say nothing that is known.
    #[error("not understood: {0}")]
    Malformed(#[from] postcard::Error),
    /// Any other error of the connection.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads one frame of at most `limit` bytes.
///
/// # Errors
/// Every [`FrameError`] but `Slow` and `Malformed`.
pub async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> Result<Vec<u8>, FrameError> {
    let bytes = read_length(stream, limit).await?;
    read_body(stream, bytes).await
}

/// Reads the length of the next frame.
pub(crate) async fn read_length(
    stream: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> Result<usize, FrameError> {
    let mut head = [0; 4];
    match stream.read_exact(&mut head).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(FrameError::Closed),
        Err(error) => Err(error.into()),
        Ok(_) => match u32::from_le_bytes(head) as usize {
            bytes if bytes > limit => Err(FrameError::TooLarge { bytes, limit }),
            bytes => Ok(bytes),
        },
    }
}

/// Reads what follows the length.
pub(crate) async fn read_body(
    stream: &mut (impl AsyncRead + Unpin),
    bytes: usize,
) -> Result<Vec<u8>, FrameError> {
    let mut body = Vec::new();
    stream.take(bytes as u64).read_to_end(&mut body).await?;
    if body.len() == bytes { Ok(body) } else { Err(FrameError::Closed) }
}

/// Reads one frame and what it says, within `patience`.
///
/// # Errors
/// Every [`FrameError`].
pub async fn hear<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    limit: usize,
    patience: Duration,
) -> Result<T, FrameError> {
    let bytes = timeout(patience, read(stream, limit)).await;
    Ok(postcard::from_bytes(&bytes.map_err(|_| FrameError::Slow(patience))??)?)
}

/// Writes a value as one frame, within `patience`.
///
/// # Errors
/// [`FrameError::Slow`], [`FrameError::Io`].
pub async fn say<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    value: &T,
    patience: Duration,
) -> Result<(), FrameError> {
    let mut frame = vec![0; 4];
    frame = postcard::to_extend(value, frame)?;
    set_length(&mut frame);
    write(stream, &frame, patience).await
}

/// Writes bytes that are frames already, within `patience`.
pub(crate) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    frames: &[u8],
    patience: Duration,
) -> Result<(), FrameError> {
    let written = timeout(patience, async {
        stream.write_all(frames).await?;
        stream.flush().await
    });
    Ok(written.await.map_err(|_| FrameError::Slow(patience))??)
}

fn set_length(frame: &mut [u8]) {
    let length = frame.len().saturating_sub(4) as u32;
    if let Some(head) = frame.first_chunk_mut::<4>() {
        *head = length.to_le_bytes();
    }
}

/// Appends a frame of a number and bytes.
pub(crate) fn append_numbered(buffer: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    buffer.extend_from_slice(&(8 + bytes.len() as u32).to_le_bytes());
    buffer.extend_from_slice(&number.to_le_bytes());
    buffer.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_length_alone_takes_no_memory_and_one_too_large_is_refused() {
        let mut huge: &[u8] = &[0xff, 0xff, 0xff, 0xff, 1, 2, 3];
        let refused = read(&mut huge, 1024).await;
        assert!(matches!(refused, Err(FrameError::TooLarge { limit: 1024, .. })));
        let mut cut: &[u8] = &[9, 0, 0, 0, 1, 2, 3];
        assert!(matches!(read(&mut cut, 1024).await, Err(FrameError::Closed)));
        let (mut here, _there) = tokio::io::duplex(64);
        let slow = hear::<u8>(&mut here, 1024, Duration::from_millis(5)).await;
        assert!(matches!(slow, Err(FrameError::Slow(_))));
    }

    #[tokio::test]
    async fn what_is_said_is_heard() {
        let (mut here, mut there) = tokio::io::duplex(64);
        let patience = Duration::from_secs(10);
        say(&mut here, &(7u8, "word"), patience).await.expect("written");
        let heard: (u8, String) = hear(&mut there, 64, patience).await.expect("read");
        assert_eq!(heard, (7, "word".to_owned()));
        let mut numbered = Vec::new();
        append_numbered(&mut numbered, 5, b"abc");
        assert_eq!(numbered, [11, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, b'a', b'b', b'c']);
    }
}
