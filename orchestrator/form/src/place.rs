//! This machine's place in the cluster: its name, which no other machine has, and its part of the pod addresses.
//!
//! The name is the Machine object's, with the identity key in it: whoever made it first has the name. The part is given by the
//! API when the Node is made, and given back when the Node is deleted. A machine that had its place before need not ask
//! anybody, so its pods' network is there before a quorum is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use podium_control::Step;
use podium_store::View;
use podium_types::kind::resources;
use podium_types::{ObjectKey, object};
use serde_json::{Value, json};

use crate::client::{Refusal, SharedClient};

/// Who wants a place.
#[derive(Clone, Debug)]
pub struct Applicant {
    /// The machine's name.
    pub name: String,
    /// Its public identity key (SubjectPublicKeyInfo, DER).
    pub key: Vec<u8>,
    /// Whether it votes.
    pub voter: bool,
}

/// Why there is no place yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// Two machines are called alike.
    #[error("the name {name} belongs to another machine of this cluster; give one of them another")]
    Taken {
        /// What they are called.
        name: String,
    },
    /// The API has given none.
    #[error("the Node {0} has no pod addresses")]
    NoAddresses(String),
    /// The API's.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Applicant {
    /// The machine's pod addresses, if its own replica says that it has them.
    #[must_use]
    pub fn settled(&self, view: &View) -> Option<String> {
        let read = |key: &ObjectKey| -> Option<Value> {
            serde_json::from_slice(&view.get(&key.storage_key())?.value).ok()
        };
        let machine = read(&self.object(resources::MACHINES))?;
        (identity(&machine) == Some(self.identity().as_str())).then_some(())?;
        range(&read(&self.object(resources::NODES))?)
    }

    /// Asks once for the machine's pod addresses.
    ///
    /// # Errors
    /// There is no place, or not yet.
    pub async fn attempt(&self, client: &SharedClient) -> Result<String, NoPlace> {
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
        let ranges = json!([range]);
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

fn range(node: &Value) -> Option<String> {
    node.pointer("/spec/podCIDR").and_then(Value::as_str).map(str::to_owned)
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
