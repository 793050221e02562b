//! Steps of a plan as calls of the API's pipeline.

use podium_api::patch::Patch;
use podium_api::pipeline::{DeleteOptions, Propagation as Deletion, WriteOptions};
use podium_api::{Pipeline, Status, Target, User};
use podium_control::driver::CallResult;
use podium_control::{Propagation, Step};
use podium_types::{ObjectKey, object};

/// Makes one call. A [`Step::Event`] is none: the driver has made a call of it before.
pub async fn make(pipeline: &Pipeline, user: &User, step: Step) -> CallResult {
    match attempt(pipeline, user, step).await {
        Ok(revision) => CallResult::Done { revision },
        Err(status) if status.outcome_unknown => CallResult::Unknown,
        Err(status) => CallResult::Refused { message: status.message },
    }
}

/// The revision by which the step is done.
async fn attempt(pipeline: &Pipeline, user: &User, step: Step) -> Result<u64, Status> {
    let options = WriteOptions::default();
    match step {
        Step::Create { resource, object } => {
            let (namespace, name) =
                (object::namespace(&object).to_owned(), object::name(&object).to_owned());
            let key = ObjectKey::new(resource, namespace, name);
            let target = Target { name: "", ..target(&key, None)? };
            Ok(pipeline.create(user, &target, object.into(), &options).await?.revision)
        }
        Step::Update { key, subresource, object } => {
            let target = target(&key, subresource)?;
            Ok(pipeline.update(user, &target, object.into(), &options).await?.revision)
        }
        Step::Patch { key, subresource, patch } => {
            let target = target(&key, subresource)?;
            Ok(pipeline.patch(user, &target, &Patch::Merge(patch), &options).await?.revision)
        }
        Step::Delete { key, uid, grace_seconds, propagation } => {
            let options = DeleteOptions {
                grace_period_seconds: grace_seconds,
                uid: Some(uid),
                propagation: Some(deletion(propagation)),
                ..DeleteOptions::default()
            };
            Ok(pipeline.delete(user, &target(&key, None)?, &options).await?.revision)
        }
        Step::Bind { pods, node } => {
            let mut last = 0;
            for bound in pipeline.bind(user, &node, &pods).await? {
                last = last.max(bound?);
            }
            Ok(last)
        }
        Step::Event(event) => {
            Err(Status::internal(format!("{} was not made a call", event.reason)))
        }
    }
}

fn target<'a>(key: &'a ObjectKey, subresource: Option<&str>) -> Result<Target<'a>, Status> {
    let target = Target::object(key).ok_or_else(Status::no_such_resource)?;
    match subresource {
        None => Ok(target),
        Some(part) => target.part(part).ok_or_else(Status::no_such_resource),
    }
}

fn deletion(propagation: Propagation) -> Deletion {
    match propagation {
        Propagation::Background => Deletion::Background,
        Propagation::Foreground => Deletion::Foreground,
        Propagation::Orphan => Deletion::Orphan,
    }
}
