//! delete, deletecollection, and eviction.
//!
//! ```text
//!              no finalizer, no grace
//!   present ──────────────────────────────► gone
//!      │ finalizers, or a pod that runs       ▲
//!      ▼                                      │ last finalizer taken away, or grace 0 (the node confirms)
//!   going: deletionTimestamp is set ──────────┘
//! ```
//!
//! Propagation is a finalizer that the garbage collector takes away: `orphan` or `foregroundDeletion`.

use jiff::SignedDuration;
use podium_store::{Guard, Operation, Outcome, Record};
use podium_types::{canonical, namespace, object, time};
use serde_json::{Value, json};

use super::read::check_verb;
use super::served::parse;
use super::{
    DeleteOptions, Input, ListOptions, MOST_ATTEMPTS, Pipeline, Propagation, Target, WriteOptions,
    Written, claim, decode,
};
use crate::admission::{Operation as Doing, Review};
use crate::auth::User;
use crate::bugs::Bug;
use crate::registry::{Deletion, Resource, Verb};
use crate::status::{self, Status};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// The grace of a pod that does not say.
const DEFAULT_GRACE_SECONDS: i64 = 30;
/// Namespaces that a cluster cannot be without.
const IMMORTAL: [&str; 3] = [namespace::DEFAULT, namespace::SYSTEM, namespace::PUBLIC];

/// How a deletion stands.
#[derive(Debug, Clone)]
pub struct Deleted {
    /// The object as served: as it last was, or as it is now, with its deletionTimestamp.
    pub object: Value,
    /// Whether it is gone.
    pub gone: bool,
    /// The revision of the change; of the object, if there was nothing to change.
    pub revision: u64,
}

impl Deleted {
    /// What clients get: a Status if the object is gone, except for kinds that always answer with the object.
    #[must_use]
    pub fn answer(&self, resource: &Resource) -> Value {
        if self.gone && !resource.returns_deleted {
            let (name, uid) = (object::name(&self.object), object::uid(&self.object));
            return status::success(resource.names, name, uid);
        }
        self.object.clone()
    }
}

/// What is to be done about an object that shall go.
enum Step {
    /// Remove it.
    Remove,
    /// Write it down as going.
    Mark(Value),
    /// It is going already.
    Nothing,
}

impl Pipeline {
    /// Removes an object, or begins to.
    ///
    /// # Errors
    /// 403 for what the cluster needs, 404, 409 for preconditions.
    pub async fn delete(
        &self,
        user: &User,
        target: &Target<'_>,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        self.authorize_target(user, "delete", target).await?;
        check_verb(target, Verb::Delete)?;
        self.delete_object(user, target, options).await
    }

    /// Removes all objects that match, one by one; gives what [`Pipeline::delete`] gives for each.
    ///
    /// # Errors
    /// Of the list, and the first of a deletion (objects that are already gone are none).
    pub async fn delete_collection(
        &self,
        user: &User,
        target: &Target<'_>,
        which: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<Vec<Deleted>, Status> {
        self.authorize_target(user, "deletecollection", target).await?;
        check_verb(target, Verb::DeleteCollection)?;
        let listing = self.list(&User::system("delete-collection"), target, which).await?;
        let mut deleted = Vec::with_capacity(listing.items.len());
        for item in listing.items {
            let object = item.value();
            let one = Target {
                namespace: object::namespace(&object),
                name: object::name(&object),
                ..*target
            };
            match self.delete_object(user, &one, options).await {
                Ok(one) => deleted.push(one),
                Err(status) if status.reason == "NotFound" => {}
                Err(status) => return Err(status),
            }
        }
        Ok(deleted)
    }

    /// There are no disruption budgets yet, so an eviction is a deletion that a budget could have refused.
    pub(super) async fn create_eviction(
        &self,
        user: &User,
        target: &Target<'_>,
        input: Input,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let kind = target.subresource.map_or(target.resource.kind, |part| part.kind);
        let decoded = decode::decode(kind, input, options.field_validation)?;
        let named = object::name(&decoded.object);
        if !named.is_empty() && named != target.name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let wanted = object::at(&decoded.object, &["deleteOptions"]);
        let mut delete = DeleteOptions::from_object(wanted)?;
        delete.dry_run |= options.dry_run;
        let pod = Target { subresource: None, ..*target };
        let deleted = self.delete_object(user, &pod, &delete).await?;
        let object = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        Ok(Written { object, revision: deleted.revision, warnings: decoded.warnings })
    }

    async fn delete_object(
        &self,
        user: &User,
        target: &Target<'_>,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        let resource = target.resource;
        if resource.deletion == Deletion::Namespace && IMMORTAL.contains(&target.name) {
            let why = "this namespace may not be deleted";
            return Err(Status::forbidden(resource.names, target.name, why));
        }
        for _ in 0..MOST_ATTEMPTS {
            let view = self.view().await?;
            let Some(record) = view.get(&target.key()).cloned() else {
                return Err(Status::not_found(resource.names, target.name));
            };
            let mut stored = parse(&record);
            self.check_preconditions(target, options, &stored, &record)?;
            let review = Review {
                user,
                operation: Doing::Delete,
                resource,
                subresource: "",
                namespace: target.namespace,
                old: Some(&stored),
                state: &view,
                dry_run: options.dry_run,
            };
            self.admit(review, &stored).await?;

            let present = record.mod_revision.0;
            let step = plan(resource, &stored, options, self.now().wall);
            let (gone, operations) = match step {
                Step::Nothing => {
                    return Ok(self.deleted(target, stored, present, false));
                }
                Step::Remove => {
                    let mut operations = vec![Operation::Delete { key: record.key.clone() }];
                    let claims = claim::of(resource.stored_kind(), &stored);
                    claim::release(&claims, &mut operations);
                    (true, operations)
                }
                Step::Mark(object) => {
                    let value = canonical::encode(&object).into();
                    stored = object;
                    (false, vec![Operation::Put { key: record.key.clone(), value }])
                }
            };
            if options.dry_run {
                return Ok(self.deleted(target, stored, present, gone));
            }
            let guards = vec![Guard::At(record.key.clone(), record.mod_revision)];
            if let Outcome::Committed { revision } = self.commit(guards, operations).await? {
                let shown = if gone { present } else { revision.0 };
                let deleted = self.deleted(target, stored, shown, gone);
                return Ok(Deleted { revision: revision.0, ..deleted });
            }
        }
        Err(Status::modified(resource.names, target.name))
    }

    fn deleted(&self, target: &Target<'_>, stored: Value, revision: u64, gone: bool) -> Deleted {
        let object = self.written(target, stored, Some(revision), Vec::new()).object;
        Deleted { object, gone, revision }
    }

    fn check_preconditions(
        &self,
        target: &Target<'_>,
        options: &DeleteOptions,
        stored: &Value,
        record: &Record,
    ) -> Result<(), Status> {
        let names = target.resource.names;
        if let Some(uid) = &options.uid
            && uid != object::uid(stored)
            && !self.config.bugs.has(Bug::DeleteIgnoresUid)
        {
            return Err(Status::other_uid(names, target.name, uid, object::uid(stored)));
        }
        if let Some(version) = &options.resource_version
            && *version != record.mod_revision.to_string()
        {
            let why = format!(
                "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {}",
                record.mod_revision
            );
            return Err(Status::conflict(names, target.name, &why));
        }
        Ok(())
    }
}

impl DeleteOptions {
    /// Reads the object that comes as the body of a DELETE (null: no options).
    ///
    /// # Errors
    /// 422 for a propagation that there is not, or two of them.
    pub fn from_object(object: &Value) -> Result<Self, Status> {
        let text = |path: &[&str]| object::str_at(object, path).map(str::to_owned);
        let policy = text(&["propagationPolicy"]);
        let orphan = object::at(object, &["orphanDependents"]).as_bool();
        let refuse = |field: &str, message: &str| {
            let subject = "DeleteOptions.meta.k8s.io \"\"";
            Err(Status::invalid_field(subject, field, "FieldValueInvalid", message))
        };
        let propagation = match (policy.as_deref(), orphan) {
            (Some(_), Some(_)) => {
                return refuse(
                    "propagationPolicy",
                    "Invalid value: \"orphanDependents and deletionPropagation cannot be both set\": may not be set together",
                );
            }
            (None, None) => None,
            (None, Some(true)) | (Some("Orphan"), None) => Some(Propagation::Orphan),
            (None, Some(false)) | (Some("Background"), None) => Some(Propagation::Background),
            (Some("Foreground"), None) => Some(Propagation::Foreground),
            (Some(other), None) => {
                let message = format!(
                    "Unsupported value: {other:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
                );
                return refuse("propagationPolicy", &message);
            }
        };
        let dry_run = object::list_at(object, &["dryRun"]).iter().any(|value| value == "All");
        Ok(Self {
            dry_run,
            grace_period_seconds: object::i64_at(object, &["gracePeriodSeconds"]),
            uid: text(&["preconditions", "uid"]),
            resource_version: text(&["preconditions", "resourceVersion"]),
            propagation,
        })
    }
}

/// Whether an object that is going has nothing left to wait for.
pub(super) fn is_finished(resource: &Resource, object: &Value) -> bool {
    object::deletion_timestamp(object).is_some()
        && object::deletion_grace_period_seconds(object).unwrap_or_default() == 0
        && !waits(resource, object)
}

/// Whether somebody has to do something before the object may go.
fn waits(resource: &Resource, object: &Value) -> bool {
    let emptying = resource.deletion == Deletion::Namespace
        && !object::list_at(object, &["spec", "finalizers"]).is_empty();
    emptying || object::finalizers(object).next().is_some()
}

fn plan(
    resource: &Resource,
    stored: &Value,
    options: &DeleteOptions,
    now: jiff::Timestamp,
) -> Step {
    let mut object = stored.clone();
    settle_finalizers(&mut object, options.propagation);
    let waits = waits(resource, &object);
    let grace = grace_seconds(resource, &object, options);
    match object::deletion_timestamp(stored) {
        Some(when) => {
            let before = object::deletion_grace_period_seconds(stored).unwrap_or_default();
            let asked = options.grace_period_seconds.map(|_| grace).filter(|grace| *grace < before);
            match asked {
                Some(0) if !waits => Step::Remove,
                Some(shorter) => {
                    let start = when - SignedDuration::from_secs(before);
                    mark(&mut object, start, shorter);
                    Step::Mark(object)
                }
                None if before == 0 && !waits => Step::Remove,
                None => Step::Nothing,
            }
        }
        None if grace == 0 && !waits => Step::Remove,
        None => {
            let generation = object::generation(&object);
            if generation > 0 {
                object::set_metadata(&mut object, "generation", Some(json!(generation + 1)));
            }
            if resource.deletion == Deletion::Namespace {
                object::child_mut(object::map_of(&mut object), "status")
                    .insert("phase".to_owned(), json!("Terminating"));
            }
            mark(&mut object, now, grace);
            Step::Mark(object)
        }
    }
}

/// Makes the finalizers say how dependents are treated.
fn settle_finalizers(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    if object::deletion_timestamp(object).is_some() {
        return;
    }
    for (policy, finalizer) in
        [(Propagation::Orphan, ORPHAN), (Propagation::Foreground, FOREGROUND)]
    {
        if propagation == policy {
            object::add_finalizer(object, finalizer);
        } else {
            object::remove_finalizer(object, finalizer);
        }
    }
}

/// How long the object gets: only a pod that is on a node and has not ended gets any time.
fn grace_seconds(resource: &Resource, object: &Value, options: &DeleteOptions) -> i64 {
    if resource.deletion != Deletion::Grace {
        return 0;
    }
    let nowhere = object::str_at(object, &["spec", "nodeName"]).unwrap_or_default().is_empty();
    let phase = object::str_at(object, &["status", "phase"]);
    if nowhere || matches!(phase, Some("Failed" | "Succeeded")) {
        return 0;
    }
    let own = object::i64_at(object, &["spec", "terminationGracePeriodSeconds"]);
    let seconds = options.grace_period_seconds.or(own).unwrap_or(DEFAULT_GRACE_SECONDS);
    if seconds < 0 { 1 } else { seconds }
}

fn mark(object: &mut Value, from: jiff::Timestamp, grace_seconds: i64) {
    let when = from.checked_add(SignedDuration::from_secs(grace_seconds)).unwrap_or(from);
    object::set_metadata(object, "deletionTimestamp", Some(json!(time::print_time(when))));
    object::set_metadata(object, "deletionGracePeriodSeconds", Some(json!(grace_seconds)));
}

#[cfg(test)]
mod tests;
