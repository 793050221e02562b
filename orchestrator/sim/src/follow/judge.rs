//! What a worker's mirror may hold, told from the history alone.
//!
//! At its revision it has all objects that every node follows, and the pods that are bound to its node, as they were then.
//! What those pods refer to it has too, and no other: as it was then, or as it was later, because a voter looks it up when it
//! tells of the pod. The code that decides what is sent is not asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use podium_store::{Record, View};
use podium_types::ObjectKey;
use podium_types::kind::resources;
use serde_json::Value;

use crate::ledger::{History, Known, same_record};

/// What a mirror is.
pub(super) enum Verdict {
    /// What it should be.
    Sound,
    /// It lacks something; a deletion that is not known yet may explain it.
    Unexplained(String),
    /// Wrong.
    Broken(String),
}

/// What the history says of a worker.
struct Expected<'a> {
    exactly: BTreeMap<&'a Arc<str>, &'a Known>,
    referred: BTreeSet<String>,
}

/// Holds the mirror of a node of this name against the history, which is known at least as far as the mirror is.
pub(super) fn judge(view: &View, name: &str, history: &History) -> Verdict {
    let revision = view.revision().0;
    let Expected { mut exactly, mut referred } = expected(name, revision, history);
    for record in view.range("") {
        let fine = match exactly.remove(&record.key) {
            Some(known) => same_record(record, known),
            None => referred.remove(&*record.key) && was_or_became(record, revision, history),
        };
        if !fine {
            let known = history.at(&record.key, revision);
            return Verdict::Broken(format!("has {record:?} at {revision}, where it is {known:?}"));
        }
    }
    if let Some((key, known)) = exactly.first_key_value() {
        return Verdict::Broken(format!("lacks {key} at {revision}: {known:?}"));
    }
    let lost = |key: &&String| {
        let later = history.moments(key, revision, history.end());
        later.into_iter().all(|at| history.at(key, at).is_some())
    };
    match referred.iter().find(lost) {
        None => Verdict::Sound,
        Some(key) => Verdict::Unexplained(format!("lacks {key} at {revision}")),
    }
}

fn was_or_became(record: &Record, revision: u64, history: &History) -> bool {
    let at = record.mod_revision.0.max(revision);
    history.at(&record.key, at).is_some_and(|known| same_record(record, known))
}

fn expected<'a>(name: &str, revision: u64, history: &'a History) -> Expected<'a> {
    let common = ["namespaces", "nodes", "machines", "services", "endpointslices"];
    let here = format!("\"nodeName\":\"{name}\"");
    let mut expected = Expected { exactly: BTreeMap::new(), referred: BTreeSet::new() };
    for (key, known) in history.state(revision) {
        let Some(object) = ObjectKey::parse(key) else { continue };
        let resource = &*object.resource.resource;
        if common.contains(&resource) {
            expected.exactly.insert(key, known);
        }
        // Objects at rest are canonical: what does not say this need not be decoded.
        let bound = resource == "pods"
            && std::str::from_utf8(&known.value).is_ok_and(|json| json.contains(&here));
        if bound {
            let pod: Value = serde_json::from_slice(&known.value).unwrap_or_default();
            if pod["spec"]["nodeName"] == name {
                expected.exactly.insert(key, known);
                expected.referred.extend(referred(&object.namespace, &pod));
            }
        }
    }
    expected
}

/// Only the forms that the workload writes: volumes.
fn referred(namespace: &str, pod: &Value) -> Vec<String> {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let key = |resource, name: &Value| {
        let name = name.as_str()?.to_owned();
        Some(ObjectKey::new(resource, namespace, name).storage_key())
    };
    volumes
        .filter_map(|volume| {
            key(resources::CONFIG_MAPS, &volume["configMap"]["name"])
                .or_else(|| key(resources::SECRETS, &volume["secret"]["secretName"]))
        })
        .collect()
}
