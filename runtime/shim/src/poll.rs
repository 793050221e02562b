//! What the shim waits for: an epoll set whose members are known by number, and what each number stands for.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use crate::log::Stream;

/// What became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Someone connects.
    Listener,
    /// A signal arrived.
    Signals,
    /// A client sent something, or can take something.
    Client,
    /// A container wrote; the number is the container's.
    Output(u64, Stream),
    /// A container can take more standard input.
    Input(u64),
    /// An attached client has standard input for a container; the number is the client's.
    Attached(u64),
}

/// The set.
#[derive(Debug)]
pub(crate) struct Poll {
    epoll: OwnedFd,
    sources: BTreeMap<u64, Source>,
    next: u64,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, sources: BTreeMap::new(), next: 1 })
    }

    /// A number that was never used before.
    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Waits for `fd` from now on; returns its number.
    pub(crate) fn add(
        &mut self,
        fd: impl AsFd,
        source: Source,
        flags: EventFlags,
    ) -> io::Result<u64> {
        let number = self.number();
        epoll::add(&self.epoll, fd, EventData::new_u64(number), flags)?;
        self.sources.insert(number, source);
        Ok(number)
    }

    /// Changes what is waited for.
    pub(crate) fn change(&self, fd: impl AsFd, number: u64, flags: EventFlags) {
        // Fails only for a descriptor that was removed, which needs no change.
        let _ = epoll::modify(&self.epoll, fd, EventData::new_u64(number), flags);
    }

    /// Stops waiting for `fd`. The descriptor's other copies, in other processes, would otherwise keep it in the set.
    pub(crate) fn remove(&mut self, fd: impl AsFd, number: u64) {
        if self.sources.remove(&number).is_some() {
            let _ = epoll::delete(&self.epoll, fd);
        }
    }

    /// What a number stands for, unless it was removed meanwhile.
    pub(crate) fn source(&self, number: u64) -> Option<Source> {
        self.sources.get(&number).copied()
    }

    /// Waits, and returns the numbers that are ready, with what for.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> io::Result<Vec<(u64, EventFlags)>> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 32];
        let count = match epoll::wait(&self.epoll, &mut events[..], timeout.as_ref()) {
            Ok(count) => count,
            Err(Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        Ok(events.iter().take(count).map(|event| (event.data.u64(), event.flags)).collect())
    }
}
