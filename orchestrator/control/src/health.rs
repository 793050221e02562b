//! Which nodes live: what the leader makes of the beats that it hears.
//!
//! Beats are never written. Each node sends one to every voter every [`Timings::beat`], with whom it hears; the leader's driver
//! holds this table, and [`crate::node_lifecycle`] acts on its [`Judgement`]s. Only monotonic time is used, so no clock
//! that is set can kill a node.
//!
//! ```text
//!            silent, and others say so                  heard again
//!   Alive ───────────────────────────► Dead ───────────────────────────► Returning
//!     ▲ │                                ▲ ▲                                │   │
//!     │ │ the same, while more than half │ │ silent again                   │   │
//!     │ └─────────────► Doubted ─────────┘ └────────────────────────────────┘   │
//!     │   heard again      │  the storm is over                                 │
//!     └────────────────────┴────────────────────────────────────────────────────┘ heard all through its probation
//! ```
//!
//! # Rules
//!
//! - A table begins with the leader's term, and takes everybody for heard then; so a new leader waits a whole
//!   [`Timings::silence`] before it calls anyone dead.
//! - A leader that was itself stopped forgets whom it heard and begins again ([`Timings::stall`]).
//! - A node is dead only if the leader has not heard it *and* of the other nodes that report on it a majority have not.
//!   A node reports by its beats; one that is quiet itself does not count, and one that never heard of the node abstains.
//!   Where some could report and none does at the moment, the leader waits for them ([`Timings::alone`]).
//! - While more than half of the nodes that are not dead are quiet, it is the leader that is taken for deaf: those who
//!   would be dead are [`Life::Doubted`]. After that a whole silence is waited again.
//! - What an earlier leader made of a node stands in the Node, and holds until the node is heard.

use std::collections::BTreeMap;
use std::time::Duration;

use podium_types::k8s::api::core::v1::Node;

use crate::node_lifecycle::{condition, taint};

mod hearing;
#[cfg(test)]
mod tests;
mod timings;

pub use hearing::{Beat, Hearing};
pub use timings::Timings;

/// What the leader takes a node for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Life {
    /// It is heard, or has not been silent for long.
    Alive,
    /// It is silent, but so are most others. Nothing is taken from it.
    Doubted,
    /// It is silent, and others say so too.
    Dead,
    /// It was dead and is heard again; nothing new comes to it yet.
    Returning,
}

/// What the leader knows of a node that no object says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Whether it lives.
    pub life: Life,
    /// Its last word about whether it can run pods.
    pub ready: bool,
    /// It lives and has said for [`Timings::unready`] that it is not ready.
    pub long_unready: bool,
    /// Since when, on the leader's monotonic clock, it has had each taint with the effect `NoExecute`, by key.
    pub tainted: BTreeMap<String, Duration>,
}

/// A node as the table has it.
#[derive(Debug, Clone)]
struct Known {
    life: Life,
    /// When the leader last heard it, or began to listen.
    heard: Duration,
    /// The last beat since the table began.
    beat: Option<Duration>,
    ready: bool,
    /// Whom it heard, as of its last beat.
    hears: BTreeMap<String, Duration>,
    /// Since when it has been heard without a pause; counts in [`Life::Returning`].
    since: Duration,
    deaths: u32,
    last_death: Duration,
    unready_since: Option<Duration>,
    long_unready: bool,
    tainted: BTreeMap<String, Duration>,
}

/// The table of one term.
#[derive(Debug, Clone)]
pub struct Health {
    timings: Timings,
    /// The leader's own node, which it always hears.
    me: String,
    nodes: BTreeMap<String, Known>,
    last_look: Duration,
    /// Nobody dies before this.
    judge_from: Duration,
}

impl Health {
    /// The table of a term that begins now, on the machine whose Node is `me`.
    #[must_use]
    pub fn new(timings: Timings, me: &str, now: Duration) -> Self {
        let judge_from = now + timings.silence;
        Self { timings, me: me.to_owned(), nodes: BTreeMap::new(), last_look: now, judge_from }
    }

    /// A Node is there, has changed, or is gone (`None`). Gives whether its judgement may differ now.
    pub fn observe(&mut self, name: &str, node: Option<&Node>, now: Duration) -> bool {
        let Some(node) = node else { return self.nodes.remove(name).is_some() };
        let is_new = !self.nodes.contains_key(name);
        let known = self.nodes.entry(name.to_owned()).or_insert_with(|| Known::new(node, now));
        let keys = || taint::no_execute(node).map(|taint| taint.key.clone());
        let before = known.tainted.len();
        known.tainted.retain(|key, _| keys().any(|present| present == *key));
        let mut changed = is_new || known.tainted.len() != before;
        for key in keys() {
            known.tainted.entry(key).or_insert_with(|| {
                changed = true;
                now
            });
        }
        let says_no = condition::ready(node).is_some_and(|ready| ready.status == "False");
        known.unready_since = says_no.then(|| known.unready_since.unwrap_or(now));
        changed
    }

    /// A node has said that it lives.
    pub fn hear(&mut self, beat: Beat, now: Duration) {
        let quiet = self.timings.quiet;
        let Some(known) = self.nodes.get_mut(&beat.from) else { return };
        if known.beat.is_none_or(|last| now.saturating_sub(last) >= quiet) {
            known.since = now;
        }
        known.heard = now;
        known.beat = Some(now);
        known.ready = beat.ready;
        known.hears = beat.hears;
    }

    /// When [`Health::look`] has to be called next. A cluster of one has nobody to look after.
    #[must_use]
    pub fn next_look(&self) -> Option<Duration> {
        let others = self.nodes.keys().any(|name| *name != self.me);
        others.then(|| self.last_look + self.timings.look)
    }

    /// Judges everybody anew; gives the names of those whose judgement has changed.
    pub fn look(&mut self, now: Duration) -> Vec<String> {
        if now.saturating_sub(self.last_look) > self.timings.look + self.timings.stall {
            self.begin_again(now);
        }
        self.last_look = now;
        let storm = self.storm(now);
        if storm {
            self.judge_from = now + self.timings.silence;
        }
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        let mut changed = Vec::new();
        for name in names {
            let life = self.judge(&name, storm, now);
            let timings = self.timings;
            let Some(known) = self.nodes.get_mut(&name) else { continue };
            let long = known.unready_since.is_some_and(|at| now >= at + timings.unready);
            if life != known.life || long != known.long_unready {
                known.long_unready = long;
                known.enter(life, &timings, now);
                changed.push(name);
            }
        }
        changed
    }

    /// What is known of a node; `None` if there is no such Node.
    #[must_use]
    pub fn judgement(&self, name: &str) -> Option<Judgement> {
        let known = self.nodes.get(name)?;
        Some(Judgement {
            life: known.life,
            ready: known.ready,
            long_unready: known.long_unready,
            tainted: known.tainted.clone(),
        })
    }

    /// When a node was last heard, on the leader's monotonic clock: what its Lease shows.
    #[must_use]
    pub fn heard(&self, name: &str) -> Option<Duration> {
        self.nodes.get(name).and_then(|known| known.beat)
    }

    /// Forgets who was heard when. Judgements stay: who was dead is dead until heard.
    fn begin_again(&mut self, now: Duration) {
        self.judge_from = now + self.timings.silence;
        for known in self.nodes.values_mut() {
            known.heard = now;
            known.beat = None;
            known.since = now;
            known.hears.clear();
        }
    }

    /// Whether more than half of the nodes that are not dead are quiet.
    fn storm(&self, now: Duration) -> bool {
        let living = self.nodes.iter().filter(|(_, known)| known.life != Life::Dead);
        let (mut all, mut quiet) = (0_usize, 0_usize);
        for (name, known) in living {
            all += 1;
            let is_quiet = now.saturating_sub(known.heard) >= self.timings.quiet;
            quiet += usize::from(is_quiet && *name != self.me);
        }
        quiet * 2 > all
    }

    fn judge(&self, name: &str, storm: bool, now: Duration) -> Life {
        let Some(known) = self.nodes.get(name) else { return Life::Alive };
        if name == self.me {
            return Life::Alive;
        }
        let heard = self.is_heard(name, known, now);
        let dead = now >= self.judge_from && self.is_silent(name, known, now);
        match known.life {
            Life::Alive if storm && self.is_silent(name, known, now) => Life::Doubted,
            Life::Alive if dead => Life::Dead,
            Life::Alive => Life::Alive,
            Life::Doubted if heard => Life::Alive,
            Life::Doubted if dead => Life::Dead,
            Life::Doubted => Life::Doubted,
            Life::Dead if heard => Life::Returning,
            Life::Dead => Life::Dead,
            Life::Returning if self.is_silent(name, known, now) => Life::Dead,
            Life::Returning if heard && now >= known.since + self.probation(known) => Life::Alive,
            Life::Returning => Life::Returning,
        }
    }

    fn probation(&self, known: &Known) -> Duration {
        let doublings = known.deaths.saturating_sub(1).min(16);
        (self.timings.probation * (1 << doublings)).min(self.timings.probation_max)
    }

    /// Whether the leader hears it, or most of those who report on it do.
    fn is_heard(&self, name: &str, known: &Known, now: Duration) -> bool {
        let lately = known.beat.is_some_and(|at| now.saturating_sub(at) < self.timings.quiet);
        lately || {
            let ages = self.reports(name, now);
            ages.iter().filter(|age| **age < self.timings.quiet).count() * 2 > ages.len()
        }
    }

    /// Whether the leader has not heard it for a whole silence, and neither have most of those who report on it.
    fn is_silent(&self, name: &str, known: &Known, now: Duration) -> bool {
        let Timings { silence, alone, .. } = self.timings;
        let age = now.saturating_sub(known.heard);
        if age < silence {
            return false;
        }
        let ages = self.reports(name, now);
        if ages.is_empty() {
            return age >= alone || self.witnesses(name).next().is_none();
        }
        ages.iter().filter(|age| **age >= silence).count() * 2 > ages.len()
    }

    /// The other nodes, dead ones left out, that have ever told of this one.
    fn witnesses(&self, name: &str) -> impl Iterator<Item = (&Known, Duration)> {
        let others = self.nodes.iter().filter(move |(other, known)| {
            *other != name && **other != self.me && known.life != Life::Dead
        });
        others.filter_map(move |(_, known)| Some((known, *known.hears.get(name)?)))
    }

    /// How long ago each of those who report now has heard it.
    fn reports(&self, name: &str, now: Duration) -> Vec<Duration> {
        let reports = |known: &Known| {
            known.beat.is_some_and(|at| now.saturating_sub(at) < self.timings.quiet)
        };
        self.witnesses(name).filter(|(known, _)| reports(known)).map(|(_, age)| age).collect()
    }
}

impl Known {
    /// As an earlier leader left it.
    fn new(node: &Node, now: Duration) -> Self {
        let unknown = condition::ready(node).is_some_and(|ready| ready.status == "Unknown");
        let unreachable = taint::no_execute(node).any(|taint| taint.key == taint::UNREACHABLE);
        let life = match (unreachable, unknown) {
            (true, _) => Life::Dead,
            (false, true) => Life::Doubted,
            (false, false) => Life::Alive,
        };
        Self {
            life,
            heard: now,
            beat: None,
            ready: true,
            hears: BTreeMap::new(),
            since: now,
            deaths: u32::from(unreachable),
            last_death: now,
            unready_since: None,
            long_unready: false,
            tainted: BTreeMap::new(),
        }
    }

    fn enter(&mut self, life: Life, timings: &Timings, now: Duration) {
        if life == Life::Dead && self.life != Life::Dead {
            let recent = now.saturating_sub(self.last_death) < timings.flap_memory;
            self.deaths = if recent { self.deaths.saturating_add(1) } else { 1 };
            self.last_death = now;
        }
        if life == Life::Returning && self.life == Life::Dead {
            self.since = now;
        }
        self.life = life;
    }
}
