//! A VM's end of the switch: unix datagram sockets that talk to QEMU's `dgram` network backend.
//!
//! There is one for each direction. The sending one is connected, because only then does the kernel say when the other end has
//! room again; the receiving one is not, because a connected socket takes datagrams of its peer only (unix(7)), and a VM that
//! is switched off and on again comes back as another peer.
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
    receiving: UnixDatagram,
    sending: UnixDatagram,
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
        let receiving = UnixDatagram::bind(&config.switch_path)?;
        let sending = UnixDatagram::unbound()?;
        receiving.set_nonblocking(true)?;
        sending.set_nonblocking(true)?;
        Ok(Self {
            receiving,
            sending,
            guest_path: config.guest_path.clone(),
            connected: false,
            backlog: VecDeque::new(),
            dropped: 0,
        })
    }

    /// One frame from the VM, if one waits. An unplugged VM (QEMU ended) reads as silence.
    pub(crate) fn receive<'a>(&self, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        let length = self.receiving.recv(buffer).ok()?;
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

    /// Readable when a frame waits.
    pub(crate) fn arriving(&self) -> BorrowedFd<'_> {
        self.receiving.as_fd()
    }

    /// Writable when [`Port::flush`] can go on, if there is anything to send.
    pub(crate) fn leaving(&self) -> Option<BorrowedFd<'_>> {
        (!self.backlog.is_empty()).then(|| self.sending.as_fd())
    }

    fn try_send(&mut self, frame: &[u8]) -> io::Result<()> {
        if self.connected {
            match self.sending.send(frame) {
                // That QEMU has ended; another one may be there by now.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                sent => return sent.map(|_| ()),
            }
        }
        self.sending.connect(&self.guest_path)?;
        self.connected = true;
        self.sending.send(frame).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::MacAddress;

    #[test]
    fn a_vm_that_was_switched_off_and_on_is_heard_before_anything_was_sent_to_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = PortConfig {
            mac: MacAddress::of_vm(0),
            address: Ipv4Addr::new(10, 77, 0, 10),
            name: "n1".to_owned(),
            switch_path: folder.path().join("switch"),
            guest_path: folder.path().join("guest"),
        };
        let mut port = Port::bind(&config).expect("bound");
        for word in [b"first", b"later"] {
            let _ = std::fs::remove_file(&config.guest_path);
            let guest = UnixDatagram::bind(&config.guest_path).expect("bound");
            guest.send_to(word, &config.switch_path).expect("the switch takes it");
            assert_eq!(port.receive(&mut [0; 64]), Some(&word[..]));
            port.send(b"answer".to_vec());
            // As QEMU ends: the path stays, the socket does not.
        }
        assert_eq!(port.dropped, 0);
    }
}
