//! A VM's end of the switch: one unix datagram socket that talks to QEMU's `dgram` network backend.
//!
//! The kernel queues only a handful of datagrams per unix socket (`net.unix.max_dgram_qlen`, 10 by default), far fewer than a
//! network card's ring, so frames that QEMU has not yet read wait here, up to a bound: past it the newest frame is lost, as on
//! any full queue.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use crate::PortConfig;

/// Frames waiting for one VM. A TCP window of 128 KiB is about 90 frames; several flows and a slow emulated CPU need more.
const BACKLOG_FRAMES_MAX: usize = 4096;

#[derive(Debug)]
pub(crate) struct Port {
    socket: UnixDatagram,
    guest_path: PathBuf,
    connected: bool,
    backlog: VecDeque<Vec<u8>>,
    /// Frames lost because the VM did not read them.
    pub(crate) dropped: u64,
}

impl Port {
    pub(crate) fn bind(config: &PortConfig) -> io::Result<Self> {
        match std::fs::remove_file(&config.switch_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixDatagram::bind(&config.switch_path)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            guest_path: config.guest_path.clone(),
            connected: false,
            backlog: VecDeque::new(),
            dropped: 0,
        })
    }

    /// One frame from the VM, if one waits. An unplugged VM (QEMU ended) reads as silence.
    pub(crate) fn receive<'a>(&self, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        let length = self.socket.recv(buffer).ok()?;
        buffer.get(..length)
    }

    pub(crate) fn send(&mut self, frame: Vec<u8>) {
        if self.backlog.len() >= BACKLOG_FRAMES_MAX {
            self.dropped += 1;
            return;
        }
        self.backlog.push_back(frame);
        self.flush();
    }

    /// Sends what the kernel takes now; the rest stays for when the socket is writable.
    pub(crate) fn flush(&mut self) {
        while let Some(frame) = self.backlog.pop_front() {
            match self.try_send(&frame) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.backlog.push_front(frame);
                    return;
                }
                Err(_) => {
                    // QEMU is not there (yet, or any more): a cable with nothing at its end loses every frame.
                    self.connected = false;
                    self.dropped += 1 + self.backlog.len() as u64;
                    self.backlog.clear();
                }
            }
        }
    }

    pub(crate) fn wants_to_write(&self) -> bool {
        !self.backlog.is_empty()
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn try_send(&mut self, frame: &[u8]) -> io::Result<()> {
        // Only a connected datagram socket polls as "not writable" while its peer's queue is full.
        if !self.connected {
            self.socket.connect(&self.guest_path)?;
            self.connected = true;
        }
        self.socket.send(frame).map(|_| ())
    }
}
