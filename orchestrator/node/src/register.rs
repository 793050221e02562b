//! This machine's own Node and Machine objects: made at the first start, kept true afterwards.
//!
//! Nothing here beats: heartbeats never enter the log. The objects are written when they differ from the truth, and the
//! Ready condition says what the parts of this process say.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use podium_agent::{Agent, NodeFacts, NodePressure};
use podium_api::Status;
use podium_api::seams::Clock;
use podium_control::{EventKind, EventStep, Regarding, Step};
use podium_init::protocol::Status as MachineStatus;
use podium_types::kind::resources;
use podium_types::{ObjectKey, object};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::watch;

use crate::overlay::Published;
use crate::sinks;
use podium_form::client::{Refusal, SharedClient};

/// Facts change seldom (images, pressure); looking is cheap.
const LOOK: Duration = Duration::from_secs(10);
/// While the objects cannot be written yet, at the start or without a leader.
const RETRY: Duration = Duration::from_millis(200);

/// The moment of the boot is told anew when it differs by this: clocks run apart by less in months, and people who look at
/// how long a machine has been up do not care about more.
const CLOCK_SET: Duration = Duration::from_secs(60);

/// One kind of shortage, in the words of kubelet: its events' reasons begin with `Node`, its conditions' with `Kubelet`.
struct Pressure {
    condition: &'static str,
    of: fn(&NodePressure) -> bool,
    /// Reason without its beginning, and message.
    short: (&'static str, &'static str),
    enough: (&'static str, &'static str),
}

const PRESSURES: [Pressure; 3] = [
    Pressure {
        condition: "MemoryPressure",
        of: |node| node.memory,
        short: ("HasInsufficientMemory", "the node is short of memory"),
        enough: ("HasSufficientMemory", "the node has sufficient memory available"),
    },
    Pressure {
        condition: "DiskPressure",
        of: |node| node.disk,
        short: ("HasDiskPressure", "the disk of images and volumes is nearly full"),
        enough: ("HasNoDiskPressure", "the node has no disk pressure"),
    },
    Pressure {
        condition: "PIDPressure",
        of: |node| node.pids,
        short: ("HasInsufficientPID", "the node is short of process ids"),
        enough: ("HasSufficientPID", "the node has sufficient process ids available"),
    },
];

/// A shortage that began or ended.
#[derive(Debug, PartialEq, Eq)]
struct PressureChange {
    short: bool,
    reason: String,
    message: &'static str,
}

fn pressure_changes(before: NodePressure, now: NodePressure) -> Vec<PressureChange> {
    let changed = PRESSURES.iter().filter(|which| (which.of)(&before) != (which.of)(&now));
    let change = |which: &Pressure| {
        let short = (which.of)(&now);
        let (reason, message) = if short { which.short } else { which.enough };
        PressureChange { short, reason: format!("Node{reason}"), message }
    };
    changed.map(change).collect()
}

/// What the objects are made from.
pub(crate) struct Registration {
    pub(crate) client: SharedClient,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) agent: Agent,
    pub(crate) name: String,
    pub(crate) pod_cidr: String,
    /// The machine's public identity key (SubjectPublicKeyInfo, DER).
    pub(crate) identity: Vec<u8>,
    /// Whether the machine votes now.
    pub(crate) voter: Box<dyn Fn() -> bool + Send + Sync>,
    pub(crate) machine: MachineStatus,
    pub(crate) addresses: watch::Receiver<Vec<IpAddr>>,
    pub(crate) overlay: Published,
}

impl Registration {
    /// Keeps the objects true; never returns. `registered` turns true when the Node is Ready in the API.
    pub(crate) async fn run(mut self, registered: watch::Sender<bool>) -> ! {
        let mut pressure = NodePressure::default();
        loop {
            let facts = self.agent.node_facts().await;
            self.tell(pressure, facts.pressure).await;
            pressure = facts.pressure;
            let wait = match self.write(&facts).await {
                Ok(()) => {
                    registered.send_if_modified(|known| !std::mem::replace(known, true));
                    LOOK
                }
                Err(refusal) => {
                    tracing::debug!(%refusal, "this node is not registered yet");
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                Ok(()) = self.addresses.changed() => {}
            }
        }
    }

    /// Says on the console and in an event what the node has become short of, or is no longer.
    async fn tell(&self, before: NodePressure, now: NodePressure) {
        for change in pressure_changes(before, now) {
            if change.short {
                tracing::warn!("{}", change.message);
            } else {
                tracing::info!("{}", change.message);
            }
            let step = EventStep {
                regarding: Regarding {
                    key: ObjectKey::new(resources::NODES, "", self.name.clone()),
                    api_version: "v1".to_owned(),
                    kind: "Node".to_owned(),
                    // Of a node, events carry the name in place of the uid: that is where kubectl looks for them.
                    uid: self.name.clone(),
                    resource_version: String::new(),
                    field_path: String::new(),
                },
                kind: EventKind::Normal,
                reason: change.reason.clone(),
                message: format!("Node {} status is now: {}", self.name, change.reason),
                action: "",
                component: "kubelet",
                reports: None,
            };
            sinks::record(&self.client, &*self.clock, &step).await;
        }
    }

    async fn write(&self, facts: &NodeFacts) -> Result<(), Refusal> {
        let addresses = self.addresses.borrow().clone();
        let node = ObjectKey::new(resources::NODES, "", self.name.clone());
        let mut want = self.node(facts, &addresses);
        self.ensure(&node, &want).await?;
        self.keep_times(&node, &mut want).await?;
        self.update_status(&node, want["status"].take()).await?;
        let machine = ObjectKey::new(resources::MACHINES, "", self.name.clone());
        let mut want = self.machine(facts, &addresses);
        self.ensure(&machine, &want).await?;
        self.keep_times(&machine, &mut want).await?;
        self.publish(&machine, &addresses).await?;
        self.update_status(&machine, want["status"].take()).await
    }

    /// Says in the Machine's spec how others reach this node's pods, if it does not say so.
    async fn publish(&self, key: &ObjectKey, addresses: &[IpAddr]) -> Result<(), Refusal> {
        let Some(mut present) = self.client.get(key).await? else {
            return Err(Status::not_found(&key.resource, &key.name).into());
        };
        let spec = object::map_of(&mut present).entry("spec").or_insert_with(|| json!({}));
        if !self.overlay.write(object::map_of(spec), addresses) {
            return Ok(());
        }
        let step = Step::Update { key: key.clone(), subresource: None, object: present };
        self.client.call(step).await.map(drop)
    }

    /// Makes the object if it is not there.
    async fn ensure(&self, key: &ObjectKey, want: &Value) -> Result<(), Refusal> {
        if self.client.get(key).await?.is_some() {
            return Ok(());
        }
        let step = Step::Create { resource: key.resource.clone(), object: want.clone() };
        match self.client.call(step).await {
            Err(refusal) if !refusal.is("AlreadyExists") => Err(refusal),
            _ => Ok(()),
        }
    }

    /// Writes the status if it differs.
    async fn update_status(&self, key: &ObjectKey, status: Value) -> Result<(), Refusal> {
        let Some(mut present) = self.client.get(key).await? else {
            return Err(Status::not_found(&key.resource, &key.name).into());
        };
        if present.get("status") == Some(&status) {
            return Ok(());
        }
        object::map_of(&mut present).insert("status".to_owned(), status);
        let key = key.clone();
        let step = Step::Update { key, subresource: Some("status"), object: present };
        self.client.call(step).await.map(drop)
    }

    /// A condition that has not changed keeps its times, and so does the boot.
    async fn keep_times(&self, key: &ObjectKey, want: &mut Value) -> Result<(), Refusal> {
        let Some(present) = self.client.get(key).await? else { return Ok(()) };
        keep_boot(&present["status"], &mut want["status"]);
        let known = object::list_at(&present, &["status", "conditions"]);
        let Some(wanted) = want.pointer_mut("/status/conditions").and_then(Value::as_array_mut)
        else {
            return Ok(());
        };
        for condition in wanted {
            let Some(before) = known.iter().find(|it| it["type"] == condition["type"]) else {
                continue;
            };
            if before["status"] == condition["status"] {
                for time in ["lastTransitionTime", "lastHeartbeatTime"] {
                    if let Some(known) = before.get(time) {
                        condition[time] = known.clone();
                    }
                }
            }
        }
        Ok(())
    }

    fn node(&self, facts: &NodeFacts, addresses: &[IpAddr]) -> Value {
        let mut labels = json!({
            "kubernetes.io/hostname": self.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": facts.architecture,
        });
        if (self.voter)() {
            labels["node-role.kubernetes.io/control-plane"] = json!("");
        }
        let images: Vec<Value> = facts
            .images
            .iter()
            .map(|(names, bytes)| json!({"names": names, "sizeBytes": bytes}))
            .collect();
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": self.name, "labels": labels},
            "spec": {"podCIDR": self.pod_cidr, "podCIDRs": [self.pod_cidr], "providerID": format!("podium://{}", self.name)},
            "status": {
                "addresses": node_addresses(&self.name, addresses),
                "capacity": facts.capacity,
                "allocatable": facts.allocatable,
                "conditions": self.conditions(facts),
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 6443}},
                "images": images,
                "nodeInfo": {
                    "architecture": facts.architecture,
                    "bootID": facts.boot_id,
                    "containerRuntimeVersion": format!("podium://{}", self.machine.version),
                    "kernelVersion": facts.kernel_version,
                    "kubeProxyVersion": "",
                    "kubeletVersion": podium_api::http::GIT_VERSION,
                    "machineID": self.machine.boot_id,
                    "operatingSystem": "linux",
                    "osImage": format!("Podium {}", self.machine.version),
                    "systemUUID": self.machine.boot_id,
                },
            },
        })
    }

    fn conditions(&self, facts: &NodeFacts) -> Vec<Value> {
        let now = format!("{:.0}", self.clock.now().wall);
        let condition = |kind: &str, on: bool, (reason, message): (&str, &str)| {
            json!({"type": kind, "status": if on { "True" } else { "False" }, "reason": reason, "message": message,
                "lastHeartbeatTime": now, "lastTransitionTime": now})
        };
        let pressure = |which: &Pressure| {
            let on = (which.of)(&facts.pressure);
            let (reason, message) = if on { which.short } else { which.enough };
            condition(which.condition, on, (&format!("Kubelet{reason}"), message))
        };
        let ready = condition("Ready", true, ("KubeletReady", "the node runs pods"));
        PRESSURES.iter().map(pressure).chain([ready]).collect()
    }

    fn machine(&self, facts: &NodeFacts, addresses: &[IpAddr]) -> Value {
        let phases: Vec<Value> = self
            .machine
            .phases
            .iter()
            .map(|phase| json!({"name": phase.name, "durationMilliseconds": u64::try_from(phase.took.as_millis()).unwrap_or(u64::MAX)}))
            .collect();
        let now = self.clock.now().wall;
        let booted = SignedDuration::try_from(facts.uptime).map_or(now, |up| now - up);
        json!({
            "apiVersion": "podium.dev/v1", "kind": "Machine",
            "metadata": {"name": self.name},
            "spec": {"identityKey": STANDARD.encode(&self.identity), "podCIDRs": [self.pod_cidr]},
            "status": {
                "addresses": node_addresses(&self.name, addresses),
                "bootID": facts.boot_id,
                "bootedAt": format!("{booted:.0}"),
                "version": self.machine.version,
                "kernel": facts.kernel_version,
                "architecture": facts.architecture,
                "voter": (self.voter)(),
                "phases": phases,
                "conditions": [{"type": "Ready", "status": "True", "reason": "NodeRegistered",
                    "message": "the node runs", "lastTransitionTime": format!("{now:.0}")}],
            },
        })
    }
}

/// The moment of the boot follows from the time now and how long the machine has been up, so it differs a little each time:
/// what is known stays unless the clock has been set since, or there was another boot.
fn keep_boot(known: &Value, want: &mut Value) {
    let booted = |status: &Value| status["bootedAt"].as_str()?.parse::<Timestamp>().ok();
    if let (Some(before), Some(now)) = (booted(known), booted(want))
        && known["bootID"] == want["bootID"]
        && now.duration_since(before).unsigned_abs() < CLOCK_SET
    {
        want["bootedAt"] = known["bootedAt"].clone();
    }
}

fn node_addresses(name: &str, addresses: &[IpAddr]) -> Vec<Value> {
    let internal =
        addresses.iter().map(|address| json!({"type": "InternalIP", "address": address}));
    internal.chain([json!({"type": "Hostname", "address": name})]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_is_told_anew_when_it_was_another_or_the_clock_was_set() {
        let status = |id: &str, at: &str| json!({"bootID": id, "bootedAt": at});
        let kept = |known: &Value, id: &str, at: &str| {
            let mut want = status(id, at);
            keep_boot(known, &mut want);
            want["bootedAt"].as_str().unwrap_or_default().to_owned()
        };
        let known = status("a", "2026-11-21T11:00:00Z");
        assert_eq!(kept(&known, "a", "2026-11-21T10:59:59Z"), "2026-11-21T11:00:00Z");
        assert_eq!(kept(&known, "a", "1970-01-01T00:00:00Z"), "1970-01-01T00:00:00Z");
        assert_eq!(kept(&known, "b", "2026-11-21T11:00:01Z"), "2026-11-21T11:00:01Z");
        assert_eq!(kept(&json!({}), "a", "2026-11-21T11:00:01Z"), "2026-11-21T11:00:01Z");
    }

    #[test]
    fn only_what_has_changed_is_told() {
        let none = NodePressure::default();
        let disk = NodePressure { disk: true, ..none };
        let told = |before, now| -> Vec<(bool, String)> {
            let changes = pressure_changes(before, now).into_iter();
            changes.map(|change| (change.short, change.reason)).collect()
        };
        assert_eq!(told(none, disk), [(true, "NodeHasDiskPressure".to_owned())]);
        assert_eq!(told(disk, disk), []);
        assert_eq!(
            told(disk, NodePressure { memory: true, ..none }),
            [
                (true, "NodeHasInsufficientMemory".to_owned()),
                (false, "NodeHasNoDiskPressure".to_owned()),
            ]
        );
    }
}
