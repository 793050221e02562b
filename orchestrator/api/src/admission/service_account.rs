//! Pods that name no ServiceAccount run as `default`.

use futures::future::BoxFuture;
use podium_types::{Kind, object};
use serde_json::Value;

use super::{Mutating, Operation, Review};
use crate::status::Status;

/// See the module.
#[derive(Debug)]
pub struct DefaultServiceAccount;

impl Mutating for DefaultServiceAccount {
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
            let named = |field| {
                object::str_at(pod, &["spec", field])
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
            };
            // The second is the older name of the same field.
            let account = named("serviceAccountName").or_else(|| named("serviceAccount"));
            let account = Value::from(account.unwrap_or_else(|| "default".to_owned()));
            let spec = object::child_mut(object::map_of(pod), "spec");
            spec.insert("serviceAccountName".to_owned(), account.clone());
            spec.insert("serviceAccount".to_owned(), account);
            Ok(())
        })
    }
}
