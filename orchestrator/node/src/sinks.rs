//! What the agent reports, written through the API.

use std::sync::Arc;

use podium_agent::{BoxFuture, EventSink, PodRef, SinkError, StatusSink};
use podium_api::seams::Clock;
use podium_control::pod::{Occurrence, Severity, merge_status};
use podium_control::{
    EventKind, EventStep, ObjectEvent, Propagation, Regarding, Step, World, event,
};
use podium_types::k8s::api::core::v1::{Pod, PodStatus};
use podium_types::kind::resources;
use podium_types::{ObjectKey, object};
use tokio::sync::mpsc;

use podium_form::client::{Refusal, SharedClient};

/// How often a report is joined anew to a status that somebody else has changed meanwhile.
const ATTEMPTS: usize = 5;
/// Events that wait to be written; a pod that makes more than this at once loses some of them, and nothing else.
const EVENTS_WAITING_MAX: usize = 1024;

/// Writes pods' statuses.
pub(crate) struct Statuses {
    client: SharedClient,
}

impl Statuses {
    pub(crate) fn new(client: SharedClient) -> Self {
        Self { client }
    }

    async fn attempt(&self, pod: &PodRef, ours: &PodStatus) -> Result<(), Attempt> {
        let key = key_of(pod);
        let present = match self.client.get(&key).await {
            // Another pod has the name now, on another node: nodes read no others' pods.
            Err(refusal) if refusal.is("Forbidden") => None,
            present => present.map_err(ended)?,
        };
        let Some(mut present) = present.filter(|present| object::uid(present) == pod.uid) else {
            return Err(Attempt::Ended(SinkError::Gone));
        };
        let misfit =
            |error: &dyn std::fmt::Display| Attempt::Ended(SinkError::Refused(error.to_string()));
        let known: Pod = object::from_value(&present).map_err(|error| misfit(&error))?;
        let known = known.status.unwrap_or_default();
        let merged = merge_status(&known, ours);
        if merged == known {
            return Ok(());
        }
        let status = object::to_value(&merged).map_err(|error| misfit(&error))?;
        object::map_of(&mut present).insert("status".to_owned(), status);
        let step = Step::Update { key, subresource: Some("status"), object: present };
        match self.client.call(step).await {
            Ok(_) => Ok(()),
            Err(refusal) if refusal.is("Conflict") => Err(Attempt::Again),
            Err(refusal) => Err(ended(refusal)),
        }
    }
}

enum Attempt {
    Again,
    Ended(SinkError),
}

fn ended(refusal: Refusal) -> Attempt {
    Attempt::Ended(sink_error(refusal))
}

fn key_of(pod: &PodRef) -> ObjectKey {
    ObjectKey::new(resources::PODS, pod.namespace.clone(), pod.name.clone())
}

fn sink_error(refusal: Refusal) -> SinkError {
    match refusal {
        refusal if refusal.is("NotFound") => SinkError::Gone,
        refusal if refusal.may_pass() => SinkError::Unavailable(refusal.message),
        refusal => SinkError::Refused(refusal.message),
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
            let step = Step::Delete {
                key: key_of(pod),
                uid: pod.uid.clone(),
                grace_seconds: Some(0),
                propagation: Propagation::Background,
            };
            match self.client.call(step).await {
                Ok(_) => Ok(()),
                // Another pod has the name now.
                Err(refusal) if refusal.is("Conflict") => Err(SinkError::Gone),
                Err(refusal) => Err(sink_error(refusal)),
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
    pub(crate) fn start(client: SharedClient, clock: Arc<dyn Clock>) -> Self {
        let (queue, mut waiting) = mpsc::channel(EVENTS_WAITING_MAX);
        tokio::spawn(async move {
            while let Some(step) = waiting.recv().await {
                record(&client, &*clock, &step).await;
            }
        });
        Self { queue }
    }
}

/// Writes one event, or counts up the one that says the same. One that is refused is lost, as events may be.
pub(crate) async fn record(client: &SharedClient, clock: &dyn Clock, step: &EventStep) {
    if let Err(refusal) = write(client, step, clock).await {
        tracing::debug!(reason = %step.reason, %refusal, "an event is not recorded");
    }
}

async fn write(client: &SharedClient, step: &EventStep, clock: &dyn Clock) -> Result<(), Refusal> {
    let mut world = World::new();
    let key = event::key_of(step);
    if let Some(known) = client.get(&key).await? {
        let revision = object::resource_version(&known).and_then(|version| version.parse().ok());
        world.apply(&ObjectEvent::put(key, revision.unwrap_or(0), known.to_string().as_bytes()));
    }
    client.call(event::record(&world, step, clock.now())).await.map(drop)
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
