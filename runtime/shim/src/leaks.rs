//! Closes what libcontainer leaves open when it fails.
//!
//! It speaks with the processes that it forks over socket pairs, which it closes only when all went well: it is made for programs
//! that end after their one container. A shim lives as long as its pod, and a probe whose command is missing fails every few
//! seconds.
//!
//! Invariant: nothing else opens descriptors meanwhile; the shim has one thread.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// Runs `build`; if it fails, the sockets that it has opened are closed.
pub(crate) fn closed_on_failure<T, E>(build: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let before = sockets();
    let built = build();
    if let (Err(_), Ok(before), Ok(after)) = (&built, before, sockets()) {
        for (number, socket) in after {
            if before.get(&number) != Some(&socket) {
                let _ = nix::unistd::close(number);
            }
        }
    }
    built
}

/// The open sockets by number. A name tells a socket from a later one with its number.
fn sockets() -> io::Result<BTreeMap<RawFd, PathBuf>> {
    let mut sockets = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        // The folder's own descriptor is listed too, and is no socket.
        if let (Some(number), Ok(target)) = (number, fs::read_link(entry.path()))
            && target.as_os_str().as_encoded_bytes().starts_with(b"socket:")
        {
            sockets.insert(number, target);
        }
    }
    Ok(sockets)
}
