//! The EndpointSlice controller: which pods stand behind a Service.
//!
//! A pod that the Service selects, that has an address and has not finished is an endpoint. Terminating pods stay listed, as not
//! ready, until they are gone: that is how every node learns to stop sending them new connections. A Service without selector
//! is its owner's own business.
//!
//! Endpoints whose ports differ (a named port may be another number in another pod) are in different slices. [`packing`] puts
//! them into slices of at most [`packing::MOST`] with the fewest writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use podium_types::k8s::api::core::v1::{Node, ObjectReference, Pod, Service, ServicePort};
use podium_types::k8s::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointPort, EndpointSlice,
};
use podium_types::k8s::apimachinery::pkg::util::intstr::IntOrString;
use podium_types::{Now, ObjectKey};

use crate::controller::Controller;
use crate::object::{Object, Typed};
use crate::plan::Plan;
use crate::pods;
use crate::selector::includes;
use crate::world::{Change, World};

pub mod packing;

const NAME: &str = "endpointslice-controller";
const ZONE: &str = "topology.kubernetes.io/zone";

/// What a slice's endpoints have in common: family of addresses, and ports.
pub(crate) type Shape = (String, Vec<EndpointPort>);

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct EndpointSliceController;

impl Controller for EndpointSliceController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn keys_for(&self, world: &World, change: &Change) -> Vec<ObjectKey> {
        let namespace = &change.key.namespace;
        if change.key.resource == Service::RESOURCE {
            return vec![(*change.key).clone()];
        }
        if change.key.resource == EndpointSlice::RESOURCE {
            let names = change.sides().filter_map(service_of);
            return names.map(|name| service_key(namespace, name)).collect();
        }
        if change.key.resource == Pod::RESOURCE && pod_changed(change) {
            return services_of(world, change.sides_of::<Pod>().map(|pod| &**pod));
        }
        if change.key.resource == Node::RESOURCE && zone_changed(change) {
            return services_of(world, world.pods_on(&change.key.name).map(|(_, pod)| &**pod));
        }
        Vec::new()
    }

    fn plan(&self, world: &World, key: &ObjectKey, _: Now) -> Plan {
        match (world.object(key), world.get::<Service>(key)) {
            (Some(object), Some(service)) => plan(world, object, service),
            _ => Plan::nothing(),
        }
    }
}

fn service_key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(Service::RESOURCE, namespace, name)
}

fn service_of(slice: &Object) -> Option<&str> {
    let labels = slice.metadata().labels.as_ref()?;
    labels.get(crate::world::SERVICE_NAME).map(String::as_str)
}

/// The Services that select any of these pods.
fn services_of<'a>(world: &World, pods: impl Iterator<Item = &'a Pod>) -> Vec<ObjectKey> {
    let mut keys: Vec<ObjectKey> = pods
        .flat_map(|pod| {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            world
                .in_namespace::<Service>(namespace)
                .filter(|(_, service)| selects(service, pod))
                .map(|(key, _)| (**key).clone())
                .collect::<Vec<_>>()
        })
        .collect();
    keys.sort();
    keys.dedup();
    keys
}

fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| {
        !selector.is_empty() && includes(pod.metadata.labels.as_ref(), selector)
    })
}

/// Whether something changed that an endpoint is made of.
fn pod_changed(change: &Change) -> bool {
    let (Some(before), Some(after)) = (change.before::<Pod>(), change.after::<Pod>()) else {
        return true;
    };
    let parts = |pod: &Pod| {
        (
            pod.metadata.labels.clone(),
            pod.metadata.uid.clone(),
            addresses(pod),
            pods::node_name(pod).to_owned(),
            (pods::ready(pod), pods::terminating(pod), pods::finished(pod)),
        )
    };
    parts(before) != parts(after)
}

fn zone_changed(change: &Change) -> bool {
    let zone = |node: Option<&Arc<Node>>| {
        node.and_then(|node| node.metadata.labels.as_ref()?.get(ZONE).cloned())
    };
    zone(change.before::<Node>()) != zone(change.after::<Node>())
}

fn addresses(pod: &Pod) -> Vec<String> {
    let Some(status) = &pod.status else { return Vec::new() };
    let all: Vec<String> =
        status.pod_ips.iter().flatten().map(|address| address.ip.clone()).collect();
    if all.is_empty() { status.pod_ip.iter().cloned().collect() } else { all }
}

fn plan(world: &World, object: &Object, service: &Service) -> Plan {
    let Some(spec) = &service.spec else { return Plan::nothing() };
    let selector = spec.selector.as_ref().filter(|selector| !selector.is_empty());
    let external = spec.type_.as_deref() == Some("ExternalName");
    if selector.is_none() || external || object.terminating() {
        return Plan::nothing();
    }
    let families = families(service);
    let mut wanted: BTreeMap<ShapeKey, (Shape, Vec<Endpoint>)> = BTreeMap::new();
    for (_, pod) in world.in_namespace::<Pod>(&object.key.namespace) {
        if !selects(service, pod) || pods::finished(pod) {
            continue;
        }
        for family in &families {
            let address = addresses(pod).into_iter().find(|address| is_of(address, family));
            let Some(address) = address else { continue };
            let shape = (family.clone(), ports(service, pod));
            let entry = wanted.entry(shape_key(&shape)).or_insert_with(|| (shape, Vec::new()));
            entry.1.push(endpoint(world, service, pod, address));
        }
    }
    for family in families {
        if !wanted.values().any(|((present, _), _)| *present == family) {
            let shape = (family, Vec::new());
            wanted.insert(shape_key(&shape), (shape, Vec::new()));
        }
    }
    Plan { steps: packing::pack(world, object, service, wanted.into_values()), wake_after: None }
}

/// An order on shapes: ports have none of their own.
pub(crate) type ShapeKey =
    (String, Vec<(Option<String>, Option<String>, Option<i32>, Option<String>)>);

pub(crate) fn shape_key((family, ports): &Shape) -> ShapeKey {
    let port = |port: &EndpointPort| {
        (port.name.clone(), port.protocol.clone(), port.port, port.app_protocol.clone())
    };
    (family.clone(), ports.iter().map(port).collect())
}

/// `IPv4`, `IPv6`: what the Service asks for, or the family of its own address.
fn families(service: &Service) -> Vec<String> {
    let spec = service.spec.as_ref();
    let asked = spec.and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
    if !asked.is_empty() {
        return asked;
    }
    let own = spec.and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
    let family = if own.contains(':') { "IPv6" } else { "IPv4" };
    vec![family.to_owned()]
}

fn is_of(address: &str, family: &str) -> bool {
    address.contains(':') == (family == "IPv6")
}

fn endpoint(world: &World, service: &Service, pod: &Pod, address: String) -> Endpoint {
    let spec = pod.spec.as_ref();
    let publish = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses);
    let (serving, terminating) = (pods::ready(pod), pods::terminating(pod));
    let ready = publish == Some(true) || (serving && !terminating);
    let node = pods::node_name(pod);
    let zone = world
        .named::<Node>("", node)
        .and_then(|node| node.metadata.labels.as_ref()?.get(ZONE).cloned());
    let named =
        spec.filter(|spec| spec.subdomain.is_some() && spec.subdomain == service.metadata.name);
    Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: named.and_then(|spec| spec.hostname.clone()),
        node_name: Some(node.to_owned()).filter(|node| !node.is_empty()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        zone,
        ..Endpoint::default()
    }
}

/// The Service's ports as this pod has them; a named port that the pod does not have is left out.
fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let mut ports: Vec<EndpointPort> = ports
        .iter()
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                protocol: Some(protocol(port.protocol.as_deref()).to_owned()),
                port: Some(target(port, pod)?),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    ports.sort_by(|a, b| (&a.name, &a.protocol, a.port).cmp(&(&b.name, &b.protocol, b.port)));
    ports
}

fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None | Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let containers = pod.spec.as_ref()?;
    let sidecars = containers.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let wanted = protocol(port.protocol.as_deref());
    containers
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .find(|port| {
            port.name.as_ref() == Some(name) && protocol(port.protocol.as_deref()) == wanted
        })
        .map(|port| port.container_port)
}

fn protocol(protocol: Option<&str>) -> &str {
    protocol.filter(|protocol| !protocol.is_empty()).unwrap_or("TCP")
}
