//! Putting pods on nodes: one pod by its `binding`, or a batch of the scheduler in one transaction.

use podium_store::{Guard, Operation, Outcome, View};
use podium_types::kind::resources;
use podium_types::{ObjectKey, canonical, object};
use serde_json::{Value, json};

use super::served::parse;
use super::{Input, MOST_ATTEMPTS, Pipeline, Target, WriteOptions, Written, decode};
use crate::auth::{Subject, User};
use crate::bugs::Bug;
use crate::registry;
use crate::status::Status;

/// Pods of one transaction; each is a guard and an operation, and a store takes 1,024 of both.
const MOST_PODS: usize = 256;

impl Pipeline {
    /// Puts pods on a node, each only if it has this uid (if one is given) and is on no node yet. Gives for each the revision, or
    /// why not; one that is refused does not stop the others.
    ///
    /// # Errors
    /// For all of them: the authorizer's and the store's.
    pub async fn bind(
        &self,
        user: &User,
        node: &str,
        pods: &[(ObjectKey, String)],
    ) -> Result<Vec<Result<u64, Status>>, Status> {
        let Some(resource) = registry::find(&resources::PODS) else {
            return Err(Status::no_such_resource());
        };
        let subject = Subject::Object { resource, subresource: "binding", namespace: "", name: "" };
        self.authorize(user, "create", subject).await?;
        let mut answers = Vec::with_capacity(pods.len());
        for batch in pods.chunks(MOST_PODS) {
            answers.extend(self.bind_batch(node, batch).await?);
        }
        Ok(answers)
    }

    async fn bind_batch(
        &self,
        node: &str,
        pods: &[(ObjectKey, String)],
    ) -> Result<Vec<Result<u64, Status>>, Status> {
        for _ in 0..MOST_ATTEMPTS {
            let view = self.view().await?;
            let mut answers = Vec::with_capacity(pods.len());
            let (mut guards, mut operations) = (Vec::new(), Vec::new());
            for (key, uid) in pods {
                let bound = self.bound(key, uid, node, &Value::Null, &view);
                answers.push(bound.map(|(guard, operation)| {
                    guards.push(guard);
                    operations.push(operation);
                    0
                }));
            }
            if operations.is_empty() {
                return Ok(answers);
            }
            if let Outcome::Committed { revision } = self.commit(guards, operations).await? {
                let done = answers.into_iter().map(|answer| answer.map(|_| revision.0));
                return Ok(done.collect());
            }
        }
        let busy = |(key, _): &(ObjectKey, String)| Err(Status::modified(&key.resource, &key.name));
        Ok(pods.iter().map(busy).collect())
    }

    pub(super) async fn create_binding(
        &self,
        target: &Target<'_>,
        input: Input,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let kind = target.subresource.map_or(target.resource.kind, |part| part.kind);
        let decoded = decode::decode(kind, input, options.field_validation)?;
        let binding = decoded.object;
        let node = object::str_at(&binding, &["target", "name"]).unwrap_or_default();
        let node_kind = object::str_at(&binding, &["target", "kind"]).unwrap_or("Node");
        if node.is_empty() || !matches!(node_kind, "" | "Node") {
            return Err(Status::bad_request("a binding needs the name of a Node as its target"));
        }
        let key = ObjectKey::new(resources::PODS, target.namespace, target.name);
        let notes = object::at(&binding, &["metadata", "annotations"]).clone();
        for _ in 0..MOST_ATTEMPTS {
            let view = self.view().await?;
            let (guard, operation) =
                self.bound(&key, object::uid(&binding), node, &notes, &view)?;
            let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
            let written =
                |revision| Written { object: done, revision, warnings: decoded.warnings.clone() };
            if options.dry_run {
                return Ok(written(0));
            }
            if let Outcome::Committed { revision } =
                self.commit(vec![guard], vec![operation]).await?
            {
                return Ok(written(revision.0));
            }
        }
        Err(Status::modified(&resources::PODS, target.name))
    }

    /// The pod as it will be on the node.
    fn bound(
        &self,
        key: &ObjectKey,
        uid: &str,
        node: &str,
        annotations: &Value,
        view: &View,
    ) -> Result<(Guard, Operation), Status> {
        let conflict = |why: String| {
            let binding = podium_types::GroupResource::new("", "pods/binding");
            Err(Status::conflict(&binding, &key.name, &why))
        };
        let Some(record) = view.get(&key.storage_key()) else {
            return Err(Status::not_found(&key.resource, &key.name));
        };
        let mut pod = parse(record);
        let (name, present) = (&key.name, object::uid(&pod));
        if !uid.is_empty() && uid != present {
            return Err(Status::other_uid(&key.resource, name, uid, present));
        }
        if object::deletion_timestamp(&pod).is_some() {
            return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
        }
        let overwrites = self.config.bugs.has(Bug::BindOverwrites);
        if let Some(taken) =
            object::str_at(&pod, &["spec", "nodeName"]).filter(|taken| !taken.is_empty())
            && !overwrites
        {
            return conflict(format!("pod {name} is already assigned to node {taken:?}"));
        }
        for (annotation, text) in annotations.as_object().into_iter().flatten() {
            object::set_annotation(&mut pod, annotation, text.as_str());
        }
        object::child_mut(object::map_of(&mut pod), "spec")
            .insert("nodeName".to_owned(), json!(node));
        set_scheduled(&mut pod, &self.now().time());
        let value = canonical::encode(&pod).into();
        let guard = if overwrites {
            Guard::Exists(record.key.clone())
        } else {
            Guard::At(record.key.clone(), record.mod_revision)
        };
        Ok((guard, Operation::Put { key: record.key.clone(), value }))
    }
}

/// Makes the condition `PodScheduled` true.
fn set_scheduled(pod: &mut Value, now: &str) {
    let status = object::child_mut(object::map_of(pod), "status");
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    let scheduled = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now,
    });
    if let Value::Array(list) = conditions {
        list.retain(|condition| condition["type"] != "PodScheduled");
        list.push(scheduled);
    } else {
        *conditions = json!([scheduled]);
    }
}
