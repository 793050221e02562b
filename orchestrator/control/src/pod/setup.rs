//! Making what containers need: volumes, then the sandbox, then its network. And taking over what is there already.

use std::net::IpAddr;
use std::time::Duration;

use podium_types::Now;

use super::back_off::SETUP;
use super::container::{Run, State};
use super::interface::{Instance, PodCommand};
use super::probe::Probes;
use super::record::{InstanceState, PodRecord, Sandbox};
use super::start::{After, Fault};
use super::status::container_id;
use super::stop::Loss;
use super::teardown::TeardownStep;
use super::{Intent, PodMachine, Stage, container::monotonic_of, occurrence};

/// The step of the setup that is next or under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SetupStep {
    what: What,
    progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Volumes,
    Sandbox,
    Network,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Due { at: Duration },
    Running,
}

/// What a setup command brought about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Done {
    Volumes,
    Sandbox,
    Network(Vec<IpAddr>),
}

/// Which setup command failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    Volumes,
    Sandbox,
    Network,
}

impl SetupStep {
    /// The whole setup.
    pub(super) fn first() -> Self {
        Self { what: What::Volumes, progress: Progress::Due { at: Duration::ZERO } }
    }

    pub(super) fn next_wake(&self) -> Option<Duration> {
        match self.progress {
            Progress::Due { at } => Some(at),
            Progress::Running => None,
        }
    }
}

impl PodMachine {
    /// Issues the step that is due.
    pub(super) fn drive_setup(&mut self, now: Now, out: &mut Vec<PodCommand>) -> bool {
        let Stage::Setup(step) = &mut self.stage else { return false };
        let Progress::Due { at } = step.progress else { return false };
        if at > now.monotonic {
            return false;
        }
        step.progress = Progress::Running;
        out.push(match step.what {
            What::Volumes => PodCommand::PrepareVolumes,
            What::Sandbox => PodCommand::StartSandbox,
            What::Network => PodCommand::AttachNetwork,
        });
        false
    }

    pub(super) fn on_setup_done(&mut self, done: Done) {
        let Stage::Setup(step) = &self.stage else { return };
        if step.progress != Progress::Running {
            return;
        }
        let next = match (step.what, done) {
            (What::Volumes, Done::Volumes) => Some(What::Sandbox),
            (What::Sandbox, Done::Sandbox) => Some(What::Network),
            (What::Network, Done::Network(addresses)) => {
                self.addresses = addresses;
                self.sandbox_ready = true;
                None
            }
            (What::Volumes | What::Sandbox | What::Network, _) => return,
        };
        self.retries.reset();
        self.stage = match next {
            Some(what) => {
                Stage::Setup(SetupStep { what, progress: Progress::Due { at: Duration::ZERO } })
            }
            None => Stage::Active,
        };
    }

    pub(super) fn on_setup_failed(
        &mut self,
        failed: Failed,
        message: &str,
        now: Now,
        out: &mut Vec<PodCommand>,
    ) {
        let Stage::Setup(step) = &mut self.stage else { return };
        let expected = match step.what {
            What::Volumes => Failed::Volumes,
            What::Sandbox => Failed::Sandbox,
            What::Network => Failed::Network,
        };
        if step.progress != Progress::Running || expected != failed {
            return;
        }
        self.retries.raise(now.monotonic, now.monotonic);
        let delay = self.retries.current().map_or(SETUP.first, |(delay, _)| delay);
        step.progress = Progress::Due { at: now.monotonic.saturating_add(delay) };
        out.push(match failed {
            Failed::Volumes => occurrence::warning("FailedMount", message.to_owned()),
            Failed::Sandbox | Failed::Network => occurrence::warning(
                "FailedCreatePodSandBox",
                format!("Failed to create pod sandbox: {message}"),
            ),
        });
    }

    /// Something that a failed step may have waited for is there: no need to wait for its delay.
    pub(super) fn retry_at_once(&mut self, now: Duration) {
        if let Stage::Setup(SetupStep { progress: Progress::Due { at }, .. }) = &mut self.stage {
            *at = (*at).min(now);
        }
        for container in &mut self.containers {
            if let State::Refused { retry_at, .. } = &mut container.state {
                *retry_at = (*retry_at).min(now);
            }
        }
    }

    /// The shim died: what ran is dead, and a new sandbox is made unless the pod is ending anyway.
    pub(super) fn on_sandbox_lost(&mut self, now: Now, out: &mut Vec<PodCommand>) {
        match &self.stage {
            Stage::Active | Stage::Setup(SetupStep { what: What::Network, .. }) => {}
            Stage::Setup(SetupStep { what: What::Volumes | What::Sandbox, .. }) if self.alive() => {
            }
            Stage::Stopping(_) => {
                self.end_all_alive(Loss::Sandbox, now, out);
                return;
            }
            Stage::Setup(_)
            | Stage::Teardown(_)
            | Stage::Finished
            | Stage::Halted
            | Stage::Deleting { .. }
            | Stage::Gone => return,
        }
        self.end_all_alive(Loss::Sandbox, now, out);
        self.rebuild(out);
    }

    /// Goes back to a new sandbox. Init containers run again, as they may have prepared what only the old one had.
    fn rebuild(&mut self, out: &mut Vec<PodCommand>) {
        let main_left = self
            .containers
            .iter()
            .any(|known| known.role == super::Role::Main && !matches!(known.state, State::Done));
        if self.intent != Intent::Run || !main_left {
            return;
        }
        for container in &mut self.containers {
            if container.role == super::Role::Init && container.succeeded() {
                container.state = State::Waiting;
            }
        }
        if self.containers.iter().any(|known| known.next > 0) {
            let text = "Pod sandbox changed, it will be killed and re-created.";
            out.push(occurrence::normal("SandboxChanged", text.to_owned()));
        }
        self.stage = Stage::Teardown(TeardownStep::first());
    }

    /// Continues where an earlier run of the node program, or an earlier boot, left off.
    pub(super) fn take_over(
        &mut self,
        record: PodRecord,
        sandbox: Option<Sandbox>,
        now: Now,
        out: &mut Vec<PodCommand>,
    ) {
        let record = record.into_latest();
        self.addresses = record.addresses;
        self.started_at = record.started_at.unwrap_or(self.started_at);
        self.note_wishes(now);
        let alive = sandbox.as_ref().is_some_and(|sandbox| sandbox.alive);
        self.sandbox_ready = alive && !self.addresses.is_empty();
        let mut records = record.containers;
        for index in 0..self.containers.len() {
            let Some(container) = self.containers.get_mut(index) else { continue };
            let Some(record) = records.remove(&container.name) else { continue };
            let (running, crash_looping) = (record.running, record.crash_looping);
            container.restore(record, now);
            match running {
                Some(attempt) => {
                    self.take_over_instance(index, attempt, sandbox.as_ref(), now, out);
                }
                None if crash_looping => self.resume_crash_loop(index, now, out),
                None => {}
            }
        }
        if self.phase.is_terminal() {
            self.stage = Stage::Teardown(TeardownStep::first());
        } else if !alive {
            self.end_all_alive(
                if sandbox.is_some() { Loss::Sandbox } else { Loss::Machine },
                now,
                out,
            );
            self.note_end();
            self.rebuild(out);
        }
    }

    fn take_over_instance(
        &mut self,
        index: usize,
        attempt: u32,
        sandbox: Option<&Sandbox>,
        now: Now,
        out: &mut Vec<PodCommand>,
    ) {
        let Some(container) = self.containers.get(index) else { return };
        let instance = Instance { container: container.name.clone(), attempt };
        let found = sandbox.and_then(|sandbox| sandbox.instances.get(&instance)).cloned();
        let starting = |created| State::Starting { attempt, created, issued: false };
        match found {
            Some(InstanceState::Running { started_at }) => {
                self.take_over_running(index, Run { attempt, started_at }, now);
            }
            Some(InstanceState::Exited(exit)) => {
                self.set_state(index, starting(true));
                self.on_exited(&instance, exit, now, out);
            }
            Some(InstanceState::Created) => {
                self.set_state(index, starting(true));
                if let Some(container) = self.containers.get_mut(index) {
                    container.newest = attempt;
                }
            }
            // A shim that answers would know it; of one that is dead, the worst is assumed, since a number that was used
            // must not be used again.
            None => self.set_state(index, starting(sandbox.is_none_or(|sandbox| !sandbox.alive))),
        }
    }

    fn take_over_running(&mut self, index: usize, run: Run, now: Now) {
        let Some(spec) = self.container_spec(index) else { return };
        let mut probes = Probes::new(spec, monotonic_of(run.started_at, now));
        let id = container_id(
            self.uid(),
            &Instance { container: spec.name.clone(), attempt: run.attempt },
        );
        let status = self.pod.status.as_ref();
        let known =
            status.and_then(|status| status.container_statuses.as_ref()).and_then(|statuses| {
                statuses.iter().find(|known| known.container_id.as_deref() == Some(&id))
            });
        if let Some(known) = known {
            probes.inherit(known.started == Some(true), known.ready);
        }
        if let Some(container) = self.containers.get_mut(index) {
            container.newest = run.attempt;
            container.previous = container.ended.take().or(container.previous.take());
            container.state = State::Running { run, probes };
        }
    }

    /// A container that waited out a delay when the node program ended waits out the rest of it.
    fn resume_crash_loop(&mut self, index: usize, now: Now, out: &mut Vec<PodCommand>) {
        let end = self.containers.get(index).and_then(|container| container.ended.clone());
        if let Some(end) = end {
            let failed_at = monotonic_of(end.exit.finished_at, now);
            let after = After { code: end.exit.code, failed_at, fault: Fault::Container };
            self.decide_after_end(index, after, now, out);
        }
    }

    pub(super) fn alive(&self) -> bool {
        self.containers.iter().any(super::Container::is_alive)
    }

    pub(super) fn set_state(&mut self, index: usize, state: State) {
        if let Some(container) = self.containers.get_mut(index) {
            container.state = state;
        }
    }
}
