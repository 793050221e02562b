//! Commands that take time: each becomes a task of the node's life that changes the host and then reports.

use std::sync::Arc;

use futures::StreamExt;
use futures::channel::mpsc::{self, UnboundedSender};
use podium_control::pod::{
    ImageFacts, Instance, InstanceState, PodCommand, PodEvent, ProbeOutcome, PullFailure,
    StartStage,
};
use podium_types::k8s::api::core::v1::Pod;

use super::drawn;
use super::host::Host;
use crate::executor;
use crate::runtime::{Sleep, spawn};

/// A pod's commands that build up and tear down, one after the other.
pub(super) type Lane = UnboundedSender<(Arc<Pod>, PodCommand)>;

/// Opens the lane of a pod; it ends when its sender is dropped, or with the node's life.
pub(super) fn lane(host: &Host, finished: &UnboundedSender<(String, PodEvent)>, uid: &str) -> Lane {
    let (sender, mut commands) = mpsc::unbounded::<(Arc<Pod>, PodCommand)>();
    let (host, finished, uid) = (host.clone(), finished.clone(), uid.to_owned());
    drop(spawn(async move {
        while let Some((pod, command)) = commands.next().await {
            let effect =
                Effect { host: host.clone(), uid: uid.clone(), pod, finished: finished.clone() };
            effect.run(command).await;
        }
    }));
    sender
}

/// Starts an effect, in the pod's lane where order matters. Its answer goes to `finished`, unless the node loses power.
pub(super) fn start(
    host: &Host,
    finished: &UnboundedSender<(String, PodEvent)>,
    lane: &Lane,
    uid: &str,
    (pod, command): (&Arc<Pod>, PodCommand),
) {
    if builds(&command) {
        drop(lane.unbounded_send((pod.clone(), command)));
        return;
    }
    let effect = Effect {
        host: host.clone(),
        uid: uid.to_owned(),
        pod: pod.clone(),
        finished: finished.clone(),
    };
    drop(spawn(async move { effect.run(command).await }));
}

fn builds(command: &PodCommand) -> bool {
    matches!(
        command,
        PodCommand::PrepareVolumes
            | PodCommand::StartSandbox
            | PodCommand::AttachNetwork
            | PodCommand::RunInstance(_)
            | PodCommand::StopSandbox
            | PodCommand::DetachNetwork
            | PodCommand::RemoveVolumes
    )
}

#[derive(Clone)]
struct Effect {
    host: Host,
    uid: String,
    pod: Arc<Pod>,
    finished: UnboundedSender<(String, PodEvent)>,
}

impl Effect {
    fn answer(&self, event: PodEvent) {
        drop(self.finished.unbounded_send((self.uid.clone(), event)));
    }

    async fn run(self, command: PodCommand) {
        match command {
            PodCommand::PrepareVolumes => self.after(5, 40, PodEvent::VolumesReady).await,
            PodCommand::StartSandbox => {
                Sleep::after(drawn(20, 150)).await;
                if self.host.fails_one_in(40) {
                    return self.answer(PodEvent::SandboxFailed {
                        message: "no memory for the shim".into(),
                    });
                }
                self.host.start_sandbox(&self.uid);
                self.answer(PodEvent::SandboxStarted);
            }
            PodCommand::AttachNetwork => {
                Sleep::after(drawn(5, 50)).await;
                let addresses = vec![self.host.attach(&self.uid)];
                self.answer(PodEvent::NetworkAttached { addresses });
            }
            PodCommand::InspectImage { container, image } => {
                let found = self.host.has_image(&image).then(|| facts(&image));
                self.after(1, 5, PodEvent::ImageInspected { container, found }).await;
            }
            PodCommand::PullImage { container, image } => self.pull(container, image).await,
            PodCommand::RunInstance(instance) => self.run_instance(instance).await,
            PodCommand::RunHook { instance, hook } => {
                self.after(5, 500, PodEvent::HookFinished { instance, hook, result: Ok(()) }).await;
            }
            PodCommand::RunProbe { instance, probe } => {
                let bad = self.host.fails_one_in(50);
                let outcome = if bad {
                    ProbeOutcome::Failure("refused".into())
                } else {
                    ProbeOutcome::Success
                };
                self.after(1, 20, PodEvent::ProbeFinished { instance, probe, outcome }).await;
            }
            PodCommand::StopInstance { instance, force } => {
                self.stop_instance(instance, force).await;
            }
            PodCommand::WithdrawEndpoint => self.after(5, 300, PodEvent::EndpointWithdrawn).await,
            PodCommand::StopSandbox => {
                Sleep::after(drawn(5, 100)).await;
                self.host.stop_sandbox(&self.uid);
                self.answer(PodEvent::SandboxStopped);
            }
            PodCommand::DetachNetwork => {
                Sleep::after(drawn(1, 20)).await;
                self.host.detach(&self.uid);
                self.answer(PodEvent::NetworkDetached);
            }
            PodCommand::RemoveVolumes => self.after(1, 20, PodEvent::VolumesRemoved).await,
            PodCommand::Persist(_)
            | PodCommand::RemoveInstance(_)
            | PodCommand::ReportStatus(_)
            | PodCommand::Record(_)
            | PodCommand::DeleteObject
            | PodCommand::Forget => {}
        }
    }

    async fn after(&self, low_ms: u64, high_ms: u64, event: PodEvent) {
        Sleep::after(drawn(low_ms, high_ms)).await;
        self.answer(event);
    }

    async fn pull(&self, container: String, image: String) {
        let took = drawn(100, 4_000);
        Sleep::after(took).await;
        if self.host.fails_one_in(10) {
            let message = "the registry does not answer".to_owned();
            return self.answer(PodEvent::ImagePullFailed {
                container,
                failure: PullFailure::Failed,
                message,
            });
        }
        self.host.keep_image(&image);
        self.answer(PodEvent::ImagePulled { container, image: facts(&image), took });
    }

    async fn run_instance(&self, instance: Instance) {
        Sleep::after(drawn(10, 100)).await;
        match self.host.instance(&self.uid, &instance) {
            Some(InstanceState::Exited(exit)) => {
                return self.answer(PodEvent::InstanceExited { instance, exit });
            }
            Some(InstanceState::Running { started_at }) => {
                self.answer(PodEvent::InstanceCreated(instance.clone()));
                return self.answer(PodEvent::InstanceStarted { instance, started_at });
            }
            Some(InstanceState::Created) | None => {}
        }
        if self.host.fails_one_in(60) {
            let message = "the mount failed".to_owned();
            return self.answer(PodEvent::StartFailed {
                instance,
                stage: StartStage::Create,
                message,
            });
        }
        if !self.host.set_instance(&self.uid, &instance, InstanceState::Created) {
            let message = "there is no sandbox".to_owned();
            return self.answer(PodEvent::StartFailed {
                instance,
                stage: StartStage::Create,
                message,
            });
        }
        self.answer(PodEvent::InstanceCreated(instance.clone()));
        Sleep::after(drawn(5, 50)).await;
        let started_at = wall();
        if self.host.set_instance(&self.uid, &instance, InstanceState::Running { started_at }) {
            self.answer(PodEvent::InstanceStarted { instance: instance.clone(), started_at });
            let effect = self.clone();
            drop(spawn(async move { effect.live(instance).await }));
        }
    }

    /// Some containers end by themselves: jobs well, others badly.
    async fn live(&self, instance: Instance) {
        let restart = self.pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        let (ends, code) = match restart {
            Some("Never" | "OnFailure") => (true, i32::from(self.host.fails_one_in(4))),
            _ => (self.host.fails_one_in(8), 1),
        };
        if !ends {
            return;
        }
        Sleep::after(drawn(500, 60_000)).await;
        if code == 0 || self.host.fails_one_in(1) {
            self.end(instance, code);
        }
    }

    async fn stop_instance(&self, instance: Instance, force: bool) {
        if force {
            Sleep::after(drawn(1, 10)).await;
            return self.end(instance, 137);
        }
        // One program in eight ignores the signal; the machine has to force it.
        if executor::with(|core| core.one_in(8)) {
            return;
        }
        Sleep::after(drawn(10, 3_000)).await;
        self.end(instance, 143);
    }

    fn end(&self, instance: Instance, code: i32) {
        if let Some(exit) = self.host.end(&self.uid, &instance, code, wall()) {
            self.answer(PodEvent::InstanceExited { instance, exit });
        }
    }
}

fn wall() -> jiff::Timestamp {
    executor::with(|core| {
        let now = core.now();
        core.clock(core.current().node, |clock| clock.read(now)).wall
    })
}

fn facts(image: &str) -> ImageFacts {
    ImageFacts {
        requested: image.to_owned(),
        name: format!("docker.io/library/{image}"),
        id: format!("docker.io/library/{image}@sha256:{:064x}", image.len()),
        size_bytes: 1 << 20,
    }
}
