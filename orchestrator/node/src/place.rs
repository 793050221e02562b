//! This machine's place in the cluster: its name, which no other machine has, and its part of the pod addresses.
//!
//! The name is the Machine object's, with the identity key in it: whoever made it first has the name. The part is given by the
//! API when the Node is made, and given back when the Node is deleted. A machine that had its place before need not ask
//! anybody, so its pods' network is there before a quorum is.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use podium_control::Step;
use podium_link::Cidr;
use podium_store::View;
use podium_types::kind::resources;
use podium_types::{ObjectKey, object};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::client::{Refusal, SharedClient};

/// While there is no leader.
const RETRY: Duration = Duration::from_millis(200);
/// While another machine has the name: somebody has to act.
const TAKEN: Duration = Duration::from_secs(5);

/// Who wants a place.
pub(crate) struct Applicant {
    /// The machine's name.
    pub(crate) name: String,
    /// Its public identity key (SubjectPublicKeyInfo, DER).
    pub(crate) key: Vec<u8>,
    /// Whether it votes.
    pub(crate) voter: bool,
}

/// Why there is no place yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoPlace {
    #[error("the name {name} belongs to another machine of this cluster; give one of them another")]
    Taken { name: String },
    #[error("the Node {0} has no pod addresses")]
    NoAddresses(String),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Applicant {
    /// The machine's pod addresses. Waits until the cluster has given them; `trouble` says why it has not.
    pub(crate) async fn take(
        &self,
        client: &SharedClient,
        local: impl Fn() -> View,
        trouble: &watch::Sender<Option<String>>,
    ) -> Cidr {
        loop {
            if let Some(range) = self.settled(&local()) {
                return range;
            }
            let wait = match self.attempt(client).await {
                Ok(range) => {
                    trouble.send_if_modified(|known| known.take().is_some());
                    return range;
                }
                Err(NoPlace::Refused(refusal)) if refusal.may_pass() => {
                    tracing::debug!(%refusal, "no place in the cluster yet");
                    RETRY
                }
                Err(error) => {
                    tracing::error!("{error}");
                    trouble.send_replace(Some(error.to_string()));
                    TAKEN
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// The place as this machine's own replica has it.
    fn settled(&self, view: &View) -> Option<Cidr> {
        let read = |key: &ObjectKey| -> Option<Value> {
            serde_json::from_slice(&view.get(&key.storage_key())?.value).ok()
        };
        let machine = read(&self.object(resources::MACHINES))?;
        (identity(&machine) == Some(self.identity().as_str())).then_some(())?;
        range(&read(&self.object(resources::NODES))?)
    }

    /// Asks once.
    pub(crate) async fn attempt(&self, client: &SharedClient) -> Result<Cidr, NoPlace> {
        let key = self.object(resources::MACHINES);
        let mut machine = match client.get(&key).await? {
            Some(machine) => machine,
            None => {
                let object = json!({
                    "apiVersion": "podium.dev/v1", "kind": "Machine", "metadata": {"name": self.name},
                    "spec": {"identityKey": self.identity()},
                });
                self.create(client, &key, object).await?
            }
        };
        match identity(&machine) {
            Some(known) if known == self.identity() => {}
            Some(_) => return Err(NoPlace::Taken { name: self.name.clone() }),
            None => {
                set_spec(&mut machine, "identityKey", self.identity().into());
                client.call(update(&key, machine)).await?;
                machine = client.get(&key).await?.unwrap_or_default();
            }
        }
        let key = self.object(resources::NODES);
        let node = match client.get(&key).await? {
            Some(node) => node,
            None => self.create(client, &key, self.node()).await?,
        };
        let range = range(&node).ok_or_else(|| NoPlace::NoAddresses(self.name.clone()))?;
        let ranges = json!([range.to_string()]);
        if machine.pointer("/spec/podCIDRs") != Some(&ranges) {
            set_spec(&mut machine, "podCIDRs", ranges);
            client.call(update(&self.object(resources::MACHINES), machine)).await?;
        }
        Ok(range)
    }

    /// Makes an object, and gives it back as it is then, whoever made it.
    async fn create(
        &self,
        client: &SharedClient,
        key: &ObjectKey,
        object: Value,
    ) -> Result<Value, NoPlace> {
        match client.call(Step::Create { resource: key.resource.clone(), object }).await {
            Err(refusal) if !refusal.is("AlreadyExists") => return Err(refusal.into()),
            _ => {}
        }
        Ok(client.get(key).await?.unwrap_or_default())
    }

    fn node(&self) -> Value {
        let mut labels = json!({
            "kubernetes.io/hostname": self.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": architecture(),
        });
        if self.voter {
            labels["node-role.kubernetes.io/control-plane"] = json!("");
        }
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": self.name, "labels": labels},
            "spec": {"providerID": format!("podium://{}", self.name)},
        })
    }

    fn identity(&self) -> String {
        STANDARD.encode(&self.key)
    }

    fn object(&self, resource: podium_types::GroupResource) -> ObjectKey {
        ObjectKey::new(resource, "", self.name.clone())
    }
}

fn identity(machine: &Value) -> Option<&str> {
    machine.pointer("/spec/identityKey").and_then(Value::as_str)
}

fn range(node: &Value) -> Option<Cidr> {
    node.pointer("/spec/podCIDR").and_then(Value::as_str)?.parse().ok()
}

fn set_spec(machine: &mut Value, field: &str, value: Value) {
    object::child_mut(object::map_of(machine), "spec").insert(field.to_owned(), value);
}

fn update(key: &ObjectKey, object: Value) -> Step {
    Step::Update { key: key.clone(), subresource: None, object }
}

/// Kubernetes' names.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
