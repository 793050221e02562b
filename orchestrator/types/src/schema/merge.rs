//! How strategic merge patches treat each field.
//!
//! Kubernetes marks fields of its types with a merge key and a strategy; these marks are not in k8s-openapi's schema, so
//! the ones of our kinds stand here. Lists that are not named are replaced as a whole. The tests compare the table
//! with k8s-openapi's typed merge, which was generated from the same marks.

/// The mark of one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Merge {
    /// The field that identifies the items of a list; `None` for lists of scalars and for objects.
    pub(crate) key: Option<&'static str>,
    /// Whether items are merged one by one; else the list is replaced.
    pub(crate) merge: bool,
    /// Whether a patch removes the fields that it does not name.
    pub(crate) retain_keys: bool,
}

/// Items merged by a key.
const fn by(key: &'static str) -> Merge {
    Merge { key: Some(key), merge: true, retain_keys: false }
}

/// Items merged by a key; within an item, fields that the patch does not name go.
const fn retaining(key: &'static str) -> Merge {
    Merge { key: Some(key), merge: true, retain_keys: true }
}

/// A set of scalars.
const SET: Merge = Merge { key: None, merge: true, retain_keys: false };

/// An object of which a patch gives all fields.
const RETAIN: Merge = Merge { key: None, merge: false, retain_keys: true };

/// The mark of a field of a type (by its short name: no two served types of one name differ).
pub(crate) fn merge_of(ty: &str, field: &str) -> Option<Merge> {
    Some(match (ty, field) {
        ("ObjectMeta", "ownerReferences") => by("uid"),
        ("ObjectMeta", "finalizers") => SET,
        (
            "PodSpec",
            "containers" | "initContainers" | "ephemeralContainers" | "imagePullSecrets",
        ) => by("name"),
        ("PodSpec", "schedulingGates" | "evictionResponders") => by("name"),
        ("PodSpec", "volumes" | "resourceClaims") => retaining("name"),
        ("PodSpec", "hostAliases") => by("ip"),
        ("PodSpec", "topologySpreadConstraints") => by("topologyKey"),
        ("Container" | "EphemeralContainer", "env") => by("name"),
        ("Container" | "EphemeralContainer", "ports") => by("containerPort"),
        ("Container" | "EphemeralContainer", "volumeMounts") => by("mountPath"),
        ("Container" | "EphemeralContainer", "volumeDevices") => by("devicePath"),
        ("ContainerStatus", "volumeMounts") => by("mountPath"),
        ("ContainerStatus", "allocatedResourcesStatus") => by("name"),
        ("PodStatus", "podIPs" | "hostIPs") => by("ip"),
        ("PodStatus", "resourceClaimStatuses") => retaining("name"),
        ("NamespaceStatus" | "NodeStatus" | "PodStatus" | "ServiceStatus", "conditions") => {
            by("type")
        }
        ("DeploymentStatus" | "ReplicaSetStatus" | "MachineStatus", "conditions") => by("type"),
        ("NodeSpec", "podCIDRs") => SET,
        ("NodeStatus", "addresses") => by("type"),
        ("ServiceSpec", "ports") => by("port"),
        ("ServiceAccount", "secrets") => by("name"),
        ("DeploymentSpec", "strategy") => RETAIN,
        _ => return None,
    })
}
