//! What stands for a machine's shims, containers, images and pod network.
//!
//! Everything here is shared by all machines of a run in one respect only: [`Running`] knows which pods run anywhere, so
//! that a pod that runs twice is seen at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use podium_control::pod::{Exit, Instance, InstanceState, PodRecord, Sandbox};
use podium_types::k8s::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::executor;
use crate::ledger::Violation;

/// CPU of a node, in thousandths. The workload asks for 100 to 500 for each pod.
const NODE_MILLI_CPU: u64 = 4_000;

/// Which node runs which pod, over all machines.
pub(crate) type Running = Arc<Mutex<BTreeMap<String, u16>>>;

/// One machine's pods. Clones are the same machine.
#[derive(Clone)]
pub(crate) struct Host {
    number: u16,
    state: Arc<Mutex<State>>,
    running: Running,
    cluster: Cluster,
}

#[derive(Default)]
struct State {
    records: BTreeMap<String, PodRecord>,
    sandboxes: BTreeMap<String, Sandbox>,
    images: BTreeSet<String>,
    addresses: BTreeMap<String, IpAddr>,
    last_address: u32,
    calm: bool,
}

impl Host {
    /// The machine of node `number`.
    #[must_use]
    pub(crate) fn new(number: u16, running: Running, cluster: Cluster) -> Self {
        Self { number, state: Arc::default(), running, cluster }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Power was lost: nothing runs, what was on disk stays.
    pub(crate) fn lose_power(&self) {
        let mut state = self.state();
        for uid in std::mem::take(&mut state.sandboxes).into_keys() {
            self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
        }
        state.addresses.clear();
    }

    /// Nothing fails by chance any more.
    pub(crate) fn calm(&self) {
        self.state().calm = true;
    }

    /// Whether something that fails once in `n` times fails now.
    pub(super) fn fails_one_in(&self, n: u64) -> bool {
        !self.state().calm && executor::with(|core| core.one_in(n))
    }

    /// The uids of pods with a sandbox here.
    #[must_use]
    pub(crate) fn sandboxes(&self) -> Vec<String> {
        self.state().sandboxes.keys().cloned().collect()
    }

    /// The containers that run here: pod uid and instance.
    #[must_use]
    pub(crate) fn running_instances(&self) -> Vec<(String, Instance)> {
        let state = self.state();
        let running = |(uid, sandbox): (&String, &Sandbox)| {
            let of = |(instance, state): (&Instance, &InstanceState)| match state {
                InstanceState::Running { .. } => Some((uid.clone(), instance.clone())),
                InstanceState::Created | InstanceState::Exited(_) => None,
            };
            sandbox.instances.iter().filter_map(of).collect::<Vec<_>>()
        };
        state.sandboxes.iter().flat_map(running).collect()
    }

    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        vec![IpAddr::V4(Ipv4Addr::new(10, 0, 0, self.number.to_be_bytes()[1]))]
    }

    pub(super) fn allocatable(&self) -> BTreeMap<String, Quantity> {
        let quantity = |text: String| Quantity(text);
        BTreeMap::from([
            ("cpu".to_owned(), quantity(format!("{NODE_MILLI_CPU}m"))),
            ("memory".to_owned(), quantity("4Gi".to_owned())),
            ("pods".to_owned(), quantity("110".to_owned())),
        ])
    }

    pub(super) fn node_object(&self, name: &str) -> Value {
        let resources =
            json!({ "cpu": format!("{NODE_MILLI_CPU}m"), "memory": "4Gi", "pods": "110" });
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
            "status": {
                "capacity": resources,
                "allocatable": resources,
                "addresses": [{ "type": "InternalIP", "address": self.addresses()[0].to_string() }],
                "conditions": [{ "type": "Ready", "status": "True", "reason": "NodeReady", "message": "" }],
            },
        })
    }

    pub(super) fn records(&self) -> Vec<PodRecord> {
        self.state().records.values().cloned().collect()
    }

    /// A pod's record, and what is left of its sandbox.
    pub(super) fn left_of(&self, uid: &str) -> Option<(PodRecord, Option<Sandbox>)> {
        let state = self.state();
        let record = state.records.get(uid)?.clone();
        Some((record, state.sandboxes.get(uid).cloned()))
    }

    pub(super) fn persist(&self, record: PodRecord) {
        self.state().records.insert(record.uid().to_owned(), record);
    }

    pub(super) fn forget(&self, uid: &str) {
        let mut state = self.state();
        state.records.remove(uid);
        if state.sandboxes.contains_key(uid) {
            drop(state);
            self.accuse(format!(
                "pod {uid} was forgotten on node {} while its sandbox is there",
                self.number
            ));
        }
    }

    pub(super) fn has_image(&self, image: &str) -> bool {
        self.state().images.contains(image)
    }

    pub(super) fn keep_image(&self, image: &str) {
        self.state().images.insert(image.to_owned());
    }

    pub(super) fn start_sandbox(&self, uid: &str) {
        self.state().sandboxes.entry(uid.to_owned()).or_default().alive = true;
        let other = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(uid.to_owned(), self.number);
        if let Some(other) = other.filter(|other| *other != self.number) {
            self.accuse(format!("pod {uid} runs on node {other} and on node {}", self.number));
        }
    }

    pub(super) fn stop_sandbox(&self, uid: &str) {
        if self.state().sandboxes.remove(uid).is_some() {
            self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        }
    }

    /// Gives a pod an address, or the one that it has. Addresses come round only after all others were given.
    pub(super) fn attach(&self, uid: &str) -> IpAddr {
        let mut state = self.state();
        if let Some(address) = state.addresses.get(uid) {
            return *address;
        }
        state.last_address += 1;
        let [high, low] = u16::try_from(state.last_address % 60_000).unwrap_or(0).to_be_bytes();
        let address = IpAddr::V4(Ipv4Addr::new(100, self.number.to_be_bytes()[1], high, low));
        state.addresses.insert(uid.to_owned(), address);
        address
    }

    pub(super) fn detach(&self, uid: &str) {
        self.state().addresses.remove(uid);
    }

    /// Where an instance stands.
    pub(super) fn instance(&self, uid: &str, instance: &Instance) -> Option<InstanceState> {
        self.state().sandboxes.get(uid)?.instances.get(instance).cloned()
    }

    /// Changes where an instance stands; false when its sandbox is gone.
    pub(super) fn set_instance(&self, uid: &str, instance: &Instance, to: InstanceState) -> bool {
        let mut state = self.state();
        let Some(sandbox) = state.sandboxes.get_mut(uid) else { return false };
        let runs = |(other, state): (&Instance, &InstanceState)| {
            other.container == instance.container
                && other.attempt != instance.attempt
                && matches!(state, InstanceState::Running { .. })
        };
        let twice =
            matches!(to, InstanceState::Running { .. }) && sandbox.instances.iter().any(runs);
        sandbox.instances.insert(instance.clone(), to);
        drop(state);
        if twice {
            self.accuse(format!(
                "container {instance} of pod {uid} runs while its predecessor does"
            ));
        }
        true
    }

    pub(super) fn remove_instance(&self, uid: &str, instance: &Instance) {
        if let Some(sandbox) = self.state().sandboxes.get_mut(uid) {
            sandbox.instances.remove(instance);
        }
    }

    /// Ends a running instance; its exit, if it ran.
    pub(crate) fn end(
        &self,
        uid: &str,
        instance: &Instance,
        code: i32,
        now: Timestamp,
    ) -> Option<Exit> {
        let InstanceState::Running { started_at } = self.instance(uid, instance)? else {
            return None;
        };
        let exit = Exit {
            code,
            oom_killed: false,
            started_at: Some(started_at),
            finished_at: now,
            message: None,
        };
        self.set_instance(uid, instance, InstanceState::Exited(exit.clone())).then_some(exit)
    }

    fn accuse(&self, what: String) {
        self.cluster.ledger().accuse(Violation::Rule(what));
    }
}
