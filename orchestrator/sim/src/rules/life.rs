//! Rules about one object and its own past.

use std::collections::BTreeMap;

use podium_types::ObjectKey;
use serde_json::Value;

use super::{Change, controller, is_deleting, number, text};

pub(super) fn judge(
    change: &Change<'_>,
    objects: &BTreeMap<ObjectKey, Value>,
) -> Result<(), String> {
    let Some(after) = change.after else { return Ok(()) };
    let name = || format!("{} {}/{}", change.key.resource, change.key.namespace, change.key.name);
    if text(after, "/metadata/uid").is_empty() {
        return Err(format!("{} has no uid", name()));
    }
    let Some(before) = change.before else {
        return created(change.key, objects).map_err(|what| format!("{} {what}", name()));
    };
    for field in ["/metadata/uid", "/metadata/creationTimestamp"] {
        if text(before, field) != text(after, field) {
            return Err(format!(
                "{}: {field} changed from {} to {}",
                name(),
                text(before, field),
                text(after, field)
            ));
        }
    }
    if is_deleting(before) && !is_deleting(after) {
        return Err(format!("{} was marked for deletion and is no more", name()));
    }
    let generations =
        (number(before, "/metadata/generation"), number(after, "/metadata/generation"));
    if let (Some(old), Some(new)) = generations {
        if new < old {
            return Err(format!("{}: its generation went back from {old} to {new}", name()));
        }
        if new == old
            && before.get("spec") != after.get("spec")
            && change.key.resource.resource != "pods"
        {
            return Err(format!("{}: its spec changed and its generation {new} did not", name()));
        }
    }
    if number(after, "/status/observedGeneration") > number(after, "/metadata/generation") {
        return Err(format!("{}: a generation was observed that does not exist yet", name()));
    }
    match (controller(before), controller(after)) {
        (Some(old), Some(new)) if old != new => {
            Err(format!("{} was taken from {old} by {new}", name()))
        }
        _ => special(change, before, after).map_err(|what| format!("{}: {what}", name())),
    }
}

fn created(key: &ObjectKey, objects: &BTreeMap<ObjectKey, Value>) -> Result<(), String> {
    if key.namespace.is_empty() {
        return Ok(());
    }
    match objects.get(&ObjectKey::of_namespace(key.namespace.clone())) {
        None => Err("was created in a namespace that is not there".to_owned()),
        Some(namespace) if is_deleting(namespace) => {
            Err("was created in a namespace that is being deleted".to_owned())
        }
        Some(_) => Ok(()),
    }
}

fn special(change: &Change<'_>, before: &Value, after: &Value) -> Result<(), String> {
    match &*change.key.resource.resource {
        "pods" => phase_moves_forward(text(before, "/status/phase"), text(after, "/status/phase")),
        "configmaps" => counts_by_one(before, after),
        _ => Ok(()),
    }
}

fn phase_moves_forward(before: &str, after: &str) -> Result<(), String> {
    let rank = |phase: &str| match phase {
        "Succeeded" | "Failed" => 3,
        "Running" => 2,
        "Pending" => 1,
        _ => 0,
    };
    let over = rank(before) == 3 && before != after;
    if over || rank(after) < rank(before) {
        return Err(format!("its phase went from {before} to {after}"));
    }
    Ok(())
}

/// The workload's counters are only ever read, increased by one and written back with the resourceVersion that was read.
fn counts_by_one(before: &Value, after: &Value) -> Result<(), String> {
    let count = |object: &Value| text(object, "/data/count").parse::<u64>().ok();
    match (count(before), count(after)) {
        (Some(old), Some(new)) if new != old && new != old + 1 => {
            Err(format!("its count went from {old} to {new}: an update was lost"))
        }
        _ => Ok(()),
    }
}
