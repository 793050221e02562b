//! Pods get the number of their priority class. There are no PriorityClass objects; the two that every cluster has are
//! built in.

use futures::future::BoxFuture;
use podium_types::{Kind, object};
use serde_json::{Value, json};

use super::{Mutating, Operation, Review};
use crate::status::Status;

const NODE_CRITICAL: i64 = 2_000_001_000;
const CLUSTER_CRITICAL: i64 = 2_000_000_000;

/// See the module.
#[derive(Debug)]
pub struct Priority;

impl Mutating for Priority {
    fn admit<'a>(
        &'a self,
        review: Review<'a>,
        pod: &'a mut Value,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            let new = review.operation == Operation::Create && review.subresource.is_empty();
            if !new || review.resource.kind != Kind::Pod {
                return Ok(());
            }
            let priority = match object::str_at(pod, &["spec", "priorityClassName"]) {
                None | Some("") => 0,
                Some("system-node-critical") => NODE_CRITICAL,
                Some("system-cluster-critical") => CLUSTER_CRITICAL,
                Some(class) => {
                    let why = format!("no PriorityClass with name {class} was found");
                    return Err(Status::forbidden(review.resource.names, object::name(pod), &why));
                }
            };
            let spec = object::child_mut(object::map_of(pod), "spec");
            spec.insert("priority".to_owned(), json!(priority));
            spec.entry("preemptionPolicy").or_insert_with(|| json!("PreemptLowerPriority"));
            Ok(())
        })
    }
}
