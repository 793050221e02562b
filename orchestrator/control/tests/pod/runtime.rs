//! A node in miniature, in virtual time: carries out a pod machine's commands, and checks what must always hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use podium_control::pod::{
    Exit, ImageFacts, Instance, InstanceState, Occurrence, Phase, PodCommand, PodEvent, PodMachine,
    PodRecord, ProbeOutcome, PullFailure, Refusal, Sandbox, Settings, StartStage, merge_status,
};
use podium_types::Now;
use podium_types::k8s::api::core::v1::{ContainerStatus, Pod, PodStatus};
use podium_types::k8s::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

/// How one instance behaves.
#[derive(Debug, Clone)]
pub(crate) struct Behaviour {
    /// It ends by itself after this time with this code.
    pub(crate) exits: Option<(Duration, i32)>,
    /// It ends on the stop signal after this time; `None` ignores the signal.
    pub(crate) stops_after: Option<Duration>,
    /// The runtime refuses it at this stage.
    pub(crate) refused: Option<StartStage>,
    /// Its end is an OOM kill.
    pub(crate) oom: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            exits: None,
            stops_after: Some(Duration::from_millis(100)),
            refused: None,
            oom: false,
        }
    }
}

impl Behaviour {
    pub(crate) fn exit(after_seconds: u64, code: i32) -> Self {
        Self { exits: Some((Duration::from_secs(after_seconds), code)), ..Self::default() }
    }
}

/// What the world around the pod does.
#[derive(Default)]
pub(crate) struct Script {
    /// Behaviours of a container's instances by attempt; the last one is for all that follow.
    pub(crate) containers: BTreeMap<String, Vec<Behaviour>>,
    /// Answers to pulls in order; the last one is for all that follow. None given: all succeed.
    pub(crate) pulls: VecDeque<Result<(), String>>,
    /// Answers to the preparation of volumes in order, then all succeed.
    pub(crate) volumes: VecDeque<String>,
    /// Answers to probes by container, for ever; none given: all succeed.
    pub(crate) probes: BTreeMap<String, ProbeOutcome>,
    /// Hooks that fail, and how long hooks take.
    pub(crate) hooks_fail: bool,
    pub(crate) hook_takes: Duration,
    /// Images that are on the node.
    pub(crate) present: BTreeSet<String>,
    /// How long each effect takes.
    pub(crate) effect_takes: Duration,
}

struct Live {
    exits_at: Option<(Duration, i32)>,
    started_at: Timestamp,
}

/// The miniature node with one pod.
pub(crate) struct Node {
    pub(crate) script: Script,
    pub(crate) pod: Arc<Pod>,
    pub(crate) machine: Option<PodMachine>,
    now: Duration,
    record: Option<PodRecord>,
    pending: Vec<(Duration, u64, PodEvent)>,
    order: u64,
    stalled: u32,
    shim: bool,
    live: BTreeMap<Instance, Live>,
    created: BTreeSet<Instance>,
    known: BTreeMap<Instance, InstanceState>,
    started: BTreeSet<Instance>,
    pub(crate) volumes: bool,
    network: bool,
    pub(crate) occurrences: Vec<Occurrence>,
    pub(crate) statuses: Vec<PodStatus>,
    pub(crate) signals: Vec<(Duration, Instance, bool)>,
    pub(crate) start_times: BTreeMap<Instance, Duration>,
    pub(crate) deletions: u32,
    pub(crate) forgotten: bool,
}

const EPOCH_SECONDS: i64 = 1_795_000_000;

impl Node {
    pub(crate) fn new(pod: Value, script: Script) -> Self {
        let mut pod = pod;
        let metadata = json!({"name": "p", "namespace": "ns", "uid": "u", "generation": 1});
        pod["metadata"] = metadata;
        let pod = Arc::new(serde_json::from_value(pod).expect("a pod"));
        Self {
            script,
            pod,
            machine: None,
            now: Duration::from_secs(1000),
            record: None,
            pending: Vec::new(),
            order: 0,
            stalled: 0,
            shim: false,
            live: BTreeMap::new(),
            created: BTreeSet::new(),
            known: BTreeMap::new(),
            started: BTreeSet::new(),
            volumes: false,
            network: false,
            occurrences: Vec::new(),
            statuses: Vec::new(),
            signals: Vec::new(),
            start_times: BTreeMap::new(),
            deletions: 0,
            forgotten: false,
        }
    }

    pub(crate) fn clock(&self) -> Now {
        let seconds = EPOCH_SECONDS + i64::try_from(self.now.as_secs()).expect("a time");
        let nanos = i32::try_from(self.now.subsec_nanos()).expect("nanoseconds");
        Now { monotonic: self.now, wall: Timestamp::new(seconds, nanos).expect("a time") }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - Duration::from_secs(1000)
    }

    fn settings() -> Settings {
        let host = "10.0.2.15".parse().expect("an address");
        Settings { host_addresses: vec![host], withdraw_limit: Duration::ZERO }
    }

    /// The pod reaches the node for the first time.
    pub(crate) fn bind(&mut self, admission: Result<(), Refusal>) {
        let mut out = Vec::new();
        let machine = PodMachine::new(
            Arc::clone(&self.pod),
            Self::settings(),
            admission,
            self.clock(),
            &mut out,
        );
        self.machine = Some(machine);
        self.carry_out(out);
    }

    /// The node program dies and comes back: effects that were under way are lost, processes run on.
    pub(crate) fn restart_program(&mut self) {
        self.restart(true);
    }

    /// The machine loses power and boots: processes and mounts are gone.
    pub(crate) fn reboot(&mut self) {
        self.shim = false;
        self.live.clear();
        self.known.clear();
        self.network = false;
        self.restart(false);
    }

    fn restart(&mut self, same_boot: bool) {
        self.pending.clear();
        let mut out = Vec::new();
        self.machine = Some(match self.record.clone() {
            Some(record) => {
                let instances = self.known.clone();
                let sandbox = same_boot.then_some(Sandbox { alive: self.shim, instances });
                let pod = Arc::clone(&self.pod);
                PodMachine::adopt(pod, Self::settings(), (record, sandbox), self.clock(), &mut out)
            }
            None => PodMachine::new(
                Arc::clone(&self.pod),
                Self::settings(),
                Ok(()),
                self.clock(),
                &mut out,
            ),
        });
        self.carry_out(out);
    }

    /// The shim dies, and its pod is killed whole.
    pub(crate) fn kill_shim(&mut self) {
        if self.shim {
            self.shim = false;
            self.live.clear();
            self.known.retain(|_, state| matches!(state, InstanceState::Exited(_)));
            self.network = false;
            // Commands to a dead shim fail.
            self.pending.retain(|(_, _, event)| {
                !matches!(event, PodEvent::InstanceCreated(_) | PodEvent::InstanceStarted { .. })
            });
            self.feed(PodEvent::SandboxLost);
        }
    }

    /// The node program dies, then the shim; then the program comes back.
    pub(crate) fn kill_both(&mut self) {
        self.machine = None;
        if self.shim {
            self.shim = false;
            self.live.clear();
            self.known.retain(|_, state| matches!(state, InstanceState::Exited(_)));
            self.network = false;
        }
        self.restart(true);
    }

    /// Someone kills a container's first process.
    pub(crate) fn kill_container(&mut self, container: &str) {
        if let Some(instance) =
            self.live.keys().find(|instance| instance.container == container).cloned()
        {
            self.end(&instance, 137, false);
        }
    }

    pub(crate) fn delete(&mut self, grace_seconds: i64) {
        let mut pod = (*self.pod).clone();
        pod.metadata.deletion_timestamp = Some(Time(self.clock().wall));
        pod.metadata.deletion_grace_period_seconds = Some(grace_seconds);
        self.update(pod);
    }

    pub(crate) fn update(&mut self, pod: Pod) {
        self.pod = Arc::new(pod);
        self.feed(PodEvent::Desired(Arc::clone(&self.pod)));
    }

    /// Gives the machine an event and carries out what it says.
    pub(crate) fn feed(&mut self, event: PodEvent) {
        let mut out = Vec::new();
        let now = self.clock();
        if let Some(machine) = &mut self.machine {
            machine.step(now, event, &mut out);
        }
        self.carry_out(out);
    }

    /// Lets time pass until nothing is due before the limit.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.advance(end) {}
        self.now = end;
    }

    /// Lets time pass until the condition holds; panics after an hour of virtual time.
    pub(crate) fn run_until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let end = self.now + Duration::from_secs(3600);
        while !condition(self) {
            assert!(self.advance(end), "{what}: never; last status {:#?}", self.statuses.last());
        }
    }

    /// Takes the next thing that is due; false if nothing is due until the limit.
    pub(crate) fn advance(&mut self, end: Duration) -> bool {
        let pending = self.pending.iter().map(|(at, order, _)| (*at, *order)).min();
        let exit = self
            .live
            .iter()
            .filter_map(|(instance, live)| Some((live.exits_at?, instance.clone())))
            .min_by_key(|((at, _), _)| *at);
        let wake = self.machine.as_ref().and_then(PodMachine::next_wake);
        let next = [pending.map(|(at, _)| at), exit.as_ref().map(|((at, _), _)| *at), wake]
            .into_iter()
            .flatten()
            .min();
        let Some(next) = next.filter(|next| *next <= end) else { return false };
        self.stalled = if next > self.now { 0 } else { self.stalled + 1 };
        assert!(self.stalled < 1000, "time stands still at {next:?}: {:#?}", self.machine);
        self.now = self.now.max(next);
        if let Some((at, order)) = pending.filter(|(at, _)| *at <= self.now)
            && exit.as_ref().is_none_or(|((exits_at, _), _)| at <= *exits_at)
        {
            let index =
                self.pending.iter().position(|(_, known, _)| *known == order).expect("it is there");
            let (_, _, event) = self.pending.remove(index);
            self.deliver(event);
        } else if let Some(((_, code), instance)) = exit.filter(|((at, _), _)| *at <= self.now) {
            let oom = self.behaviour(&instance).oom;
            self.end(&instance, code, oom);
        } else {
            self.feed(PodEvent::Tick);
        }
        true
    }

    /// Things become true when their answer is given, so that a restart in between finds the old state.
    fn deliver(&mut self, event: PodEvent) {
        match &event {
            PodEvent::VolumesReady => self.volumes = true,
            PodEvent::SandboxStarted => self.shim = true,
            PodEvent::NetworkAttached { .. } => self.network = true,
            PodEvent::NetworkDetached => self.network = false,
            PodEvent::VolumesRemoved => self.volumes = false,
            PodEvent::SandboxStopped => {
                let alive: Vec<_> = self.live.keys().cloned().collect();
                for instance in alive {
                    self.end(&instance, 137, false);
                }
                self.shim = false;
                self.known.clear();
            }
            PodEvent::InstanceCreated(instance) => {
                assert!(
                    self.shim && self.volumes && self.network,
                    "{instance} was created without its sandbox"
                );
                let others = self.known.iter().filter(|(other, state)| {
                    other.container == instance.container
                        && !matches!(state, InstanceState::Exited(_))
                });
                assert_eq!(others.count(), 0, "{instance} is a second instance");
                assert!(self.created.insert(instance.clone()), "{instance} was created twice");
                self.known.insert(instance.clone(), InstanceState::Created);
            }
            PodEvent::InstanceStarted { instance, started_at } => {
                if !self.started.insert(instance.clone()) {
                    // An adopted machine asked for an instance that runs.
                    return self.feed(event);
                }
                self.known
                    .insert(instance.clone(), InstanceState::Running { started_at: *started_at });
                let exits_at =
                    self.behaviour(instance).exits.map(|(after, code)| (self.now + after, code));
                self.live.insert(instance.clone(), Live { exits_at, started_at: *started_at });
                self.start_times.insert(instance.clone(), self.elapsed());
            }
            _ => {}
        }
        self.feed(event);
    }

    fn end(&mut self, instance: &Instance, code: i32, oom_killed: bool) {
        let Some(live) = self.live.remove(instance) else { return };
        let finished_at = self.clock().wall;
        let exit = Exit {
            code,
            oom_killed,
            started_at: Some(live.started_at),
            finished_at,
            message: None,
        };
        self.known.insert(instance.clone(), InstanceState::Exited(exit.clone()));
        self.feed(PodEvent::InstanceExited { instance: instance.clone(), exit });
    }

    fn behaviour(&self, instance: &Instance) -> Behaviour {
        let list = self.script.containers.get(&instance.container);
        let index = usize::try_from(instance.attempt).expect("an index");
        list.and_then(|list| list.get(index).or(list.last())).cloned().unwrap_or_default()
    }

    fn later(&mut self, event: PodEvent) {
        self.after(self.script.effect_takes, event);
    }

    fn after(&mut self, delay: Duration, event: PodEvent) {
        self.order += 1;
        self.pending.push((self.now + delay, self.order, event));
    }

    fn carry_out(&mut self, commands: Vec<PodCommand>) {
        for command in commands {
            self.perform(command);
        }
    }

    fn perform(&mut self, command: PodCommand) {
        match command {
            PodCommand::Persist(record) => self.record = Some(*record),
            PodCommand::PrepareVolumes => match self.script.volumes.pop_front() {
                Some(message) => self.later(PodEvent::VolumesFailed { message }),
                None => self.later(PodEvent::VolumesReady),
            },
            PodCommand::StartSandbox => self.later(PodEvent::SandboxStarted),
            PodCommand::AttachNetwork => {
                let addresses = vec!["10.244.0.7".parse().expect("an address")];
                self.later(PodEvent::NetworkAttached { addresses });
            }
            PodCommand::InspectImage { container, image } => {
                let found = self.script.present.contains(&image).then(|| facts(&image));
                self.later(PodEvent::ImageInspected { container, found });
            }
            PodCommand::PullImage { container, image } => {
                let answer = match self.script.pulls.len() {
                    0 => Ok(()),
                    1 => self.script.pulls.front().cloned().expect("an answer"),
                    _ => self.script.pulls.pop_front().expect("an answer"),
                };
                let event = match answer {
                    Ok(()) => {
                        self.script.present.insert(image.clone());
                        PodEvent::ImagePulled {
                            container,
                            image: facts(&image),
                            took: Duration::from_millis(1200),
                        }
                    }
                    Err(message) => PodEvent::ImagePullFailed {
                        container,
                        failure: PullFailure::Failed,
                        message,
                    },
                };
                self.later(event);
            }
            PodCommand::RunInstance(instance) => self.run_instance(instance),
            PodCommand::RunHook { instance, hook } => {
                let result = if self.script.hooks_fail { Err("exit 1".to_owned()) } else { Ok(()) };
                self.after(
                    self.script.hook_takes,
                    PodEvent::HookFinished { instance, hook, result },
                );
            }
            PodCommand::RunProbe { instance, probe } => {
                let outcome = self
                    .script
                    .probes
                    .get(&instance.container)
                    .cloned()
                    .unwrap_or(ProbeOutcome::Success);
                self.later(PodEvent::ProbeFinished { instance, probe, outcome });
            }
            PodCommand::StopInstance { instance, force } => {
                self.signals.push((self.elapsed(), instance.clone(), force));
                let after = if force {
                    Some(Duration::from_millis(10))
                } else {
                    self.behaviour(&instance).stops_after
                };
                let at = after.map(|after| (self.now + after, if force { 137 } else { 0 }));
                if let Some(live) = self.live.get_mut(&instance) {
                    live.exits_at = [live.exits_at, at].into_iter().flatten().min();
                }
            }
            PodCommand::RemoveInstance(instance) => {
                let state = self.known.remove(&instance);
                let over = !matches!(state, Some(InstanceState::Running { .. }));
                assert!(over, "{instance} was removed while it lived");
            }
            PodCommand::WithdrawEndpoint => self.later(PodEvent::EndpointWithdrawn),
            PodCommand::StopSandbox => self.later(PodEvent::SandboxStopped),
            PodCommand::DetachNetwork => self.later(PodEvent::NetworkDetached),
            PodCommand::RemoveVolumes => self.later(PodEvent::VolumesRemoved),
            PodCommand::ReportStatus(status) => self.report(*status),
            PodCommand::Record(occurrence) => self.occurrences.push(occurrence),
            PodCommand::DeleteObject => {
                self.deletions += 1;
                assert!(self.live.is_empty(), "the object was deleted while a container ran");
                assert!(
                    !self.shim && !self.network && !self.volumes,
                    "the object was deleted before all was taken down"
                );
                self.later(PodEvent::Removed);
            }
            PodCommand::Forget => {
                self.record = None;
                self.forgotten = true;
            }
        }
    }

    fn run_instance(&mut self, instance: Instance) {
        let running =
            self.record.clone().expect("a record before the first instance").into_latest();
        let recorded = running.containers.get(&instance.container).and_then(|known| known.running);
        assert_eq!(recorded, Some(instance.attempt), "{instance} is not on record before it runs");
        let started_at = self.clock().wall;
        match self.known.get(&instance).cloned() {
            Some(InstanceState::Exited(exit)) => {
                self.later(PodEvent::InstanceExited { instance, exit });
                return;
            }
            Some(InstanceState::Running { started_at }) => {
                self.later(PodEvent::InstanceStarted { instance, started_at });
                return;
            }
            Some(InstanceState::Created) => {}
            None => match self.behaviour(&instance).refused {
                Some(stage @ (StartStage::Config | StartStage::Create)) => {
                    self.later(PodEvent::StartFailed {
                        instance,
                        stage,
                        message: "refused".to_owned(),
                    });
                    return;
                }
                Some(StartStage::Start) | None => {
                    self.later(PodEvent::InstanceCreated(instance.clone()));
                }
            },
        }
        if self.behaviour(&instance).refused == Some(StartStage::Start) {
            let message = "exec: \"x\": not found".to_owned();
            self.later(PodEvent::StartFailed { instance, stage: StartStage::Start, message });
        } else {
            self.later(PodEvent::InstanceStarted { instance, started_at });
        }
    }

    fn report(&mut self, status: PodStatus) {
        if let Some(before) = self.statuses.last() {
            assert!(
                Phase::of(Some(&status)) >= Phase::of(Some(before)),
                "the phase went back from {:?} to {:?}",
                before.phase,
                status.phase
            );
            for (old, new) in containers(before).iter().zip(containers(&status)) {
                assert!(
                    new.restart_count >= old.restart_count,
                    "a restart was forgotten: {old:?} {new:?}"
                );
            }
        }
        let mut pod = (*self.pod).clone();
        pod.status = Some(merge_status(&pod.status.clone().unwrap_or_default(), &status));
        self.pod = Arc::new(pod);
        self.statuses.push(status);
    }

    pub(crate) fn status(&self) -> &PodStatus {
        self.statuses.last().expect("a status")
    }

    pub(crate) fn phase(&self) -> Phase {
        Phase::of(self.statuses.last())
    }

    pub(crate) fn container(&self, name: &str) -> ContainerStatus {
        containers(self.status())
            .into_iter()
            .find(|status| status.name == name)
            .expect("the container")
    }

    pub(crate) fn waiting_reason(&self, name: &str) -> Option<String> {
        self.statuses.last()?;
        self.container(name).state?.waiting?.reason
    }

    pub(crate) fn is_running(&self, name: &str) -> bool {
        !self.statuses.is_empty()
            && self.container(name).state.is_some_and(|state| state.running.is_some())
    }

    pub(crate) fn live_count(&self) -> usize {
        self.live.len()
    }

    pub(crate) fn condition(&self, type_: &str) -> (String, Option<String>) {
        let conditions = self.status().conditions.iter().flatten();
        let found = conditions
            .into_iter()
            .find(|condition| condition.type_ == type_)
            .expect("the condition");
        (found.status.clone(), found.reason.clone())
    }

    /// What happened, as `kubectl describe` lists it.
    pub(crate) fn story(&self) -> Vec<String> {
        let line = |occurrence: &Occurrence| {
            format!("{:?} {}: {}", occurrence.severity, occurrence.reason, occurrence.message)
        };
        self.occurrences.iter().map(line).collect()
    }
}

pub(crate) fn containers(status: &PodStatus) -> Vec<ContainerStatus> {
    let init = status.init_container_statuses.iter().flatten();
    init.chain(status.container_statuses.iter().flatten()).cloned().collect()
}

fn facts(image: &str) -> ImageFacts {
    ImageFacts {
        requested: image.to_owned(),
        name: format!("docker.io/library/{image}"),
        id: format!("docker.io/library/{image}@sha256:00"),
        size_bytes: 4096,
    }
}

/// A pod with these containers and init containers by name, and a restart policy.
pub(crate) fn pod(init: &[&str], main: &[&str], policy: &str) -> Value {
    let list = |names: &[&str]| -> Vec<Value> {
        names.iter().map(|name| json!({"name": name, "image": "img:1"})).collect()
    };
    json!({"spec": {"initContainers": list(init), "containers": list(main), "restartPolicy": policy,
        "terminationGracePeriodSeconds": 30}})
}
