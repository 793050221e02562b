//! The status of the pod as its node reports it.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use podium_types::Now;
use podium_types::k8s::api::core::v1::{
    self as core, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, PodCondition, PodIP, PodStatus,
};
use podium_types::k8s::apimachinery::pkg::apis::meta::v1::Time;

use super::conditions::OWNED;
use super::container::{Container, Role, Run, State};
use super::interface::{Instance, PodCommand};
use super::record::Termination;
use super::start::crash_loop_message;
use super::{Intent, PodMachine, Stage, qos_class};
use crate::pods;

/// Where a pod is in its life. The order is the only one in which a phase may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not all containers have been started.
    Pending,
    /// All have been, and some run or will run again.
    Running,
    /// All ended well.
    Succeeded,
    /// All ended, and not all well; or the node refused the pod.
    Failed,
}

impl Phase {
    /// The phase that a status shows; an empty one is pending.
    #[must_use]
    pub fn of(status: Option<&PodStatus>) -> Self {
        match status.and_then(|status| status.phase.as_deref()) {
            Some("Running") => Self::Running,
            Some("Succeeded") => Self::Succeeded,
            Some("Failed") => Self::Failed,
            Some(_) | None => Self::Pending,
        }
    }

    /// The pod's containers will not run again.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Pending | Self::Running => false,
            Self::Succeeded | Self::Failed => true,
        }
    }

    /// The word of the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

/// The id of an instance as the status shows it: unique in the cluster, and made of what people look for.
#[must_use]
pub fn container_id(pod_uid: &str, instance: &Instance) -> String {
    format!("podium://{pod_uid}.{}", instance.id())
}

/// The status to write, given the one that stands in the API: a node's own fields are `ours`, other writers' fields
/// and conditions stay as they are. So does the word that the pod was lost with its node and has been replaced.
#[must_use]
pub fn merge_status(current: &PodStatus, ours: &PodStatus) -> PodStatus {
    let known = || current.conditions.iter().flatten();
    let foreign = known().filter(|known| !OWNED.contains(&known.type_.as_str()));
    let lost = known().find(|known| says(known, pods::NODE_LOST));
    let conditions = ours.conditions.iter().flatten().chain(foreign);
    let conditions = conditions.map(|condition| match lost {
        Some(lost) if condition.type_ == lost.type_ => lost.clone(),
        Some(_) | None => condition.clone(),
    });
    let conditions: Vec<_> = conditions.collect();
    PodStatus {
        conditions: Some(conditions),
        nominated_node_name: current.nominated_node_name.clone(),
        resize: current.resize.clone(),
        resource_claim_statuses: current.resource_claim_statuses.clone(),
        extended_resource_claim_status: current.extended_resource_claim_status.clone(),
        node_allocatable_resource_claim_statuses: current
            .node_allocatable_resource_claim_statuses
            .clone(),
        ephemeral_container_statuses: current.ephemeral_container_statuses.clone(),
        ..ours.clone()
    }
}

fn says(condition: &PodCondition, reason: &str) -> bool {
    condition.type_ == "Ready" && condition.reason.as_deref() == Some(reason)
}

/// When to say again what the cluster denies. A node that is taken for dead and still reaches the API must not argue
/// with the leader as fast as both can write.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Dispute {
    last: Option<Duration>,
    due: Option<Duration>,
}

/// How long a denied status is left alone after it was contradicted.
const DISPUTE_PAUSE: Duration = Duration::from_secs(10);

impl Dispute {
    pub(super) fn due(&self) -> Option<Duration> {
        self.due
    }
}

/// The API shows whole seconds.
pub(super) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

impl PodMachine {
    /// The cluster may have denied that the pod is ready, while its node was not heard.
    pub(super) fn note_denial(&mut self, now: Now) {
        let status = self.pod.status.as_ref();
        let mut conditions = status.iter().flat_map(|status| status.conditions.iter().flatten());
        let denied = conditions.any(|condition| says(condition, pods::NODE_NOT_READY));
        self.dispute.due = denied.then(|| {
            let pause = self.dispute.last.map_or(Duration::ZERO, |last| last + DISPUTE_PAUSE);
            pause.max(now.monotonic)
        });
    }

    /// Forgets what was reported if it was denied, so that it is reported again.
    pub(super) fn contradict(&mut self, now: Now) {
        if self.dispute.due.is_some_and(|due| due <= now.monotonic) {
            self.dispute = Dispute { last: Some(now.monotonic), due: None };
            self.reported = self.pod.status.clone();
        }
    }

    /// Reports the status if it is not what was reported last.
    pub(super) fn report(&mut self, now: Now, out: &mut Vec<PodCommand>) {
        if self.frozen || matches!(self.stage, Stage::Gone) {
            return;
        }
        let status = self.status(now);
        if self.reported.as_ref() != Some(&status) {
            self.reported = Some(status.clone());
            out.push(PodCommand::ReportStatus(Box::new(status)));
        }
    }

    /// The status as of now.
    fn status(&mut self, now: Now) -> PodStatus {
        self.phase = self.phase.max(self.current_phase());
        let conditions = self.conditions(now);
        let ip = |address: &IpAddr| address.to_string();
        let statuses = |role| {
            let list: Vec<_> = self
                .containers
                .iter()
                .filter(|known| known.role == role)
                .map(|known| self.container_status(known))
                .collect();
            (!list.is_empty()).then_some(list)
        };
        PodStatus {
            phase: Some(self.phase.as_str().to_owned()),
            reason: self.verdict.as_ref().map(|verdict| verdict.reason.clone()),
            message: self.verdict.as_ref().map(|verdict| verdict.message.clone()),
            conditions: Some(conditions),
            host_ip: self.settings.host_addresses.first().map(ip),
            host_ips: Some(
                self.settings
                    .host_addresses
                    .iter()
                    .map(|address| HostIP { ip: ip(address) })
                    .collect(),
            ),
            pod_ip: self.addresses.first().map(ip),
            pod_ips: (!self.addresses.is_empty())
                .then(|| self.addresses.iter().map(|address| PodIP { ip: ip(address) }).collect()),
            start_time: Some(Time(whole_seconds(self.started_at))),
            init_container_statuses: statuses(Role::Init),
            container_statuses: statuses(Role::Main),
            qos_class: Some(qos_class(&self.pod).to_string()),
            observed_generation: self.pod.metadata.generation,
            ..PodStatus::default()
        }
    }

    /// The phase that the containers add up to.
    fn current_phase(&self) -> Phase {
        if self.verdict.is_some() && self.intent >= Intent::Finish && !self.alive() {
            return Phase::Failed;
        }
        if self
            .containers
            .iter()
            .any(|known| known.role == Role::Init && known.failed() && known.ended.is_some())
        {
            return Phase::Failed;
        }
        if !self.initialized() {
            return Phase::Pending;
        }
        let main = || self.containers.iter().filter(|known| known.role == Role::Main);
        if main().any(Container::is_unstarted) {
            return Phase::Pending;
        }
        if main().all(|known| matches!(known.state, State::Done)) {
            return if main().all(Container::succeeded) { Phase::Succeeded } else { Phase::Failed };
        }
        Phase::Running
    }

    fn container_status(&self, container: &Container) -> ContainerStatus {
        let spec = self.container_specs().find(|spec| spec.name == container.name);
        let readiness = container.readiness();
        let (state, last_state) = self.container_states(container);
        let newest = container
            .attempt()
            .filter(|_| container.exists())
            .or(container.ended.as_ref().map(|end| end.attempt));
        let image = spec.and_then(|spec| spec.image.clone()).unwrap_or_default();
        ContainerStatus {
            name: container.name.clone(),
            image: container.image.as_ref().map_or(image, |facts| facts.name.clone()),
            image_id: container.image.as_ref().map(|facts| facts.id.clone()).unwrap_or_default(),
            container_id: newest.map(|attempt| self.id_of(container, attempt)),
            ready: readiness.ready,
            started: Some(readiness.started),
            restart_count: i32::try_from(container.newest).unwrap_or(i32::MAX),
            state: Some(state),
            last_state: Some(last_state),
            resources: spec
                .and_then(|spec| spec.resources.clone())
                .filter(|_| container.is_alive()),
            ..ContainerStatus::default()
        }
    }

    /// `state` and `lastState`.
    fn container_states(
        &self,
        container: &Container,
    ) -> (core::ContainerState, core::ContainerState) {
        let ended = container.ended.as_ref();
        let before = |end: Option<&Termination>| {
            end.map(|end| self.terminated(container, end)).unwrap_or_default()
        };
        let waits =
            |reason: &str, message: Option<String>| (waiting(reason, message), before(ended));
        match &container.state {
            State::PostStart { run } | State::Running { run, .. } | State::Stopping { run, .. } => {
                (running(run), before(container.previous.as_ref()))
            }
            State::PullFailed { reason, message, .. } | State::Refused { reason, message, .. } => {
                waits(reason, Some(message.clone()))
            }
            State::PullBackOff { message, .. } => waits("ImagePullBackOff", Some(message.clone())),
            State::CrashLoop { delay, .. }
                if matches!(self.stage, Stage::Active | Stage::Setup(_)) =>
            {
                waits(
                    "CrashLoopBackOff",
                    Some(crash_loop_message(*delay, &container.name, &self.title())),
                )
            }
            State::Waiting
            | State::Inspecting
            | State::Pulling
            | State::Fetched
            | State::Starting { .. }
            | State::CrashLoop { .. }
            | State::Done => match ended {
                Some(end) => (self.terminated(container, end), before(container.previous.as_ref())),
                None if matches!(container.state, State::Done) && self.had_all_started() => {
                    (never_found(), core::ContainerState::default())
                }
                None => waits(self.word_for_waiting(container), None),
            },
        }
    }

    /// The pod came so far that a container without an end must have been lost, instead of never started.
    fn had_all_started(&self) -> bool {
        self.phase >= Phase::Running && self.verdict.is_none() && self.initialized()
    }

    fn word_for_waiting(&self, container: &Container) -> &'static str {
        let has_init = self.containers.iter().any(|known| known.role == Role::Init);
        match (container.role, has_init) {
            (Role::Init, _) | (Role::Main, true) => "PodInitializing",
            (Role::Main, false) => "ContainerCreating",
        }
    }

    fn terminated(&self, container: &Container, end: &Termination) -> core::ContainerState {
        let time = |time: Timestamp| Time(whole_seconds(time));
        core::ContainerState {
            terminated: Some(ContainerStateTerminated {
                container_id: Some(self.id_of(container, end.attempt)),
                exit_code: end.exit.code,
                reason: Some(end.reason.clone()),
                message: end.exit.message.clone().filter(|message| !message.is_empty()),
                started_at: end.exit.started_at.map(time),
                finished_at: Some(time(end.exit.finished_at)),
                signal: None,
            }),
            ..core::ContainerState::default()
        }
    }

    fn id_of(&self, container: &Container, attempt: u32) -> String {
        container_id(self.uid(), &Instance { container: container.name.clone(), attempt })
    }

    fn container_specs(&self) -> impl Iterator<Item = &core::Container> {
        self.spec()
            .into_iter()
            .flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
    }
}

impl Container {
    /// It has never had an instance that started.
    fn is_unstarted(&self) -> bool {
        let running = match &self.state {
            State::PostStart { .. } | State::Running { .. } | State::Stopping { .. } => true,
            State::Done => true,
            State::Waiting
            | State::Inspecting
            | State::Pulling
            | State::PullFailed { .. }
            | State::PullBackOff { .. }
            | State::Fetched
            | State::Starting { .. }
            | State::Refused { .. }
            | State::CrashLoop { .. } => false,
        };
        !running && self.ended.is_none()
    }

    /// The runtime has said that its current instance is there.
    fn exists(&self) -> bool {
        !matches!(self.state, State::Starting { created: false, .. })
    }
}

fn waiting(reason: &str, message: Option<String>) -> core::ContainerState {
    core::ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..core::ContainerState::default()
    }
}

fn running(run: &Run) -> core::ContainerState {
    core::ContainerState {
        running: Some(ContainerStateRunning {
            started_at: Some(Time(whole_seconds(run.started_at))),
        }),
        ..core::ContainerState::default()
    }
}

/// What stands for a container that never ran in a pod that did, and is over.
fn never_found() -> core::ContainerState {
    core::ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some(
                "The container could not be located when the pod was terminated".to_owned(),
            ),
            ..ContainerStateTerminated::default()
        }),
        ..core::ContainerState::default()
    }
}
