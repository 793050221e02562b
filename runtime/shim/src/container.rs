//! One container's life as the shim follows it.
//!
//! ```text
//! Created ──start──▶ Running ──first process ends──▶ Ending ──group empty, output logged, record on disk──▶ Exited
//!    └────────────────────first process ends───────────▲
//! ```
//!
//! `Ending` is not told to anybody: to clients the container runs until its record is on disk.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use libcontainer::container::Container as RuntimeContainer;
use podium_shim_protocol::{
    ContainerConfig, ContainerState, ContainerStatus, ExitRecord, Failure, FailureKind, Stdio,
    WallTime,
};

use crate::attach::{Attachment, Input};
use crate::cgroup::Group;
use crate::failure;
use crate::log::{Log, Stream};

/// SIGRTMAX: the kernel knows 64 signals on every architecture that this runs on.
const SIGNAL_LAST: i32 = 64;

/// Where a container is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum State {
    Created { pid: i32 },
    Running { pid: i32, started_at: WallTime },
    Ending { pid: i32, started_at: Option<WallTime>, end: End, finished_at: WallTime },
    Exited(ExitRecord),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
}

pub(crate) struct Container {
    /// Its number in the poll set's sources.
    pub(crate) number: u64,
    pub(crate) id: String,
    name: String,
    attempt: u32,
    pub(crate) stdio: Stdio,
    pub(crate) state: State,
    created_at: WallTime,
    pub(crate) group: Group,
    pub(crate) runtime: RuntimeContainer,
    pub(crate) log: Log,
    pub(crate) outputs: Vec<Output>,
    pub(crate) input: Option<Input>,
    pub(crate) terminal: Option<OwnedFd>,
    pub(crate) attachments: Vec<Attachment>,
}

/// A stream that the shim reads.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) number: u64,
    pub(crate) stream: Stream,
    pub(crate) fd: OwnedFd,
}

impl Container {
    pub(crate) fn new(
        number: u64,
        config: ContainerConfig,
        created: (i32, Group, RuntimeContainer),
        log: Log,
        now: WallTime,
    ) -> Self {
        let (pid, group, runtime) = created;
        Self {
            number,
            id: config.id,
            name: config.name,
            attempt: config.attempt,
            stdio: config.stdio,
            state: State::Created { pid },
            created_at: now,
            group,
            runtime,
            log,
            outputs: Vec::new(),
            input: None,
            terminal: None,
            attachments: Vec::new(),
        }
    }

    /// What clients are told.
    pub(crate) fn status(&self) -> ContainerStatus {
        let state = match self.state {
            State::Created { pid } | State::Ending { pid, started_at: None, .. } => {
                ContainerState::Created { pid }
            }
            State::Running { pid, started_at }
            | State::Ending { pid, started_at: Some(started_at), .. } => {
                ContainerState::Running { pid, started_at }
            }
            State::Exited(record) => ContainerState::Exited(record),
        };
        ContainerStatus {
            id: self.id.clone(),
            name: self.name.clone(),
            attempt: self.attempt,
            state,
            created_at: self.created_at,
            log_bytes_lost: self.log.lost_bytes(),
        }
    }

    /// The first process while it may be alive.
    pub(crate) fn first_process(&self) -> Option<i32> {
        match self.state {
            State::Created { pid } | State::Running { pid, .. } => Some(pid),
            State::Ending { .. } | State::Exited(_) => None,
        }
    }

    /// Lets it run.
    pub(crate) fn start(&mut self, now: WallTime) -> Result<(), Failure> {
        let State::Created { pid } = self.state else {
            return Err(failure::new(
                FailureKind::WrongState,
                format!("container {} is not waiting to be started", self.id),
            ));
        };
        self.runtime.start().map_err(|error| failure::of_runtime(&error))?;
        self.state = State::Running { pid, started_at: now };
        Ok(())
    }

    /// The first process has ended; whatever is left of the container goes too.
    pub(crate) fn first_process_ended(&mut self, end: End, now: WallTime) {
        let (pid, started_at) = match self.state {
            State::Created { pid } => (pid, None),
            State::Running { pid, started_at } => (pid, Some(started_at)),
            State::Ending { .. } | State::Exited(_) => return,
        };
        self.state = State::Ending { pid, started_at, end, finished_at: now };
        // Only processes in the machine's process namespace can have outlived it. If the kernel refuses, the group stays populated and
        // the container stays in this state: nothing false is reported.
        let _ = self.group.kill();
    }

    /// The record of a container whose last process is gone.
    pub(crate) fn record(&self) -> Option<ExitRecord> {
        let State::Ending { started_at, end, finished_at, .. } = self.state else { return None };
        if self.group.is_populated() {
            return None;
        }
        let killed = end.signal == Some(nix::sys::signal::Signal::SIGKILL as i32);
        let oom_killed = killed && self.group.oom_kills() > 0;
        Some(ExitRecord { code: end.code, signal: end.signal, oom_killed, started_at, finished_at })
    }

    /// Reads once from a stream and logs it. False at its end.
    pub(crate) fn pump(&mut self, stream: Stream, buffer: &mut [u8], now: WallTime) -> bool {
        let Some(output) = self.outputs.iter().find(|output| output.stream == stream) else {
            return false;
        };
        let length = loop {
            match rustix::io::read(&output.fd, &mut *buffer) {
                Ok(length) => break length,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return true,
                // A terminal that nobody has open any more.
                Err(_) => return false,
            }
        };
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else {
            return false;
        };
        self.log.write(stream, bytes, now);
        for attachment in &self.attachments {
            attachment.copy(stream, bytes);
        }
        true
    }

    /// Whether a stream has something to read, or has ended.
    pub(crate) fn has_output(&self, stream: Stream) -> bool {
        self.outputs
            .iter()
            .filter(|output| output.stream == stream)
            .any(|output| is_readable(&output.fd))
    }
}

fn is_readable(fd: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|count| count > 0)
}

/// Splits a wait status into exit code and signal, as shells count.
pub(crate) fn end_of(status: rustix::process::WaitStatus) -> Option<End> {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some(End { code, signal: None }),
        (None, Some(signal)) => Some(End { code: 128 + signal, signal: Some(signal) }),
        (None, None) => None,
    }
}

/// Sends a signal to one process, real-time signals too, which no enumeration names. One that is gone counts as signalled.
pub(crate) fn signal(pid: i32, number: i32) -> io::Result<()> {
    if !(1..=SIGNAL_LAST).contains(&number) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{number} is not a signal"),
        ));
    }
    // SAFETY: kill(2) takes two numbers and touches no memory of ours.
    if unsafe { nix::libc::kill(pid, number) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(nix::libc::ESRCH) { Ok(()) } else { Err(error) }
}
