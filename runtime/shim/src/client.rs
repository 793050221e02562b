//! One connection: frames in, frames out, never waiting.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use podium_shim_protocol::frame::{self, Decoder};
use podium_shim_protocol::{Reply, Request};
use rustix::event::epoll::EventFlags;

/// A client that lets more than this pile up is cut off; it can come back and ask for the state.
const PENDING_BYTES_MAX: usize = 4 << 20;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Requests and replies.
    Asking,
    /// Events.
    Subscribed,
    /// The end of this process.
    Exec(i32),
    /// An attachment to the container of this number.
    Attached(u64),
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    pub(crate) mode: Mode,
    decoder: Decoder,
    pending: VecDeque<Pending>,
    pending_bytes: usize,
}

#[derive(Debug)]
struct Pending {
    bytes: Vec<u8>,
    sent: usize,
    fd: Option<OwnedFd>,
}

impl Client {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            mode: Mode::Asking,
            decoder: Decoder::default(),
            pending: VecDeque::new(),
            pending_bytes: 0,
        })
    }

    /// Receives once. False when the other side has closed or sends nonsense.
    pub(crate) fn receive(&mut self) -> bool {
        match self.decoder.receive(&self.stream) {
            Ok(length) => length > 0,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    /// The next whole request; an error means that the connection is of no more use.
    pub(crate) fn next(&mut self) -> Result<Option<Request>, frame::FrameError> {
        self.decoder.next_message()
    }

    /// The descriptors that came with requests so far.
    pub(crate) fn take_fds(&mut self) -> Vec<OwnedFd> {
        std::iter::from_fn(|| self.decoder.take_fd()).collect()
    }

    /// Queues a reply and sends what can be sent. False if the client is to be cut off.
    pub(crate) fn send(&mut self, reply: &Reply, fd: Option<OwnedFd>) -> bool {
        let Ok(bytes) = frame::encode(reply) else { return false };
        self.pending_bytes += bytes.len();
        self.pending.push_back(Pending { bytes, sent: 0, fd });
        self.pending_bytes <= PENDING_BYTES_MAX && self.flush()
    }

    /// Sends what can be sent. False if the other side has closed.
    pub(crate) fn flush(&mut self) -> bool {
        while let Some(first) = self.pending.front_mut() {
            let rest = first.bytes.get(first.sent..).unwrap_or_default();
            let fds: Vec<_> = first.fd.iter().map(|fd| fd.as_fd()).collect();
            match frame::send(&self.stream, rest, &fds) {
                Ok(sent) => {
                    first.fd = None;
                    first.sent += sent;
                    self.pending_bytes = self.pending_bytes.saturating_sub(sent);
                    if first.sent >= first.bytes.len() {
                        self.pending.pop_front();
                    }
                }
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }

    /// What to wait for.
    pub(crate) fn interest(&self) -> EventFlags {
        if self.pending.is_empty() { EventFlags::IN } else { EventFlags::IN | EventFlags::OUT }
    }
}
