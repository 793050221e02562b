//! Endpoints into slices, with the fewest writes.
//!
//! An endpoint that is in a slice stays there. What is new fills slices that have to be written anyway, then others that have
//! room, then new ones. A slice that loses its last endpoint is deleted, unless it is all that the Service has.

use std::collections::{BTreeMap, VecDeque};

use podium_types::k8s::api::core::v1::Service;
use podium_types::k8s::api::discovery::v1::{Endpoint, EndpointSlice};
use podium_types::k8s::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::{Shape, ShapeKey, shape_key};
use crate::name;
use crate::object::{Object, Typed};
use crate::plan::{Propagation, Step};
use crate::selector::Labels;
use crate::world::{SERVICE_NAME, World};

/// The most endpoints of a slice: a change of one endpoint rewrites its slice, so they are kept small.
pub const MOST: usize = 100;

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const US: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";

struct Slice<'a> {
    object: &'a Object,
    before: &'a EndpointSlice,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

/// The steps from the slices that there are to those that hold `wanted`.
pub(super) fn pack(
    world: &World,
    service: &Object,
    typed: &Service,
    wanted: impl Iterator<Item = (Shape, Vec<Endpoint>)>,
) -> Vec<Step> {
    let labels = labels(typed);
    let mut ours = ours(world, service, &labels);
    let mut fresh = Fresh { world, service, labels, made: 0 };
    let mut steps = Vec::new();
    for (shape, endpoints) in wanted {
        let slices = ours.remove(&shape_key(&shape)).unwrap_or_default();
        fill(slices, &shape, endpoints, &mut fresh, &mut steps);
    }
    for slice in ours.into_values().flatten() {
        steps.push(delete(slice.object));
    }
    steps.extend(abandoned(world, service).map(delete));
    steps
}

/// Slices that a former Service of this name left when it was deleted without its dependents: nobody keeps them true,
/// and by their label they still lead clients of this Service to where nothing may be.
fn abandoned<'a>(world: &'a World, service: &'a Object) -> impl Iterator<Item = &'a Object> {
    world.slices_of(&service.key.namespace, &service.key.name).filter(|object| {
        let metadata = object.metadata();
        let managed = metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
        let owned = metadata.owner_references.as_ref().is_some_and(|owners| !owners.is_empty());
        managed.is_some_and(|by| by == US) && !owned && !object.terminating()
    })
}

/// The slices of this very Service that this controller manages, by shape.
fn ours<'a>(
    world: &'a World,
    service: &Object,
    labels: &Labels,
) -> BTreeMap<ShapeKey, Vec<Slice<'a>>> {
    let mut ours: BTreeMap<_, Vec<Slice<'_>>> = BTreeMap::new();
    for object in world.slices_of(&service.key.namespace, &service.key.name) {
        let Some(before) = EndpointSlice::of(&object.view) else { continue };
        let present = before.metadata.labels.as_ref();
        let managed = present.and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|by| by == US);
        let owned = before
            .metadata
            .owner_references
            .iter()
            .flatten()
            .any(|owner| owner.uid == service.uid());
        if !managed || !owned || object.terminating() {
            continue;
        }
        let shape = (before.address_type.clone(), before.ports.clone().unwrap_or_default());
        let changed = present != Some(labels);
        let endpoints = Vec::new();
        let slice = Slice { object, before, endpoints, changed };
        ours.entry(shape_key(&shape)).or_default().push(slice);
    }
    ours
}

/// Puts the endpoints of one shape into its slices.
fn fill(
    mut slices: Vec<Slice<'_>>,
    shape: &Shape,
    endpoints: Vec<Endpoint>,
    fresh: &mut Fresh<'_>,
    steps: &mut Vec<Step>,
) {
    let mut left: BTreeMap<String, Endpoint> =
        endpoints.into_iter().map(|endpoint| (target(&endpoint), endpoint)).collect();
    for slice in &mut slices {
        let before = slice.before.endpoints.as_deref().unwrap_or_default();
        slice.endpoints = before.iter().filter_map(|old| left.remove(&target(old))).collect();
        slice.changed |= slice.endpoints != before;
    }
    let mut left: VecDeque<Endpoint> = left.into_values().collect();
    slices.sort_by_key(|slice| !slice.changed);
    for slice in &mut slices {
        let room = MOST.saturating_sub(slice.endpoints.len()).min(left.len());
        slice.changed |= room > 0;
        slice.endpoints.extend(left.drain(..room));
    }
    let none = slices.iter().all(|slice| slice.endpoints.is_empty()) && left.is_empty();
    for (index, slice) in slices.iter().enumerate() {
        if slice.endpoints.is_empty() && !(none && index == 0) {
            steps.push(delete(slice.object));
        } else if slice.changed {
            steps.extend(rewrite(slice, &fresh.labels));
        }
    }
    if slices.is_empty() && left.is_empty() {
        steps.extend(fresh.slice(shape, Vec::new()));
    }
    while !left.is_empty() {
        let some = left.drain(..MOST.min(left.len())).collect();
        steps.extend(fresh.slice(shape, some));
    }
}

fn target(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
    uid.unwrap_or_else(|| endpoint.addresses.join(","))
}

fn delete(slice: &Object) -> Step {
    Step::Delete {
        key: (*slice.key).clone(),
        uid: slice.uid().to_owned(),
        grace_seconds: None,
        propagation: Propagation::Background,
    }
}

fn rewrite(slice: &Slice<'_>, labels: &Labels) -> Option<Step> {
    let mut object = slice.before.clone();
    object.endpoints = Some(slice.endpoints.clone());
    object.metadata.labels = Some(labels.clone());
    let object = podium_types::to_value(&object).ok()?;
    Some(Step::Update { key: (*slice.object.key).clone(), subresource: None, object })
}

/// The Service's own labels, and those that tell slices apart.
fn labels(service: &Service) -> Labels {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    labels.insert(SERVICE_NAME.to_owned(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.to_owned(), US.to_owned());
    let own = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
    if own == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

/// Makes new slices, under names that are a function of the Service and of the slices that it has.
struct Fresh<'a> {
    world: &'a World,
    service: &'a Object,
    labels: Labels,
    made: usize,
}

impl Fresh<'_> {
    fn slice(&mut self, (family, ports): &Shape, endpoints: Vec<Endpoint>) -> Option<Step> {
        let base = &self.service.key.name;
        let metadata = ObjectMeta {
            name: Some(self.name()),
            namespace: Some(self.service.key.namespace.clone()),
            generate_name: Some(format!("{base}-")),
            labels: Some(self.labels.clone()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Service".to_owned(),
                name: base.clone(),
                uid: self.service.uid().to_owned(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        };
        let slice = EndpointSlice {
            metadata,
            address_type: family.clone(),
            ports: Some(ports.clone()),
            endpoints: Some(endpoints),
        };
        let object = podium_types::to_value(&slice).ok()?;
        Some(Step::Create { resource: EndpointSlice::RESOURCE, object })
    }

    fn name(&mut self) -> String {
        let (namespace, base) = (&self.service.key.namespace, &self.service.key.name);
        let present: Vec<String> = self
            .world
            .slices_of(namespace, base)
            .map(|slice| format!("{}@{}", slice.key.name, slice.revision))
            .collect();
        loop {
            self.made += 1;
            let made = self.made.to_string();
            let mut parts = vec![self.service.uid(), made.as_str()];
            parts.extend(present.iter().map(String::as_str));
            let name = name::join(base, '-', &name::digest(&parts), 5);
            if self.world.named::<EndpointSlice>(namespace, &name).is_none() {
                return name;
            }
        }
    }
}
