//! People and programs that use the API: they make, scale, change and delete things at random.
//!
//! What they do is always allowed to be refused. What they rely on is judged by the rules (a counter that is increased
//! with a resourceVersion never loses an increment) or here (a deletion with another object's uid must not succeed).

mod draw;

use std::time::Duration;

use podium_api::User;
use podium_types::kind::resources;
use podium_types::{GroupResource, ObjectKey};
use serde_json::{Value, json};

use crate::access::{Access, Outcome, Request};
use crate::cluster::{Cluster, FIRST_CLIENT};
use crate::executor::{self, Life};
use crate::ledger::Violation;
use crate::runtime::{Sleep, spawn_in};

/// The namespaces that users work in; all but the first come and go.
const NAMESPACES: [&str; 3] = ["default", "blue", "green"];

/// The users of a cluster.
#[derive(Clone)]
pub struct Users {
    cluster: Cluster,
    access: Access,
}

impl Users {
    /// Users at an address of their own.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        let access = Access::new(cluster.clone(), FIRST_CLIENT + 1, User::admin());
        Self { cluster, access }
    }

    /// Makes what every cluster has before its first user comes.
    pub async fn prepare(&self) {
        for name in NAMESPACES {
            let request =
                Request::Create { resource: resources::NAMESPACES, object: namespace_object(name) };
            self.access.insist(request).await;
        }
    }

    /// Starts one random action.
    pub fn act(&self) {
        let users = self.clone();
        drop(spawn_in(Life::HARNESS, async move { users.act_once().await }));
    }

    async fn act_once(&self) {
        let (choice, namespace) = executor::with(|core| {
            let namespace = NAMESPACES[usize::try_from(core.below(3)).unwrap_or(0)];
            (core.below(100), if core.one_in(3) { "default" } else { namespace })
        });
        match choice {
            0..14 => self.apply(resources::DEPLOYMENTS, draw::deployment(namespace)).await,
            14..30 => self.change_deployment(namespace).await,
            30..36 => self.delete_some(resources::DEPLOYMENTS, namespace).await,
            36..44 => self.apply(resources::SERVICES, draw::service(namespace)).await,
            44..48 => self.delete_some(resources::SERVICES, namespace).await,
            48..56 => self.apply(resources::PODS, draw::pod(namespace)).await,
            56..66 => self.delete_some(resources::PODS, namespace).await,
            66..84 => self.count("default").await,
            84..88 => self.cordon().await,
            88..90 => self.delete_replaced(namespace).await,
            90..92 => self.bind_again(namespace).await,
            92..94 => self.delete_some(resources::REPLICA_SETS, namespace).await,
            94..96 => self.delete_namespace().await,
            _ => self.create_namespace(namespace).await,
        }
    }

    async fn create_namespace(&self, name: &str) {
        self.apply(resources::NAMESPACES, namespace_object(name)).await;
    }

    async fn apply(&self, resource: GroupResource, object: Value) {
        self.access.call(Request::Create { resource, object }).await;
    }

    /// Some object of a resource, as the established history has it.
    fn some(&self, resource: &GroupResource, namespace: &str) -> Option<(ObjectKey, Value)> {
        let rules = self.cluster.rules();
        let found: Vec<_> = rules
            .objects()
            .iter()
            .filter(|(key, _)| key.resource == *resource && key.namespace == namespace)
            .collect();
        let index = executor::with(|core| core.below(found.len() as u64));
        let (key, object) = found.get(usize::try_from(index).unwrap_or(0))?;
        Some(((*key).clone(), (*object).clone()))
    }

    async fn change_deployment(&self, namespace: &str) {
        let Some((key, _)) = self.some(&resources::DEPLOYMENTS, namespace) else { return };
        let patch = draw::change();
        self.access.call(Request::Patch { key, part: None, patch }).await;
    }

    async fn delete_some(&self, resource: GroupResource, namespace: &str) {
        let Some((key, object)) = self.some(&resource, namespace) else { return };
        let uid = executor::with(|core| core.one_in(2)).then(|| uid_of(&object));
        let request = Request::Delete {
            key,
            uid,
            grace_seconds: draw::grace(),
            propagation: Some(draw::propagation()),
        };
        self.access.call(request).await;
    }

    /// Deletes by the uid of an object that never was.
    async fn delete_replaced(&self, namespace: &str) {
        let Some((key, object)) = self.some(&resources::CONFIG_MAPS, namespace) else { return };
        let wrong = format!("ffffffff{}", &uid_of(&object)[8..]);
        let request = Request::Delete {
            key: key.clone(),
            uid: Some(wrong),
            grace_seconds: None,
            propagation: None,
        };
        if let Outcome::Done { .. } = self.access.call(request).await {
            let what = format!("{} was deleted by a uid that is not its own", key.name);
            self.cluster.ledger().accuse(Violation::Rule(what));
        }
    }

    /// Does what a second scheduler with an old view would: puts a pod that has a node on another.
    async fn bind_again(&self, namespace: &str) {
        let Some((key, pod)) = self.some(&resources::PODS, namespace) else { return };
        let has = pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
        let nodes: Vec<String> =
            self.cluster.rules().of("nodes").map(|(key, _)| key.name.clone()).collect();
        let index = executor::with(|core| core.below(nodes.len() as u64));
        let node = nodes.into_iter().nth(usize::try_from(index).unwrap_or(0));
        let Some(node) = node.filter(|node| !has.is_empty() && *node != has) else { return };
        let name = key.name.clone();
        let request = Request::Bind { pods: vec![(key, uid_of(&pod))], node: node.clone() };
        if let Outcome::Done { .. } = self.access.call(request).await {
            let what = format!("pod {name} was bound to {has} and then to {node:?}");
            self.cluster.ledger().accuse(Violation::Rule(what));
        }
    }

    /// Increases a counter: read, add one, write back what was read.
    async fn count(&self, namespace: &str) {
        let name = executor::with(|core| format!("count-{}", core.below(2)));
        let key = ObjectKey::new(resources::CONFIG_MAPS, namespace, name.clone());
        let mut object = match self.access.call(Request::Get { key: key.clone() }).await {
            Outcome::Done { object, .. } => object,
            Outcome::Refused { status } if status.code == 404 => {
                let object = json!({
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": { "name": name, "namespace": namespace }, "data": { "count": "0" },
                });
                return self.apply(resources::CONFIG_MAPS, object).await;
            }
            Outcome::Refused { .. } | Outcome::Unknown => return,
        };
        Sleep::after(executor::with(|core| {
            core.between(Duration::ZERO, Duration::from_millis(500))
        }))
        .await;
        let count: u64 =
            object["data"]["count"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
        object["data"]["count"] = json!((count + 1).to_string());
        self.access.call(Request::Update { key, part: None, object }).await;
    }

    async fn cordon(&self) {
        let Some((key, node)) = self.some(&resources::NODES, "") else { return };
        let cordoned = node["spec"]["unschedulable"] == true;
        let patch = json!({ "spec": { "unschedulable": !cordoned } });
        self.access.call(Request::Patch { key, part: None, patch }).await;
    }

    /// Makes every node take pods again.
    pub async fn uncordon_all(&self) {
        let nodes: Vec<ObjectKey> =
            self.cluster.rules().of("nodes").map(|(key, _)| key.clone()).collect();
        for key in nodes {
            let patch = json!({ "spec": { "unschedulable": null } });
            self.access.insist(Request::Patch { key, part: None, patch }).await;
        }
    }

    async fn delete_namespace(&self) {
        let name =
            executor::with(|core| NAMESPACES[1 + usize::try_from(core.below(2)).unwrap_or(0)]);
        let key = ObjectKey::of_namespace(name);
        let request = Request::Delete { key, uid: None, grace_seconds: None, propagation: None };
        self.access.call(request).await;
    }
}

fn namespace_object(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })
}

fn uid_of(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}
