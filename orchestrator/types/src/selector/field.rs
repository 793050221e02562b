//! Selecting by fields.
//!
//! Kubernetes offers a fixed set of fields per kind. The names are those of the kind as it is served; events are stored
//! once and served twice, so fields of an event are looked for under both names.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

use super::SelectorError;
use crate::kind::Kind;
use crate::object::{at, bool_at, str_at};

/// One term of a field selector.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    field: &'static str,
    value: String,
    /// Whether the field must have the value, or must not.
    equal: bool,
}

/// Terms that must all hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

impl FieldSelector {
    /// Reads the text form: `a=b,c==d,e!=f`; a backslash takes `,`, `=` and `\` literally.
    ///
    /// # Errors
    /// When the text is malformed, or the kind does not offer the field.
    pub fn parse(kind: Kind, text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for part in split(text) {
            if part.is_empty() {
                continue;
            }
            let (field, equal, value) = split_term(part).ok_or_else(|| {
                SelectorError(format!("invalid selector: '{text}'; can't understand '{part}'"))
            })?;
            let field = supported(kind)
                .find(|name| *name == field)
                .ok_or_else(|| unsupported(kind, field))?;
            terms.push(Term { field, value: unescape(value)?, equal });
        }
        Ok(Self { terms })
    }

    /// Whether every object is selected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether an object is selected.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        self.terms
            .iter()
            .all(|term| (field_text(object, term.field) == term.value.as_str()) == term.equal)
    }

    /// The value that a field must have, if the selector says it: lets a list look up one object or one node's pods.
    #[must_use]
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms
            .iter()
            .find(|term| term.equal && term.field == field)
            .map(|term| term.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let operator = if term.equal { "=" } else { "!=" };
            write!(f, "{comma}{}{operator}", term.field)?;
            for c in term.value.chars() {
                if matches!(c, '\\' | ',' | '=') {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

const METADATA: &[&str] = &["metadata.name", "metadata.namespace"];
const CLUSTER_METADATA: &[&str] = &["metadata.name"];

/// All fields that can be selected by.
fn supported(kind: Kind) -> impl Iterator<Item = &'static str> {
    let own: &[&str] = match kind {
        Kind::Pod => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        Kind::Node => &["spec.unschedulable"],
        Kind::CoreEvent => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        Kind::Event => &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        Kind::Namespace => &["status.phase"],
        Kind::Secret => &["type"],
        Kind::Service => &["spec.clusterIP", "spec.type"],
        Kind::ConfigMap
        | Kind::ServiceAccount
        | Kind::Deployment
        | Kind::ReplicaSet
        | Kind::EndpointSlice
        | Kind::Lease
        | Kind::Machine
        | Kind::Scale
        | Kind::Binding
        | Kind::Eviction
        | Kind::Status
        | Kind::DeleteOptions => &[],
    };
    // The metadata's namespace is offered for cluster-scoped kinds with the default rules, too, but never by those that
    // name their own fields.
    let metadata =
        if matches!(kind, Kind::Node | Kind::Namespace) { CLUSTER_METADATA } else { METADATA };
    metadata.iter().chain(own).copied()
}

fn unsupported(kind: Kind, field: &str) -> SelectorError {
    SelectorError(match kind {
        Kind::Pod
        | Kind::Node
        | Kind::CoreEvent
        | Kind::Event
        | Kind::Namespace
        | Kind::Secret
        | Kind::Service => {
            format!("field label not supported: {field}")
        }
        _ => format!(
            r#"{field:?} is not a known field selector: only "metadata.name", "metadata.namespace""#
        ),
    })
}

/// A field as text; what is absent is empty, or false.
fn field_text<'a>(object: &'a Value, field: &str) -> Cow<'a, str> {
    let flag = |path: &[&str]| Cow::Borrowed(if bool_at(object, path) { "true" } else { "false" });
    match field {
        "spec.hostNetwork" => flag(&["spec", "hostNetwork"]),
        "spec.unschedulable" => flag(&["spec", "unschedulable"]),
        "status.podIPs" => {
            let addresses = at(object, &["status", "podIPs"]).as_array().into_iter().flatten();
            let addresses: Vec<&str> =
                addresses.filter_map(|address| address.get("ip")?.as_str()).collect();
            Cow::Owned(addresses.join(","))
        }
        "source" => {
            let component =
                str_at(object, &["source", "component"]).filter(|component| !component.is_empty());
            component.map_or_else(|| field_text(object, "reportingComponent"), Cow::Borrowed)
        }
        "reportingComponent" | "reportingController" => {
            let name =
                object.get("reportingComponent").or_else(|| object.get("reportingController"));
            Cow::Borrowed(name.and_then(Value::as_str).unwrap_or_default())
        }
        _ => {
            let mut path: Vec<&str> = field.split('.').collect();
            if let Some(first @ (&mut "involvedObject" | &mut "regarding")) = path.first_mut() {
                *first =
                    if object.get("regarding").is_some() { "regarding" } else { "involvedObject" };
            }
            Cow::Borrowed(str_at(object, &path).unwrap_or_default())
        }
    }
}

/// Splits at commas that no backslash stands before.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut escaped = false;
    for (index, c) in text.char_indices() {
        if c == ',' && !escaped {
            parts.push(&text[start..index]);
            start = index + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    parts.push(&text[start..]);
    parts
}

/// Field, whether it must be equal, and the value, still escaped.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let at = term.find('=')?;
    let (field, value) = (&term[..at], &term[at + 1..]);
    if let Some(field) = field.strip_suffix('!') {
        return Some((field, false, value));
    }
    Some((field, true, value.strip_prefix('=').unwrap_or(value)))
}

fn unescape(text: &str) -> Result<String, SelectorError> {
    let mut value = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(literal @ ('\\' | ',' | '=')) => value.push(literal),
                other => {
                    let other = other.map(String::from).unwrap_or_default();
                    return Err(SelectorError(format!(
                        "invalid field selector: invalid escape sequence: \\{other}"
                    )));
                }
            },
            '=' => {
                return Err(SelectorError(
                    "invalid field selector: unescaped character in value: =".to_owned(),
                ));
            }
            _ => value.push(c),
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::FieldSelector;
    use crate::kind::Kind;

    #[test]
    fn fields_of_pods_are_selected_by() {
        let pod = json!({"metadata": {"name": "a", "namespace": "b"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
        let matches =
            |text| FieldSelector::parse(Kind::Pod, text).expect("a selector").matches(&pod);
        for text in [
            "",
            "metadata.name=a",
            "spec.nodeName==n",
            "status.phase!=Succeeded,status.phase!=Failed",
            "spec.hostNetwork=false",
        ] {
            assert!(matches(text), "{text}");
        }
        for text in [
            "metadata.name=b",
            "spec.nodeName!=n",
            "status.podIP=1.2.3.4",
            "metadata.name=a,spec.nodeName=m",
        ] {
            assert!(!matches(text), "{text}");
        }
        let selector =
            FieldSelector::parse(Kind::Pod, "status.phase!=x,spec.nodeName=n").expect("a selector");
        assert_eq!(
            (selector.exact("spec.nodeName"), selector.exact("status.phase")),
            (Some("n"), None)
        );
    }

    #[test]
    fn fields_that_a_kind_does_not_offer_are_refused() {
        let error = |kind, text| FieldSelector::parse(kind, text).unwrap_err().to_string();
        assert_eq!(error(Kind::Pod, "spec.foo=x"), "field label not supported: spec.foo");
        assert_eq!(
            error(Kind::Deployment, "spec.replicas=1"),
            r#""spec.replicas" is not a known field selector: only "metadata.name", "metadata.namespace""#
        );
        assert_eq!(error(Kind::Pod, "a"), "invalid selector: 'a'; can't understand 'a'");
    }

    #[test]
    fn events_are_selected_by_the_names_of_either_group() {
        let core = json!({"involvedObject": {"kind": "Pod", "name": "a=b"}, "reason": "Killing", "source": {"component": "kubelet"}});
        let events = json!({"regarding": {"kind": "Pod", "name": "a=b"}, "reason": "Killing", "reportingController": "kubelet"});
        for (kind, text) in [
            (Kind::CoreEvent, r"involvedObject.kind=Pod,involvedObject.name=a\=b,reason=Killing"),
            (Kind::Event, r"regarding.kind=Pod,regarding.name=a\=b,reason=Killing"),
        ] {
            let selector = FieldSelector::parse(kind, text).expect("a selector");
            assert!(selector.matches(&core) && selector.matches(&events), "{text}");
        }
        assert!(
            FieldSelector::parse(Kind::CoreEvent, "source=kubelet")
                .expect("a selector")
                .matches(&core)
        );
    }

    proptest! {
        #[test]
        fn any_value_can_be_written(value in "\\PC{0,12}", equal in any::<bool>()) {
            let object = json!({"metadata": {"name": value}});
            let selector = FieldSelector { terms: vec![super::Term { field: "metadata.name", value, equal }] };
            let again = FieldSelector::parse(Kind::Pod, &selector.to_string()).expect("what we print");
            prop_assert_eq!(&again, &selector);
            prop_assert_eq!(again.matches(&object), equal);
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,40}", near in "(metadata.name|type|[=,!\\\\a]){0,8}") {
            let _ = FieldSelector::parse(Kind::Secret, &text);
            let _ = FieldSelector::parse(Kind::Secret, &near);
        }
    }
}
