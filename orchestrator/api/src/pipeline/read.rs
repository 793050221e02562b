//! get and list.
//!
//! Without a resourceVersion a read is linearizable. With one it is not older than that; 0 is whatever is applied here. A
//! list in pages is of one revision, named in the continue token, until that revision is forgotten.

use std::sync::Arc;

use podium_store::{Record, Revision, StoreError, View};
use podium_types::ObjectKey;
use podium_types::selector::{FieldSelector, LabelSelector};
use serde_json::Value;

use super::continuation::Continuation;
use super::{ListOptions, Match, Pipeline, ReadOptions, Served, Target, scale, served};
use crate::auth::User;
use crate::registry::{Action, Resource, Verb};
use crate::status::Status;

/// Some or all objects of a resource.
#[derive(Debug, Clone)]
pub struct Listing {
    /// In the order of namespace and name.
    pub items: Vec<Served>,
    /// What the list is of.
    pub revision: u64,
    /// Where to go on; nothing if this was all.
    pub continue_token: Option<String>,
    /// How many come after, where that is known.
    pub remaining: Option<u64>,
}

/// Which objects of a resource are meant.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    resource: &'static Resource,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    pub(super) fn parse(
        resource: &'static Resource,
        labels: &str,
        fields: &str,
    ) -> Result<Self, Status> {
        let labels = LabelSelector::parse(labels).map_err(|error| {
            Status::bad_request(format!("unable to parse requirement: {error}"))
        })?;
        let fields = FieldSelector::parse(resource.kind, fields)
            .map_err(|error| Status::bad_request(error.to_string()))?;
        Ok(Self { resource, labels, fields })
    }

    /// Whether every object is meant.
    pub(super) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_empty()
    }

    pub(super) fn matches(&self, record: &Arc<Record>) -> bool {
        if self.is_everything() {
            return true;
        }
        // Watches of one object are common, and most events are of others.
        let name = record.key.rsplit('/').next();
        if self.fields.exact("metadata.name").is_some_and(|wanted| Some(wanted) != name) {
            return false;
        }
        let object = Served::record(self.resource, record.clone()).value();
        self.labels.matches(&object) && self.fields.matches(&object)
    }

    /// The keys among which the objects are.
    pub(super) fn prefix(&self, namespace: &str) -> String {
        let all = self.resource.namespaced && namespace.is_empty();
        let namespace = if all { self.fields.exact("metadata.namespace") } else { Some(namespace) };
        ObjectKey::prefix(
            self.resource.stored_as,
            namespace.filter(|name| !name.is_empty() || !all),
        )
    }

    /// The one object that can be meant.
    fn only(&self, prefix: &str) -> Option<String> {
        let name = self.fields.exact("metadata.name")?;
        let whole_namespace = prefix.split('/').filter(|part| !part.is_empty()).count() == 4;
        whole_namespace.then(|| format!("{prefix}{name}"))
    }
}

impl Pipeline {
    /// One object, or a part of it.
    ///
    /// # Errors
    /// 404, and those of the authorizer and the store.
    pub async fn get(
        &self,
        user: &User,
        target: &Target<'_>,
        options: &ReadOptions,
    ) -> Result<Served, Status> {
        self.authorize_target(user, "get", target).await?;
        check_verb(target, Verb::Get)?;
        let view = self.view_for(options.resource_version, None).await?;
        let Some(record) = view.get(&target.key()) else {
            return Err(Status::not_found(target.resource.names, target.name));
        };
        match target.subresource.map(|part| part.action) {
            None | Some(Action::Part) => {
                let served = Served::record(target.resource, record.clone());
                Ok(self.renewed(target.resource, served))
            }
            Some(Action::Scale) => {
                let mut object = served::parse(record);
                podium_types::object::set_resource_version(
                    &mut object,
                    Some(record.mod_revision.0),
                );
                Ok(Served::made(target.resource, scale::of(target.resource, &object)))
            }
            Some(_) => Err(Status::method_not_allowed(&target.names(), "get")),
        }
    }

    /// The pod that a streaming request (`verb` on a part like `log`) is about, for somebody who may make it.
    ///
    /// # Errors
    /// As [`Pipeline::get`].
    pub async fn pod_for_stream(
        &self,
        user: &User,
        verb: &str,
        target: &Target<'_>,
    ) -> Result<Value, Status> {
        self.authorize_target(user, verb, target).await?;
        let view = self.view().await?;
        match view.get(&target.key()) {
            Some(record) => Ok(Served::record(target.resource, record.clone()).value()),
            None => Err(Status::not_found(target.resource.names, target.name)),
        }
    }

    /// All objects of a resource in a namespace or everywhere, or a page of them.
    ///
    /// # Errors
    /// 400 for selectors and tokens that make no sense, 410 for pages of a forgotten revision.
    pub async fn list(
        &self,
        user: &User,
        target: &Target<'_>,
        options: &ListOptions,
    ) -> Result<Listing, Status> {
        self.authorize_fields(user, "list", target, &options.field_selector).await?;
        check_verb(target, Verb::List)?;
        let selection =
            Selection::parse(target.resource, &options.label_selector, &options.field_selector)?;
        let prefix = selection.prefix(target.namespace);
        let continuation = options.continue_token.as_deref().filter(|token| !token.is_empty());
        let continuation = continuation.map(Continuation::parse).transpose()?;
        let view = self.view_of_list(options, continuation.as_ref()).await?;
        let after = continuation.map(|continuation| format!("{prefix}{}", continuation.after));
        let mut page = page(&view, &selection, &prefix, after.as_deref(), options.limit);
        page.items = page.items.into_iter().map(|it| self.renewed(target.resource, it)).collect();
        Ok(page)
    }

    async fn view_of_list(
        &self,
        options: &ListOptions,
        continuation: Option<&Continuation>,
    ) -> Result<View, Status> {
        let Some(continuation) = continuation else {
            return self.view_for(options.resource_version, options.resource_version_match).await;
        };
        if options.resource_version.is_some_and(|version| version != 0) {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        match continuation.revision {
            None => self.view().await,
            Some(revision) => match self.view_of_revision(revision).await {
                Err(status) if status.reason == "Expired" => Err(expired_page(continuation)),
                answer => answer,
            },
        }
    }

    /// A view as options ask for it.
    pub(super) async fn view_for(
        &self,
        version: Option<u64>,
        meant: Option<Match>,
    ) -> Result<View, Status> {
        match (version, meant) {
            (None, Some(_)) => Err(forbidden_match("unless resourceVersion is provided")),
            (Some(0), Some(Match::Exact)) => {
                Err(forbidden_match("\"Exact\" for resourceVersion \"0\""))
            }
            (None, None) => self.view().await,
            (Some(version), Some(Match::Exact)) => self.view_of_revision(version).await,
            (Some(version), Some(Match::NotOlderThan) | None) => {
                let local = self.store.local();
                if local.revision() >= Revision(version) {
                    return Ok(local);
                }
                let view = self.view().await?;
                let current = view.revision();
                if current < Revision(version) {
                    return Err(Status::from_the_future(version, current.0));
                }
                Ok(view)
            }
        }
    }

    /// The state at exactly a revision; this member may have to catch up first.
    async fn view_of_revision(&self, revision: u64) -> Result<View, Status> {
        let answer = match self.store.view_at(Revision(revision)) {
            Err(StoreError::Future { .. }) => {
                self.view().await?;
                self.store.view_at(Revision(revision))
            }
            answer => answer,
        };
        answer.map_err(|error| Status::from_store(&error))
    }
}

/// Refuses verbs that the resource, or the part of it, does not have.
pub(super) fn check_verb(target: &Target<'_>, verb: Verb) -> Result<(), Status> {
    let has = match target.subresource {
        None => target.resource.has(verb),
        Some(part) => part.verbs.contains(&verb),
    };
    if has { Ok(()) } else { Err(Status::method_not_allowed(&target.names(), verb.as_str())) }
}

fn page(
    view: &View,
    selection: &Selection,
    prefix: &str,
    after: Option<&str>,
    limit: Option<usize>,
) -> Listing {
    let revision = view.revision().0;
    let serve = |record: &Arc<Record>| Served::record(selection.resource, record.clone());
    if let Some(only) = selection.only(prefix) {
        let record = view.get(&only).filter(|record| selection.matches(record));
        let items = record.map(serve).into_iter().collect();
        return Listing { items, revision, continue_token: None, remaining: None };
    }
    let limit = limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let mut items = Vec::new();
    let mut records = view.range_after(prefix, after.unwrap_or_default());
    let mut last: Option<&Arc<Record>> = None;
    while let Some(record) = records.next() {
        if !selection.matches(record) {
            continue;
        }
        if items.len() == limit {
            let after = last.map_or("", |last| &last.key[prefix.len()..]).to_owned();
            let token = Continuation { revision: Some(revision), after }.print();
            let remaining = selection.is_everything().then(|| 1 + records.count() as u64);
            return Listing { items, revision, continue_token: Some(token), remaining };
        }
        items.push(serve(record));
        last = Some(record);
    }
    Listing { items, revision, continue_token: None, remaining: None }
}

/// The revision of a page is forgotten: says so, with a token for those who would rather go on than begin again.
fn expired_page(continuation: &Continuation) -> Status {
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    let fresh = Continuation { revision: None, after: continuation.after.clone() };
    status.continue_token = Some(fresh.print());
    status
}

fn forbidden_match(why: &str) -> Status {
    Status::invalid_field(
        "ListOptions.meta.k8s.io \"\"",
        "resourceVersionMatch",
        "FieldValueForbidden",
        &format!("Forbidden: resourceVersionMatch is forbidden {why}"),
    )
}
