//! The schema of our own kind, in the form in which k8s-openapi gives the others.

use serde_json::{Value, json};

const CONDITION: &str = "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.Condition";
const METADATA: &str = "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const NODE_ADDRESS: &str = "#/$defs/io.k8s.api.core.v1.NodeAddress";
const TIME: &str = "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.Time";

pub(crate) fn definitions() -> [(String, Value); 4] {
    [
        ("dev.podium.v1.Machine".to_owned(), machine()),
        ("dev.podium.v1.MachineSpec".to_owned(), spec()),
        ("dev.podium.v1.MachineStatus".to_owned(), status()),
        ("dev.podium.v1.BootPhase".to_owned(), phase()),
    ]
}

fn machine() -> Value {
    json!({
        "description": "Machine is a computer of the cluster: how others reach it, and what it reports about itself. Its Node has the same name.",
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string", "description": "The version of this representation: podium.dev/v1."},
            "kind": {"type": "string", "description": "The kind of this object: Machine."},
            "metadata": {"$ref": METADATA, "description": "Standard object metadata; the name is that of the machine's Node."},
            "spec": {"$ref": "#/$defs/dev.podium.v1.MachineSpec", "description": "How other machines reach this one."},
            "status": {"$ref": "#/$defs/dev.podium.v1.MachineStatus", "description": "What the machine reports about itself. Read-only."},
        },
    })
}

fn spec() -> Value {
    json!({
        "description": "MachineSpec says how other machines reach this one.",
        "type": "object",
        "properties": {
            "identityKey": {"type": "string", "description": "The public half of the machine's identity key (SubjectPublicKeyInfo in DER, base64): whoever proves it is this machine."},
            "publicKey": {"type": "string", "description": "The public key of the machine's overlay link (WireGuard, base64)."},
            "endpoint": {"type": "string", "description": "The address:port at which its overlay link receives."},
            "podCIDRs": {"type": "array", "items": {"type": "string"}, "description": "The ranges of pod addresses that are on this machine."},
        },
    })
}

fn status() -> Value {
    json!({
        "description": "MachineStatus is what a machine reports about itself.",
        "type": "object",
        "properties": {
            "addresses": {"type": "array", "items": {"$ref": NODE_ADDRESS}, "description": "The machine's own addresses, the preferred one first."},
            "bootID": {"type": "string", "description": "Changes with every boot."},
            "bootedAt": {"$ref": TIME, "description": "When the machine booted, by its own clock."},
            "version": {"type": "string", "description": "The version of Podium that it runs."},
            "kernel": {"type": "string", "description": "The release of its kernel."},
            "architecture": {"type": "string", "description": "Its processor architecture, such as amd64."},
            "voter": {"type": "boolean", "description": "Whether it votes in the store."},
            "phases": {"type": "array", "items": {"$ref": "#/$defs/dev.podium.v1.BootPhase"}, "description": "The phases of its last boot, in order."},
            "conditions": {"type": "array", "items": {"$ref": CONDITION}, "description": "Ready and others."},
        },
    })
}

fn phase() -> Value {
    json!({
        "description": "BootPhase is one step of a boot.",
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "What the step did."},
            "durationMilliseconds": {"type": "integer", "format": "int64", "description": "How long it took."},
        },
        "required": ["name", "durationMilliseconds"],
    })
}
