//! What a pod's spec takes from other objects of its namespace.
//!
//! One answer for everybody who must know: who may read a Secret, what a node without a replica is sent.

use std::collections::BTreeSet;

use serde_json::Value;

/// Names, all of the pod's own namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// ConfigMaps.
    pub config_maps: BTreeSet<String>,
    /// Secrets, those for registries too.
    pub secrets: BTreeSet<String>,
}

/// Fields below which a ConfigMap is named.
const CONFIG_MAP_FIELDS: [&str; 3] = ["configMap", "configMapRef", "configMapKeyRef"];
/// Fields below which a Secret is named.
const SECRET_FIELDS: [&str; 4] = ["secret", "secretRef", "secretKeyRef", "imagePullSecrets"];

impl References {
    /// What a pod's `spec` refers to, wherever in it that stands.
    #[must_use]
    pub fn of(spec: &Value) -> Self {
        let mut found = Self::default();
        found.walk(spec);
        found
    }

    fn walk(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                for (field, below) in map {
                    if CONFIG_MAP_FIELDS.contains(&field.as_str()) {
                        self.config_maps.extend(names(below, "name"));
                    }
                    if SECRET_FIELDS.contains(&field.as_str()) {
                        self.secrets.extend(names(below, "name"));
                        self.secrets.extend(names(below, "secretName"));
                    }
                    self.walk(below);
                }
            }
            Value::Array(list) => list.iter().for_each(|below| self.walk(below)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// The text in `field` of a reference, or of each of a list of them.
fn names(reference: &Value, field: &str) -> Vec<String> {
    let name = |value: &Value| value.get(field).and_then(Value::as_str).map(str::to_owned);
    match reference {
        Value::Array(list) => list.iter().filter_map(name).collect(),
        one => name(one).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_place_that_names_a_config_map_or_a_secret_is_found() {
        let spec = json!({
            "imagePullSecrets": [{"name": "registry"}],
            "volumes": [
                {"name": "a", "configMap": {"name": "volume"}},
                {"name": "b", "secret": {"secretName": "volume"}},
                {"name": "c", "projected": {"sources": [{"configMap": {"name": "part"}}, {"secret": {"name": "part"}}]}},
            ],
            "containers": [{
                "name": "configMap",
                "envFrom": [{"configMapRef": {"name": "all"}}, {"secretRef": {"name": "all"}}],
                "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "one", "key": "k"}}},
                        {"name": "Y", "valueFrom": {"secretKeyRef": {"name": "one", "key": "k"}}}],
            }],
        });
        let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let References { config_maps, secrets } = References::of(&spec);
        assert_eq!(config_maps, of(&["volume", "part", "all", "one"]));
        assert_eq!(secrets, of(&["registry", "volume", "part", "all", "one"]));
    }

    #[test]
    fn a_spec_without_references_has_none() {
        assert_eq!(
            References::of(&json!({"containers": [{"name": "secret"}]})),
            References::default()
        );
    }
}
