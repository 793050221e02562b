//! A client that watches a container's output and types into it.

use std::io;
use std::os::fd::OwnedFd;

use crate::log::Stream;

/// An attached client's own descriptors.
#[derive(Debug)]
pub(crate) struct Attachment {
    /// The client's number.
    pub(crate) client: u64,
    /// Read from for the container; `None` after its end.
    pub(crate) stdin: Option<(u64, OwnedFd)>,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Attachment {
    /// `stdin` is watched already under the given number.
    pub(crate) fn new(
        client: u64,
        stdin: Option<(u64, OwnedFd)>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    ) -> Self {
        Self { client, stdin, stdout, stderr }
    }

    /// Copies what the container wrote. What the client does not take in time is lost to it, not to the log.
    pub(crate) fn copy(&self, stream: Stream, bytes: &[u8]) {
        let to = match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            match rustix::io::write(to, rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

/// A container's standard input, and what it has not taken yet.
#[derive(Debug)]
pub(crate) struct Input {
    /// Its number in the poll set.
    pub(crate) number: u64,
    pub(crate) fd: OwnedFd,
    pending: Vec<u8>,
    /// Close once everything is written.
    pub(crate) closing: bool,
}

impl Input {
    pub(crate) fn new(number: u64, fd: OwnedFd) -> Self {
        Self { number, fd, pending: Vec::new(), closing: false }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.pending.is_empty()
    }

    /// Writes what the container takes now. An error means that nobody reads any more.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            match rustix::io::write(&self.fd, &self.pending) {
                Ok(written) => drop(self.pending.drain(..written)),
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
