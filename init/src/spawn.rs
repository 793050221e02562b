//! Starting a program from PID 1 with a clean signal mask, and what such a program gives up.
//!
//! Why unsafe: PID 1 blocks the signals that it reads from a descriptor, and a program inherits what is blocked; one
//! that waits for SIGCHLD or should end on SIGTERM would wait for ever. The mask can only be reset between fork and
//! exec, which is the program's own business to get right.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use nix::sys::signal::SigSet;
use rustix::thread::{CapabilitySet, CapabilitySets};

/// Starts the program with no signal blocked.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    let unblock = || SigSet::empty().thread_set_mask().map_err(io::Error::from);
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; this is one sigprocmask on a set that
    // lives on the stack, and it neither allocates nor takes a lock.
    unsafe { command.pre_exec(unblock) };
    command.spawn()
}

/// Gives up every capability of this process but these, for good.
pub(crate) fn keep_capabilities(kept: CapabilitySet) -> io::Result<()> {
    for capability in CapabilitySet::all().difference(kept).iter() {
        // One that this kernel does not know cannot be had either.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    rustix::thread::set_no_new_privs(true)?;
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)?;
    Ok(())
}
