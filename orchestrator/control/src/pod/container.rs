//! One container of a pod: its state, its attempts, its history.
//!
//! ```text
//!                ┌──────────────── end of the delay ───────────────┐
//!                v                                                  │
//! Waiting ─> Inspecting ─> Pulling ─> PullFailed ─> PullBackOff ────┤
//!                │             │                                    │
//!                └─────────────┴─> Fetched ─> Starting ─> PostStart ─> Running
//!                                              │   │          │           │
//!                                       Refused┘   │          └─> Stopping <┘
//!                                                  v                │
//!                                    (the instance ended) <─────────┘
//!                                     │          │
//!                                  Done      Waiting, at once or by way of CrashLoop
//! ```
//!
//! Within one attempt a container only moves forward; an attempt's number is used once.

use std::time::Duration;

use jiff::Timestamp;
use podium_types::Now;
use podium_types::k8s::api::core::v1 as core;

use super::back_off::{BackOff, RESTART};
use super::interface::{ImageFacts, Instance, ProbeKind};
use super::probe::Probes;
use super::record::{ContainerRecord, Termination};

/// Whether a container runs before the others or with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Runs to its end before anything after it starts.
    Init,
    /// Runs as long as the pod.
    Main,
}

/// An instance whose process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) attempt: u32,
    pub(super) started_at: Timestamp,
}

/// Why a running instance is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopCause {
    /// The pod ends.
    Pod,
    /// A probe said so.
    Probe(ProbeKind),
    /// Its postStart hook failed.
    PostStart,
    /// Its image in the spec is another one now.
    Definition,
}

/// How far the stop of an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopStep {
    /// The preStop hook runs, until the deadline at the latest.
    PreStop,
    /// The stop signal is sent; SIGKILL follows at this time.
    Signalled { kill_at: Duration },
    /// SIGKILL is sent; it is sent again at this time.
    Killed { again_at: Duration },
}

/// Where a container stands.
#[derive(Debug, Clone)]
pub(super) enum State {
    /// Not its turn yet.
    Waiting,
    /// Asked whether the image is here.
    Inspecting,
    /// Asked for the image.
    Pulling,
    /// The image could not be had; shown until this time.
    PullFailed { reason: &'static str, message: String, until: Duration },
    /// Waiting to pull again.
    PullBackOff { message: String, retry_at: Duration },
    /// The image is here; an earlier container is being started.
    Fetched,
    /// Handed to the runtime, or to be handed to it again by a restarted node program.
    Starting { attempt: u32, created: bool, issued: bool },
    /// The runtime could not make it; tried again at this time.
    Refused { reason: &'static str, message: String, retry_at: Duration },
    /// Runs, and its postStart hook too.
    PostStart { run: Run },
    /// Runs.
    Running { run: Run, probes: Probes },
    /// Runs, and is being stopped; the grace ends at the deadline.
    Stopping { run: Run, cause: StopCause, step: StopStep, deadline: Duration, ready: bool },
    /// Ended, and started again after a delay.
    CrashLoop { failed_at: Duration, until: Duration, delay: Duration },
    /// Ended for good.
    Done,
}

/// A container and what is remembered of it.
#[derive(Debug, Clone)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) state: State,
    /// The attempt that the next instance gets.
    pub(super) next: u32,
    /// The attempt of the newest instance that exists or existed: the restart count.
    pub(super) newest: u32,
    /// The end of the newest instance, unless it runs.
    pub(super) ended: Option<Termination>,
    /// The end of the instance before.
    pub(super) previous: Option<Termination>,
    pub(super) image: Option<ImageFacts>,
    pub(super) crash: BackOff,
    pub(super) pull: BackOff,
    pub(super) create: BackOff,
}

impl Container {
    pub(super) fn new(spec: &core::Container, role: Role) -> Self {
        Self {
            name: spec.name.clone(),
            role,
            state: State::Waiting,
            next: 0,
            newest: 0,
            ended: None,
            previous: None,
            image: None,
            crash: BackOff::new(RESTART),
            pull: BackOff::new(RESTART),
            create: BackOff::new(RESTART),
        }
    }

    /// Takes over what the record says of earlier attempts; the state stays to be decided.
    pub(super) fn restore(&mut self, record: ContainerRecord, now: Now) {
        self.next = record.next;
        self.newest = record.ended.as_ref().map_or(0, |end| end.attempt);
        self.ended = record.ended;
        self.previous = record.previous;
        self.image = record.image;
        if let Some((milliseconds, raised_at)) = record.back_off {
            let raised_at = monotonic_of(raised_at, now);
            self.crash = BackOff::resume(RESTART, Duration::from_millis(milliseconds), raised_at);
        }
        if record.done {
            self.state = State::Done;
        }
    }

    pub(super) fn record(&self, now: Now) -> ContainerRecord {
        ContainerRecord {
            running: self.attempt(),
            next: self.next,
            done: matches!(self.state, State::Done),
            crash_looping: matches!(self.state, State::CrashLoop { .. }),
            ended: self.ended.clone(),
            previous: self.previous.clone(),
            image: self.image.clone(),
            back_off: self.crash.current().map(|(delay, raised_at)| {
                let milliseconds = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                (milliseconds, wall_of(raised_at, now))
            }),
        }
    }

    /// The attempt that the runtime holds, if any.
    pub(super) fn attempt(&self) -> Option<u32> {
        match &self.state {
            State::Starting { attempt, .. } => Some(*attempt),
            State::PostStart { run } | State::Running { run, .. } | State::Stopping { run, .. } => {
                Some(run.attempt)
            }
            State::Waiting
            | State::Inspecting
            | State::Pulling
            | State::PullFailed { .. }
            | State::PullBackOff { .. }
            | State::Fetched
            | State::Refused { .. }
            | State::CrashLoop { .. }
            | State::Done => None,
        }
    }

    /// The instance that the runtime holds, if any.
    pub(super) fn instance(&self) -> Option<Instance> {
        Some(Instance { container: self.name.clone(), attempt: self.attempt()? })
    }

    /// The runtime holds an instance of it.
    pub(super) fn is_alive(&self) -> bool {
        self.attempt().is_some()
    }

    /// It is on its way to its first process, so those after it wait.
    pub(super) fn holds_up_the_next(&self) -> bool {
        match &self.state {
            State::Inspecting
            | State::Pulling
            | State::Fetched
            | State::Starting { .. }
            | State::PostStart { .. } => true,
            State::Waiting
            | State::PullFailed { .. }
            | State::PullBackOff { .. }
            | State::Refused { .. }
            | State::Running { .. }
            | State::Stopping { .. }
            | State::CrashLoop { .. }
            | State::Done => false,
        }
    }

    /// It ended with success.
    pub(super) fn succeeded(&self) -> bool {
        matches!(self.state, State::Done)
            && self.ended.as_ref().is_some_and(|end| end.exit.code == 0)
    }

    /// It ended for good, and not with success.
    pub(super) fn failed(&self) -> bool {
        matches!(self.state, State::Done) && !self.succeeded()
    }

    /// It is to be found not ready, ready, or has passed its startup probe.
    pub(super) fn readiness(&self) -> Readiness {
        match &self.state {
            State::Running { probes, .. } => {
                Readiness { started: probes.started(), ready: probes.ready() }
            }
            State::Stopping { ready, .. } => Readiness { started: true, ready: *ready },
            State::Done => {
                Readiness { started: false, ready: self.role == Role::Init && self.succeeded() }
            }
            State::PostStart { .. }
            | State::Waiting
            | State::Inspecting
            | State::Pulling
            | State::PullFailed { .. }
            | State::PullBackOff { .. }
            | State::Fetched
            | State::Starting { .. }
            | State::Refused { .. }
            | State::CrashLoop { .. } => Readiness { started: false, ready: false },
        }
    }

    /// The next time at which something is due by the clock alone.
    pub(super) fn next_wake(&self) -> Option<Duration> {
        match &self.state {
            State::PullFailed { until, .. } | State::CrashLoop { until, .. } => Some(*until),
            State::PullBackOff { retry_at, .. } | State::Refused { retry_at, .. } => {
                Some(*retry_at)
            }
            State::Running { probes, .. } => probes.next_wake(),
            State::Stopping { step, deadline, .. } => Some(match step {
                StopStep::PreStop => *deadline,
                StopStep::Signalled { kill_at } => *kill_at,
                StopStep::Killed { again_at } => *again_at,
            }),
            State::Waiting
            | State::Inspecting
            | State::Pulling
            | State::Fetched
            | State::Starting { .. }
            | State::PostStart { .. }
            | State::Done => None,
        }
    }
}

/// What the status shows of a container's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Readiness {
    pub(super) started: bool,
    pub(super) ready: bool,
}

/// The monotonic time at which the wall clock showed `wall`, if it has not jumped since; never in the future.
pub(super) fn monotonic_of(wall: Timestamp, now: Now) -> Duration {
    let age = now.wall.duration_since(wall);
    let age = Duration::try_from(age).unwrap_or(Duration::ZERO);
    now.monotonic.saturating_sub(age)
}

/// The wall clock at a monotonic time in the past.
pub(super) fn wall_of(monotonic: Duration, now: Now) -> Timestamp {
    let age = now.monotonic.saturating_sub(monotonic);
    jiff::SignedDuration::try_from(age)
        .ok()
        .and_then(|age| now.wall.checked_sub(age).ok())
        .unwrap_or(now.wall)
}
