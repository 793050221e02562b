//! Devices that come and go, as the kernel announces them (netlink family NETLINK_KOBJECT_UEVENT).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_KOBJECT_UEVENT};

/// The kernel's own messages are in multicast group 1.
const KERNEL_GROUP: u32 = 1;

/// What the kernel says about one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uevent {
    /// Whether the device is new.
    pub(crate) added: bool,
    /// As `block`.
    pub(crate) subsystem: String,
    /// What modules are chosen by.
    pub(crate) modalias: Option<String>,
}

/// A stream of device announcements.
#[derive(Debug)]
pub(crate) struct Uevents {
    socket: Socket,
}

impl Uevents {
    /// Starts listening; announcements from before are lost, so the present devices are to be read afterwards.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_KOBJECT_UEVENT)?;
        socket.bind(&SocketAddr::new(0, KERNEL_GROUP))?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket })
    }

    /// The next announcement, if one has arrived.
    pub(crate) fn next(&self) -> Option<Uevent> {
        loop {
            match self.socket.recv_from_full() {
                Ok((message, from)) if from.port_number() == 0 => return Some(parse(&message)),
                // Not from the kernel, or more than the socket could hold: the next one may be better.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.raw_os_error() == Some(105) => {}
                Err(_) => return None,
            }
        }
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// `ACTION@PATH` and then `KEY=value`, each ended by a zero byte.
fn parse(message: &[u8]) -> Uevent {
    let mut event = Uevent::default();
    for entry in message.split(|byte| *byte == 0) {
        let text = String::from_utf8_lossy(entry);
        match text.split_once('=') {
            Some(("ACTION", action)) => event.added = action == "add" || action == "bind",
            Some(("SUBSYSTEM", subsystem)) => event.subsystem = subsystem.to_owned(),
            Some(("MODALIAS", modalias)) => event.modalias = Some(modalias.to_owned()),
            Some(_) | None => {}
        }
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_is_read() {
        let event = parse(b"add@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0SUBSYSTEM=virtio\0MODALIAS=virtio:d1v2\0SEQNUM=7\0");
        let modalias = Some("virtio:d1v2".to_owned());
        assert_eq!(event, Uevent { added: true, subsystem: "virtio".to_owned(), modalias });
        assert_eq!(parse(b"remove@/devices/x\0ACTION=remove\0"), Uevent::default());
    }
}
