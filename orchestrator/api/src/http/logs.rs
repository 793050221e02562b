//! The streams of a pod: which container is meant, and its log.

use futures::StreamExt;
use http::Request;
use hyper::body::Incoming;
use jiff::SignedDuration;
use podium_types::{object, time};
use serde_json::Value;

use super::reply::{self, Reply};
use super::route::ResourcePath;
use super::watching::closed;
use super::{Context, Server};
use crate::registry::Action;
use crate::status::Status;
use crate::streams::LogOptions;

const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

impl Server {
    pub(super) async fn handle_stream(
        &self,
        context: &Context<'_>,
        path: &ResourcePath,
        request: Request<Incoming>,
    ) -> Result<Reply, Status> {
        let action = path.subresource.map(|part| part.action);
        let verb = if action == Some(Action::Log) { "get" } else { "create" };
        let pod = self.pipeline.pod_for_stream(context.user, verb, &path.target()).await?;
        let container = container(&pod, context.query.get("container"))?;
        match action {
            Some(Action::Log) => self.log(context, &pod, container).await,
            _ => self.run(context, &pod, container, action == Some(Action::Attach), request).await,
        }
    }

    async fn log(
        &self,
        context: &Context<'_>,
        pod: &Value,
        container: String,
    ) -> Result<Reply, Status> {
        if object::str_at(pod, &["spec", "nodeName"]).unwrap_or_default().is_empty() {
            return Ok(reply::text(200, ""));
        }
        let options = self.log_options(context, container)?;
        let follows = options.follow;
        let pieces = self.streams.logs(pod, options).await?;
        if !follows {
            return Ok(reply::text_stream(pieces));
        }
        let mut closing = self.closing.subscribe();
        let end = Box::pin(async move { closed(&mut closing).await });
        Ok(reply::text_stream(pieces.take_until(end)))
    }

    fn log_options(&self, context: &Context<'_>, container: String) -> Result<LogOptions, Status> {
        let query = &context.query;
        let refuse = |field: &str, message: &str| {
            Status::invalid_field("PodLogOptions \"\"", field, "FieldValueInvalid", message)
        };
        let since_seconds: Option<i64> = query.number("sinceSeconds")?;
        let since_time = query.get("sinceTime");
        let since = match (since_seconds, since_time) {
            (Some(_), Some(_)) => {
                let message =
                    "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified";
                return Err(refuse("sinceSeconds", message));
            }
            (Some(seconds), None) if seconds < 1 => {
                let message = format!("Invalid value: {seconds}: must be greater than 0");
                return Err(refuse("sinceSeconds", &message));
            }
            (Some(seconds), None) => {
                self.pipeline.now().wall.checked_sub(SignedDuration::from_secs(seconds)).ok()
            }
            (None, Some(text)) => match time::parse_time(text) {
                Some(time) => Some(time),
                None => {
                    return Err(refuse(
                        "sinceTime",
                        &format!("Invalid value: {text:?}: not a time"),
                    ));
                }
            },
            (None, None) => None,
        };
        let tail: Option<i64> = query.number("tailLines")?;
        let tail_lines = tail.map(u64::try_from).transpose().map_err(|_| {
            refuse("tailLines", "Invalid value: must be greater than or equal to 0")
        })?;
        let limit: Option<i64> = query.number("limitBytes")?;
        let limit_bytes = match limit {
            Some(bytes) if bytes < 1 => {
                let message = format!("Invalid value: {bytes}: must be greater than 0");
                return Err(refuse("limitBytes", &message));
            }
            limit => limit.and_then(|bytes| u64::try_from(bytes).ok()),
        };
        Ok(LogOptions {
            container,
            follow: query.flag("follow"),
            previous: query.flag("previous"),
            since,
            tail_lines,
            timestamps: query.flag("timestamps"),
            limit_bytes,
        })
    }
}

/// The container that is meant: the one that is named, or the only one, or the one that the pod names.
fn container(pod: &Value, asked: Option<&str>) -> Result<String, Status> {
    let names = |field| {
        object::list_at(pod, &["spec", field])
            .iter()
            .filter_map(|container| container.get("name").and_then(Value::as_str))
            .collect::<Vec<_>>()
    };
    let (containers, init) = (names("containers"), names("initContainers"));
    let name = object::name(pod);
    let asked = asked.or_else(|| {
        object::annotation(pod, DEFAULT_CONTAINER).filter(|name| containers.contains(name))
    });
    match (asked, containers.as_slice()) {
        (Some(asked), _) if containers.contains(&asked) || init.contains(&asked) => {
            Ok(asked.to_owned())
        }
        (Some(asked), _) => {
            Err(Status::bad_request(format!("container {asked} is not valid for pod {name}")))
        }
        (None, [only]) => Ok((*only).to_owned()),
        (None, several) => {
            let mut message = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                several.join(" ")
            );
            if !init.is_empty() {
                message = format!("{message} or one of the init containers: [{}]", init.join(" "));
            }
            Err(Status::bad_request(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::container;

    #[test]
    fn the_container_is_the_named_or_the_only_one() {
        let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&one, None), Ok("a".to_owned()));
        assert_eq!(container(&one, Some("i")), Ok("i".to_owned()));
        let message = |pod, asked| container(pod, asked).map_err(|status| status.message);
        assert_eq!(message(&one, Some("x")), Err("container x is not valid for pod p".to_owned()));
        let mut two = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(
            message(&two, None),
            Err("a container name must be specified for pod p, choose one of: [a b]".to_owned())
        );
        two["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/default-container": "b"});
        assert_eq!(container(&two, None), Ok("b".to_owned()));
    }
}
