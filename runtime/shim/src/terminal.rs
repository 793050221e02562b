//! Receives the master side of a terminal that libcontainer opens inside a container.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use podium_shim_protocol::TerminalSize;
use podium_shim_protocol::frame::Decoder;
use rustix::termios::{Winsize, tcsetwinsize};

/// A socket that libcontainer sends the terminal to.
#[derive(Debug)]
pub(crate) struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    /// Listens in the pod's folder: a container's own, with its name in it, may be too deep for a socket's path.
    pub(crate) fn listen(folder: &Path) -> io::Result<Self> {
        let path = folder.join("tty.sock");
        let _ = fs::remove_file(&path);
        Ok(Self { listener: UnixListener::bind(&path)?, path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The terminal, once the process runs: by then libcontainer has connected and sent it, so this never waits.
    pub(crate) fn receive(self) -> io::Result<OwnedFd> {
        self.listener.set_nonblocking(true)?;
        let (stream, _) = self.listener.accept()?;
        stream.set_nonblocking(true)?;
        let mut decoder = Decoder::default();
        decoder.receive(&stream)?;
        let master = decoder.take_fd().ok_or(io::ErrorKind::UnexpectedEof)?;
        rustix::io::ioctl_fionbio(&master, true)?;
        Ok(master)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Sets a terminal's size and lets its programs know.
pub(crate) fn resize(terminal: impl AsFd, size: TerminalSize) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(terminal, size)?)
}
