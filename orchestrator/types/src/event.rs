//! Events of the core group and of `events.k8s.io`: one object, two spellings.
//!
//! Events are stored as core/v1. Both conversions keep every field, so there and back gives the same object.

use serde_json::{Map, Value};

/// The fields whose names differ: in the core group, in `events.k8s.io`.
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// An `events.k8s.io/v1` Event as core/v1.
#[must_use]
pub fn to_core(event: &Value) -> Value {
    convert(event, "v1", |name| {
        RENAMED.iter().find(|(_, theirs)| *theirs == name).map(|(core, _)| *core)
    })
}

/// A core/v1 Event as `events.k8s.io/v1`.
#[must_use]
pub fn from_core(event: &Value) -> Value {
    let renamed =
        |name: &str| RENAMED.iter().find(|(core, _)| *core == name).map(|(_, theirs)| *theirs);
    convert(event, "events.k8s.io/v1", renamed)
}

fn convert(
    event: &Value,
    api_version: &str,
    renamed: impl Fn(&str) -> Option<&'static str>,
) -> Value {
    let mut converted = Map::new();
    for (name, value) in event.as_object().into_iter().flatten() {
        converted.insert(renamed(name).unwrap_or(name).to_owned(), value.clone());
    }
    converted.insert("apiVersion".to_owned(), Value::from(api_version));
    converted.insert("kind".to_owned(), Value::from("Event"));
    Value::Object(converted)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{from_core, to_core};
    use crate::kind::Kind;
    use crate::schema::{FieldValidation, check};

    #[test]
    fn an_event_survives_the_way_to_the_other_group_and_back() {
        let core = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "n"},
            "involvedObject": {"kind": "Pod", "name": "p"}, "message": "m", "reason": "Killing", "type": "Normal", "count": 2,
            "source": {"component": "kubelet"}, "firstTimestamp": "2026-11-21T10:00:00Z", "lastTimestamp": "2026-11-21T10:00:01Z",
            "reportingComponent": "kubelet", "reportingInstance": "n1", "action": "a", "related": {"kind": "Node"},
            "eventTime": "2026-11-21T10:00:00.000000Z", "series": {"count": 2, "lastObservedTime": "2026-11-21T10:00:00.000000Z"},
        });
        let other = from_core(&core);
        assert_eq!(
            (&other["regarding"]["name"], &other["note"], &other["deprecatedCount"]),
            (&json!("p"), &json!("m"), &json!(2))
        );
        assert_eq!(to_core(&other), core);
        for (kind, event) in [(Kind::CoreEvent, core), (Kind::Event, other)] {
            let decoded =
                check(kind, event.clone(), FieldValidation::Strict).expect("known fields only");
            assert_eq!(decoded.object, event);
        }
    }
}
