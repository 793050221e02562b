//! Events: how a report becomes an API object.
//!
//! The same report about the same object is one Event whose count goes up. Its name is a function of the report, so two
//! reporters that race make one object, and nobody has to remember what was reported. Events of cluster-scoped objects
//! stand in `default`, as Kubernetes has it.

use jiff::Timestamp;
use podium_types::k8s::api::core::v1::Event;
use podium_types::kind::resources;
use podium_types::{Now, ObjectKey};
use serde_json::json;

use crate::name;
use crate::object::Object;
use crate::plan::{EventStep, Regarding, Step};
use crate::world::World;

/// The API call that records a report: a new Event, or one more count of the one there is.
#[must_use]
pub fn record(world: &World, event: &EventStep, now: Now) -> Step {
    let key = key_of(event);
    match world.get::<Event>(&key) {
        Some(present) => repeat(key.clone(), present, now),
        None => first(&key, event, now),
    }
}

/// Where the Event of a report stands.
#[must_use]
pub fn key_of(event: &EventStep) -> ObjectKey {
    let about = &event.regarding;
    let namespace = if about.key.namespace.is_empty() { "default" } else { &about.key.namespace };
    let hash = name::digest(&[
        &about.uid,
        &about.field_path,
        event.kind.as_str(),
        &event.reason,
        &event.message,
        event.component,
    ]);
    ObjectKey::new(resources::EVENTS, namespace, name::join(&about.key.name, '.', &hash, 16))
}

/// An event about `object`.
#[must_use]
pub fn about(object: &Object) -> Regarding {
    object.regarding()
}

/// When an event last occurred.
#[must_use]
pub fn last_occurrence(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
    let times = [
        series.map(|time| time.0),
        event.last_timestamp.as_ref().map(|time| time.0),
        event.event_time.as_ref().map(|time| time.0),
        event.first_timestamp.as_ref().map(|time| time.0),
        event.metadata.creation_timestamp.as_ref().map(|time| time.0),
    ];
    times.into_iter().flatten().max()
}

fn first(key: &ObjectKey, event: &EventStep, now: Now) -> Step {
    let about = &event.regarding;
    let mut involved = json!({
        "apiVersion": about.api_version, "kind": about.kind, "name": about.key.name,
        "uid": about.uid, "resourceVersion": about.resource_version,
    });
    if !about.key.namespace.is_empty() {
        involved["namespace"] = json!(about.key.namespace);
    }
    if !about.field_path.is_empty() {
        involved["fieldPath"] = json!(about.field_path);
    }
    Step::Create {
        resource: resources::EVENTS,
        object: json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": key.name, "namespace": key.namespace},
            "involvedObject": involved,
            "type": event.kind.as_str(), "reason": event.reason, "message": event.message,
            "action": event.action,
            "source": {"component": event.component},
            "reportingComponent": event.component, "reportingInstance": event.component,
            "count": 1, "firstTimestamp": now.time(), "lastTimestamp": now.time(),
        }),
    }
}

/// Counts are a lower bound: two reporters that race may count once. No resourceVersion, so that neither has to retry.
fn repeat(key: ObjectKey, present: &Event, now: Now) -> Step {
    Step::Patch {
        key,
        subresource: None,
        patch: json!({
            "metadata": {"uid": present.metadata.uid},
            "count": present.count.unwrap_or(1).saturating_add(1),
            "lastTimestamp": now.time(),
        }),
    }
}
