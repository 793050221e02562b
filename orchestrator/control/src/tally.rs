//! How many pods a ReplicaSet has, by what they are good for.

use std::time::Duration;

use podium_types::Now;
use podium_types::k8s::api::core::v1::Pod;

use crate::pods::{self, Availability};
use crate::selector::{self, Labels};

/// Pods counted. Finished pods count nowhere, terminating ones only as such.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Neither finished nor terminating.
    pub(crate) active: i32,
    /// Of those, with all labels of the template.
    pub(crate) fully_labeled: i32,
    /// Of the active ones, ready.
    pub(crate) ready: i32,
    /// Of those, ready for long enough.
    pub(crate) available: i32,
    /// Terminating, but not finished.
    pub(crate) terminating: i32,
    /// When the next one becomes available if it stays ready.
    pub(crate) next: Option<Duration>,
}

impl Tally {
    /// Counts the pods of a ReplicaSet whose template has these labels.
    pub(crate) fn of<'a>(
        pods: impl Iterator<Item = &'a Pod>,
        template_labels: Option<&Labels>,
        min_ready_seconds: i32,
        now: Now,
    ) -> Self {
        let mut tally = Self::default();
        for pod in pods.filter(|pod| !pods::finished(pod)) {
            if pods::terminating(pod) {
                tally.terminating += 1;
                continue;
            }
            tally.active += 1;
            let labels = pod.metadata.labels.as_ref();
            if template_labels.is_none_or(|wanted| selector::includes(labels, wanted)) {
                tally.fully_labeled += 1;
            }
            match pods::availability(pod, min_ready_seconds, now) {
                Availability::Unready => {}
                Availability::Available => {
                    tally.ready += 1;
                    tally.available += 1;
                }
                Availability::After(left) => {
                    tally.ready += 1;
                    tally.next = Some(tally.next.map_or(left, |next| next.min(left)));
                }
            }
        }
        tally
    }
}
