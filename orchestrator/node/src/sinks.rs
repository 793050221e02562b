//! What the agent reports, written through the API's pipeline.

use std::sync::Arc;

use podium_agent::{BoxFuture, EventSink, PodRef, SinkError, StatusSink};
use podium_api::pipeline::{DeleteOptions, WriteOptions};
use podium_api::seams::Clock;
use podium_api::{Pipeline, Status, Target, User};
use podium_control::pod::{Occurrence, Severity, merge_status};
use podium_control::{EventKind, EventStep, ObjectEvent, Regarding, World, event};
use podium_types::k8s::api::core::v1::{Pod, PodStatus};
use podium_types::kind::resources;
use podium_types::{ObjectKey, object};
use tokio::sync::mpsc;

use crate::calls;

/// How often a report is joined anew to a status that somebody else has changed meanwhile.
const ATTEMPTS: usize = 5;
/// Events that wait to be written; a pod that makes more than this at once loses some of them, and nothing else.
const EVENTS_WAITING_MAX: usize = 1024;

/// Writes pods' statuses.
pub(crate) struct Statuses {
    pipeline: Pipeline,
    user: User,
}

impl Statuses {
    pub(crate) fn new(pipeline: Pipeline, node: &str) -> Self {
        Self { pipeline, user: User::system(&format!("node:{node}")) }
    }

    async fn attempt(&self, pod: &PodRef, ours: &PodStatus) -> Result<(), Attempt> {
        let key = key_of(pod);
        let view = self.pipeline.store().read().await.map_err(|error| unavailable(&error))?;
        let Some(record) = view.get(&key.storage_key()) else {
            return Err(Attempt::Ended(SinkError::Gone));
        };
        let refused =
            |error: &dyn std::fmt::Display| Attempt::Ended(SinkError::Refused(error.to_string()));
        let mut present: serde_json::Value =
            serde_json::from_slice(&record.value).map_err(|error| refused(&error))?;
        if object::uid(&present) != pod.uid {
            return Err(Attempt::Ended(SinkError::Gone));
        }
        let known: Pod = object::from_value(&present).map_err(|error| refused(&error))?;
        let known = known.status.unwrap_or_default();
        let merged = merge_status(&known, ours);
        if merged == known {
            return Ok(());
        }
        object::set_resource_version(&mut present, Some(record.mod_revision.0));
        object::map_of(&mut present).insert(
            "status".to_owned(),
            object::to_value(&merged).map_err(|error| refused(&error))?,
        );
        let target = Target::object(&key).and_then(|target| target.part("status"));
        let target = target.ok_or_else(|| refused(&"pods have no status"))?;
        let written = self
            .pipeline
            .update(&self.user, &target, present.into(), &WriteOptions::default())
            .await;
        written.map(drop).map_err(|status| {
            if status.reason == "Conflict" {
                Attempt::Again
            } else {
                Attempt::Ended(sink_error(status))
            }
        })
    }
}

enum Attempt {
    Again,
    Ended(SinkError),
}

fn unavailable(error: &dyn std::fmt::Display) -> Attempt {
    Attempt::Ended(SinkError::Unavailable(error.to_string()))
}

fn key_of(pod: &PodRef) -> ObjectKey {
    ObjectKey::new(resources::PODS, pod.namespace.clone(), pod.name.clone())
}

fn sink_error(status: Status) -> SinkError {
    match status.reason {
        "NotFound" => SinkError::Gone,
        _ if status.code >= 500 || status.code == 429 => SinkError::Unavailable(status.message),
        _ => SinkError::Refused(status.message),
    }
}

impl StatusSink for Statuses {
    fn write<'a>(
        &'a self,
        pod: &'a PodRef,
        status: &'a PodStatus,
    ) -> BoxFuture<'a, Result<(), SinkError>> {
        Box::pin(async move {
            for _ in 0..ATTEMPTS {
                match self.attempt(pod, status).await {
                    Err(Attempt::Again) => {}
                    Err(Attempt::Ended(error)) => return Err(error),
                    Ok(()) => return Ok(()),
                }
            }
            Err(SinkError::Unavailable("the pod changes too often".to_owned()))
        })
    }

    fn delete<'a>(&'a self, pod: &'a PodRef) -> BoxFuture<'a, Result<(), SinkError>> {
        Box::pin(async move {
            let key = key_of(pod);
            let Some(target) = Target::object(&key) else { return Err(SinkError::Gone) };
            let options = DeleteOptions {
                grace_period_seconds: Some(0),
                uid: Some(pod.uid.clone()),
                ..DeleteOptions::default()
            };
            match self.pipeline.delete(&self.user, &target, &options).await {
                Ok(_) => Ok(()),
                // Another pod has the name now.
                Err(status) if status.reason == "Conflict" => Err(SinkError::Gone),
                Err(status) => Err(sink_error(status)),
            }
        })
    }
}

/// Writes Events, one after the other, in the background.
pub(crate) struct Events {
    queue: mpsc::Sender<EventStep>,
}

impl Events {
    /// Starts the task that writes.
    pub(crate) fn start(pipeline: Pipeline, clock: Arc<dyn Clock>, node: &str) -> Self {
        let (queue, mut waiting) = mpsc::channel(EVENTS_WAITING_MAX);
        let user = User::system(&format!("node:{node}"));
        tokio::spawn(async move {
            while let Some(step) = waiting.recv().await {
                record(&pipeline, &user, &*clock, &step).await;
            }
        });
        Self { queue }
    }
}

/// Writes one event, or counts up the one that says the same. One that is refused is lost, as events may be.
pub(crate) async fn record(pipeline: &Pipeline, user: &User, clock: &dyn Clock, step: &EventStep) {
    let call = event::record(&world_of(pipeline, step), step, clock.now());
    calls::make(pipeline, user, call).await;
}

/// A world with nothing but the event that would be counted up.
fn world_of(pipeline: &Pipeline, step: &EventStep) -> World {
    let mut world = World::new();
    let key = event::key_of(step);
    if let Some(record) = pipeline.store().local().get(&key.storage_key()) {
        world.apply(&ObjectEvent::put(key, record.mod_revision.0, &record.value));
    }
    world
}

impl EventSink for Events {
    fn record(&self, pod: &PodRef, occurrence: &Occurrence) {
        let kind = match occurrence.severity {
            Severity::Normal => EventKind::Normal,
            Severity::Warning => EventKind::Warning,
        };
        let step = EventStep {
            regarding: Regarding {
                key: key_of(pod),
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                uid: pod.uid.clone(),
                resource_version: String::new(),
                field_path: occurrence.field_path.clone().unwrap_or_default(),
            },
            kind,
            reason: occurrence.reason.clone(),
            message: occurrence.message.clone(),
            action: "",
            component: "kubelet",
            reports: None,
        };
        if self.queue.try_send(step).is_err() {
            tracing::warn!(%pod, reason = %occurrence.reason, "too many events; this one is not recorded");
        }
    }
}
