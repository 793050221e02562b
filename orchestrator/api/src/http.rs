//! The server: from HTTP requests to verbs, and from objects to what clients asked to see.
//!
//! ```text
//!   listen ── TLS, who ──► Server::handle ── route ──┬─► resource ── negotiate, body ──► Pipeline
//!                                                    ├─► discovery, openapi, health
//!                                                    └─► logs, exec ──► PodStreams
//! ```
//!
//! Lists and watches are streamed: an answer is never in memory as a whole, and a slow client holds up nobody.

mod body;
mod discovery;
mod exec;
mod health;
mod listen;
mod logs;
mod negotiate;
mod openapi;
mod query;
mod reply;
mod resource;
mod route;
mod shape;
mod watching;
mod websocket;

use std::sync::Arc;

use http::{HeaderMap, Method, Request};
use hyper::body::Incoming;
use tokio::sync::watch;

use crate::auth::{MASTERS, Subject, User};
use crate::pipeline::Pipeline;
use crate::status::Status;
use crate::streams::PodStreams;

use query::Query;
use route::Route;

pub use health::{GIT_VERSION, version};
pub use listen::{ServeError, TlsParts, serve, tls_config};
pub use reply::Reply;

/// Everything that answers requests. Shared by all connections.
pub struct Server {
    pipeline: Pipeline,
    streams: Arc<dyn PodStreams>,
    /// A path that the surroundings answer, to anybody.
    open_path: Option<OpenPath>,
    /// Turns true when streams are to end.
    closing: watch::Sender<bool>,
}

/// What a value of a query parameter is answered with.
pub type Answer = dyn Fn(&str) -> Option<serde_json::Value> + Send + Sync;

/// A path that is none of the API's and that everybody may GET: what proves this server to a client that cannot trust it yet.
pub struct OpenPath {
    /// `/podium/v1/authority`.
    pub path: &'static str,
    /// The query parameter that it takes.
    pub parameter: &'static str,
    /// The answer to the parameter's value; `None` if the value makes no sense.
    pub answer: Box<Answer>,
}

/// One request, apart from its body.
struct Context<'a> {
    user: &'a User,
    method: &'a Method,
    path: &'a str,
    query: Query,
    headers: &'a HeaderMap,
}

impl Server {
    /// A server of a pipeline, and of the containers that `streams` reaches.
    #[must_use]
    pub fn new(pipeline: Pipeline, streams: Arc<dyn PodStreams>) -> Arc<Self> {
        Self::with_open_path(pipeline, streams, None)
    }

    /// The same, with a path of the surroundings'.
    #[must_use]
    pub fn with_open_path(
        pipeline: Pipeline,
        streams: Arc<dyn PodStreams>,
        open_path: Option<OpenPath>,
    ) -> Arc<Self> {
        Arc::new(Self { pipeline, streams, open_path, closing: watch::Sender::new(false) })
    }

    /// Ends all watches and logs that go on. New ones end at once.
    pub fn close_streams(&self) {
        self.closing.send_replace(true);
    }

    /// Answers one request of a user. Never fails: what goes wrong is an answer too.
    pub async fn handle(&self, request: Request<Incoming>, user: &User) -> Reply {
        let user = match impersonated(request.headers(), user) {
            Ok(user) => user,
            Err(status) => return reply::status(&status),
        };
        let (parts, incoming) = request.into_parts();
        let context = Context {
            user: &user,
            method: &parts.method,
            path: parts.uri.path(),
            query: Query::parse(parts.uri.query().unwrap_or_default()),
            headers: &parts.headers,
        };
        if let Some(open) = self.open_path.as_ref().filter(|open| open.path == context.path) {
            return answer_open(open, &context);
        }
        let route = Route::parse(context.path);
        let answer = match &route {
            Route::Resource(path) if path.streams() => {
                let request = Request::from_parts(parts.clone(), incoming);
                self.handle_stream(&context, path, request).await
            }
            Route::Resource(path) => self.handle_resource(&context, path, incoming).await,
            other => self.handle_path(&context, other).await,
        };
        answer.unwrap_or_else(|status| reply::status(&status))
    }

    /// What is not a resource.
    async fn handle_path(&self, context: &Context<'_>, route: &Route) -> Result<Reply, Status> {
        let verb = match *context.method {
            Method::GET | Method::HEAD => "get",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            _ => "delete",
        };
        self.pipeline.authorize(context.user, verb, Subject::Path(context.path)).await?;
        if verb != "get" && !matches!(route, Route::Nowhere) {
            return Err(Status::method_not_allowed_on_path());
        }
        match route {
            Route::Root => Ok(discovery::root()),
            Route::Api | Route::Apis | Route::Group(_) | Route::GroupVersion(..) => {
                discovery::answer(route, context.headers)
            }
            Route::OpenApi => Ok(openapi::index()),
            Route::OpenApiDocument { group, version } => openapi::document(group, version, context),
            Route::Version => Ok(reply::json(&version())),
            Route::Health(name) => Ok(health::answer(self, name, &context.query)),
            Route::NoResource => Err(Status::no_such_resource()),
            Route::Nowhere | Route::Resource(_) => Ok(reply::nowhere()),
        }
    }
}

/// The user that an administrator wants to be taken for.
fn impersonated(headers: &HeaderMap, user: &User) -> Result<User, Status> {
    let text = |value: &http::HeaderValue| value.to_str().ok().map(str::to_owned);
    let Some(name) = headers.get("impersonate-user").and_then(text) else {
        return Ok(user.clone());
    };
    if user.is_anonymous() {
        return Err(Status::unauthorized());
    }
    if !user.is_in(MASTERS) {
        let users = podium_types::GroupResource::new("", "users");
        let why = format!(
            "User {:?} cannot impersonate resource \"users\" in API group \"\" at the cluster scope",
            user.name
        );
        return Err(Status::forbidden(&users, &name, &why));
    }
    let groups = headers.get_all("impersonate-group").iter().filter_map(text);
    let ours = |group: &String| group != crate::auth::INTERNAL;
    Ok(User::authenticated(name, groups.filter(ours)))
}

fn answer_open(open: &OpenPath, context: &Context<'_>) -> Reply {
    if context.method != Method::GET {
        return reply::status(&Status::method_not_allowed_on_path());
    }
    let given = context.query.get(open.parameter).unwrap_or_default();
    match (open.answer)(given) {
        Some(answer) => reply::json(&answer),
        None => reply::status(&Status::bad_request(format!(
            "the parameter {} is missing or malformed",
            open.parameter
        ))),
    }
}
