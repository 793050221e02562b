//! Frames on a stream socket: length (u32, little endian), version (u16, little endian), postcard. The length counts what comes
//! after it. Descriptors ride on a frame's first byte.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// The protocol's version. Agent and shim come from one image, but a shim outlives the agent that an upgrade replaces.
pub const VERSION: u16 = 1;

/// A frame's length is at most this. A container's environment may carry a whole ConfigMap (1 MiB) several times over.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// Descriptors on one frame, at most: standard input, output and error.
pub const FRAME_FDS_MAX: usize = 3;

/// Why a frame could not be made or understood.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The other side speaks another version.
    #[error("the other side speaks version {0} of the shim protocol, this one speaks {VERSION}")]
    Version(u16),
    /// Longer than [`FRAME_BYTES_MAX`], or shorter than a version.
    #[error("a frame of {0} bytes is not possible")]
    Length(usize),
    /// Not a message of this protocol.
    #[error("a frame does not hold a message")]
    Message(#[source] postcard::Error),
}

/// The bytes of one frame.
///
/// # Errors
///
/// [`FrameError::Length`] if the message is too long to be sent.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; 4];
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    let mut bytes = postcard::to_extend(message, bytes).map_err(FrameError::Message)?;
    let length = bytes.len() - 4;
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::Length(length));
    }
    // In range: FRAME_BYTES_MAX fits.
    bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(bytes)
}

/// Finds frames in what arrives, in whatever pieces it arrives.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Decoder {
    /// Adds bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Adds descriptors that arrived.
    pub fn push_fds(&mut self, fds: impl IntoIterator<Item = OwnedFd>) {
        self.fds.extend(fds);
    }

    /// The next whole message, if there is one.
    ///
    /// # Errors
    ///
    /// Any error is final: the stream cannot be trusted any more and should be closed.
    pub fn next_message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some((length, rest)) = self.bytes.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if !(2..=FRAME_BYTES_MAX).contains(&length) {
            return Err(FrameError::Length(length));
        }
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        let (version, body) = frame.split_first_chunk::<2>().ok_or(FrameError::Length(length))?;
        let version = u16::from_le_bytes(*version);
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let message = postcard::from_bytes(body).map_err(FrameError::Message)?;
        self.bytes.drain(..4 + length);
        if self.bytes.is_empty() && self.bytes.capacity() > 64 << 10 {
            // One big frame should not stay in a small program's memory for ever.
            self.bytes = Vec::new();
        }
        Ok(Some(message))
    }

    /// The oldest descriptor that arrived and was not taken yet.
    pub fn take_fd(&mut self) -> Option<OwnedFd> {
        self.fds.pop_front()
    }

    /// Receives once from `socket` (blocking or not, as the socket is). `Ok(0)` is end-of-stream.
    ///
    /// # Errors
    ///
    /// The socket's, `WouldBlock` among them.
    pub fn receive(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let mut buffer = [0; 8192];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            match recvmsg(
                &socket,
                &mut [IoSliceMut::new(&mut buffer)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                Err(rustix::io::Errno::INTR) => {}
                result => break result?,
            }
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        let length = received.bytes.min(buffer.len());
        self.bytes.extend_from_slice(&buffer[..length]);
        Ok(length)
    }
}

/// Sends the beginning of `bytes` with `fds` (at most [`FRAME_FDS_MAX`]) and returns how much went out; the rest follows without
/// descriptors.
///
/// # Errors
///
/// The socket's, `WouldBlock` among them: nothing went out then.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too many descriptors on one frame",
        ));
    }
    loop {
        match sendmsg(&socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Reply, Request};

    #[test]
    fn other_version_is_refused_by_number() {
        let mut bytes = encode(&Request::Status).unwrap();
        bytes[4] = 9;
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        assert!(matches!(decoder.next_message::<Request>(), Err(FrameError::Version(9))));
    }

    #[test]
    fn impossible_length_is_refused_before_it_is_waited_for() {
        let mut decoder = Decoder::default();
        decoder.push(&u32::MAX.to_le_bytes());
        assert!(matches!(decoder.next_message::<Request>(), Err(FrameError::Length(_))));
    }

    #[test]
    fn descriptors_arrive_with_their_frame() {
        let (left, right) = std::os::unix::net::UnixStream::pair().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let bytes = encode(&Reply::ExecStarted { pid: 7 }).unwrap();
        assert_eq!(send(&left, &bytes, &[writer.as_fd()]).unwrap(), bytes.len());
        drop(writer);
        let mut decoder = Decoder::default();
        decoder.receive(&right).unwrap();
        assert_eq!(decoder.next_message::<Reply>().unwrap(), Some(Reply::ExecStarted { pid: 7 }));
        let mut writer = std::fs::File::from(decoder.take_fd().unwrap());
        std::io::Write::write_all(&mut writer, b"x").unwrap();
        drop(writer);
        let mut text = String::new();
        std::io::Read::read_to_string(&mut { reader }, &mut text).unwrap();
        assert_eq!(text, "x");
    }

    proptest! {
        #[test]
        fn frames_survive_any_fragmentation(ids in prop::collection::vec("[a-z]{0,300}", 1..8), cuts in prop::collection::vec(1usize..97, 1..40)) {
            let requests: Vec<Request> = ids.into_iter().map(|id| Request::Start { id }).collect();
            let stream: Vec<u8> = requests.iter().flat_map(|request| encode(request).unwrap()).collect();
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            let (mut rest, mut cuts) = (&stream[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                decoder.push(now);
                rest = later;
                while let Some(request) = decoder.next_message::<Request>().unwrap() {
                    found.push(request);
                }
            }
            prop_assert_eq!(found, requests);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_message::<Request>() {}
        }
    }
}
