//! The quality-of-service class of a pod: whom the kernel reclaims from first.

use std::collections::BTreeMap;
use std::fmt;

use podium_types::k8s::api::core::v1::{Pod, ResourceRequirements};

use crate::resources::Resources;

/// A pod's class, from the one that is evicted last to the one that is evicted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum QosClass {
    /// Every container has limits for CPU and memory, and requests as much.
    Guaranteed,
    /// Some container requests or limits something.
    Burstable,
    /// No container says anything.
    BestEffort,
}

impl fmt::Display for QosClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        })
    }
}

/// The class of a pod, by CPU and memory of its containers, or of the pod as a whole where that is given.
#[must_use]
pub fn qos_class(pod: &Pod) -> QosClass {
    let Some(spec) = &pod.spec else { return QosClass::BestEffort };
    let whole: Vec<_> = spec.resources.iter().collect();
    let each = spec.init_containers.iter().flatten().chain(&spec.containers);
    let parts = if whole.is_empty() {
        each.map(|container| container.resources.as_ref().map(amounts).unwrap_or_default())
            .collect()
    } else {
        whole.into_iter().map(amounts).collect::<Vec<_>>()
    };
    if parts.iter().all(Amounts::is_empty) {
        return QosClass::BestEffort;
    }
    let guaranteed = |part: &Amounts| {
        ["cpu", "memory"].iter().all(|name| {
            let (request, limit) = part.get(*name).copied().unwrap_or_default();
            limit > 0 && (request == limit || request == 0)
        })
    };
    if parts.iter().all(guaranteed) { QosClass::Guaranteed } else { QosClass::Burstable }
}

/// Request and limit of CPU and memory, where either is given.
type Amounts = BTreeMap<&'static str, (i64, i64)>;

fn amounts(resources: &ResourceRequirements) -> Amounts {
    let requests = resources.requests.as_ref().map(Resources::from).unwrap_or_default();
    let limits = resources.limits.as_ref().map(Resources::from).unwrap_or_default();
    ["cpu", "memory"]
        .into_iter()
        .map(|name| (name, (requests.get(name), limits.get(name))))
        .filter(|(_, amounts)| *amounts != (0, 0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{QosClass, qos_class};
    use podium_types::k8s::api::core::v1::Pod;
    use serde_json::{Value, json};

    fn class_of(resources: &[Value]) -> QosClass {
        let containers: Vec<_> = resources
            .iter()
            .enumerate()
            .map(|(index, resources)| json!({"name": format!("c{index}"), "resources": resources}))
            .collect();
        let pod: Pod =
            serde_json::from_value(json!({"spec": {"containers": containers}})).expect("a pod");
        qos_class(&pod)
    }

    #[test]
    fn class_follows_requests_and_limits_of_all_containers() {
        let none = json!({});
        let request = json!({"requests": {"cpu": "100m", "memory": "100Mi"}});
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
        let limits = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        assert_eq!(class_of(std::slice::from_ref(&none)), QosClass::BestEffort);
        assert_eq!(class_of(&[request]), QosClass::Burstable);
        assert_eq!(class_of(std::slice::from_ref(&full)), QosClass::Guaranteed);
        assert_eq!(class_of(&[limits]), QosClass::Guaranteed);
        assert_eq!(class_of(&[full, none]), QosClass::Burstable);
        assert_eq!(class_of(&[json!({"limits": {"memory": "1Gi"}})]), QosClass::Burstable);
    }
}
