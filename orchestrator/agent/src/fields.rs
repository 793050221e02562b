//! The downward API: fields of a pod and resources of its containers as text.

use std::collections::BTreeMap;
use std::net::IpAddr;

use podium_types::k8s::api::core::v1::{
    Container, ObjectFieldSelector, Pod, ResourceFieldSelector,
};
use podium_types::quantity::Quantity;

/// What fields may need beyond the pod's object.
#[derive(Debug, Clone, Default)]
pub(crate) struct FieldFacts {
    /// The node's name.
    pub(crate) node_name: String,
    /// The node's addresses.
    pub(crate) host_addresses: Vec<IpAddr>,
    /// The pod's addresses.
    pub(crate) pod_addresses: Vec<IpAddr>,
    /// What stands for a limit that is not set: the node's allocatable CPU in thousandths and memory in bytes.
    pub(crate) allocatable: (i64, i64),
}

/// The value of a field.
pub(crate) fn field(
    pod: &Pod,
    selector: &ObjectFieldSelector,
    facts: &FieldFacts,
) -> Result<String, String> {
    let path = selector.field_path.as_str();
    let metadata = &pod.metadata;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let list = |addresses: &[IpAddr]| {
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    };
    let first =
        |addresses: &[IpAddr]| addresses.first().map(ToString::to_string).unwrap_or_default();
    if let Some((map, key)) = subscript(path) {
        let entries = match map {
            "metadata.labels" => metadata.labels.as_ref(),
            "metadata.annotations" => metadata.annotations.as_ref(),
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(entries.and_then(|entries| entries.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => text(&metadata.name),
        "metadata.namespace" => text(&metadata.namespace),
        "metadata.uid" => text(&metadata.uid),
        "metadata.labels" => lines(metadata.labels.as_ref()),
        "metadata.annotations" => lines(metadata.annotations.as_ref()),
        "spec.nodeName" => facts.node_name.clone(),
        "spec.serviceAccountName" => {
            pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).unwrap_or_default()
        }
        "status.hostIP" => first(&facts.host_addresses),
        "status.hostIPs" => list(&facts.host_addresses),
        "status.podIP" => first(&facts.pod_addresses),
        "status.podIPs" => list(&facts.pod_addresses),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// The value of a container's resource, divided and rounded up.
pub(crate) fn resource(
    container: &Container,
    selector: &ResourceFieldSelector,
    facts: &FieldFacts,
) -> Result<String, String> {
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    let (list, name) = match selector.resource.split_once('.') {
        Some(("limits", name)) => (limits, name),
        Some(("requests", name)) => (requests.or(limits), name),
        Some(_) | None => {
            return Err(format!("unsupported container resource: {}", selector.resource));
        }
    };
    let given =
        list.and_then(|list| list.get(name)).and_then(|given| Quantity::parse(&given.0).ok());
    let milli = match given {
        Some(given) => i128::from(given.milli_value()),
        None if selector.resource.starts_with("requests.") => 0,
        None if name == "cpu" => i128::from(facts.allocatable.0),
        None if name == "memory" => i128::from(facts.allocatable.1) * 1000,
        None => 0,
    };
    let divisor = selector.divisor.as_ref().and_then(|divisor| Quantity::parse(&divisor.0).ok());
    let divisor = match divisor.filter(|divisor| !divisor.is_zero()) {
        Some(divisor) => i128::from(divisor.milli_value()),
        None => 1000,
    };
    let (whole, rest) = (milli.div_euclid(divisor), milli.rem_euclid(divisor));
    Ok((whole + i128::from(rest > 0)).to_string())
}

/// `name['key']` as name and key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (name, rest) = path.split_once("['")?;
    Some((name, rest.strip_suffix("']")?))
}

/// A map as one line per entry, values quoted.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<_> =
        map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::{FieldFacts, field, resource};
    use podium_types::k8s::api::core::v1::{
        Container, ObjectFieldSelector, Pod, ResourceFieldSelector,
    };
    use serde_json::json;

    fn facts() -> FieldFacts {
        FieldFacts {
            node_name: "n1".to_owned(),
            host_addresses: vec!["10.0.2.15".parse().expect("an address")],
            pod_addresses: vec!["10.244.0.7".parse().expect("an address")],
            allocatable: (1900, 512 << 20),
        }
    }

    #[test]
    fn fields_of_the_pod_are_found_by_path() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "redis", "b": "x\"y"},
                "annotations": {"example.com/a": "1"}},
            "spec": {"containers": [], "serviceAccountName": "sa"}
        }))
        .expect("a pod");
        let cases = [
            ("metadata.name", "p"),
            ("metadata.namespace", "ns"),
            ("metadata.uid", "u"),
            ("metadata.labels['app']", "redis"),
            ("metadata.annotations['example.com/a']", "1"),
            ("metadata.labels['none']", ""),
            ("metadata.labels", "app=\"redis\"\nb=\"x\\\"y\""),
            ("spec.nodeName", "n1"),
            ("spec.serviceAccountName", "sa"),
            ("status.podIP", "10.244.0.7"),
            ("status.hostIP", "10.0.2.15"),
        ];
        for (path, expected) in cases {
            let selector = ObjectFieldSelector {
                field_path: path.to_owned(),
                ..ObjectFieldSelector::default()
            };
            assert_eq!(field(&pod, &selector, &facts()).as_deref(), Ok(expected), "{path}");
        }
        let selector = ObjectFieldSelector {
            field_path: "spec.x".to_owned(),
            ..ObjectFieldSelector::default()
        };
        assert_eq!(
            field(&pod, &selector, &facts()),
            Err("unsupported fieldPath: spec.x".to_owned())
        );
    }

    #[test]
    fn resources_are_divided_and_rounded_up_and_fall_back_to_the_node() {
        let container: Container = serde_json::from_value(json!({
            "name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}
        }))
        .expect("a container");
        let bare = Container::default();
        let cases = [
            (&container, "limits.cpu", "", "2"),
            (&container, "limits.cpu", "1m", "1500"),
            (&container, "limits.memory", "1Mi", "64"),
            (&container, "limits.memory", "", "67108864"),
            (&container, "requests.cpu", "1m", "250"),
            (&bare, "limits.cpu", "1m", "1900"),
            (&bare, "limits.memory", "1Mi", "512"),
            (&bare, "requests.cpu", "", "0"),
        ];
        for (container, name, divisor, expected) in cases {
            let mut selector = ResourceFieldSelector {
                resource: name.to_owned(),
                ..ResourceFieldSelector::default()
            };
            if !divisor.is_empty() {
                selector.divisor =
                    Some(podium_types::k8s::apimachinery::pkg::api::resource::Quantity(
                        divisor.to_owned(),
                    ));
            }
            assert_eq!(
                resource(container, &selector, &facts()).as_deref(),
                Ok(expected),
                "{name} / {divisor}"
            );
        }
    }
}
