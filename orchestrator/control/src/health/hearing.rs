//! Whom one node hears: kept by every node, told in its own beats.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Timings;

/// A node that was not heard for this long is not spoken of any more: it is dead and known to be, or removed.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// What a node tells the voters every [`Timings::beat`]. It enters no log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// The name of its Node.
    pub from: String,
    /// Whether it can run pods, in its own opinion.
    pub ready: bool,
    /// The nodes that it has heard, and how long ago the last time was.
    pub hears: BTreeMap<String, Duration>,
}

/// The nodes that this one hears.
#[derive(Debug, Clone)]
pub struct Hearing {
    timings: Timings,
    heard: BTreeMap<String, Duration>,
    last_beat: Option<Duration>,
}

impl Hearing {
    /// Nobody has been heard yet.
    #[must_use]
    pub fn new(timings: Timings) -> Self {
        Self { timings, heard: BTreeMap::new(), last_beat: None }
    }

    /// Something came from a node: its beat, or its answer to ours.
    pub fn hear(&mut self, from: &str, now: Duration) {
        self.heard.insert(from.to_owned(), now);
    }

    /// The beat to send now. One that is late by more than [`Timings::stall`] speaks of nobody: this node was stopped, and does
    /// not know who spoke meanwhile.
    pub fn beat(&mut self, from: &str, ready: bool, now: Duration) -> Beat {
        let patience = self.timings.beat + self.timings.stall;
        let on_time = self.last_beat.is_none_or(|last| now.saturating_sub(last) <= patience);
        self.last_beat = Some(now);
        if on_time {
            self.heard.retain(|_, at| now.saturating_sub(*at) < FORGOTTEN);
        } else {
            self.heard.clear();
        }
        let ages = self.heard.iter().map(|(name, at)| (name.clone(), now.saturating_sub(*at)));
        Beat { from: from.to_owned(), ready, hears: ages.collect() }
    }

    /// When a node was heard last.
    #[must_use]
    pub fn last(&self, node: &str) -> Option<Duration> {
        self.heard.get(node).copied()
    }

    /// How many of these nodes have been heard lately.
    #[must_use]
    pub fn count<'a>(&self, of: impl Iterator<Item = &'a str>, now: Duration) -> usize {
        let lately = |at: &Duration| now.saturating_sub(*at) < self.timings.silence;
        of.filter(|name| self.heard.get(*name).is_some_and(lately)).count()
    }
}
