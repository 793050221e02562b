//! Those whose pods run on workers: they make pods, bind them, give them ConfigMaps and Secrets, and take all of it away.
//!
//! There are no controllers and no agents in these runs: only what the API keeps, and what workers are told of it.

use podium_api::User;
use podium_api::pipeline::Propagation;
use podium_control::forming::Standing;
use podium_types::kind::resources;
use podium_types::{GroupResource, ObjectKey};
use serde_json::{Value, json};

use super::pick;
use crate::access::{Access, Request};
use crate::cluster::{Cluster, FIRST_CLIENT};
use crate::executor::{self, Life};
use crate::pulse::name_of;
use crate::runtime::spawn_in;

const NAMESPACE: &str = "default";

/// See the module.
#[derive(Clone)]
pub(super) struct Tenants {
    cluster: Cluster,
    access: Access,
}

impl Tenants {
    pub(super) fn new(cluster: Cluster) -> Self {
        let access = Access::new(cluster.clone(), FIRST_CLIENT + 2, User::admin());
        Self { cluster, access }
    }

    /// Starts one random action.
    pub(super) fn act(&self) {
        let tenants = self.clone();
        drop(spawn_in(Life::HARNESS, async move {
            if let Some(request) = tenants.draw() {
                // That it is refused, or that nobody knows what became of it, is all the same.
                drop(tenants.access.call(request).await);
            }
        }));
    }

    fn draw(&self) -> Option<Request> {
        let choice = below(100);
        match choice {
            0..8 => Some(create(resources::NAMESPACES, "", NAMESPACE, json!({}))),
            8..24 => Some(create(resources::PODS, NAMESPACE, &named("pod", 8), pod())),
            24..50 => self.bind(),
            50..60 => self.delete(&resources::PODS),
            60..70 => {
                let (resource, name) = content();
                Some(create(resource, NAMESPACE, &name, data()))
            }
            70..84 => {
                let (resource, name) = content();
                let key = ObjectKey::new(resource, NAMESPACE, name);
                Some(Request::Patch { key, part: None, patch: data() })
            }
            84..89 => self.delete(&content().0),
            89..95 => Some(create(resources::SERVICES, NAMESPACE, &named("service", 3), service())),
            _ => self.delete(&resources::SERVICES),
        }
    }

    /// Some object, as the established history has it.
    fn some(
        &self,
        resource: &GroupResource,
        fits: impl Fn(&Value) -> bool,
    ) -> Option<(ObjectKey, String)> {
        let rules = self.cluster.rules();
        let found: Vec<_> = rules
            .objects()
            .iter()
            .filter(|(key, object)| key.resource == *resource && fits(object))
            .collect();
        let (key, object) = found.get(pick(found.len()))?;
        Some(((*key).clone(), object["metadata"]["uid"].as_str()?.to_owned()))
    }

    /// Puts a pod on a node that is known to the cluster; on workers most of the time.
    fn bind(&self) -> Option<Request> {
        let pod = self.some(&resources::PODS, |pod| pod["spec"]["nodeName"].is_null())?;
        let nodes: Vec<u16> = {
            let (census, rules) = (self.cluster.census(), self.cluster.rules());
            let is_there = |node: &u16| {
                let key = ObjectKey::new(resources::NODES, "", name_of(*node));
                rules.objects().contains_key(&key)
            };
            let works = |node: &u16| match census.standing(*node) {
                Some(Standing::Worker(_)) => true,
                Some(Standing::Member(_)) => executor::with(|core| core.one_in(6)),
                Some(Standing::Blank { .. }) | None => false,
            };
            self.cluster.numbers().into_iter().filter(|it| works(it) && is_there(it)).collect()
        };
        let node = nodes.get(pick(nodes.len()))?;
        Some(Request::Bind { pods: vec![pod], node: name_of(*node) })
    }

    fn delete(&self, resource: &GroupResource) -> Option<Request> {
        let (key, uid) = self.some(resource, |_| true)?;
        let propagation = Some(Propagation::Background);
        Some(Request::Delete { key, uid: Some(uid), grace_seconds: Some(0), propagation })
    }
}

fn below(bound: u64) -> u64 {
    executor::with(|core| core.below(bound))
}

fn named(kind: &str, bound: u64) -> String {
    format!("{kind}-{}", below(bound))
}

fn content() -> (GroupResource, String) {
    match below(2) {
        0 => (resources::CONFIG_MAPS, named("map", 4)),
        _ => (resources::SECRETS, named("secret", 4)),
    }
}

fn data() -> Value {
    json!({ "data": { "text": "eA".repeat(2 + 2 * usize::try_from(below(20)).unwrap_or(0)) } })
}

fn service() -> Value {
    json!({ "spec": { "selector": { "app": "any" }, "ports": [{ "port": 80 }] } })
}

/// Most pods share what they refer to with others.
fn pod() -> Value {
    let volume = |number: u64| {
        let name = format!("volume-{number}");
        match content() {
            (resource, map) if resource == resources::CONFIG_MAPS => {
                json!({ "name": name, "configMap": { "name": map } })
            }
            (_, secret) => json!({ "name": name, "secret": { "secretName": secret } }),
        }
    };
    let volumes: Vec<Value> = (0..below(4)).map(volume).collect();
    json!({ "spec": { "containers": [{ "name": "main", "image": "image" }], "volumes": volumes } })
}

fn create(resource: GroupResource, namespace: &str, name: &str, mut object: Value) -> Request {
    let kind = match &*resource.resource {
        "namespaces" => "Namespace",
        "pods" => "Pod",
        "configmaps" => "ConfigMap",
        "secrets" => "Secret",
        _ => "Service",
    };
    object["apiVersion"] = json!("v1");
    object["kind"] = json!(kind);
    object["metadata"] = json!({ "name": name });
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = json!(namespace);
    }
    Request::Create { resource, object }
}
