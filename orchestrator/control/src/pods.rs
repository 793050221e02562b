//! What controllers ask of a pod: where it is, whether it counts, whether it serves.

use std::time::Duration;

use jiff::Timestamp;
use podium_types::Now;
use podium_types::k8s::api::core::v1::{Pod, PodCondition};

/// The reason of a condition Ready that the cluster has set to False because the pod's node is dead. The node may say otherwise
/// when it is back.
pub const NODE_NOT_READY: &str = "NodeNotReady";
/// The same for a pod that has to go: it has been replaced, and never serves again, whatever its node says.
pub const NODE_LOST: &str = "NodeLost";

/// The node it is bound to; empty if it is not.
#[must_use]
pub fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// `status.phase`; `Pending` before anything is reported.
#[must_use]
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Whether all its containers have ended for good.
#[must_use]
pub fn finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether it has been deleted and is on its way out.
#[must_use]
pub fn terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether it counts as a replica: neither finished nor terminating.
#[must_use]
pub fn active(pod: &Pod) -> bool {
    !finished(pod) && !terminating(pod)
}

/// When it was created; the epoch if that is not recorded.
#[must_use]
pub fn created(pod: &Pod) -> Timestamp {
    pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// One condition of its status.
#[must_use]
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// Whether its condition `Ready` is true.
#[must_use]
pub fn ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Since when it is ready; `None` if it is not.
#[must_use]
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    Some(ready.last_transition_time.as_ref().map_or_else(|| created(pod), |time| time.0))
}

/// Whether a ready pod has been so for long enough to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// It counts.
    Available,
    /// It will, after this long, if it stays ready.
    After(Duration),
    /// It is not ready.
    Unready,
}

/// Whether the pod has been ready for `min_ready_seconds`.
#[must_use]
pub fn availability(pod: &Pod, min_ready_seconds: i32, now: Now) -> Availability {
    let Some(since) = ready_since(pod) else { return Availability::Unready };
    let needed = Duration::from_secs(u64::try_from(min_ready_seconds).unwrap_or_default());
    if needed.is_zero() {
        return Availability::Available;
    }
    match needed.checked_sub(elapsed(since, now)) {
        None | Some(Duration::ZERO) => Availability::Available,
        Some(left) => Availability::After(left),
    }
}

/// Wall time since `then`; zero if the clock says it is still to come.
#[must_use]
pub fn elapsed(then: Timestamp, now: Now) -> Duration {
    Duration::try_from(now.wall.duration_since(then)).unwrap_or_default()
}
