//! Objects, lists and events in the shape that the client wants: whole, as rows, or only metadata.

use bytes::Bytes;
use futures::stream;
use jiff::Timestamp;
use podium_types::{Kind, table};
use serde_json::{Value, json};

use super::negotiate::{Encoding, Form, Shape};
use super::reply::{self, Reply};
use crate::pipeline::{Listing, Served};
use crate::registry::Resource;
use crate::status::Status;

/// Pieces of about this size go to the connection: large enough for few writes, small enough to have many clients.
const PIECE_BYTES: usize = 32 * 1024;

/// What a row carries beside its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Include {
    Nothing,
    Metadata,
    Object,
}

impl Include {
    pub(super) fn parse(text: Option<&str>) -> Result<Self, Status> {
        match text {
            None | Some("Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::Nothing),
            Some("Object") => Ok(Self::Object),
            Some(other) => {
                Err(Status::bad_request(format!("unrecognized includeObject value: {other:?}")))
            }
        }
    }
}

/// How objects of one answer are shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    pub(super) form: Form,
    pub(super) include: Include,
    /// For ages.
    pub(super) now: Timestamp,
}

impl View {
    /// One object.
    pub(super) fn object(&self, code: u16, kind: Kind, object: &Served) -> Reply {
        match (self.form.shape, self.form.encoding) {
            (Shape::Whole, Encoding::Json) => reply::json_bytes(code, object.json()),
            (Shape::Whole, Encoding::Yaml) => reply::value(code, Encoding::Yaml, &object.value()),
            (Shape::Metadata, encoding) => {
                reply::value(code, encoding, &metadata_of(&object.value()))
            }
            (Shape::Table, encoding) => {
                reply::value(code, encoding, &self.table_of_one(kind, &object.value(), true))
            }
        }
    }

    /// A list, in pieces.
    pub(super) fn list(self, resource: &'static Resource, listing: Listing) -> Reply {
        let pieces = self.pieces(resource, listing);
        match self.form.encoding {
            Encoding::Json => reply::json_stream(stream::iter(pieces)),
            Encoding::Yaml => {
                let whole: Vec<Bytes> = pieces.collect();
                match serde_json::from_slice(&whole.concat()) {
                    Ok(list) => reply::value(200, Encoding::Yaml, &list),
                    Err(error) => reply::status(&Status::internal(error)),
                }
            }
        }
    }

    fn pieces(
        self,
        resource: &'static Resource,
        listing: Listing,
    ) -> impl Iterator<Item = Bytes> + Send + 'static {
        let head = self.head(resource, &listing);
        let mut items = listing.items.into_iter().enumerate();
        let mut piece = head.into_bytes();
        let mut ended = false;
        std::iter::from_fn(move || {
            if ended {
                return None;
            }
            while piece.len() < PIECE_BYTES {
                let Some((index, item)) = items.next() else {
                    piece.extend_from_slice(b"]}\n");
                    ended = true;
                    break;
                };
                if index > 0 {
                    piece.push(b',');
                }
                piece.extend_from_slice(&self.item(resource.kind, &item));
            }
            Some(Bytes::from(std::mem::take(&mut piece)))
        })
    }

    /// All of a list up to its items.
    fn head(&self, resource: &Resource, listing: &Listing) -> String {
        let mut metadata = json!({"resourceVersion": listing.revision.to_string()});
        if let Some(token) = &listing.continue_token {
            metadata["continue"] = json!(token);
        }
        if let Some(remaining) = listing.remaining {
            metadata["remainingItemCount"] = json!(remaining);
        }
        match self.form.shape {
            Shape::Whole => {
                let (kind, version) = (resource.kind.name(), resource.api_version());
                format!(
                    r#"{{"kind":"{kind}List","apiVersion":"{version}","metadata":{metadata},"items":["#
                )
            }
            Shape::Metadata => format!(
                r#"{{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{metadata},"items":["#
            ),
            Shape::Table => {
                let columns = json!(table::columns(resource.kind));
                format!(
                    r#"{{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{metadata},"columnDefinitions":{columns},"rows":["#
                )
            }
        }
    }

    fn item(&self, kind: Kind, item: &Served) -> Bytes {
        match self.form.shape {
            Shape::Whole => item.json(),
            Shape::Metadata => metadata_of(&item.value()).to_string().into(),
            Shape::Table => self.row(kind, &item.value()).to_string().into(),
        }
    }

    /// An object of a watch; `first` tells whether it is the first of a table.
    pub(super) fn event_object(&self, kind: Kind, object: &Served, first: bool) -> Bytes {
        match self.form.shape {
            Shape::Whole => object.json(),
            Shape::Metadata => metadata_of(&object.value()).to_string().into(),
            Shape::Table => self.table_of_one(kind, &object.value(), first).to_string().into(),
        }
    }

    fn table_of_one(&self, kind: Kind, object: &Value, columns: bool) -> Value {
        let version = &object["metadata"]["resourceVersion"];
        let columns = if columns { json!(table::columns(kind)) } else { json!([]) };
        json!({
            "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": version},
            "columnDefinitions": columns, "rows": [self.row(kind, object)],
        })
    }

    fn row(&self, kind: Kind, object: &Value) -> Value {
        let cells = table::cells(kind, object, self.now);
        let object = match self.include {
            Include::Nothing => Value::Null,
            Include::Metadata => metadata_of(object),
            Include::Object => object.clone(),
        };
        json!({"cells": cells, "object": object})
    }
}

fn metadata_of(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"],
    })
}
