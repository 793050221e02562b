//! Reading the bodies of requests.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use crate::patch::Patch;
use crate::pipeline::Input;
use crate::status::Status;

/// What Kubernetes takes. The store's limit for one object is below.
const LIMIT_BYTES: usize = 3 * 1024 * 1024;
const OBJECTS: &str = "application/json, application/yaml";
const PATCHES: &str = "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json";

/// All of a body.
pub(super) async fn read(body: Incoming) -> Result<Bytes, Status> {
    match Limited::new(body, LIMIT_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Status::too_large(LIMIT_BYTES)),
        Err(error) => {
            Err(Status::bad_request(format!("error reading the body of the request: {error}")))
        }
    }
}

/// The media type of the body, without parameters; empty if there is none.
fn media_type(headers: &HeaderMap) -> String {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The object in a body. Without a content type it is JSON.
pub(super) fn input(headers: &HeaderMap, body: Bytes) -> Result<Input, Status> {
    match media_type(headers).as_str() {
        "" | "application/json" => Ok(Input::Json(body)),
        "application/yaml" | "application/x-yaml" => Ok(Input::Object(yaml(&body)?)),
        other => Err(Status::unsupported_media_type(other, OBJECTS)),
    }
}

/// The options in the body of a DELETE; null without a body.
pub(super) fn options(headers: &HeaderMap, body: &Bytes) -> Result<Value, Status> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    match media_type(headers).as_str() {
        "" | "application/json" => json(body),
        "application/yaml" | "application/x-yaml" => yaml(body),
        other => Err(Status::unsupported_media_type(other, OBJECTS)),
    }
}

/// The patch in a body.
pub(super) fn patch(headers: &HeaderMap, body: &Bytes, strategic: bool) -> Result<Patch, Status> {
    let patch = match media_type(headers).as_str() {
        "application/json-patch+json" => Patch::json(json(body)?),
        "application/merge-patch+json" => Patch::merge(json_or_yaml(body)?),
        "application/strategic-merge-patch+json" if strategic => {
            Patch::strategic(json_or_yaml(body)?)
        }
        other => return Err(Status::unsupported_media_type(other, PATCHES)),
    };
    patch.map_err(|error| Status::bad_request(error.to_string()))
}

fn json(body: &Bytes) -> Result<Value, Status> {
    serde_json::from_slice(body).map_err(|error| {
        Status::bad_request(format!("error decoding the body of the request: {error}"))
    })
}

/// Clients may write patches in YAML.
fn json_or_yaml(body: &Bytes) -> Result<Value, Status> {
    serde_json::from_slice(body).or_else(|_| yaml(body))
}

/// YAML 1.2: `y` and `on` are texts.
fn yaml(body: &Bytes) -> Result<Value, Status> {
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_slice_with_options(body, options).map_err(|error| {
        Status::bad_request(format!("error decoding the body of the request: {error}"))
    })
}
