//! Frames without I/O: values to bytes, and bytes, however they were cut, back to values.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::VERSION;

/// Larger than any status; a peer that announces more is not speaking this protocol.
pub const MAX_FRAME_BYTES: usize = 1 << 20;

/// Why bytes are no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The announced length is absurd.
    #[error("a frame of {0} bytes was announced; at most {MAX_FRAME_BYTES} are allowed")]
    TooLong(usize),
    /// The peer speaks another version.
    #[error("the frame has version {0}, this program speaks {VERSION}")]
    Version(u8),
    /// The value could not be written.
    #[error("encoding a frame")]
    Encode(#[source] postcard::Error),
    /// The value could not be read.
    #[error("decoding a frame")]
    Decode(#[source] postcard::Error),
}

/// The bytes of one frame.
///
/// # Errors
/// [`FrameError::Encode`] and [`FrameError::TooLong`].
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, FrameError> {
    let body = postcard::to_allocvec(value).map_err(FrameError::Encode)?;
    let length = body.len() + 1;
    let header = u32::try_from(length)
        .ok()
        .filter(|_| length <= MAX_FRAME_BYTES)
        .ok_or(FrameError::TooLong(length))?;
    let mut frame = Vec::with_capacity(4 + length);
    frame.extend_from_slice(&header.to_le_bytes());
    frame.push(VERSION);
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// Bytes that arrived and are not yet a whole frame.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
}

impl Inbox {
    /// Adds what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the first whole frame, if there is one. After an error the stream has no meaning any more: close it.
    ///
    /// # Errors
    /// All but [`FrameError::Encode`].
    // No iterator: the type may differ from frame to frame, and an error is not an end.
    #[allow(clippy::should_implement_trait)]
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some((header, rest)) = self.bytes.split_first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes(*header)).unwrap_or(usize::MAX);
        if length > MAX_FRAME_BYTES {
            return Err(FrameError::TooLong(length));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let value = match body.split_first() {
            Some((&VERSION, body)) => postcard::from_bytes(body).map_err(FrameError::Decode)?,
            Some((&other, _)) => return Err(FrameError::Version(other)),
            None => return Err(FrameError::Decode(postcard::Error::DeserializeUnexpectedEnd)),
        };
        self.bytes.drain(..4 + length);
        Ok(Some(value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::{Ending, Request};

    proptest! {
        #[test]
        fn frames_survive_any_cutting(grace in 0u64..1000, cuts in proptest::collection::vec(1usize..20, 0..20)) {
            let sent = vec![
                Request::GetStatus,
                Request::Shutdown {
                    how: Ending::Reboot,
                    reason: "a test".to_owned(),
                    grace: std::time::Duration::from_secs(grace),
                },
                Request::Subscribe,
            ];
            let bytes: Vec<u8> = sent.iter().flat_map(|request| encode(request).expect("encodes")).collect();
            let mut rest = bytes.as_slice();
            let mut inbox = Inbox::default();
            let mut received = Vec::new();
            for cut in cuts.into_iter().chain(std::iter::once(usize::MAX)) {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                inbox.push(now);
                rest = later;
                while let Some(request) = inbox.next::<Request>().expect("decodes") {
                    received.push(request);
                }
            }
            prop_assert_eq!(received, sent);
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut inbox = Inbox::default();
            inbox.push(&bytes);
            let _ = inbox.next::<Request>();
        }
    }

    #[test]
    fn an_absurd_length_is_refused_before_it_is_waited_for() {
        let mut inbox = Inbox::default();
        inbox.push(&u32::MAX.to_le_bytes());
        assert!(matches!(inbox.next::<Request>(), Err(FrameError::TooLong(_))));
    }
}
