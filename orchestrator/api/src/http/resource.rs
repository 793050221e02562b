//! Requests about resources: from method, path and query to a verb, and back.

use std::time::Duration;

use http::Method;
use hyper::body::Incoming;
use podium_types::object;
use serde_json::json;

use super::reply::{self, Reply};
use super::route::ResourcePath;
use super::shape::{Include, View};
use super::{Context, Server, body, negotiate, watching};
use crate::pipeline::{
    DeleteOptions, Deleted, FieldValidation, ListOptions, Match, Propagation, ReadOptions, Served,
    Target, WatchOptions, WriteOptions, Written,
};
use crate::status::Status;

impl Server {
    pub(super) async fn handle_resource(
        &self,
        context: &Context<'_>,
        path: &ResourcePath,
        incoming: Incoming,
    ) -> Result<Reply, Status> {
        let view = self.view(context)?;
        let target = path.target();
        let single = !target.name.is_empty();
        match *context.method {
            Method::GET | Method::HEAD
                if context.query.flag("watch") && path.subresource.is_none() =>
            {
                self.watch(context, target, view).await
            }
            Method::GET | Method::HEAD if single => {
                let options = ReadOptions { resource_version: version(context)? };
                let object = self.pipeline.get(context.user, &target, &options).await?;
                Ok(view.object(200, kind_of(&target), &object))
            }
            Method::GET | Method::HEAD => {
                let listing =
                    self.pipeline.list(context.user, &target, &list_options(context)?).await?;
                Ok(view.list(target.resource, listing))
            }
            Method::POST | Method::PUT | Method::PATCH => {
                self.write(context, target, view, incoming).await
            }
            Method::DELETE if path.subresource.is_none() => {
                self.delete(context, target, incoming).await
            }
            _ => Err(Status::method_not_allowed_on_path()),
        }
    }

    fn view(&self, context: &Context<'_>) -> Result<View, Status> {
        Ok(View {
            form: negotiate::form(context.headers)?,
            include: Include::parse(context.query.get("includeObject"))?,
            now: self.pipeline.now().wall,
        })
    }

    async fn write(
        &self,
        context: &Context<'_>,
        target: Target<'_>,
        view: View,
        incoming: Incoming,
    ) -> Result<Reply, Status> {
        let (single, part) = (!target.name.is_empty(), target.subresource.is_some());
        let nowhere = target.resource.namespaced && target.namespace.is_empty();
        let options = write_options(context)?;
        let bytes = body::read(incoming).await?;
        let (user, headers) = (context.user, context.headers);
        let (code, written) = match *context.method {
            Method::POST if single == part && !nowhere => {
                let input = body::input(headers, bytes)?;
                (201, self.pipeline.create(user, &target, input, &options).await?)
            }
            Method::PUT if single => {
                let input = body::input(headers, bytes)?;
                (200, self.pipeline.update(user, &target, input, &options).await?)
            }
            Method::PATCH if single => {
                let patch = body::patch(headers, &bytes, true)?;
                (200, self.pipeline.patch(user, &target, &patch, &options).await?)
            }
            _ => return Err(Status::method_not_allowed_on_path()),
        };
        Ok(answer(&target, view, code, written))
    }

    async fn delete(
        &self,
        context: &Context<'_>,
        target: Target<'_>,
        incoming: Incoming,
    ) -> Result<Reply, Status> {
        let bytes = body::read(incoming).await?;
        let options = delete_options(context, &body::options(context.headers, &bytes)?)?;
        let encoding = negotiate::form(context.headers)?.encoding;
        if !target.name.is_empty() {
            let deleted = self.pipeline.delete(context.user, &target, &options).await?;
            return Ok(reply::value(200, encoding, &deleted.answer(target.resource)));
        }
        if target.resource.namespaced && target.namespace.is_empty() {
            return Err(Status::method_not_allowed_on_path());
        }
        let which = list_options(context)?;
        let deleted =
            self.pipeline.delete_collection(context.user, &target, &which, &options).await?;
        let revision = deleted.iter().map(|one| one.revision).max().unwrap_or_default();
        let items: Vec<_> = deleted.into_iter().map(|Deleted { object, .. }| object).collect();
        let list = json!({
            "kind": format!("{}List", target.resource.kind.name()), "apiVersion": target.resource.api_version(),
            "metadata": {"resourceVersion": revision.to_string()}, "items": items,
        });
        Ok(reply::value(200, encoding, &list))
    }

    async fn watch(
        &self,
        context: &Context<'_>,
        target: Target<'_>,
        view: View,
    ) -> Result<Reply, Status> {
        let query = &context.query;
        let mut field_selector = query.get("fieldSelector").unwrap_or_default().to_owned();
        if !target.name.is_empty() {
            // The old way to watch one object.
            field_selector = format!("metadata.name={}", target.name);
        }
        let options = WatchOptions {
            label_selector: query.get("labelSelector").unwrap_or_default().to_owned(),
            field_selector,
            resource_version: version(context)?,
            resource_version_match: version_match(context)?,
            send_initial_events: query.flag("sendInitialEvents"),
            allow_bookmarks: query.flag("allowWatchBookmarks"),
        };
        let collection = Target { name: "", ..target };
        let watcher = self.pipeline.watch(context.user, &collection, &options).await?;
        let timeout = query.number("timeoutSeconds")?.filter(|seconds| *seconds > 0);
        let wanted = watching::Wanted {
            view,
            kind: target.resource.kind,
            bookmarks: options.allow_bookmarks,
            timeout: timeout.map_or(watching::DEFAULT_TIMEOUT, Duration::from_secs),
        };
        let clock = self.pipeline.clock().clone();
        Ok(watching::reply(watcher, wanted, clock, self.closing.subscribe()))
    }
}

/// The kind of what a target gives.
fn kind_of(target: &Target<'_>) -> podium_types::Kind {
    target.subresource.map_or(target.resource.kind, |part| part.kind)
}

fn answer(target: &Target<'_>, view: View, code: u16, written: Written) -> Reply {
    let is_status = written.object.get("kind").is_some_and(|kind| kind == "Status");
    let mut reply = if is_status {
        reply::value(code, view.form.encoding, &written.object)
    } else {
        view.object(code, kind_of(target), &Served::made(target.resource, written.object))
    };
    reply::warn(&mut reply, &written.warnings);
    reply
}

fn version(context: &Context<'_>) -> Result<Option<u64>, Status> {
    let Some(text) = context.query.get("resourceVersion") else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        Status::invalid_field(
            "ListOptions.meta.k8s.io \"\"",
            "resourceVersion",
            "FieldValueInvalid",
            &format!(
                "Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
            ),
        )
    })
}

fn version_match(context: &Context<'_>) -> Result<Option<Match>, Status> {
    match context.query.get("resourceVersionMatch") {
        None => Ok(None),
        Some("Exact") => Ok(Some(Match::Exact)),
        Some("NotOlderThan") => Ok(Some(Match::NotOlderThan)),
        Some(other) => Err(Status::invalid_field(
            "ListOptions.meta.k8s.io \"\"",
            "resourceVersionMatch",
            "FieldValueNotSupported",
            &format!(
                "Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\", \"\""
            ),
        )),
    }
}

fn list_options(context: &Context<'_>) -> Result<ListOptions, Status> {
    let query = &context.query;
    let text = |name| query.get(name).unwrap_or_default().to_owned();
    Ok(ListOptions {
        label_selector: text("labelSelector"),
        field_selector: text("fieldSelector"),
        limit: query.number("limit")?,
        continue_token: query.get("continue").map(str::to_owned),
        resource_version: version(context)?,
        resource_version_match: version_match(context)?,
    })
}

/// Whether nothing is to be written; anything but `All` means nothing.
fn dry_run(context: &Context<'_>) -> Result<bool, Status> {
    match context.query.get("dryRun") {
        None => Ok(false),
        Some("All") => Ok(true),
        Some(other) => Err(Status::invalid_field(
            "CreateOptions.meta.k8s.io \"\"",
            "dryRun",
            "FieldValueNotSupported",
            &format!("Unsupported value: {other:?}: supported values: \"All\""),
        )),
    }
}

fn write_options(context: &Context<'_>) -> Result<WriteOptions, Status> {
    let field_validation = match context.query.get("fieldValidation") {
        None | Some("Warn") => FieldValidation::Warn,
        Some("Strict") => FieldValidation::Strict,
        Some("Ignore") => FieldValidation::Ignore,
        Some(other) => {
            return Err(Status::invalid_field(
                "CreateOptions.meta.k8s.io \"\"",
                "fieldValidation",
                "FieldValueNotSupported",
                &format!(
                    "Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
                ),
            ));
        }
    };
    Ok(WriteOptions { dry_run: dry_run(context)?, field_validation })
}

/// What the body says; the query says it for clients that send no body.
fn delete_options(
    context: &Context<'_>,
    body: &serde_json::Value,
) -> Result<DeleteOptions, Status> {
    let mut options = DeleteOptions::from_object(body)?;
    let query = &context.query;
    options.dry_run |= dry_run(context)?;
    if object::at(body, &["gracePeriodSeconds"]).is_null() {
        options.grace_period_seconds = query.number("gracePeriodSeconds")?;
    }
    if options.propagation.is_none() {
        let policy = json!({"propagationPolicy": query.get("propagationPolicy")});
        options.propagation = DeleteOptions::from_object(&policy)?.propagation;
    }
    if options.propagation.is_none() && query.flag("orphanDependents") {
        options.propagation = Some(Propagation::Orphan);
    }
    Ok(options)
}
