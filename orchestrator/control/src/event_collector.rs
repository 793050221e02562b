//! Removal of events that are too old to matter.

use std::time::Duration;

use podium_types::k8s::api::core::v1::Event;
use podium_types::kind::resources;
use podium_types::{Now, ObjectKey};

use crate::controller::Controller;
use crate::event::last_occurrence;
use crate::plan::{Plan, Propagation, Step};
use crate::pods::elapsed;
use crate::world::{Change, World};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct EventCollector {
    /// How long after its last occurrence an event is kept.
    pub ttl: Duration,
}

impl Controller for EventCollector {
    fn name(&self) -> &'static str {
        "event-collector"
    }

    fn keys_for(&self, _: &World, change: &Change) -> Vec<ObjectKey> {
        let event = change.key.resource == resources::EVENTS && change.after.is_some();
        if event { vec![(*change.key).clone()] } else { Vec::new() }
    }

    fn plan(&self, world: &World, key: &ObjectKey, now: Now) -> Plan {
        let Some(event) = world.get::<Event>(key) else { return Plan::nothing() };
        let age = last_occurrence(event).map_or(self.ttl, |last| elapsed(last, now));
        if let Some(left) = self.ttl.checked_sub(age).filter(|left| !left.is_zero()) {
            return Plan { steps: Vec::new(), wake_after: Some(left) };
        }
        let delete = Step::Delete {
            key: key.clone(),
            uid: event.metadata.uid.clone().unwrap_or_default(),
            grace_seconds: None,
            propagation: Propagation::Background,
        };
        Plan { steps: vec![delete], wake_after: None }
    }
}
