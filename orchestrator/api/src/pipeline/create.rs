//! create.

use std::sync::Arc;

use podium_store::{Guard, Operation, Outcome, View};
use podium_types::kind::resources;
use podium_types::{ObjectKey, canonical, defaults, object, strategy, validation};
use serde_json::{Value, json};

use super::read::check_verb;
use super::served::parse;
use super::{Input, MOST_ATTEMPTS, Pipeline, Target, WriteOptions, Written, claim, decode};
use crate::admission::{Operation as Doing, Review};
use crate::auth::User;
use crate::bugs::Bug;
use crate::registry::{Action, Verb};
use crate::seams;
use crate::status::Status;

/// Names stay valid with a suffix behind them.
const LONGEST_PREFIX: usize = 253 - 5;
/// What clients cannot say about a new object.
const SERVER_FIELDS: [&str; 6] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
];

/// One try to create an object.
struct Attempt {
    /// As it will be stored.
    object: Value,
    guards: Vec<Guard>,
    operations: Vec<Operation>,
}

impl Pipeline {
    /// Makes an object, or carries out an action on one (`binding`, `eviction`).
    ///
    /// # Errors
    /// 400 for what cannot be read, 403, 404 without the namespace, 409 for a name in use, 422 for broken rules.
    pub async fn create(
        &self,
        user: &User,
        target: &Target<'_>,
        input: Input,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        self.authorize_target(user, "create", target).await?;
        check_verb(target, Verb::Create)?;
        match target.subresource.map(|part| part.action) {
            None => self.create_object(user, target, input, options).await,
            Some(Action::Bind) => self.create_binding(target, input, options).await,
            Some(Action::Evict) => self.create_eviction(user, target, input, options).await,
            Some(_) => Err(Status::method_not_allowed(&target.names(), "create")),
        }
    }

    async fn create_object(
        &self,
        user: &User,
        target: &Target<'_>,
        input: Input,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let resource = target.resource;
        let decoded = decode::decode(resource.kind, input, options.field_validation)?;
        let mut wanted = decoded.object;
        settle_place(target, &mut wanted)?;
        if let Some(conversion) = resource.conversion {
            wanted = (conversion.to_storage)(&wanted);
        }
        defaults::apply(resource.stored_kind(), &mut wanted);
        let generated =
            object::name(&wanted).is_empty() && object::generate_name(&wanted).is_some();
        for _ in 0..MOST_ATTEMPTS {
            let view = self.view().await?;
            let attempt = self.attempt_create(user, target, &wanted, &view, options).await?;
            let name = object::name(&attempt.object).to_owned();
            let taken = |name: &str| {
                if generated {
                    Status::no_unique_name(resource.names, name)
                } else {
                    Status::already_exists(resource.names, name)
                }
            };
            if view.get(attempt.operations[0].key()).is_some() {
                if generated {
                    continue;
                }
                return Err(taken(&name));
            }
            if options.dry_run {
                return Ok(self.written(target, attempt.object, None, decoded.warnings));
            }
            match self.commit(attempt.guards, attempt.operations).await? {
                Outcome::Committed { revision } => {
                    return Ok(self.written(
                        target,
                        attempt.object,
                        Some(revision.0),
                        decoded.warnings,
                    ));
                }
                Outcome::Refused { guard: 0, .. } if !generated => return Err(taken(&name)),
                Outcome::Refused { .. } => {}
            }
        }
        Err(Status::conflict(
            resource.names,
            object::name(&wanted),
            "too many others write at the same time",
        ))
    }

    async fn attempt_create(
        &self,
        user: &User,
        target: &Target<'_>,
        wanted: &Value,
        view: &View,
        options: &WriteOptions,
    ) -> Result<Attempt, Status> {
        let resource = target.resource;
        let kind = resource.stored_kind();
        let mut object = wanted.clone();
        let namespace_guard = self.namespace_guard(target, object::name(&object), view)?;
        self.settle_name(&mut object);
        let review = Review {
            user,
            operation: Doing::Create,
            resource,
            subresource: "",
            namespace: target.namespace,
            old: None,
            state: view,
            dry_run: options.dry_run,
        };
        self.mutate(review, &mut object).await?;
        for field in SERVER_FIELDS {
            object::set_metadata(&mut object, field, None);
        }
        strategy::prepare_create(kind, &mut object);
        object::set_metadata(&mut object, "uid", Some(json!(seams::uid(self.ids.random()))));
        object::set_metadata(&mut object, "creationTimestamp", Some(json!(self.now().time())));
        claim::fill(kind, &mut object, &self.config, view, self.ids.random())?;
        let causes = validation::create(kind, &object);
        if !causes.is_empty() {
            return Err(Status::invalid(resource.kind, object::name(&object), &causes));
        }
        self.admit(review, &object).await?;

        let key: Arc<str> = target.key_of(object::name(&object)).into();
        let value = canonical::encode(&object).into();
        let mut guards = vec![Guard::Absent(key.clone())];
        guards.extend(namespace_guard);
        let mut operations = vec![Operation::Put { key: key.clone(), value }];
        claim::take(&self.config, &key, &claim::of(kind, &object), &mut guards, &mut operations);
        Ok(Attempt { object, guards, operations })
    }

    /// The object's namespace is there, stays as it is until the object is, and is not going.
    fn namespace_guard(
        &self,
        target: &Target<'_>,
        name: &str,
        view: &View,
    ) -> Result<Option<Guard>, Status> {
        if !target.resource.namespaced {
            return Ok(None);
        }
        let key = ObjectKey::of_namespace(target.namespace).storage_key();
        let Some(record) = view.get(&key) else {
            return Err(Status::not_found(&resources::NAMESPACES, target.namespace));
        };
        if self.config.bugs.has(Bug::CreateInTerminatingNamespace) {
            return Ok(None);
        }
        let namespace = parse(record);
        if object::deletion_timestamp(&namespace).is_some() {
            let names = target.resource.names;
            return Err(Status::namespace_terminating(names, name, target.namespace));
        }
        Ok(Some(Guard::At(key.into(), record.mod_revision)))
    }

    fn settle_name(&self, object: &mut Value) {
        if !object::name(object).is_empty() {
            return;
        }
        if let Some(prefix) = object::generate_name(object) {
            let end = (0..=prefix.len().min(LONGEST_PREFIX))
                .rev()
                .find(|at| prefix.is_char_boundary(*at));
            let prefix = &prefix[..end.unwrap_or_default()];
            let name = format!("{prefix}{}", seams::suffix(self.ids.random()));
            object::set_metadata(object, "name", Some(name.into()));
        }
    }

    /// The answer for a stored object.
    pub(super) fn written(
        &self,
        target: &Target<'_>,
        mut object: Value,
        revision: Option<u64>,
        warnings: Vec<String>,
    ) -> Written {
        object::set_resource_version(&mut object, revision);
        if let Some(conversion) = target.resource.conversion {
            object = (conversion.from_storage)(&object);
        }
        Written { object, revision: revision.unwrap_or_default(), warnings }
    }
}

/// Puts the object where the path says, and refuses what says otherwise.
fn settle_place(target: &Target<'_>, object: &mut Value) -> Result<(), Status> {
    if object::resource_version(object).is_some() {
        return Err(Status::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    if !target.name.is_empty() && object::name(object) != target.name {
        return Err(other_name(object::name(object), target.name));
    }
    settle_namespace(target, object)
}

pub(super) fn other_name(object: &str, path: &str) -> Status {
    Status::bad_request(format!(
        "the name of the object ({object}) does not match the name on the URL ({path})"
    ))
}

/// Puts the object into the namespace of the path, and refuses one that says another.
pub(super) fn settle_namespace(target: &Target<'_>, object: &mut Value) -> Result<(), Status> {
    let given = object::namespace(object);
    if !target.resource.namespaced {
        object::set_metadata(object, "namespace", None);
    } else if given.is_empty() {
        object::set_metadata(object, "namespace", Some(target.namespace.into()));
    } else if given != target.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}
