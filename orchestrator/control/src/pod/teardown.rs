//! Taking down what the setup made, and the end of the pod.

use std::time::Duration;

use podium_types::Now;

use super::back_off::SETUP;
use super::container::State;
use super::interface::PodCommand;
use super::setup::SetupStep;
use super::stop::{Loss, failed_kill};
use super::{Intent, PodMachine, Stage};

/// How often the deletion of the object is asked for again; the API may be without a leader for a while.
const DELETE_AGAIN: Duration = Duration::from_secs(10);

/// The step of the teardown that is next or under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TeardownStep {
    what: What,
    progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Sandbox,
    Network,
    Volumes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Due { at: Duration },
    Running,
}

/// What a teardown command brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    Sandbox,
    Network,
    Volumes,
}

impl TeardownStep {
    /// The whole teardown; how far it goes is decided on the way.
    pub(super) fn first() -> Self {
        Self { what: What::Sandbox, progress: Progress::Due { at: Duration::ZERO } }
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
    pub(super) fn drive_teardown(&mut self, now: Now, out: &mut Vec<PodCommand>) -> bool {
        let Stage::Teardown(step) = &mut self.stage else { return false };
        let Progress::Due { at } = step.progress else { return false };
        if at > now.monotonic {
            return false;
        }
        step.progress = Progress::Running;
        out.push(match step.what {
            What::Sandbox => PodCommand::StopSandbox,
            What::Network => PodCommand::DetachNetwork,
            What::Volumes => PodCommand::RemoveVolumes,
        });
        false
    }

    pub(super) fn on_torn_down(&mut self, done: Done, now: Now, out: &mut Vec<PodCommand>) {
        let Stage::Teardown(step) = &self.stage else { return };
        let step = *step;
        let next = match (step.what, done) {
            _ if step.progress != Progress::Running => return,
            (What::Sandbox, Done::Sandbox) => {
                self.end_all_alive(Loss::Sandbox, now, out);
                self.sandbox_ready = false;
                Some(What::Network)
            }
            // A pod that comes back, in this boot or the next, finds its volumes as it left them.
            (What::Network, Done::Network) => {
                (self.intent >= Intent::Finish).then_some(What::Volumes)
            }
            (What::Volumes, Done::Volumes) => None,
            (What::Sandbox | What::Network | What::Volumes, _) => return,
        };
        self.retries.reset();
        self.stage = match next {
            Some(what) => Stage::Teardown(TeardownStep {
                what,
                progress: Progress::Due { at: Duration::ZERO },
            }),
            None => self.after_teardown(now, out),
        };
    }

    fn after_teardown(&mut self, now: Now, out: &mut Vec<PodCommand>) -> Stage {
        match self.intent {
            Intent::Run => Stage::Setup(SetupStep::first()),
            Intent::Halt => {
                self.persist(now, out);
                Stage::Halted
            }
            Intent::Finish => {
                self.close_unstarted();
                self.persist(now, out);
                Stage::Finished
            }
            Intent::Delete => {
                self.close_unstarted();
                Stage::Deleting { again_at: now.monotonic }
            }
        }
    }

    pub(super) fn on_teardown_failed(
        &mut self,
        message: &str,
        now: Now,
        out: &mut Vec<PodCommand>,
    ) {
        let Stage::Teardown(step) = &mut self.stage else { return };
        if step.progress != Progress::Running {
            return;
        }
        self.retries.raise(now.monotonic, now.monotonic);
        let delay = self.retries.current().map_or(SETUP.first, |(delay, _)| delay);
        step.progress = Progress::Due { at: now.monotonic.saturating_add(delay) };
        out.push(failed_kill(message));
    }

    /// A pod at rest is waked only by its deletion.
    pub(super) fn leave_rest(&mut self, now: Now) -> bool {
        if self.intent < Intent::Delete {
            return false;
        }
        // A pod that was only halted still has its volumes.
        self.stage = if matches!(self.stage, Stage::Halted) {
            Stage::Teardown(TeardownStep::first())
        } else {
            Stage::Deleting { again_at: now.monotonic }
        };
        true
    }

    /// Asks for the object's deletion, and forgets the pod when it is gone.
    pub(super) fn drive_deletion(
        &mut self,
        due: bool,
        now: Now,
        out: &mut Vec<PodCommand>,
    ) -> bool {
        if self.removed {
            out.push(PodCommand::Forget);
            self.stage = Stage::Gone;
        } else if due {
            self.stage = Stage::Deleting { again_at: now.monotonic.saturating_add(DELETE_AGAIN) };
            self.report(now, out);
            out.push(PodCommand::DeleteObject);
        }
        false
    }

    /// Nothing starts any more: whoever waited to has come to its end too.
    fn close_unstarted(&mut self) {
        for container in &mut self.containers {
            if !container.is_alive() {
                container.state = State::Done;
            }
        }
    }
}
