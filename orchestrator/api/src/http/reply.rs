//! Answers.

use std::io;

use bytes::Bytes;
use futures::Stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::Value;

use super::negotiate::Encoding;
use crate::status::Status;

/// The body of every answer.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;
/// An answer.
pub type Reply = Response<Body>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const YAML: HeaderValue = HeaderValue::from_static("application/yaml");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

fn new(code: u16, content_type: HeaderValue, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    reply
}

/// JSON with 200.
pub(super) fn json(value: &Value) -> Reply {
    new(200, JSON, whole(value.to_string()))
}

/// JSON bytes under a content type of their own.
pub(super) fn bytes(content_type: HeaderValue, bytes: impl Into<Bytes>) -> Reply {
    new(200, content_type, whole(bytes))
}

/// A value in the encoding that the client wants.
pub(super) fn value(code: u16, encoding: Encoding, value: &Value) -> Reply {
    match encoding {
        Encoding::Json => new(code, JSON, whole(value.to_string())),
        Encoding::Yaml => match serde_saphyr::to_string(value) {
            Ok(yaml) => new(code, YAML, whole(yaml)),
            Err(error) => status(&Status::internal(error)),
        },
    }
}

/// JSON that is there as bytes.
pub(super) fn json_bytes(code: u16, bytes: Bytes) -> Reply {
    new(code, JSON, whole(bytes))
}

/// JSON in pieces, as they are made.
pub(super) fn json_stream(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Reply {
    new(200, JSON, streamed(futures::StreamExt::map(pieces, Ok)))
}

/// Text in pieces; an error cuts the connection.
pub(super) fn text_stream(pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Reply {
    new(200, TEXT, streamed(pieces))
}

fn streamed(pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    StreamBody::new(futures::TryStreamExt::map_ok(pieces, Frame::data)).boxed_unsync()
}

/// Text.
pub(super) fn text(code: u16, text: impl Into<Bytes>) -> Reply {
    new(code, TEXT, whole(text))
}

/// The path means nothing here.
pub(super) fn nowhere() -> Reply {
    text(404, "404 page not found\n")
}

/// Nothing but a code.
pub(super) fn empty(code: u16) -> Reply {
    let mut reply = Response::new(whole(Bytes::new()));
    *reply.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply
}

/// Why a request was not carried out.
pub(super) fn status(status: &Status) -> Reply {
    if status.code >= 500 {
        tracing::warn!(code = status.code, message = status.message, "request failed");
    }
    let mut reply = new(status.code, JSON, whole(status.to_json().to_string()));
    if let Some(seconds) = status.details.retry_after_seconds {
        reply.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    reply
}

/// Adds sentences for the client.
pub(super) fn warn(reply: &mut Reply, warnings: &[String]) {
    for warning in warnings {
        let text: String = warning.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            reply.headers_mut().append(http::header::WARNING, value);
        }
    }
}
