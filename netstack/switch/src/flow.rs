//! One TCP connection between a VM and the host: bytes are copied between smoltcp's socket and the host's.
//!
//! Each direction ends by itself: a FIN from either side is passed on when the bytes before it have been, so half-closed
//! connections (an HTTP client that shuts down its sending side, `redis-cli` at end of input) behave as on a wire.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, State};

#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) handle: SocketHandle,
    host: TcpStream,
    host_ended: bool,
    guest_ended: bool,
    broken: bool,
}

impl Flow {
    /// Joins `host`, already non-blocking, to the VM's side.
    pub(crate) fn new(handle: SocketHandle, host: TcpStream) -> Self {
        Self { handle, host, host_ended: false, guest_ended: false, broken: false }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.host.as_fd()
    }

    pub(crate) fn wants_to_read(&self, guest: &Socket<'_>) -> bool {
        !self.host_ended && guest.can_send()
    }

    pub(crate) fn wants_to_write(&self, guest: &Socket<'_>) -> bool {
        !self.guest_ended && guest.can_recv()
    }

    /// Copies what can be copied now. `false`: this flow is over and its socket may be removed.
    pub(crate) fn pump(&mut self, guest: &mut Socket<'_>) -> bool {
        if matches!(guest.state(), State::SynSent | State::SynReceived) {
            return true;
        }
        self.guest_to_host(guest);
        self.host_to_guest(guest);
        if self.broken {
            guest.abort();
        }
        // A socket in TIME-WAIT is kept by smoltcp for its own sake; nothing more can be copied.
        !matches!(guest.state(), State::Closed | State::TimeWait)
    }

    fn guest_to_host(&mut self, guest: &mut Socket<'_>) {
        while guest.can_recv() {
            let host = &mut self.host;
            let copied = guest.recv(|bytes| match host.write(bytes) {
                Ok(count) => (count, Ok(())),
                Err(error) => (0, Err(error.kind())),
            });
            match copied {
                Ok(Ok(())) => {}
                Ok(Err(ErrorKind::WouldBlock)) => return,
                Ok(Err(_)) | Err(_) => {
                    self.broken = true;
                    return;
                }
            }
        }
        if !guest.may_recv() && !self.guest_ended {
            self.guest_ended = true;
            // The host's side may be gone already; then there is nobody to tell.
            let _ = self.host.shutdown(Shutdown::Write);
        }
    }

    fn host_to_guest(&mut self, guest: &mut Socket<'_>) {
        while !self.host_ended && guest.can_send() {
            let host = &mut self.host;
            let copied = guest.send(|space| match host.read(space) {
                Ok(count) => (count, Ok(count)),
                Err(error) => (0, Err(error.kind())),
            });
            match copied {
                Ok(Ok(0)) => {
                    self.host_ended = true;
                    guest.close();
                }
                Ok(Ok(_)) => {}
                Ok(Err(ErrorKind::WouldBlock)) => return,
                Ok(Err(_)) | Err(_) => {
                    self.broken = true;
                    return;
                }
            }
        }
    }
}
