//! This machine's own Node and Machine objects: made at the first start, kept true afterwards.
//!
//! Nothing here beats: heartbeats never enter the log. The objects are written when they differ from the truth, and the
//! Ready condition says what the parts of this process say.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use podium_agent::{Agent, NodeFacts};
use podium_api::Status;
use podium_api::seams::Clock;
use podium_control::Step;
use podium_init::protocol::Status as MachineStatus;
use podium_types::kind::resources;
use podium_types::{ObjectKey, object};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::watch;

use crate::client::{Refusal, SharedClient};
use crate::overlay::Published;

/// Facts change seldom (images, pressure); looking is cheap.
const LOOK: Duration = Duration::from_secs(10);
/// While the objects cannot be written yet, at the start or without a leader.
const RETRY: Duration = Duration::from_millis(200);

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
        loop {
            let wait = match self.write().await {
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

    async fn write(&self) -> Result<(), Refusal> {
        let facts = self.agent.node_facts().await;
        let addresses = self.addresses.borrow().clone();
        let node = ObjectKey::new(resources::NODES, "", self.name.clone());
        let mut want = self.node(&facts, &addresses);
        self.ensure(&node, &want).await?;
        self.keep_times(&node, &mut want).await?;
        self.update_status(&node, want["status"].take()).await?;
        let machine = ObjectKey::new(resources::MACHINES, "", self.name.clone());
        let mut want = self.machine(&facts, &addresses);
        self.ensure(&machine, &want).await?;
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

    /// A condition that has not changed keeps its times.
    async fn keep_times(&self, key: &ObjectKey, want: &mut Value) -> Result<(), Refusal> {
        let Some(present) = self.client.get(key).await? else { return Ok(()) };
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
                condition["lastTransitionTime"] = before["lastTransitionTime"].clone();
                condition["lastHeartbeatTime"] = before["lastHeartbeatTime"].clone();
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
        let pressure = |kind: &str, on: bool, names: [(&str, &str); 2]| {
            condition(kind, on, names[usize::from(!on)])
        };
        let short = &facts.pressure;
        vec![
            pressure(
                "MemoryPressure",
                short.memory,
                [
                    ("KubeletHasInsufficientMemory", "the node is short of memory"),
                    ("KubeletHasSufficientMemory", "the node has sufficient memory available"),
                ],
            ),
            pressure(
                "DiskPressure",
                short.disk,
                [
                    ("KubeletHasDiskPressure", "the disk of images and volumes is nearly full"),
                    ("KubeletHasNoDiskPressure", "the node has no disk pressure"),
                ],
            ),
            pressure(
                "PIDPressure",
                short.pids,
                [
                    ("KubeletHasInsufficientPID", "the node is short of process ids"),
                    ("KubeletHasSufficientPID", "the node has sufficient process ids available"),
                ],
            ),
            condition("Ready", true, ("KubeletReady", "the node runs pods")),
        ]
    }

    fn machine(&self, facts: &NodeFacts, addresses: &[IpAddr]) -> Value {
        let phases: Vec<Value> = self
            .machine
            .phases
            .iter()
            .map(|phase| json!({"name": phase.name, "durationMilliseconds": u64::try_from(phase.took.as_millis()).unwrap_or(u64::MAX)}))
            .collect();
        json!({
            "apiVersion": "podium.dev/v1", "kind": "Machine",
            "metadata": {"name": self.name},
            "spec": {"identityKey": STANDARD.encode(&self.identity), "podCIDRs": [self.pod_cidr]},
            "status": {
                "addresses": node_addresses(&self.name, addresses),
                "bootID": facts.boot_id,
                "version": self.machine.version,
                "kernel": facts.kernel_version,
                "architecture": facts.architecture,
                "voter": (self.voter)(),
                "phases": phases,
            },
        })
    }
}

fn node_addresses(name: &str, addresses: &[IpAddr]) -> Vec<Value> {
    let internal =
        addresses.iter().map(|address| json!({"type": "InternalIP", "address": address}));
    internal.chain([json!({"type": "Hostname", "address": name})]).collect()
}
