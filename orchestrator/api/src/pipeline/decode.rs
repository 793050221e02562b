//! From a body to an object.

use bytes::Bytes;
use podium_types::Kind;
use podium_types::schema::{self, Decoded, FieldValidation};
use serde::Deserialize;
use serde_json::Value;

use crate::status::Status;

/// The object of a request.
#[derive(Debug, Clone)]
pub enum Input {
    /// As it came over the wire.
    Json(Bytes),
    /// Already in memory: read from YAML, or made by a part of this program.
    Object(Value),
}

impl From<Value> for Input {
    fn from(object: Value) -> Self {
        Self::Object(object)
    }
}

/// What every object begins with. Both may be missing: the path says what is meant.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    #[serde(default)]
    api_version: Option<Value>,
    #[serde(default)]
    kind: Option<Value>,
}

/// Reads an object of the kind that the path asks for.
///
/// # Errors
/// 400: not JSON, another kind, a field of a wrong type, or (strict) an unknown field.
pub(super) fn decode(
    kind: Kind,
    input: Input,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    let header = match &input {
        Input::Json(bytes) => serde_json::from_slice(bytes),
        Input::Object(object) => Header::deserialize(object),
    };
    check_header(kind, &header.map_err(|error| unrecognized(kind, &error))?)?;
    let decoded = match input {
        Input::Json(bytes) => schema::decode(kind, &bytes, validation),
        Input::Object(object) => schema::check(kind, object, validation),
    };
    let mut decoded = decoded.map_err(|error| Status::bad_request(error.message(kind)))?;
    set_header(kind, &mut decoded.object);
    Ok(decoded)
}

/// Makes an object say what it is.
pub(super) fn set_header(kind: Kind, object: &mut Value) {
    let map = podium_types::object::map_of(object);
    map.insert("apiVersion".to_owned(), kind.api_version().into());
    map.insert("kind".to_owned(), kind.name().into());
}

fn unrecognized(kind: Kind, error: &serde_json::Error) -> Status {
    let name = kind.name();
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {name}): couldn't get version/kind; json parse error: {error}"
    ))
}

fn check_header(kind: Kind, header: &Header) -> Result<(), Status> {
    let given = |value: &Option<Value>| {
        value.as_ref().and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let api_version = given(&header.api_version);
    if let Some(found) = api_version.as_deref().filter(|found| *found != kind.api_version()) {
        return Err(Status::bad_request(format!(
            "the API version in the data ({found}) does not match the expected API version ({})",
            kind.api_version()
        )));
    }
    if let Some(found) = given(&header.kind).filter(|found| found != kind.name()) {
        return Err(Status::bad_request(format!(
            "{found} in version {:?} cannot be handled as a {}: the kind in the data does not match the path",
            kind.version(),
            kind.name()
        )));
    }
    Ok(())
}
