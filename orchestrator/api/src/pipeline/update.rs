//! update and patch: both make a new object of the present one, and differ only in how.

use std::sync::Arc;

use podium_store::{Guard, Operation, Outcome, Record, View};
use podium_types::{Kind, canonical, defaults, object, schema, strategy, validation};
use serde_json::Value;

use super::create::{other_name, settle_namespace};
use super::read::check_verb;
use super::served::parse;
use super::{
    FieldValidation, Input, MOST_ATTEMPTS, Pipeline, Target, WriteOptions, Written, claim, decode,
    delete, scale,
};
use crate::admission::{Operation as Doing, Review};
use crate::auth::User;
use crate::bugs::Bug;
use crate::patch::{Patch, PatchError};
use crate::registry::{Action, Verb};
use crate::status::Status;

/// What an object shall become, in its served form.
struct Wanted {
    object: Value,
    warnings: Vec<String>,
}

impl Pipeline {
    /// Replaces an object, or a part of it. With a resourceVersion only if it is still at that one.
    ///
    /// # Errors
    /// 400 for what cannot be read, 404, 409 if the object is another or has changed, 422 for broken rules.
    pub async fn update(
        &self,
        user: &User,
        target: &Target<'_>,
        input: Input,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        self.authorize_target(user, "update", target).await?;
        check_verb(target, Verb::Update)?;
        let kind = target.subresource.map_or(target.resource.kind, |part| part.kind);
        let decoded = decode::decode(kind, input, options.field_validation)?;
        let wanted = |_: &Value| {
            Ok(Wanted { object: decoded.object.clone(), warnings: decoded.warnings.clone() })
        };
        self.change(user, target, options, &wanted).await
    }

    /// Changes an object, or a part of it, by a patch. Applied again if the object changes meanwhile.
    ///
    /// # Errors
    /// As [`Pipeline::update`], and 422 for a patch that does not fit the object.
    pub async fn patch(
        &self,
        user: &User,
        target: &Target<'_>,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        self.authorize_target(user, "patch", target).await?;
        check_verb(target, Verb::Patch)?;
        let kind = target.subresource.map_or(target.resource.kind, |part| part.kind);
        let wanted = |present: &Value| apply_patch(kind, present, patch, options.field_validation);
        self.change(user, target, options, &wanted).await
    }

    /// Makes `wanted` of the present object until nobody else was faster.
    async fn change(
        &self,
        user: &User,
        target: &Target<'_>,
        options: &WriteOptions,
        wanted: &(dyn Fn(&Value) -> Result<Wanted, Status> + Send + Sync),
    ) -> Result<Written, Status> {
        for _ in 0..MOST_ATTEMPTS {
            let view = self.view().await?;
            let Some(record) = view.get(&target.key()).cloned() else {
                return Err(Status::not_found(target.resource.names, target.name));
            };
            let mut stored = parse(&record);
            object::set_resource_version(&mut stored, Some(record.mod_revision.0));
            let present = present(target, &stored);
            let Wanted { object, warnings } = wanted(&present)?;
            self.check_identity(target, &object, &present)?;
            let object = whole(target, object, &stored);
            let draft = self.draft(user, target, object, &stored, &view, options.dry_run).await?;
            let answer = |pipeline: &Self, draft: Value, revision: u64| {
                let mut written = pipeline.written(target, draft, Some(revision), warnings.clone());
                if is_scale(target) {
                    written.object = scale::of(target.resource, &written.object);
                }
                written
            };
            let unchanged = canonical::encode(&draft).as_slice() == &record.value[..];
            if options.dry_run || unchanged {
                return Ok(answer(self, draft, record.mod_revision.0));
            }
            let (guards, operations) = self.transaction(target, &draft, &stored, &record);
            if let Outcome::Committed { revision } = self.commit(guards, operations).await? {
                return Ok(answer(self, draft, revision.0));
            }
        }
        Err(Status::modified(target.resource.names, target.name))
    }

    /// The object says, if it says anything, which one it is and at which version.
    fn check_identity(
        &self,
        target: &Target<'_>,
        object: &Value,
        present: &Value,
    ) -> Result<(), Status> {
        let names = target.resource.names;
        let name = object::name(object);
        if name != target.name && !(name.is_empty() && is_scale(target)) {
            return Err(other_name(name, target.name));
        }
        let mut place = object.clone();
        settle_namespace(target, &mut place)?;
        let (uid, present_uid) = (object::uid(object), object::uid(present));
        if !uid.is_empty() && uid != present_uid {
            return Err(Status::other_uid(names, target.name, uid, present_uid));
        }
        // 0 is a version that no object has; clients send it for none.
        match object::resource_version(object).filter(|version| *version != "0") {
            None if target.resource.unconditional_update || target.subresource.is_some() => Ok(()),
            None => Err(Status::invalid(
                target.resource.kind,
                target.name,
                &[claim::invalid(
                    "metadata.resourceVersion",
                    &Value::from(0),
                    "must be specified for an update",
                )],
            )),
            version if version == object::resource_version(present) => Ok(()),
            Some(_) if self.config.bugs.has(Bug::UpdateIgnoresResourceVersion) => Ok(()),
            Some(_) => Err(Status::modified(names, target.name)),
        }
    }

    /// The object as it will be stored: completed, admitted, valid.
    async fn draft(
        &self,
        user: &User,
        target: &Target<'_>,
        mut object: Value,
        stored: &Value,
        view: &View,
        dry_run: bool,
    ) -> Result<Value, Status> {
        let kind = target.resource.stored_kind();
        let part = part_of(target);
        defaults::apply(kind, &mut object);
        for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
        {
            let value = object::at(stored, &["metadata", field]);
            object::set_metadata(&mut object, field, (!value.is_null()).then(|| value.clone()));
        }
        for field in ["managedFields", "selfLink"] {
            object::set_metadata(&mut object, field, None);
        }
        strategy::prepare_update(kind, &mut object, stored, part);
        let review = Review {
            user,
            operation: Doing::Update,
            resource: target.resource,
            subresource: target.part_name(),
            namespace: target.namespace,
            old: Some(stored),
            state: view,
            dry_run,
        };
        self.mutate(review, &mut object).await?;
        claim::fill(kind, &mut object, &self.config, view, self.ids.random())?;
        let causes = match part {
            Some("status") => validation::update_status(kind, &object, stored),
            Some(_) => Vec::new(),
            None => validation::update(kind, &object, stored),
        };
        if !causes.is_empty() {
            return Err(Status::invalid(target.resource.kind, target.name, &causes));
        }
        self.admit(review, &object).await?;
        // The version is the record's, not the object's.
        object::set_resource_version(&mut object, None);
        Ok(object)
    }

    fn transaction(
        &self,
        target: &Target<'_>,
        draft: &Value,
        stored: &Value,
        record: &Arc<Record>,
    ) -> (Vec<Guard>, Vec<Operation>) {
        let kind = target.resource.stored_kind();
        let key = record.key.clone();
        let guard = if self.config.bugs.has(Bug::UpdateIgnoresResourceVersion) {
            Guard::Exists(key.clone())
        } else {
            Guard::At(key.clone(), record.mod_revision)
        };
        let (mut guards, mut operations) = (vec![guard], Vec::new());
        let had = claim::of(kind, stored);
        if delete::is_finished(target.resource, draft) {
            operations.push(Operation::Delete { key });
            claim::release(&had, &mut operations);
            return (guards, operations);
        }
        let has = claim::of(kind, draft);
        let value = canonical::encode(draft).into();
        operations.push(Operation::Put { key: key.clone(), value });
        claim::take(&self.config, &key, &(&has - &had), &mut guards, &mut operations);
        claim::release(&(&had - &has), &mut operations);
        (guards, operations)
    }
}

fn is_scale(target: &Target<'_>) -> bool {
    target.subresource.is_some_and(|part| part.action == Action::Scale)
}

/// The part that the rules of the kind know; a change of scale is a change of the object.
fn part_of(target: &Target<'_>) -> Option<&'static str> {
    target.subresource.filter(|part| part.action == Action::Part).map(|part| part.name)
}

/// What the client sees of a stored object.
fn present(target: &Target<'_>, stored: &Value) -> Value {
    match target.resource.conversion {
        _ if is_scale(target) => scale::of(target.resource, stored),
        Some(conversion) => (conversion.from_storage)(stored),
        None => stored.clone(),
    }
}

/// The stored form of what the client sent.
fn whole(target: &Target<'_>, mut object: Value, stored: &Value) -> Value {
    if is_scale(target) {
        return scale::put(stored, &object);
    }
    if part_of(target) == Some("finalize") {
        let mut whole = stored.clone();
        let finalizers = object::at(&object, &["spec", "finalizers"]);
        let finalizers =
            if finalizers.is_null() { Value::Array(Vec::new()) } else { finalizers.clone() };
        object::child_mut(object::map_of(&mut whole), "spec")
            .insert("finalizers".to_owned(), finalizers);
        return whole;
    }
    if object::namespace(&object).is_empty() && target.resource.namespaced {
        object::set_metadata(&mut object, "namespace", Some(target.namespace.into()));
    }
    match target.resource.conversion {
        Some(conversion) => (conversion.to_storage)(&object),
        None => object,
    }
}

fn apply_patch(
    kind: Kind,
    present: &Value,
    patch: &Patch,
    validation: FieldValidation,
) -> Result<Wanted, Status> {
    let mut patched = patch.apply(kind, present).map_err(|error| match error {
        PatchError::Malformed(why) => Status::bad_request(why),
        PatchError::Unfit(why) => Status::unprocessable(why),
    })?;
    decode::set_header(kind, &mut patched);
    let decoded = schema::check(kind, patched, validation).map_err(|error| {
        let message = format!("Invalid value: {:?}: {error}", patch.to_string());
        Status::invalid_field(" \"\"", "patch", "FieldValueInvalid", &message)
    })?;
    Ok(Wanted { object: decoded.object, warnings: decoded.warnings })
}
