//! watch: what there is, then what happens, without a gap.

use std::collections::VecDeque;
use std::sync::Arc;

use podium_store::{EventKind, Record, Revision, StoreError, Watch, WatchError};
use serde_json::json;

use super::read::{Selection, check_verb};
use super::{Pipeline, Served, Target, WatchOptions};
use crate::auth::User;
use crate::registry::{Resource, Verb};
use crate::status::Status;

/// The annotation of the bookmark behind the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What happened to an object, as seen through a selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchKind {
    /// It came into the selection.
    Added,
    /// It changed.
    Modified,
    /// It left the selection.
    Deleted,
    /// Nothing; everything up to the object's resourceVersion has been sent.
    Bookmark,
}

impl WatchKind {
    /// As on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
        }
    }
}

/// One event.
#[derive(Debug, Clone)]
pub struct WatchEvent {
    /// What happened.
    pub kind: WatchKind,
    /// To which object; its resourceVersion is that of the event.
    pub object: Served,
}

/// The events of one watch, in order. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watcher {
    resource: &'static Resource,
    selection: Selection,
    initial: VecDeque<Arc<Record>>,
    /// The revision of the initial events, if a bookmark is still to say that they were all.
    announce: Option<Revision>,
    start: Revision,
    /// What it was too late for.
    refused: Option<Status>,
    watch: Option<Watch>,
}

impl Pipeline {
    /// What happens to the objects of a resource.
    ///
    /// A revision that is already forgotten is not an error of this call, but of the first event: clients expect it there.
    ///
    /// # Errors
    /// 400 and 422 for options that make no sense, and those of the authorizer and the store.
    pub async fn watch(
        &self,
        user: &User,
        target: &Target<'_>,
        options: &WatchOptions,
    ) -> Result<Watcher, Status> {
        self.authorize_fields(user, "watch", target, &options.field_selector).await?;
        check_verb(target, Verb::Watch)?;
        options.check()?;
        let resource = target.resource;
        let selection =
            Selection::parse(resource, &options.label_selector, &options.field_selector)?;
        let prefix = selection.prefix(target.namespace);
        let initially = options.send_initial_events
            || options.resource_version.is_none_or(|version| version == 0);
        let mut watcher = Watcher {
            resource,
            selection,
            initial: VecDeque::new(),
            announce: None,
            start: Revision(options.resource_version.unwrap_or_default()),
            refused: None,
            watch: None,
        };
        if initially {
            let view = self.view_for(options.resource_version, None).await?;
            let matching = |record: &&Arc<Record>| watcher.selection.matches(record);
            watcher.initial = view.range(&prefix).filter(matching).cloned().collect();
            watcher.start = view.revision();
            let announced = options.send_initial_events && options.allow_bookmarks;
            watcher.announce = announced.then(|| view.revision());
        }
        match self.store.watch(&prefix, watcher.start) {
            Ok(watch) => watcher.watch = Some(watch),
            Err(StoreError::TooOld { oldest }) => {
                watcher.refused = Some(Status::too_old(watcher.start.0, oldest.0));
            }
            Err(error) => return Err(Status::from_store(&error)),
        }
        Ok(watcher)
    }
}

impl Watcher {
    /// The next event. Safe to cancel: an event that was not returned comes again.
    ///
    /// # Errors
    /// 410 when this watcher fell behind the history, 503 when the store stops. Nothing comes afterwards.
    pub async fn next(&mut self) -> Result<WatchEvent, Status> {
        if let Some(record) = self.initial.pop_front() {
            let object = Served::record(self.resource, record);
            return Ok(WatchEvent { kind: WatchKind::Added, object });
        }
        if let Some(revision) = self.announce.take() {
            return Ok(self.bookmark_at(revision, true));
        }
        if let Some(status) = &self.refused {
            return Err(status.clone());
        }
        let Some(watch) = &mut self.watch else {
            return Err(Status::service_unavailable("the watch has ended"));
        };
        loop {
            let event = match watch.next().await {
                Ok(event) => event,
                Err(WatchError::TooOld) => {
                    let progress = watch.progress();
                    return Err(Status::too_old(self.start.0, progress.0));
                }
                Err(WatchError::Closed) => {
                    return Err(Status::service_unavailable("the store is shutting down"));
                }
            };
            let seen = |record: &Option<Arc<Record>>| {
                record.clone().filter(|record| self.selection.matches(record))
            };
            let (before, after) = (seen(&event.previous), seen(&event.record));
            debug_assert!(
                event.kind == EventKind::Put || after.is_none(),
                "a deletion leaves nothing"
            );
            let (kind, record) = match (before, after) {
                (None, None) => continue,
                (None, Some(after)) => (WatchKind::Added, after),
                (Some(_), Some(after)) => (WatchKind::Modified, after),
                (Some(before), None) => (WatchKind::Deleted, before),
            };
            let object = Served::at(self.resource, record, event.revision);
            return Ok(WatchEvent { kind, object });
        }
    }

    /// How far the watch has come, for those who start another one here; nothing while initial events are still to be sent.
    #[must_use]
    pub fn bookmark(&self) -> Option<WatchEvent> {
        if !self.initial.is_empty() || self.announce.is_some() {
            return None;
        }
        let progress = self.watch.as_ref()?.progress();
        Some(self.bookmark_at(progress.max(self.start), false))
    }

    fn bookmark_at(&self, revision: Revision, initial_events_end: bool) -> WatchEvent {
        let mut metadata =
            json!({"resourceVersion": revision.0.to_string(), "creationTimestamp": null});
        if initial_events_end {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let object = json!({
            "kind": self.resource.kind.name(), "apiVersion": self.resource.api_version(), "metadata": metadata,
        });
        WatchEvent { kind: WatchKind::Bookmark, object: Served::made(self.resource, object) }
    }
}
