//! Which quality of service a pod gets: who goes first when a node runs out of memory.

use serde_json::Value;

use crate::object::list_at;
use crate::quantity;

/// `Guaranteed`, when every container's limits and requests of processor and memory are given and equal; `BestEffort`, when no
/// container has any; else `Burstable`.
#[must_use]
pub fn qos_class(pod: &Value) -> &'static str {
    let containers =
        ["initContainers", "containers"].into_iter().flat_map(|list| list_at(pod, &["spec", list]));
    let mut any = false;
    let mut guaranteed = true;
    for container in containers {
        let amount = |list: &str, name: &str| {
            let amount = container.get("resources")?.get(list)?.get(name)?;
            quantity::of(amount).filter(|amount| !amount.is_zero())
        };
        for name in ["cpu", "memory"] {
            let (limit, request) = (amount("limits", name), amount("requests", name));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::qos_class;

    #[test]
    fn quality_follows_limits_and_requests_of_all_containers() {
        let class = |resources: &[Value]| {
            let containers: Vec<Value> =
                resources.iter().map(|resources| json!({"resources": resources})).collect();
            qos_class(&json!({"spec": {"containers": containers}}))
        };
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
        assert_eq!(class(&[json!({})]), "BestEffort");
        assert_eq!(class(&[json!({"requests": {"cpu": "0"}})]), "BestEffort");
        assert_eq!(class(std::slice::from_ref(&full)), "Guaranteed");
        assert_eq!(class(&[full.clone(), json!({})]), "Burstable");
        assert_eq!(
            class(&[json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}})]),
            "Burstable"
        );
        assert_eq!(
            class(&[
                full,
                json!({"limits": {"cpu": "1", "memory": "1"}, "requests": {"cpu": "1", "memory": "0"}})
            ]),
            "Guaranteed"
        );
    }
}
