//! A node's agent with a runtime of cardboard: the shipped pod lifecycle decides, nothing really runs.
//!
//! Job: follow the pods that are bound to this node, hand events to one `PodMachine` for each, and carry out its commands
//! on [`host::Host`], which stands for shims, containers, network and images. The host belongs to the machine, not to the
//! node program: it survives when only the program is killed, and loses its sandboxes when power is lost.
//!
//! The loop is the same as the real agent's: watch, wake, finished effect; one at a time, commands in order.

mod effect;
pub(crate) mod host;
mod report;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;
use futures::future::{Either, select};
use podium_control::pod::{NodeRoom, PodCommand, PodEvent, PodMachine, Settings, admit};
use podium_control::resources::{Resources, Usage};
use podium_store::{Revision, StoreHandle, Watch, WatchError, WatchEvent};
use podium_types::ObjectKey;
use podium_types::k8s::api::core::v1::Pod;
use podium_types::kind::resources;

use crate::access::Access;
use crate::cluster::SimStore;
use crate::executor;
use crate::runtime::Sleep;
use host::Host;

/// How long the agent sleeps when no machine asks to be woken.
const IDLE: Duration = Duration::from_secs(3_600);

/// What one node's agent knows.
pub(crate) struct Agent {
    node: String,
    host: Host,
    access: Access,
    pods: BTreeMap<String, Entry>,
    finished: mpsc::UnboundedSender<(String, PodEvent)>,
    reports: report::Reports,
}

struct Entry {
    key: ObjectKey,
    machine: PodMachine,
    lane: effect::Lane,
}

enum Happening {
    Watched(Result<Arc<WatchEvent>, WatchError>),
    Finished(String, PodEvent),
    Woken,
}

/// Runs the agent of `node` for as long as its life lasts.
pub(crate) async fn run(node: String, host: Host, store: SimStore, access: Access) {
    let (finished, mut results) = mpsc::unbounded();
    let reports = report::Reports::new(access.clone());
    let mut agent = Agent { node, host, access, pods: BTreeMap::new(), finished, reports };
    agent.register().await;
    loop {
        let Ok(mut watch) = agent.list(&store).await else { return };
        loop {
            let happening = agent.next(&mut watch, &mut results).await;
            match happening {
                Happening::Watched(Ok(event)) => agent.watched(&event),
                Happening::Watched(Err(WatchError::TooOld)) => break,
                Happening::Watched(Err(WatchError::Closed)) => return,
                Happening::Finished(uid, event) => agent.step(&uid, event),
                Happening::Woken => agent.wake(),
            }
        }
    }
}

impl Agent {
    async fn register(&self) {
        let node = self.host.node_object(&self.node);
        self.access.ensure_node(&self.node, node).await;
    }

    async fn next(
        &self,
        watch: &mut Watch,
        results: &mut mpsc::UnboundedReceiver<(String, PodEvent)>,
    ) -> Happening {
        let wake = self.pods.values().filter_map(|entry| entry.machine.next_wake()).min();
        let wait = wake.map_or(IDLE, |at| at.saturating_sub(self.access.now().monotonic));
        let watched = std::pin::pin!(watch.next());
        let timed = std::pin::pin!(Sleep::after(wait));
        match select(watched, select(results.next(), timed)).await {
            Either::Left((event, _)) => Happening::Watched(event),
            Either::Right((Either::Left((Some((uid, event)), _)), _)) => {
                Happening::Finished(uid, event)
            }
            Either::Right((Either::Left((None, _)) | Either::Right(_), _)) => Happening::Woken,
        }
    }

    /// Takes the pods as they are now, and a watch of what follows.
    async fn list(&mut self, store: &SimStore) -> Result<Watch, ()> {
        let prefix = ObjectKey::prefix(&resources::PODS, None);
        loop {
            let Ok(view) = store.read().await else {
                Sleep::after(Duration::from_millis(500)).await;
                continue;
            };
            let mut seen = Vec::new();
            for record in view.range(&prefix) {
                let Some(key) = ObjectKey::parse(&record.key) else { continue };
                if let Some(uid) = self.desired(key, &record.value, record.mod_revision) {
                    seen.push(uid);
                }
            }
            self.forget_absent(&seen);
            if let Ok(watch) = store.watch(&prefix, view.revision()) {
                return Ok(watch);
            }
        }
    }

    /// Pods that this agent, or its host from an earlier life, has and the API has not.
    fn forget_absent(&mut self, seen: &[String]) {
        for record in self.host.records() {
            let record = record.into_latest();
            if !seen.contains(&record.uid) && !self.pods.contains_key(&record.uid) {
                self.adopt_orphan(&record.uid, &record.namespace, &record.name);
            }
        }
        let absent: Vec<String> =
            self.pods.keys().filter(|uid| !seen.contains(uid)).cloned().collect();
        for uid in absent {
            self.step(&uid, PodEvent::Removed);
        }
    }

    fn adopt_orphan(&mut self, uid: &str, namespace: &str, name: &str) {
        let mut pod = Pod::default();
        pod.metadata.uid = Some(uid.to_owned());
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.namespace = Some(namespace.to_owned());
        self.begin(ObjectKey::new(resources::PODS, namespace, name), uid, Arc::new(pod));
    }

    fn watched(&mut self, event: &WatchEvent) {
        let Some(key) = ObjectKey::parse(&event.key) else { return };
        if let Some(record) = &event.record {
            self.desired(key, &record.value, record.mod_revision);
            return;
        }
        let gone = self.pods.iter().find(|(_, entry)| entry.key == key).map(|(uid, _)| uid.clone());
        if let Some(uid) = gone {
            self.step(&uid, PodEvent::Removed);
        }
    }

    /// Takes a pod's object; its uid if the pod is this node's.
    fn desired(&mut self, key: ObjectKey, json: &[u8], revision: Revision) -> Option<String> {
        // Objects at rest are canonical: what does not say this is not this node's, and need not be decoded.
        let bound = format!("\"nodeName\":\"{}\"", self.node);
        if !std::str::from_utf8(json).ok()?.contains(&bound) {
            return None;
        }
        let mut pod: Pod = serde_json::from_slice(json).ok()?;
        pod.metadata.resource_version = Some(revision.to_string());
        if pod.spec.as_ref()?.node_name.as_deref() != Some(&self.node) {
            return None;
        }
        let uid = pod.metadata.uid.clone()?;
        let replaced: Vec<String> = self
            .pods
            .iter()
            .filter(|(other, entry)| entry.key == key && **other != uid)
            .map(|(other, _)| other.clone())
            .collect();
        for other in replaced {
            self.step(&other, PodEvent::Removed);
        }
        if self.pods.contains_key(&uid) {
            self.step(&uid, PodEvent::Desired(Arc::new(pod)));
        } else {
            self.begin(key, &uid, Arc::new(pod));
        }
        Some(uid)
    }

    fn begin(&mut self, key: ObjectKey, uid: &str, pod: Arc<Pod>) {
        let settings = Settings {
            host_addresses: self.host.addresses(),
            withdraw_limit: Duration::from_secs(2),
        };
        let now = self.access.now();
        let mut out = Vec::new();
        let machine = match self.host.left_of(uid) {
            Some(left) => PodMachine::adopt(pod, settings, left, now, &mut out),
            None => {
                PodMachine::new(pod.clone(), settings, admit(&pod, &self.room(uid)), now, &mut out)
            }
        };
        let lane = effect::lane(&self.host, &self.finished, uid);
        self.pods.insert(uid.to_owned(), Entry { key, machine, lane });
        self.carry_out(uid, out);
    }

    fn room(&self, except: &str) -> NodeRoom {
        let mut used = Usage::default();
        for (uid, entry) in &self.pods {
            let phase =
                entry.machine.pod().status.as_ref().and_then(|status| status.phase.as_deref());
            if uid != except && !matches!(phase, Some("Succeeded" | "Failed")) {
                used.add(entry.machine.pod());
            }
        }
        NodeRoom { allocatable: Resources::from(&self.host.allocatable()), used }
    }

    fn step(&mut self, uid: &str, event: PodEvent) {
        let now = self.access.now();
        let mut out = Vec::new();
        let Some(entry) = self.pods.get_mut(uid) else { return };
        entry.machine.step(now, event, &mut out);
        self.carry_out(uid, out);
        if self.pods.get(uid).is_some_and(|entry| entry.machine.is_gone()) {
            self.pods.remove(uid);
        }
    }

    fn wake(&mut self) {
        let now = self.access.now().monotonic;
        let due: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, entry)| entry.machine.next_wake().is_some_and(|at| at <= now))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in due {
            self.step(&uid, PodEvent::Tick);
        }
    }

    fn carry_out(&mut self, uid: &str, commands: Vec<PodCommand>) {
        for command in commands {
            let Some(entry) = self.pods.get(uid) else { return };
            match command {
                PodCommand::Persist(record) => self.host.persist(*record),
                PodCommand::Forget => self.host.forget(uid),
                PodCommand::RemoveInstance(instance) => self.host.remove_instance(uid, &instance),
                PodCommand::ReportStatus(status) => self.reports.status(&entry.key, uid, *status),
                PodCommand::Record(occurrence) => {
                    self.reports.occurrence(&entry.key, uid, occurrence);
                }
                PodCommand::DeleteObject => self.reports.delete(&entry.key, uid),
                effect => {
                    let pod = entry.machine.pod().clone();
                    effect::start(&self.host, &self.finished, &entry.lane, uid, (&pod, effect));
                }
            }
        }
    }
}

/// A duration between two bounds, drawn from the seed.
pub(crate) fn drawn(low_ms: u64, high_ms: u64) -> Duration {
    executor::with(|core| {
        core.between(Duration::from_millis(low_ms), Duration::from_millis(high_ms))
    })
}
