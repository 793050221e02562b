//! What form the client wants: the first entry of Accept that there is.

use http::HeaderMap;
use http::header::ACCEPT;

use crate::status::Status;

/// The forms that an object can be sent in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// As it is.
    Whole,
    /// Rows for people.
    Table,
    /// Its metadata.
    Metadata,
}

/// How bytes are made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Json,
    Yaml,
}

/// What the client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) shape: Shape,
    pub(super) encoding: Encoding,
}

const SUPPORTED: &str = "application/json, application/yaml";

/// One entry of an Accept header.
pub(super) struct Accepted<'a> {
    pub(super) media_type: String,
    parameters: Vec<(&'a str, &'a str)>,
}

impl Accepted<'_> {
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(found, _)| *found == name).map(|(_, value)| *value)
    }
}

/// The entries of all Accept headers, in order.
pub(super) fn accepted(headers: &HeaderMap) -> impl Iterator<Item = Accepted<'_>> {
    let texts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(|entry| {
        let mut parts = entry.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        let parameters = parts
            .filter_map(|part| part.split_once('='))
            .map(|(name, value)| (name.trim(), value.trim().trim_matches('"')));
        Accepted { media_type, parameters: parameters.collect() }
    })
}

/// The form for objects and lists.
///
/// # Errors
/// 406 if the client takes none.
pub(super) fn form(headers: &HeaderMap) -> Result<Form, Status> {
    let mut entries = accepted(headers).filter(|entry| !entry.media_type.is_empty()).peekable();
    if entries.peek().is_none() {
        return Ok(Form { shape: Shape::Whole, encoding: Encoding::Json });
    }
    entries.find_map(|entry| supported(&entry)).ok_or_else(|| Status::not_acceptable(SUPPORTED))
}

fn supported(entry: &Accepted<'_>) -> Option<Form> {
    let encoding = match entry.media_type.as_str() {
        "application/json" | "*/*" | "application/*" => Encoding::Json,
        "application/yaml" => Encoding::Yaml,
        _ => return None,
    };
    let meta = entry.parameter("g") == Some("meta.k8s.io") && entry.parameter("v") == Some("v1");
    let shape = match entry.parameter("as") {
        None => Shape::Whole,
        Some("Table") if meta => Shape::Table,
        Some("PartialObjectMetadata" | "PartialObjectMetadataList") if meta => Shape::Metadata,
        Some(_) => return None,
    };
    Some(Form { shape, encoding })
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::ACCEPT;

    use super::{Encoding, Form, Shape, form};

    fn of(accept: &str) -> Result<Form, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a header"));
        form(&headers).map_err(|status| status.code)
    }

    #[test]
    fn the_first_form_that_there_is_wins() {
        let json = |shape| Ok(Form { shape, encoding: Encoding::Json });
        assert_eq!(form(&HeaderMap::new()).map_err(|_| 0), json(Shape::Whole));
        assert_eq!(of("*/*"), json(Shape::Whole));
        assert_eq!(of("application/vnd.kubernetes.protobuf,application/json"), json(Shape::Whole));
        assert_eq!(
            of(
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
            ),
            json(Shape::Table)
        );
        assert_eq!(
            of("application/json;as=Table;v=v1beta1;g=meta.k8s.io, application/json"),
            json(Shape::Whole)
        );
        assert_eq!(
            of("application/json; as=PartialObjectMetadataList; g=meta.k8s.io; v=v1"),
            json(Shape::Metadata)
        );
        let yaml = Form { shape: Shape::Whole, encoding: Encoding::Yaml };
        assert_eq!(of("application/yaml"), Ok(yaml));
    }

    #[test]
    fn a_client_that_takes_none_is_told_so() {
        assert_eq!(of("application/vnd.kubernetes.protobuf"), Err(406));
        assert_eq!(of("application/json;as=Chart;v=v1;g=meta.k8s.io"), Err(406));
    }
}
