//! Keeps one program running, as a pure machine: when to start it, when to wait, when to give it up.
//!
//! ```text
//!            start            exited early              due
//!  Stopped ─────────► Running ────────────► Waiting ─────────► Running …
//!     ▲                  │                     │
//!     └──── exited ◄── Stopping ◄── stop ──────┘ (nothing to wait for: Stopped at once)
//! ```
//!
//! A program that lived for [`STEADY`], or said that it serves, starts again at once; one that keeps dying before waits twice
//! as long each time, up to [`LONGEST_WAIT`]. It is never given up: a machine that does nothing is worth less than one that
//! tries. What serves is not made to wait even if it dies soon and often: the time in which it serves is what an operator has
//! for taking away the object that kills it.

use std::time::Duration;

/// The first wait: long enough that a program that dies at once does not fill the console.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
/// The longest: a repaired cause should show within half a minute.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Alive this long, it is not in a crash loop.
const STEADY: Duration = Duration::from_secs(30);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The program is wanted.
    Start,
    /// It was started as this process.
    Started(u32),
    /// It could not be started.
    NotStarted,
    /// The process is gone.
    Exited(u32),
    /// The program is not wanted any more.
    Stop,
    /// The running program says that it does its work.
    Serving,
    /// Time went by.
    Tick,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start the program and answer with [`Event::Started`] or [`Event::NotStarted`].
    Spawn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Stopped,
    /// [`Action::Spawn`] was said and not yet answered.
    Starting {
        since: Duration,
    },
    Running {
        pid: u32,
        since: Duration,
    },
    Waiting {
        until: Duration,
    },
    Stopping {
        pid: u32,
    },
}

/// The machine for one program.
#[derive(Clone, Debug)]
pub(crate) struct Supervisor {
    state: State,
    /// Starts since the last time it was steady.
    failures: u32,
    restarts: u32,
}

impl Supervisor {
    /// A program that is not wanted yet.
    pub(crate) fn new() -> Self {
        Self { state: State::Stopped, failures: 0, restarts: 0 }
    }

    /// The process, while there is one.
    pub(crate) fn pid(&self) -> Option<u32> {
        match self.state {
            State::Running { pid, .. } | State::Stopping { pid } => Some(pid),
            State::Stopped | State::Starting { .. } | State::Waiting { .. } => None,
        }
    }

    /// How often it was started again.
    pub(crate) fn restarts(&self) -> u32 {
        self.restarts
    }

    /// When to come back with [`Event::Tick`].
    pub(crate) fn next_wake(&self) -> Option<Duration> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Stopped
            | State::Starting { .. }
            | State::Running { .. }
            | State::Stopping { .. } => None,
        }
    }

    /// Takes one event.
    pub(crate) fn step(&mut self, now: Duration, event: Event) -> Option<Action> {
        match (self.state, event) {
            (State::Stopped, Event::Start) => self.spawn(now),
            (State::Waiting { until }, Event::Tick) if now >= until => {
                self.restarts += 1;
                self.spawn(now)
            }
            (State::Starting { since }, Event::Started(pid)) => {
                self.state = State::Running { pid, since };
                None
            }
            (State::Starting { .. }, Event::NotStarted) => self.wait(now),
            (State::Running { pid, since }, Event::Exited(gone)) if pid == gone => {
                if now.saturating_sub(since) >= STEADY {
                    self.failures = 0;
                }
                self.wait(now)
            }
            (State::Running { .. }, Event::Serving) => {
                self.failures = 0;
                None
            }
            (State::Running { pid, .. }, Event::Stop) => {
                self.state = State::Stopping { pid };
                None
            }
            (State::Waiting { .. } | State::Starting { .. }, Event::Stop) => {
                self.state = State::Stopped;
                None
            }
            (State::Stopping { pid }, Event::Exited(gone)) if pid == gone => {
                self.state = State::Stopped;
                None
            }
            // Events of another process, or that change nothing in this state.
            (
                State::Stopped
                | State::Starting { .. }
                | State::Running { .. }
                | State::Waiting { .. }
                | State::Stopping { .. },
                Event::Start
                | Event::Started(_)
                | Event::NotStarted
                | Event::Exited(_)
                | Event::Stop
                | Event::Serving
                | Event::Tick,
            ) => None,
        }
    }

    fn spawn(&mut self, now: Duration) -> Option<Action> {
        self.state = State::Starting { since: now };
        Some(Action::Spawn)
    }

    fn wait(&mut self, now: Duration) -> Option<Action> {
        let wait = SHORTEST_WAIT.saturating_mul(1 << self.failures.min(16)).min(LONGEST_WAIT);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting { until: now + wait };
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn running(supervisor: &mut Supervisor, now: Duration, event: Event) {
        assert_eq!(supervisor.step(now, event), Some(Action::Spawn));
        assert_eq!(supervisor.step(now, Event::Started(7)), None);
    }

    #[test]
    fn a_crash_loop_waits_twice_as_long_each_time_and_never_ends() {
        let mut supervisor = Supervisor::new();
        let mut now = ms(0);
        running(&mut supervisor, now, Event::Start);
        let mut waits = Vec::new();
        for _ in 0..12 {
            supervisor.step(now, Event::Exited(7));
            let until = supervisor.next_wake().expect("it will be started again");
            waits.push((until - now).as_millis());
            now = until;
            running(&mut supervisor, now, Event::Tick);
        }
        assert_eq!(
            waits,
            [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000, 30000]
        );
        assert_eq!(supervisor.restarts(), 12);
    }

    #[test]
    fn a_program_that_lived_long_starts_again_at_once() {
        let mut supervisor = Supervisor::new();
        running(&mut supervisor, ms(0), Event::Start);
        for _ in 0..3 {
            supervisor.step(ms(1), Event::Exited(7));
            let due = supervisor.next_wake().expect("due");
            running(&mut supervisor, due, Event::Tick);
        }
        let later = ms(10_000) + STEADY;
        supervisor.step(later, Event::Exited(7));
        assert_eq!(supervisor.next_wake(), Some(later + SHORTEST_WAIT));
    }

    #[test]
    fn a_program_that_served_starts_again_at_once() {
        let mut supervisor = Supervisor::new();
        let mut now = ms(0);
        running(&mut supervisor, now, Event::Start);
        for _ in 0..20 {
            supervisor.step(now, Event::Serving);
            supervisor.step(now, Event::Exited(7));
            assert_eq!(supervisor.next_wake(), Some(now + SHORTEST_WAIT));
            now += SHORTEST_WAIT;
            running(&mut supervisor, now, Event::Tick);
        }
    }

    #[test]
    fn a_stopped_program_stays_stopped() {
        let mut supervisor = Supervisor::new();
        running(&mut supervisor, ms(0), Event::Start);
        supervisor.step(ms(1), Event::Stop);
        assert_eq!(supervisor.pid(), Some(7));
        supervisor.step(ms(2), Event::Exited(7));
        assert_eq!((supervisor.pid(), supervisor.next_wake()), (None, None));
        assert_eq!(supervisor.step(ms(3), Event::Tick), None);
    }

    #[test]
    fn the_exit_of_another_process_changes_nothing() {
        let mut supervisor = Supervisor::new();
        running(&mut supervisor, ms(0), Event::Start);
        supervisor.step(ms(1), Event::Exited(8));
        assert_eq!(supervisor.pid(), Some(7));
    }

    #[test]
    fn a_program_that_cannot_be_started_is_tried_again() {
        let mut supervisor = Supervisor::new();
        assert_eq!(supervisor.step(ms(0), Event::Start), Some(Action::Spawn));
        supervisor.step(ms(0), Event::NotStarted);
        assert_eq!(supervisor.next_wake(), Some(SHORTEST_WAIT));
    }
}
