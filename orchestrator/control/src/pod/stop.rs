//! Stopping containers: one that is to be restarted, or all of a pod that ends.
//!
//! A stop is the preStop hook, then the stop signal, then SIGKILL; the grace period covers all three. A pod's stop
//! first waits, shortly, until the pod is out of every Service.

use std::time::Duration;

use podium_types::Now;

use super::container::{Run, State, StopCause, StopStep};
use super::interface::{Exit, Hook, Instance, PodCommand, ProbeKind};
use super::start::{Ending, Fault};
use super::teardown::TeardownStep;
use super::{Intent, PodMachine, Stage, occurrence};

/// What a container gets after its preStop hook used up the grace: time to see SIGTERM, as in kubelet.
const SHORTEST_GRACE: Duration = Duration::from_secs(2);

/// A process that does not die by SIGKILL waits in the kernel; asking again costs nothing and covers a lost command.
const KILL_AGAIN: Duration = Duration::from_secs(10);

/// Past the last container's SIGKILL by this much, the whole sandbox is killed.
const SLACK: Duration = Duration::from_secs(5);

/// The stop of a whole pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stop {
    began: Duration,
    gate: Gate,
    /// When the sandbox is killed whatever its containers do.
    limit: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// Traffic may still arrive, until this time at the latest.
    Withdrawing { until: Duration },
    /// Containers are being stopped.
    Open,
}

impl Stop {
    pub(super) fn next_wake(&self) -> Option<Duration> {
        Some(match self.gate {
            Gate::Withdrawing { until } => until.min(self.limit),
            Gate::Open => self.limit,
        })
    }
}

impl PodMachine {
    /// Begins the end of the pod if that is what is wanted.
    pub(super) fn begin_end(&mut self, now: Now, out: &mut Vec<PodCommand>) -> bool {
        if self.intent == Intent::Run {
            return false;
        }
        let grace = self.pod_grace();
        let patience = self.settings.withdraw_limit.min(grace / 2);
        let gate = if self.is_ready() && !patience.is_zero() {
            out.push(PodCommand::WithdrawEndpoint);
            Gate::Withdrawing { until: now.monotonic.saturating_add(patience) }
        } else {
            Gate::Open
        };
        let limit = now
            .monotonic
            .saturating_add(grace)
            .saturating_add(SHORTEST_GRACE)
            .saturating_add(SLACK);
        for container in &mut self.containers {
            let starts = matches!(
                container.state,
                State::Inspecting | State::Pulling | State::Fetched | State::Refused { .. }
            );
            if starts {
                container.state = State::Waiting;
            }
        }
        self.stage = Stage::Stopping(Stop { began: now.monotonic, gate, limit });
        true
    }

    /// Stops what lives, and goes on to the teardown when nothing does.
    pub(super) fn drive_stop(&mut self, now: Now, out: &mut Vec<PodCommand>) -> bool {
        let Stage::Stopping(stop) = &mut self.stage else { return false };
        if let Gate::Withdrawing { until } = stop.gate
            && until <= now.monotonic
        {
            stop.gate = Gate::Open;
        }
        let stop = *stop;
        for index in 0..self.containers.len() {
            let running = stop.gate == Gate::Open
                && self.containers.get(index).is_some_and(|known| {
                    matches!(known.state, State::Running { .. } | State::PostStart { .. })
                });
            if running {
                self.begin_stop(index, StopCause::Pod, None, now, out);
            }
            self.tend_stop(index, now, out);
        }
        // One that the runtime was not asked for yet ends with the sandbox, whatever the runtime has of it.
        let waited_for = self.containers.iter().any(|known| {
            known.is_alive() && !matches!(known.state, State::Starting { issued: false, .. })
        });
        if waited_for && stop.limit > now.monotonic {
            return false;
        }
        self.stage = Stage::Teardown(TeardownStep::first());
        true
    }

    pub(super) fn on_withdrawn(&mut self) {
        if let Stage::Stopping(stop) = &mut self.stage {
            stop.gate = Gate::Open;
        }
    }

    /// Begins to stop one running instance; `grace` replaces the pod's.
    pub(super) fn begin_stop(
        &mut self,
        index: usize,
        cause: StopCause,
        grace: Option<Duration>,
        now: Now,
        out: &mut Vec<PodCommand>,
    ) {
        let grace = grace.unwrap_or_else(|| self.pod_grace());
        let began =
            if let Stage::Stopping(stop) = &self.stage { stop.began } else { now.monotonic };
        let hook = self.container_spec(index).and_then(|spec| spec.lifecycle.as_ref());
        let hook = hook.is_some_and(|lifecycle| lifecycle.pre_stop.is_some()) && !grace.is_zero();
        let Some(container) = self.containers.get_mut(index) else { return };
        let ready = cause == StopCause::Pod && container.readiness().ready;
        let (State::PostStart { run } | State::Running { run, .. }) = &container.state else {
            return;
        };
        let run = run.clone();
        out.push(container.normal("Killing", killing(cause, &container.name)));
        let instance = Instance { container: container.name.clone(), attempt: run.attempt };
        let deadline = began.saturating_add(grace);
        let step = if hook {
            out.push(PodCommand::RunHook { instance, hook: Hook::PreStop });
            StopStep::PreStop
        } else {
            signal(instance, deadline, grace, now, out)
        };
        container.state = State::Stopping { run, cause, step, deadline, ready };
    }

    /// Takes the next step of a stop whose time has come.
    pub(super) fn tend_stop(&mut self, index: usize, now: Now, out: &mut Vec<PodCommand>) {
        let Some(container) = self.containers.get_mut(index) else { return };
        let name = container.name.clone();
        let State::Stopping { run: Run { attempt, .. }, step, deadline, .. } = &mut container.state
        else {
            return;
        };
        let instance = Instance { container: name, attempt: *attempt };
        *step = match *step {
            StopStep::PreStop if *deadline <= now.monotonic => {
                signal(instance, deadline.saturating_add(SHORTEST_GRACE), SHORTEST_GRACE, now, out)
            }
            StopStep::Signalled { kill_at } if kill_at <= now.monotonic => kill(instance, now, out),
            StopStep::Killed { again_at } if again_at <= now.monotonic => kill(instance, now, out),
            unchanged @ (StopStep::PreStop
            | StopStep::Signalled { .. }
            | StopStep::Killed { .. }) => unchanged,
        };
    }

    pub(super) fn on_pre_stop_done(
        &mut self,
        index: usize,
        result: Result<(), String>,
        now: Now,
        out: &mut Vec<PodCommand>,
    ) {
        let Some(container) = self.containers.get_mut(index) else { return };
        if result.is_err()
            && matches!(container.state, State::Stopping { step: StopStep::PreStop, .. })
        {
            out.push(container.warning("FailedPreStopHook", "PreStopHook failed".to_owned()));
        }
        let name = container.name.clone();
        let State::Stopping { run, step, deadline, .. } = &mut container.state else { return };
        if *step == StopStep::PreStop {
            let instance = Instance { container: name, attempt: run.attempt };
            let kill_at = (*deadline).max(now.monotonic.saturating_add(SHORTEST_GRACE));
            *step = signal(instance, kill_at, SHORTEST_GRACE, now, out);
        }
    }

    /// A shorter grace, asked for while containers are being stopped, counts from the beginning of the stop.
    pub(super) fn shorten_stops(&mut self, now: Now) {
        let grace = self.pod_grace();
        let Stage::Stopping(stop) = &mut self.stage else { return };
        let end = stop.began.saturating_add(grace).max(now.monotonic);
        stop.limit = stop.limit.min(end.saturating_add(SHORTEST_GRACE).saturating_add(SLACK));
        if grace.is_zero() {
            stop.gate = Gate::Open;
        }
        for container in &mut self.containers {
            if let State::Stopping { step, deadline, .. } = &mut container.state {
                *deadline = (*deadline).min(end);
                if let StopStep::Signalled { kill_at } = step {
                    *kill_at = (*kill_at).min(end);
                }
            }
        }
    }

    /// Restarts containers whose image in the spec is not the one they run.
    pub(super) fn stop_redefined(&mut self, now: Now, out: &mut Vec<PodCommand>) {
        if self.intent != Intent::Run {
            return;
        }
        for index in 0..self.containers.len() {
            let wanted = self.container_spec(index).and_then(|spec| spec.image.clone());
            let other = self.containers.get(index).is_some_and(|known| {
                let runs = known.image.as_ref().map(|image| &image.requested);
                runs.is_some()
                    && runs != wanted.as_ref()
                    && matches!(known.state, State::Running { .. })
            });
            if other {
                self.begin_stop(index, StopCause::Definition, None, now, out);
            }
        }
    }

    /// Notes that everything which was alive has ended in this way, since the sandbox is gone.
    pub(super) fn end_all_alive(&mut self, loss: Loss, now: Now, out: &mut Vec<PodCommand>) {
        self.sandbox_ready = false;
        for index in 0..self.containers.len() {
            let Some(container) = self.containers.get_mut(index) else { return };
            if let State::Starting { attempt, created: false, .. } = &container.state
                && loss == Loss::Sandbox
            {
                // The shim would have said that it made it: the number is not used up.
                container.next = *attempt;
                container.state = State::Waiting;
                self.persist(now, out);
            } else if container.is_alive() {
                self.end(index, loss.ending(now), now, out);
            }
        }
    }

    /// How long the pod's containers have to end.
    fn pod_grace(&self) -> Duration {
        let seconds = if self.removed {
            Some(0)
        } else {
            let metadata = &self.pod.metadata;
            let deletion =
                metadata.deletion_timestamp.as_ref().and(metadata.deletion_grace_period_seconds);
            deletion.or_else(|| self.spec().and_then(|spec| spec.termination_grace_period_seconds))
        };
        let grace = seconds.map_or(30, |seconds| u64::try_from(seconds).unwrap_or(0));
        let grace = Duration::from_secs(grace);
        self.node_limit.map_or(grace, |limit| grace.min(limit))
    }
}

/// How instances ended whose end no shim recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Their sandbox was killed whole.
    Sandbox,
    /// Their machine stopped, and nothing is known.
    Machine,
}

impl Loss {
    fn ending(self, now: Now) -> Ending {
        let (code, message, reason, fault) = match self {
            Self::Sandbox => {
                (137, Some("The pod's sandbox was lost".to_owned()), "Error", Fault::Container)
            }
            Self::Machine => (255, None, "Unknown", Fault::Node),
        };
        let exit =
            Exit { code, oom_killed: false, started_at: None, finished_at: now.wall, message };
        Ending { exit, reason, fault }
    }
}

fn signal(
    instance: Instance,
    kill_at: Duration,
    grace: Duration,
    now: Now,
    out: &mut Vec<PodCommand>,
) -> StopStep {
    if grace.is_zero() {
        return kill(instance, now, out);
    }
    out.push(PodCommand::StopInstance { instance, force: false });
    StopStep::Signalled { kill_at }
}

fn kill(instance: Instance, now: Now, out: &mut Vec<PodCommand>) -> StopStep {
    out.push(PodCommand::StopInstance { instance, force: true });
    StopStep::Killed { again_at: now.monotonic.saturating_add(KILL_AGAIN) }
}

fn killing(cause: StopCause, container: &str) -> String {
    match cause {
        StopCause::Pod => format!("Stopping container {container}"),
        StopCause::Probe(kind) => {
            let kind = match kind {
                ProbeKind::Startup => "startup",
                ProbeKind::Liveness => "liveness",
                ProbeKind::Readiness => "readiness",
            };
            format!("Container {container} failed {kind} probe, will be restarted")
        }
        StopCause::PostStart => "FailedPostStartHook".to_owned(),
        StopCause::Definition => {
            format!("Container {container} definition changed, will be restarted")
        }
    }
}

/// Says that teardown goes on.
pub(super) fn failed_kill(message: &str) -> PodCommand {
    occurrence::warning("FailedKillPod", format!("error killing pod: {message}"))
}
