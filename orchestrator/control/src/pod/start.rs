//! Starting containers, watching them run, and deciding what follows their end.

use std::time::Duration;

use jiff::Timestamp;
use podium_types::Now;

use super::back_off::{RESTART, print_delay};
use super::container::{Role, Run, State, StopCause, monotonic_of};
use super::interface::{Exit, Hook, Instance, PodCommand, ProbeKind, ProbeOutcome, StartStage};
use super::probe::{Finding, Probes};
use super::record::Termination;
use super::{Intent, PodMachine, Stage};

/// On whose account a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its own, or nobody's: it counts as a crash.
    Container,
    /// The node was shut down or lost power: the pod should be back as soon as the node is, however often.
    Node,
}

/// The end of an instance, to be noted.
pub(super) struct Ending {
    pub(super) exit: Exit,
    pub(super) reason: &'static str,
    pub(super) fault: Fault,
}

/// What the decision about a next instance depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct After {
    pub(super) code: i32,
    /// Monotonic.
    pub(super) failed_at: Duration,
    pub(super) fault: Fault,
}

impl PodMachine {
    /// Starts what may start, in the order of the spec: init containers one after the other, then the others, each
    /// when the one before it has its process and its postStart hook behind it.
    pub(super) fn drive_containers(&mut self, now: Now, out: &mut Vec<PodCommand>) {
        if !self.may_start() {
            return;
        }
        let initialized = self.initialized();
        for index in 0..self.containers.len() {
            let Some(container) = self.containers.get(index) else { return };
            if container.role == Role::Main && !initialized {
                return;
            }
            match &container.state {
                State::Waiting => self.inspect_image(index, out),
                State::Fetched => self.launch(index, now, out),
                State::Starting { attempt, created, issued: false } => {
                    self.launch_again(index, *attempt, *created, out);
                }
                State::Inspecting
                | State::Pulling
                | State::PullFailed { .. }
                | State::PullBackOff { .. }
                | State::Starting { .. }
                | State::Refused { .. }
                | State::PostStart { .. }
                | State::Running { .. }
                | State::Stopping { .. }
                | State::CrashLoop { .. }
                | State::Done => {}
            }
            let Some(container) = self.containers.get(index) else { return };
            let blocks = match container.role {
                Role::Init => !container.succeeded(),
                Role::Main => container.holds_up_the_next(),
            };
            if blocks {
                return;
            }
        }
    }

    /// Does for every container what is due by the clock.
    pub(super) fn tend(&mut self, now: Now, out: &mut Vec<PodCommand>) {
        for index in 0..self.containers.len() {
            self.tend_fetch(index, now, out);
            self.tend_stop(index, now, out);
            let Some(container) = self.containers.get_mut(index) else { return };
            if let State::Refused { retry_at, .. } = &container.state
                && *retry_at <= now.monotonic
            {
                container.state = State::Waiting;
            } else if let State::CrashLoop { failed_at, until, .. } = &container.state
                && *until <= now.monotonic
            {
                container.crash.raise(*failed_at, now.monotonic);
                container.state = State::Waiting;
            } else if let State::Running { run, probes } = &mut container.state {
                let instance = Instance { container: container.name.clone(), attempt: run.attempt };
                let due = probes.due(now.monotonic).into_iter();
                out.extend(
                    due.map(|probe| PodCommand::RunProbe { instance: instance.clone(), probe }),
                );
            }
        }
    }

    /// Hands a new attempt to the runtime, after its number is on disk.
    fn launch(&mut self, index: usize, now: Now, out: &mut Vec<PodCommand>) {
        let Some(container) = self.containers.get_mut(index) else { return };
        let instance = Instance { container: container.name.clone(), attempt: container.next };
        container.state = State::Starting { attempt: container.next, created: false, issued: true };
        container.next = container.next.saturating_add(1);
        self.persist(now, out);
        out.push(PodCommand::RunInstance(instance));
    }

    fn launch_again(
        &mut self,
        index: usize,
        attempt: u32,
        created: bool,
        out: &mut Vec<PodCommand>,
    ) {
        let Some(container) = self.containers.get_mut(index) else { return };
        container.state = State::Starting { attempt, created, issued: true };
        out.push(PodCommand::RunInstance(Instance { container: container.name.clone(), attempt }));
    }

    pub(super) fn on_created(&mut self, instance: &Instance, out: &mut Vec<PodCommand>) {
        let Some(index) = self.index_of_instance(instance) else { return };
        let Some(container) = self.containers.get_mut(index) else { return };
        if let State::Starting { attempt, created, .. } = &mut container.state
            && !*created
        {
            *created = true;
            container.newest = *attempt;
            out.push(container.normal("Created", "Container created".to_owned()));
        }
    }

    pub(super) fn on_started(
        &mut self,
        instance: &Instance,
        started_at: Timestamp,
        now: Now,
        out: &mut Vec<PodCommand>,
    ) {
        let Some(index) = self.index_of_instance(instance) else { return };
        let Some(spec) = self.container_spec(index) else { return };
        let probes = Probes::new(spec, monotonic_of(started_at, now));
        let hook = spec.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.post_start.is_some());
        let Some(container) = self.containers.get_mut(index) else { return };
        let State::Starting { attempt, .. } = container.state else { return };
        let run = Run { attempt, started_at };
        container.newest = attempt;
        container.create.reset();
        container.previous = container.ended.take().or(container.previous.take());
        out.push(container.normal("Started", "Container started".to_owned()));
        container.state = if hook && self.intent == Intent::Run {
            out.push(PodCommand::RunHook { instance: instance.clone(), hook: Hook::PostStart });
            State::PostStart { run }
        } else {
            State::Running { run, probes }
        };
    }

    pub(super) fn on_start_failed(
        &mut self,
        instance: &Instance,
        stage: StartStage,
        message: String,
        now: Now,
        out: &mut Vec<PodCommand>,
    ) {
        let Some(index) = self.index_of_instance(instance) else { return };
        let Some(container) = self.containers.get_mut(index) else { return };
        let State::Starting { attempt, .. } = container.state else { return };
        out.push(container.warning("Failed", format!("Error: {message}")));
        let reason = match stage {
            StartStage::Config => "CreateContainerConfigError",
            StartStage::Create => "CreateContainerError",
            StartStage::Start => {
                let finished_at = now.wall;
                let exit = Exit {
                    code: 128,
                    oom_killed: false,
                    started_at: None,
                    finished_at,
                    message: Some(message),
                };
                self.end(
                    index,
                    Ending { exit, reason: "StartError", fault: Fault::Container },
                    now,
                    out,
                );
                return;
            }
        };
        container.create.raise(now.monotonic, now.monotonic);
        let delay = container.create.current().map_or(RESTART.first, |(delay, _)| delay);
        container.next = attempt;
        container.state =
            State::Refused { reason, message, retry_at: now.monotonic.saturating_add(delay) };
        self.persist(now, out);
    }

    pub(super) fn on_exited(
        &mut self,
        instance: &Instance,
        exit: Exit,
        now: Now,
        out: &mut Vec<PodCommand>,
    ) {
        let Some(index) = self.index_of_instance(instance) else { return };
        let reason = match (exit.oom_killed, exit.code) {
            (true, _) => "OOMKilled",
            (false, 0) => "Completed",
            (false, _) => "Error",
        };
        // Whoever stops the node is not the container's fault.
        let fault = if self.intent == Intent::Halt { Fault::Node } else { Fault::Container };
        self.end(index, Ending { exit, reason, fault }, now, out);
    }

    /// Notes the end of the current instance, on disk too, and decides what follows.
    pub(super) fn end(
        &mut self,
        index: usize,
        ending: Ending,
        now: Now,
        out: &mut Vec<PodCommand>,
    ) {
        let Ending { mut exit, reason, fault } = ending;
        let Some(container) = self.containers.get_mut(index) else { return };
        let Some(instance) = container.instance() else { return };
        let cause =
            if let State::Stopping { cause, .. } = &container.state { Some(*cause) } else { None };
        if let State::Stopping { run, .. } | State::PostStart { run } | State::Running { run, .. } =
            &container.state
        {
            exit.started_at = exit.started_at.or(Some(run.started_at));
        }
        if let Some(before) = container.ended.take() {
            container.previous = Some(before);
        }
        container.newest = instance.attempt;
        let after =
            After { code: exit.code, failed_at: monotonic_of(exit.finished_at, now), fault };
        container.ended =
            Some(Termination { attempt: instance.attempt, exit, reason: reason.to_owned() });
        container.state = State::Waiting;
        match cause {
            Some(StopCause::Definition) => self.restart(index, after, now, out),
            Some(StopCause::Probe(_) | StopCause::PostStart)
                if self.restart_policy() != "Never" =>
            {
                self.restart(index, after, now, out);
            }
            Some(StopCause::Probe(_) | StopCause::PostStart | StopCause::Pod) | None => {
                self.decide_after_end(index, after, now, out);
            }
        }
        self.persist(now, out);
        out.push(PodCommand::RemoveInstance(instance));
    }

    /// Applies the restart policy to a container that ended by itself, or with its pod.
    pub(super) fn decide_after_end(
        &mut self,
        index: usize,
        after: After,
        now: Now,
        out: &mut Vec<PodCommand>,
    ) {
        let Some(container) = self.containers.get(index) else { return };
        let again = match (container.role, self.restart_policy()) {
            (_, "Never") => false,
            (Role::Init, _) | (Role::Main, "OnFailure") => after.code != 0,
            (Role::Main, _) => true,
        };
        let ending = self.intent >= Intent::Finish;
        if again && !ending {
            self.restart(index, after, now, out);
        } else {
            self.set_state(index, State::Done);
        }
    }

    /// Starts the container again: at once the first time and after an end that the node brought about, later after a
    /// delay.
    fn restart(&mut self, index: usize, after: After, now: Now, out: &mut Vec<PodCommand>) {
        let title = self.title();
        let quiet = self.intent != Intent::Run
            || matches!(self.stage, Stage::Stopping(_) | Stage::Teardown(_));
        let Some(container) = self.containers.get_mut(index) else { return };
        if after.fault == Fault::Node {
            container.state = State::Waiting;
            return;
        }
        let failed_at = after.failed_at;
        match container.crash.wait_until(failed_at).filter(|until| *until > now.monotonic) {
            Some(until) => {
                let delay = container.crash.current().map_or(RESTART.first, |(delay, _)| delay);
                if !quiet {
                    let text = format!(
                        "Back-off restarting failed container {} in pod {title}",
                        container.name
                    );
                    out.push(container.warning("BackOff", text));
                }
                container.state = State::CrashLoop { failed_at, until, delay };
            }
            None => {
                container.crash.raise(failed_at, now.monotonic);
                container.state = State::Waiting;
            }
        }
    }

    pub(super) fn on_hook(
        &mut self,
        instance: &Instance,
        hook: Hook,
        result: Result<(), String>,
        now: Now,
        out: &mut Vec<PodCommand>,
    ) {
        let Some(index) = self.index_of_instance(instance) else { return };
        match hook {
            Hook::PreStop => self.on_pre_stop_done(index, result, now, out),
            Hook::PostStart => self.on_post_start_done(index, result, now, out),
        }
    }

    fn on_post_start_done(
        &mut self,
        index: usize,
        result: Result<(), String>,
        now: Now,
        out: &mut Vec<PodCommand>,
    ) {
        let Some(spec) = self.container_spec(index) else { return };
        let Some(State::PostStart { run }) =
            self.containers.get(index).map(|known| known.state.clone())
        else {
            return;
        };
        let probes = Probes::new(spec, monotonic_of(run.started_at, now));
        self.set_state(index, State::Running { run, probes });
        if result.is_err() {
            let Some(container) = self.containers.get(index) else { return };
            out.push(container.warning("FailedPostStartHook", "PostStartHook failed".to_owned()));
            self.begin_stop(index, StopCause::PostStart, None, now, out);
        }
    }

    pub(super) fn on_probe(
        &mut self,
        instance: &Instance,
        kind: ProbeKind,
        outcome: &ProbeOutcome,
        now: Now,
        out: &mut Vec<PodCommand>,
    ) {
        let Some(index) = self.index_of_instance(instance) else { return };
        let Some(container) = self.containers.get_mut(index) else { return };
        let State::Running { probes, .. } = &mut container.state else { return };
        let finding = probes.answer(kind, outcome, now.monotonic);
        match outcome {
            ProbeOutcome::Success => {}
            ProbeOutcome::Failure(text) => {
                out.push(
                    container
                        .warning("Unhealthy", format!("{} probe failed: {text}", kind.title())),
                );
            }
            ProbeOutcome::Unknown(text) => {
                let message =
                    format!("{} probe errored and resulted in unknown state: {text}", kind.title());
                out.push(container.warning("Unhealthy", message));
            }
        }
        if let Finding::Restart(kind) = finding {
            let grace = self.probe_grace(index, kind);
            self.begin_stop(index, StopCause::Probe(kind), grace, now, out);
        }
    }

    fn probe_grace(&self, index: usize, kind: ProbeKind) -> Option<Duration> {
        let spec = self.container_spec(index)?;
        let probe = match kind {
            ProbeKind::Startup => spec.startup_probe.as_ref(),
            ProbeKind::Liveness => spec.liveness_probe.as_ref(),
            ProbeKind::Readiness => spec.readiness_probe.as_ref(),
        };
        let seconds = probe?.termination_grace_period_seconds?;
        u64::try_from(seconds).ok().map(Duration::from_secs)
    }
}

/// The delay as the status of a crash-looping container shows it.
pub(super) fn crash_loop_message(delay: Duration, container: &str, pod: &str) -> String {
    format!("back-off {} restarting failed container={container} pod={pod}", print_delay(delay))
}
