//! How the machine ends: a pure machine that says what comes when, and the system calls that do it.
//!
//! ```text
//!  Draining ── node gone, or its grace over ──► Terminating ── all gone, or time over ──► Killing ──► Done
//! ```
//!
//! In Draining the node stops its pods with their grace; Terminating asks all other processes to end; Killing does not
//! ask. Then file systems are unmounted, buffers written, and the machine reboots or powers off.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use podium_init::protocol::Ending as How;
use rustix::mount::{MountFlags, UnmountFlags, mount_remount, unmount};
use rustix::system::{RebootCommand, reboot};

use crate::console::{say, warn};

/// For processes that are nobody's pod any more, to write what they hold.
const TERMINATING: Duration = Duration::from_secs(5);
/// A killed process that is not gone by then is stuck in the kernel.
const KILLING: Duration = Duration::from_secs(3);
/// How long a panic stays readable on the console.
const READABLE: Duration = Duration::from_secs(10);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The node program ended, or there is none that could drain.
    NodeGone,
    /// No process is left but PID 1.
    NothingLeft,
    /// Time went by.
    Tick,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// SIGTERM to every process.
    Terminate,
    /// SIGKILL to every process.
    Kill,
    /// Unmount and end.
    Finish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Draining { until: Duration },
    Terminating { until: Duration },
    Killing { until: Duration },
    Done,
}

/// The end of a machine, under way.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    /// What comes after.
    pub(crate) how: How,
    stage: Stage,
}

impl Ending {
    /// Begins with draining, for at most `grace`.
    pub(crate) fn begin(now: Duration, how: How, grace: Duration) -> Self {
        Self { how, stage: Stage::Draining { until: now + grace } }
    }

    /// When to come back with [`Event::Tick`].
    pub(crate) fn next_wake(&self) -> Option<Duration> {
        match self.stage {
            Stage::Draining { until } | Stage::Terminating { until } | Stage::Killing { until } => {
                Some(until)
            }
            Stage::Done => None,
        }
    }

    /// Takes one event.
    pub(crate) fn step(&mut self, now: Duration, event: Event) -> Option<Action> {
        match (self.stage, event) {
            (Stage::Draining { until }, Event::Tick) if now < until => None,
            (Stage::Draining { .. }, Event::NodeGone | Event::Tick) => {
                self.stage = Stage::Terminating { until: now + TERMINATING };
                Some(Action::Terminate)
            }
            (Stage::Terminating { until }, Event::Tick) if now < until => None,
            (Stage::Terminating { .. }, Event::Tick) => {
                self.stage = Stage::Killing { until: now + KILLING };
                Some(Action::Kill)
            }
            (Stage::Killing { until }, Event::Tick) if now < until => None,
            (Stage::Killing { .. }, Event::Tick)
            | (
                Stage::Draining { .. } | Stage::Terminating { .. } | Stage::Killing { .. },
                Event::NothingLeft,
            ) => {
                self.stage = Stage::Done;
                Some(Action::Finish)
            }
            (Stage::Terminating { .. } | Stage::Killing { .. } | Stage::Done, Event::NodeGone)
            | (Stage::Done, Event::NothingLeft | Event::Tick) => None,
        }
    }
}

/// Sends a signal to every process but PID 1.
pub(crate) fn signal_all(signal: Signal) {
    let _ = kill(Pid::from_raw(-1), signal);
}

/// Unmounts what can be, writes buffers, and ends the machine. Does not return unless the kernel refuses.
pub(crate) fn finish(how: How) {
    unmount_all();
    rustix::fs::sync();
    let command = match how {
        How::Reboot => {
            say("rebooting");
            RebootCommand::Restart
        }
        How::PowerOff => {
            say("powering off");
            RebootCommand::PowerOff
        }
    };
    if let Err(error) = reboot(command) {
        warn(&format!("the kernel does not end the machine: {error}"));
    }
}

/// The last mounted first. What is still in use becomes read-only, which writes it out as well.
fn unmount_all() {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let targets: Vec<&str> = table.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    for target in targets.into_iter().rev().filter(|target| target.starts_with("/var")) {
        let target = target.replace("\\040", " ");
        if unmount(&target, UnmountFlags::empty()).is_err() && target == "/var" {
            let _ = mount_remount(&target, MountFlags::RDONLY, c"");
            let _ = unmount(&target, UnmountFlags::DETACH);
        }
    }
}

/// A panic of PID 1 would be a panic of the kernel. Instead it is shown, buffers are written, and the machine starts
/// again: nothing that PID 1 knows is worth more than a machine that works.
pub(crate) fn reboot_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        warn(&format!(
            "init has a bug and reboots the machine in {} s: {panic}",
            READABLE.as_secs()
        ));
        rustix::fs::sync();
        std::thread::sleep(READABLE);
        let _ = reboot(RebootCommand::Restart);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_machine_whose_processes_end_in_time_is_not_killed() {
        let mut ending = Ending::begin(at(0), How::PowerOff, at(60));
        assert_eq!(ending.step(at(1), Event::Tick), None);
        assert_eq!(ending.step(at(2), Event::NodeGone), Some(Action::Terminate));
        assert_eq!(ending.step(at(3), Event::NothingLeft), Some(Action::Finish));
        assert_eq!(ending.next_wake(), None);
    }

    #[test]
    fn whatever_hangs_the_machine_ends() {
        let mut ending = Ending::begin(at(0), How::Reboot, at(60));
        let mut actions = Vec::new();
        while let Some(now) = ending.next_wake() {
            actions.extend(ending.step(now, Event::Tick));
        }
        assert_eq!(actions, [Action::Terminate, Action::Kill, Action::Finish]);
    }

    #[test]
    fn pods_keep_their_grace() {
        let mut ending = Ending::begin(at(0), How::Reboot, at(60));
        assert_eq!(ending.step(at(59), Event::Tick), None);
        assert_eq!(ending.step(at(60), Event::Tick), Some(Action::Terminate));
        assert_eq!(ending.step(at(61), Event::NodeGone), None);
    }
}
