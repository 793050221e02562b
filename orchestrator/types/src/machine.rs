//! Machine, our own kind: `podium.dev/v1`, cluster-scoped.
//!
//! A Machine is the computer under a Node of the same name. Its spec is what other machines need in order to reach it, its
//! status is what the machine tells about itself. Who runs pods, and how full it is, stands in the Node.

use k8s_openapi::api::core::v1::NodeAddress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use serde::{Deserialize, Serialize};

/// A computer of the cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Machine {
    /// Standard metadata; the name is that of the machine's Node.
    pub metadata: ObjectMeta,
    /// How others reach it.
    pub spec: MachineSpec,
    /// What it reports.
    pub status: Option<MachineStatus>,
}

/// How other machines reach this one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineSpec {
    /// The public half of its identity key (SubjectPublicKeyInfo in DER, base64): whoever proves it is this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_key: Option<String>,
    /// The public key of its overlay link (WireGuard, base64).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// `address:port` at which its overlay link receives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The ranges of pod addresses that are on this machine.
    #[serde(skip_serializing_if = "Vec::is_empty", rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
}

/// What a machine reports about itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineStatus {
    /// Its own addresses, the preferred one first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<NodeAddress>,
    /// Changes with every boot.
    #[serde(skip_serializing_if = "Option::is_none", rename = "bootID")]
    pub boot_id: Option<String>,
    /// When it booted, by its own clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub booted_at: Option<Time>,
    /// The version of Podium that it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The release of its kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Its processor architecture, by Kubernetes' name (`amd64`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// Whether it votes in the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voter: Option<bool>,
    /// The phases of its last boot, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<BootPhase>,
    /// `Ready` and others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// One step of a boot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BootPhase {
    /// What it did.
    pub name: String,
    /// How long it took.
    pub duration_milliseconds: i64,
}

impl k8s_openapi::Resource for Machine {
    const API_VERSION: &'static str = "podium.dev/v1";
    const GROUP: &'static str = "podium.dev";
    const KIND: &'static str = "Machine";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "machines";
    type Scope = k8s_openapi::ClusterResourceScope;
}

impl k8s_openapi::Metadata for Machine {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The wire form, with the two fields that every object carries.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: MachineSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<MachineStatus>,
}

impl Serialize for Machine {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let wire = Wire {
            api_version: <Self as k8s_openapi::Resource>::API_VERSION.to_owned(),
            kind: <Self as k8s_openapi::Resource>::KIND.to_owned(),
            metadata: self.metadata.clone(),
            spec: self.spec.clone(),
            status: self.status.clone(),
        };
        wire.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Machine {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { api_version, kind, metadata, spec, status } = Wire::deserialize(deserializer)?;
        let expected = |found: &str, ours: &str| found.is_empty() || found == ours;
        if !expected(&api_version, <Self as k8s_openapi::Resource>::API_VERSION)
            || !expected(&kind, <Self as k8s_openapi::Resource>::KIND)
        {
            return Err(serde::de::Error::custom(format_args!(
                "expected podium.dev/v1 Machine, found {api_version} {kind}"
            )));
        }
        Ok(Self { metadata, spec, status })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Machine;
    use crate::object::{from_value, to_value};

    #[test]
    fn machine_survives_the_wire() {
        let object = json!({
            "apiVersion": "podium.dev/v1", "kind": "Machine", "metadata": {"name": "m1"},
            "spec": {"identityKey": "i", "publicKey": "k", "endpoint": "10.0.2.15:51820", "podCIDRs": ["10.244.0.0/24"]},
            "status": {"bootID": "b", "addresses": [{"type": "InternalIP", "address": "10.0.2.15"}],
                "phases": [{"name": "mounts", "durationMilliseconds": 12}]},
        });
        let machine: Machine = from_value(&object).expect("a machine");
        assert_eq!(
            machine.status.as_ref().map(|status| status.phases[0].duration_milliseconds),
            Some(12)
        );
        assert_eq!(to_value(&machine).expect("JSON"), object);
        assert!(from_value::<Machine>(&json!({"kind": "Pod", "metadata": {}})).is_err());
    }
}
