//! The life of one pod on its node: everything that kubelet decides, as a state machine without I/O or clock.
//!
//! [`PodMachine::step`] takes an event and the time and appends commands; the agent carries commands out and feeds
//! what came of them back. Running a command is elsewhere (`podium-agent`), and so are placement (the scheduler) and
//! the objects around pods (the controllers).
//!
//! ```text
//!                                  ┌────── the shim died ──────┐
//!                                  v                           │
//! new ─> Setup(volumes ─> sandbox ─> network) ─> Active ───────┤
//!           │                                      │           v
//!           └───────────> Stopping <───────────────┘     Teardown, to rebuild
//!                            │
//!                            v
//!               Teardown(sandbox ─> network ─> volumes)
//!                │              │             │
//!             Finished       Halted       Deleting ─> Gone
//!        (object stays)  (node goes down)  (object is deleted)
//! ```
//!
//! # Invariants
//!
//! - A container never has two instances: the next is handed to the runtime only after the end of the one before is
//!   known, and its attempt number is on disk before.
//! - Intents only grow (run, halt, finish, delete); a pod that is to be deleted ends whatever its runtime does, since
//!   past its grace the whole sandbox is killed.
//! - The phase in the status never goes back.
//! - [`PodMachine::adopt`] at any moment, from the object, the record and the sandbox, comes to the same end.
//!
//! Specification: Kubernetes' pod lifecycle, with the statuses, reasons and event texts of kubelet 1.37. Sidecars
//! (restartable init containers), restart rules per container, ephemeral containers and gRPC probes are refused at
//! admission, in words.

mod admission;
mod back_off;
mod conditions;
mod container;
mod fetch;
mod interface;
mod occurrence;
mod probe;
mod qos;
mod record;
mod setup;
mod start;
mod status;
mod stop;
mod teardown;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use podium_types::Now;
use podium_types::k8s::api::core::v1::{self as core, Pod, PodStatus};

pub use admission::{NodeRoom, Refusal, admit};
pub use interface::{
    Exit, Hook, ImageFacts, Instance, Occurrence, PodCommand, PodEvent, ProbeKind, ProbeOutcome,
    PullFailure, Severity, StartStage,
};
pub use qos::{QosClass, qos_class};
pub use record::{ContainerRecord, InstanceState, PodRecord, PodRecordV1, Sandbox, Termination};
pub use status::{Phase, container_id, merge_status};

use conditions::Transitions;
use container::{Container, Role, State, monotonic_of};
use record::PodRecord as Record;
use setup::SetupStep;
use stop::Stop;
use teardown::TeardownStep;

/// What a pod's machine has to know of its node and of the limits that were chosen.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The node's addresses, the primary first: `hostIPs` of the status.
    pub host_addresses: Vec<IpAddr>,
    /// The longest time that a stop signal waits for the pod to be out of every Service. Zero sends it at once.
    pub withdraw_limit: Duration,
}

/// The lifecycle of one pod on this node.
#[derive(Debug, Clone)]
pub struct PodMachine {
    pod: Arc<Pod>,
    settings: Settings,
    stage: Stage,
    intent: Intent,
    /// The API has the pod no more.
    removed: bool,
    /// A phase and reason that are not the sum of the containers.
    verdict: Option<Refusal>,
    containers: Vec<Container>,
    addresses: Vec<IpAddr>,
    started_at: Timestamp,
    /// When the active deadline ends.
    deadline: Option<Duration>,
    node_limit: Option<Duration>,
    retries: back_off::BackOff,
    phase: Phase,
    transitions: Transitions,
    reported: Option<PodStatus>,
    dispute: status::Dispute,
    /// The sandbox is up and has its network.
    sandbox_ready: bool,
    /// The status in the API is final, and not to be written again.
    frozen: bool,
}

/// Where the pod stands.
#[derive(Debug, Clone)]
enum Stage {
    /// What containers need is being made.
    Setup(SetupStep),
    /// Containers run, or are about to.
    Active,
    /// Containers are being stopped.
    Stopping(Stop),
    /// What was made is being taken down; the step is the next one.
    Teardown(TeardownStep),
    /// Succeeded or failed, and nothing is left but logs.
    Finished,
    /// Stopped because the node goes down.
    Halted,
    /// Nothing is left, and the object is to go; asked for again at this time.
    Deleting { again_at: Duration },
    /// Nothing is left.
    Gone,
}

/// What is wanted of the pod. Only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Intent {
    /// It shall run.
    Run,
    /// It shall pause while its node is down.
    Halt,
    /// It is at its end, and its object stays.
    Finish,
    /// It shall be gone.
    Delete,
}

impl PodMachine {
    /// A machine for a pod that this node sees for the first time; `admission` is the word of [`admit`].
    #[must_use]
    pub fn new(
        pod: Arc<Pod>,
        settings: Settings,
        admission: Result<(), Refusal>,
        now: Now,
        out: &mut Vec<PodCommand>,
    ) -> Self {
        let mut machine = Self::blank(pod, settings, now);
        machine.refuse_unless(admission, out);
        machine.settle(now, out);
        machine
    }

    /// A machine for a pod that an earlier run of the node program, or an earlier boot, had: its record, and what is
    /// left of its sandbox (`None` after a reboot).
    #[must_use]
    pub fn adopt(
        pod: Arc<Pod>,
        settings: Settings,
        (record, sandbox): (Record, Option<Sandbox>),
        now: Now,
        out: &mut Vec<PodCommand>,
    ) -> Self {
        let mut machine = Self::blank(pod, settings, now);
        machine.take_over(record, sandbox, now, out);
        machine.settle(now, out);
        machine
    }

    fn blank(pod: Arc<Pod>, settings: Settings, now: Now) -> Self {
        let spec = pod.spec.as_ref();
        let init = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
        let main = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
        let containers = init
            .iter()
            .map(|spec| Container::new(spec, Role::Init))
            .chain(main.iter().map(|spec| Container::new(spec, Role::Main)))
            .collect();
        let status = pod.status.as_ref();
        let started_at =
            status.and_then(|status| status.start_time.as_ref()).map_or(now.wall, |time| time.0);
        let mut machine = Self {
            phase: Phase::of(status),
            transitions: Transitions::of(status),
            reported: status.cloned(),
            dispute: status::Dispute::default(),
            stage: Stage::Setup(SetupStep::first()),
            intent: Intent::Run,
            removed: false,
            verdict: None,
            containers,
            addresses: Vec::new(),
            started_at,
            deadline: None,
            node_limit: None,
            retries: back_off::BackOff::new(back_off::SETUP),
            sandbox_ready: false,
            frozen: Phase::of(status).is_terminal(),
            pod,
            settings,
        };
        machine.note_wishes(now);
        machine
    }

    /// Takes one event, and appends what is to be done. An event that no longer fits is ignored.
    pub fn step(&mut self, now: Now, event: PodEvent, out: &mut Vec<PodCommand>) {
        match event {
            PodEvent::Desired(pod) => self.on_desired(pod, now, out),
            PodEvent::Removed => self.on_removed(now),
            PodEvent::ReferencesChanged => self.retry_at_once(now.monotonic),
            PodEvent::Tick => {}
            PodEvent::NodeStopping { limit } => self.on_node_stopping(limit, now),
            PodEvent::VolumesReady => self.on_setup_done(setup::Done::Volumes),
            PodEvent::SandboxStarted => self.on_setup_done(setup::Done::Sandbox),
            PodEvent::NetworkAttached { addresses } => {
                self.on_setup_done(setup::Done::Network(addresses));
                self.persist(now, out);
            }
            PodEvent::VolumesFailed { message } => {
                self.on_setup_failed(setup::Failed::Volumes, &message, now, out);
            }
            PodEvent::SandboxFailed { message } => {
                self.on_setup_failed(setup::Failed::Sandbox, &message, now, out);
            }
            PodEvent::NetworkFailed { message } => {
                self.on_setup_failed(setup::Failed::Network, &message, now, out);
            }
            PodEvent::SandboxLost => self.on_sandbox_lost(now, out),
            PodEvent::ImageInspected { container, found } => {
                self.on_inspected(&container, found, now, out);
            }
            PodEvent::ImagePulled { container, image, took } => {
                self.on_pulled(&container, image, took, out);
            }
            PodEvent::ImagePullFailed { container, failure, message } => {
                self.on_pull_failed(&container, failure, message, now, out);
            }
            PodEvent::InstanceCreated(instance) => self.on_created(&instance, out),
            PodEvent::InstanceStarted { instance, started_at } => {
                self.on_started(&instance, started_at, now, out);
            }
            PodEvent::StartFailed { instance, stage, message } => {
                self.on_start_failed(&instance, stage, message, now, out);
            }
            PodEvent::InstanceExited { instance, exit } => {
                self.on_exited(&instance, exit, now, out);
            }
            PodEvent::HookFinished { instance, hook, result } => {
                self.on_hook(&instance, hook, result, now, out);
            }
            PodEvent::ProbeFinished { instance, probe, outcome } => {
                self.on_probe(&instance, probe, &outcome, now, out);
            }
            PodEvent::EndpointWithdrawn => self.on_withdrawn(),
            PodEvent::SandboxStopped => self.on_torn_down(teardown::Done::Sandbox, now, out),
            PodEvent::NetworkDetached => self.on_torn_down(teardown::Done::Network, now, out),
            PodEvent::VolumesRemoved => self.on_torn_down(teardown::Done::Volumes, now, out),
            PodEvent::TeardownFailed { message } => self.on_teardown_failed(&message, now, out),
        }
        self.settle(now, out);
    }

    /// The monotonic time by which a [`PodEvent::Tick`] is due.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        let stage = match &self.stage {
            Stage::Setup(step) => step.next_wake(),
            Stage::Stopping(stop) => stop.next_wake(),
            Stage::Teardown(step) => step.next_wake(),
            Stage::Deleting { again_at } => Some(*again_at),
            Stage::Active | Stage::Finished | Stage::Halted | Stage::Gone => None,
        };
        let starting = matches!(self.stage, Stage::Setup(_) | Stage::Active);
        let stopping = matches!(self.stage, Stage::Stopping(_));
        let tended = |known: &&Container| {
            starting || (stopping && matches!(known.state, State::Stopping { .. }))
        };
        let containers =
            self.containers.iter().filter(tended).filter_map(Container::next_wake).min();
        let deadline =
            self.deadline.filter(|_| (starting || stopping) && self.intent < Intent::Finish);
        [stage, containers, deadline, self.dispute.due()].into_iter().flatten().min()
    }

    /// The pod as the machine last saw it.
    #[must_use]
    pub fn pod(&self) -> &Arc<Pod> {
        &self.pod
    }

    /// Nothing of the pod is left, neither here nor in the API; the machine can be dropped.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self.stage, Stage::Gone)
    }

    /// The pod holds nothing of the node that must be waited for before the node goes down.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        match &self.stage {
            Stage::Finished | Stage::Halted | Stage::Deleting { .. } | Stage::Gone => true,
            Stage::Setup(_) | Stage::Active | Stage::Stopping(_) | Stage::Teardown(_) => false,
        }
    }

    /// The instance of a container that runs, for streams into it.
    #[must_use]
    pub fn running_instance(&self, container: &str) -> Option<Instance> {
        self.containers.iter().find(|known| known.name == container)?.instance()
    }

    /// The newest attempt of a container, for its log; `None` if it never had an instance.
    #[must_use]
    pub fn newest_attempt(&self, container: &str) -> Option<u32> {
        let container = self.containers.iter().find(|known| known.name == container)?;
        (container.attempt().is_some() || container.next > 0).then_some(container.newest)
    }

    /// Carries everything as far as it goes without another event, then reports what changed.
    fn settle(&mut self, now: Now, out: &mut Vec<PodCommand>) {
        self.note_deadline(now, out);
        while self.advance(now, out) {}
        self.contradict(now);
        self.report(now, out);
    }

    /// One round; true if the stage changed and another round may find more to do.
    fn advance(&mut self, now: Now, out: &mut Vec<PodCommand>) -> bool {
        match &self.stage {
            Stage::Setup(_) => {
                self.tend(now, out);
                self.begin_end(now, out) || self.drive_setup(now, out)
            }
            Stage::Active => {
                self.tend(now, out);
                self.drive_containers(now, out);
                self.note_end();
                self.begin_end(now, out)
            }
            Stage::Stopping(_) => self.drive_stop(now, out),
            Stage::Teardown(_) => self.drive_teardown(now, out),
            Stage::Finished | Stage::Halted => self.leave_rest(now),
            Stage::Deleting { again_at } => {
                let due = *again_at <= now.monotonic;
                self.drive_deletion(due, now, out)
            }
            Stage::Gone => false,
        }
    }

    fn on_desired(&mut self, pod: Arc<Pod>, now: Now, out: &mut Vec<PodCommand>) {
        self.pod = pod;
        self.note_denial(now);
        self.note_wishes(now);
        self.shorten_stops(now);
        self.stop_redefined(now, out);
    }

    fn on_removed(&mut self, now: Now) {
        self.removed = true;
        self.intent = Intent::Delete;
        self.shorten_stops(now);
    }

    fn on_node_stopping(&mut self, limit: Duration, now: Now) {
        self.node_limit = Some(limit);
        self.intent = self.intent.max(Intent::Halt);
        self.shorten_stops(now);
    }

    /// Reads from the object what is wanted of the pod.
    fn note_wishes(&mut self, now: Now) {
        if self.pod.metadata.deletion_timestamp.is_some() {
            self.intent = Intent::Delete;
        }
        let seconds = self.spec().and_then(|spec| spec.active_deadline_seconds);
        self.deadline = seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(|seconds| {
            monotonic_of(self.started_at, now).saturating_add(Duration::from_secs(seconds))
        });
        if Phase::of(self.pod.status.as_ref()).is_terminal() {
            self.intent = self.intent.max(Intent::Finish);
        }
    }

    /// Ends the pod when its active deadline has passed.
    fn note_deadline(&mut self, now: Now, out: &mut Vec<PodCommand>) {
        let past = self.deadline.is_some_and(|deadline| deadline <= now.monotonic);
        if past && self.intent < Intent::Finish && self.verdict.is_none() {
            let message = "Pod was active on the node longer than the specified deadline";
            out.push(occurrence::warning("DeadlineExceeded", message.to_owned()));
            self.verdict = Some(Refusal {
                reason: "DeadlineExceeded".to_owned(),
                message: message.to_owned(),
            });
            self.intent = Intent::Finish;
        }
    }

    fn refuse_unless(&mut self, admission: Result<(), Refusal>, out: &mut Vec<PodCommand>) {
        let Err(refusal) = admission else { return };
        if self.phase.is_terminal() {
            return;
        }
        out.push(occurrence::warning_named(refusal.reason.clone(), refusal.message.clone()));
        let message = format!("Pod was rejected: {}", refusal.message);
        self.verdict = Some(Refusal { reason: refusal.reason, message });
        self.intent = self.intent.max(Intent::Finish);
        self.stage = Stage::Finished;
    }

    fn spec(&self) -> Option<&core::PodSpec> {
        self.pod.spec.as_ref()
    }

    fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// The pod as texts name it: `name_namespace(uid)`.
    fn title(&self) -> String {
        let metadata = &self.pod.metadata;
        let name = metadata.name.as_deref().unwrap_or_default();
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        format!("{name}_{namespace}({})", self.uid())
    }

    fn restart_policy(&self) -> &str {
        self.spec().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always")
    }

    /// The spec of a container by its place in `containers`.
    fn container_spec(&self, index: usize) -> Option<&core::Container> {
        let container = self.containers.get(index)?;
        let spec = self.spec()?;
        spec.init_containers
            .iter()
            .flatten()
            .chain(&spec.containers)
            .find(|spec| spec.name == container.name)
    }

    fn index_of(&self, container: &str) -> Option<usize> {
        self.containers.iter().position(|known| known.name == container)
    }

    /// The container whose current instance this is.
    fn index_of_instance(&self, instance: &Instance) -> Option<usize> {
        self.index_of(&instance.container).filter(|index| {
            self.containers.get(*index).and_then(Container::attempt) == Some(instance.attempt)
        })
    }

    fn record(&self, now: Now) -> PodRecord {
        PodRecord::V1(PodRecordV1 {
            uid: self.uid().to_owned(),
            namespace: self.pod.metadata.namespace.clone().unwrap_or_default(),
            name: self.pod.metadata.name.clone().unwrap_or_default(),
            started_at: Some(self.started_at),
            addresses: self.addresses.clone(),
            containers: self
                .containers
                .iter()
                .map(|known| (known.name.clone(), known.record(now)))
                .collect(),
        })
    }

    fn persist(&self, now: Now, out: &mut Vec<PodCommand>) {
        out.push(PodCommand::Persist(Box::new(self.record(now))));
    }

    /// New containers may be started.
    fn may_start(&self) -> bool {
        self.intent == Intent::Run && matches!(self.stage, Stage::Active)
    }

    /// Every init container has succeeded.
    fn initialized(&self) -> bool {
        self.containers.iter().filter(|known| known.role == Role::Init).all(Container::succeeded)
    }

    /// All that could run has run: the pod is at its end.
    fn note_end(&mut self) {
        let init_failed =
            self.containers.iter().any(|known| known.role == Role::Init && known.failed());
        let mut main = self.containers.iter().filter(|known| known.role == Role::Main);
        if init_failed || main.all(|known| matches!(known.state, State::Done)) {
            self.intent = self.intent.max(Intent::Finish);
        }
    }
}
