//! Namespaces: what every one of them holds from the start, and how one comes to its end.
//!
//! A new namespace gets the ServiceAccount `default` and the ConfigMap `kube-root-ca.crt`; both come back when they are deleted,
//! and the ConfigMap's contents are restored.
//!
//! ```text
//!   Active ── delete ──► Terminating ──► pods deleted ──► the rest deleted ──► finalizer `kubernetes` removed ──► gone
//! ```
//!
//! Pods go before what they may be using. The API refuses new objects in a terminating namespace, so each stage ends. The
//! conditions on the namespace say what is still waited for.

use podium_types::k8s::api::core::v1::{ConfigMap, Namespace, NamespaceStatus};
use podium_types::kind::resources;
use podium_types::{Now, ObjectKey};
use serde_json::json;

use crate::controller::Controller;
use crate::object::{Object, ROOT_CA, Typed};
use crate::plan::{Plan, Propagation, Step};
use crate::world::{Change, World};

mod remaining;

const FINALIZER: &str = "kubernetes";
const SERVICE_ACCOUNT: &str = "default";

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct NamespaceController {
    /// Contents of `kube-root-ca.crt`; empty for none.
    pub root_ca_pem: String,
}

impl Controller for NamespaceController {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    fn keys_for(&self, world: &World, change: &Change) -> Vec<ObjectKey> {
        if change.key.resource == resources::NAMESPACES {
            return vec![(*change.key).clone()];
        }
        let key = ObjectKey::of_namespace(change.key.namespace.clone());
        let ends = world.object(&key).is_some_and(Object::terminating);
        if ends || is_standard(&change.key) { vec![key] } else { Vec::new() }
    }

    fn plan(&self, world: &World, key: &ObjectKey, now: Now) -> Plan {
        match (world.object(key), world.get::<Namespace>(key)) {
            (Some(object), Some(namespace)) if object.terminating() => {
                end(world, object, namespace, now)
            }
            (Some(_), Some(_)) => self.furnish(world, &key.name),
            _ => Plan::nothing(),
        }
    }
}

fn is_standard(key: &ObjectKey) -> bool {
    (key.resource == resources::SERVICE_ACCOUNTS && key.name == SERVICE_ACCOUNT)
        || (key.resource == resources::CONFIG_MAPS && key.name == ROOT_CA)
}

impl NamespaceController {
    fn furnish(&self, world: &World, namespace: &str) -> Plan {
        let mut plan = Plan::nothing();
        let account = ObjectKey::new(resources::SERVICE_ACCOUNTS, namespace, SERVICE_ACCOUNT);
        if world.object(&account).is_none() {
            plan.push(Step::Create {
                resource: resources::SERVICE_ACCOUNTS,
                object: json!({
                    "apiVersion": "v1", "kind": "ServiceAccount",
                    "metadata": {"name": SERVICE_ACCOUNT, "namespace": namespace},
                }),
            });
        }
        if !self.root_ca_pem.is_empty() {
            plan.steps.extend(self.root_ca(world, namespace));
        }
        plan
    }

    fn root_ca(&self, world: &World, namespace: &str) -> Option<Step> {
        let data = json!({"ca.crt": self.root_ca_pem});
        let key = ObjectKey::new(ConfigMap::RESOURCE, namespace, ROOT_CA);
        let Some(present) = world.get::<ConfigMap>(&key) else {
            return Some(Step::Create {
                resource: ConfigMap::RESOURCE,
                object: json!({
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {
                        "name": ROOT_CA, "namespace": namespace,
                        "annotations": {"kubernetes.io/description": DESCRIPTION},
                    },
                    "data": data,
                }),
            });
        };
        let right = present
            .data
            .as_ref()
            .is_some_and(|data| data.len() == 1 && data.get("ca.crt") == Some(&self.root_ca_pem));
        let going = present.metadata.deletion_timestamp.is_some();
        if right || going || present.immutable == Some(true) {
            return None;
        }
        let mut object = (**present).clone();
        object.data = podium_types::from_value(&data).ok();
        let object = podium_types::to_value(&object).ok()?;
        Some(Step::Update { key, subresource: None, object })
    }
}

const DESCRIPTION: &str =
    "The certificate authority that signs the API's serving certificate, for clients in pods.";

fn end(world: &World, object: &Object, namespace: &Namespace, now: Now) -> Plan {
    let mut plan = Plan::nothing();
    let content: Vec<&Object> = world.content(&object.key.name).collect();
    let is_pod = |object: &&Object| object.key.resource == resources::PODS;
    let pods = content.iter().any(is_pod);
    for object in content.iter().filter(|object| is_pod(object) || !pods) {
        if !object.terminating() {
            plan.push(Step::Delete {
                key: (*object.key).clone(),
                uid: object.uid().to_owned(),
                grace_seconds: None,
                propagation: Propagation::Background,
            });
        }
    }
    let waits = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref());
    let ours = waits.unwrap_or_default().iter().any(|finalizer| finalizer == FINALIZER);
    if content.is_empty() && ours {
        plan.steps.extend(finalize(object, namespace));
    } else {
        plan.steps.extend(report(object, namespace, &content, now));
    }
    plan
}

fn finalize(object: &Object, namespace: &Namespace) -> Option<Step> {
    let mut namespace = namespace.clone();
    if let Some(finalizers) = namespace.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
        finalizers.retain(|finalizer| finalizer != FINALIZER);
    }
    let value = podium_types::to_value(&namespace).ok()?;
    let key = (*object.key).clone();
    Some(Step::Update { key, subresource: Some("finalize"), object: value })
}

fn report(object: &Object, namespace: &Namespace, content: &[&Object], now: Now) -> Option<Step> {
    let before = namespace.status.clone().unwrap_or_default();
    let conditions = remaining::conditions(before.conditions.as_deref(), content, now);
    let status =
        NamespaceStatus { conditions: Some(conditions), phase: Some("Terminating".to_owned()) };
    if status == before {
        return None;
    }
    let mut namespace = namespace.clone();
    namespace.status = Some(status);
    let value = podium_types::to_value(&namespace).ok()?;
    let key = (*object.key).clone();
    Some(Step::Update { key, subresource: Some("status"), object: value })
}
