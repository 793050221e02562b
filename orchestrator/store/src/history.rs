//! The recent past of one member: every event since `oldest`, in order.
//!
//! Serves watches that start in the past and views of past revisions. Bounded by number and
//! bytes here, and by time through the leader's `Compact`. Not replicated: a member that was
//! rebuilt from a snapshot has a shorter past than the others, and says `TooOld` earlier.
//!
//! A past view is the present one with the events since then undone; copies of the records are
//! kept at intervals so that few are.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::record::Revision;
use crate::view::{Records, View};
use crate::watch::WatchEvent;

/// A copy of the records is kept every so many events: undoing that many takes under a
/// millisecond, and a copy costs at most the inner nodes of the map.
const CHECKPOINT_EVENTS: u64 = 1024;
/// What an event costs besides the value it keeps alive.
const EVENT_BYTES: usize = 160;

/// How much past a member keeps.
#[derive(Debug, Clone, Copy)]
pub struct HistoryLimits {
    /// At most so many events.
    pub events: usize,
    /// At most so many bytes of values that only the history keeps alive.
    pub bytes: usize,
}

impl Default for HistoryLimits {
    /// 10 minutes of a busy small cluster, and at most 8 MiB of the 48 that a control plane has.
    fn default() -> Self {
        Self { events: 16_384, bytes: 8 * 1024 * 1024 }
    }
}

#[derive(Debug)]
pub(crate) struct History {
    limits: HistoryLimits,
    events: VecDeque<Arc<WatchEvent>>,
    /// The number of `events[0]`, counted since the program started.
    first: u64,
    bytes: usize,
    /// The revision in front of `events[0]`.
    oldest: Revision,
    /// Copies of the records, each behind the event of that number and all before it.
    checkpoints: VecDeque<(u64, Revision, Records)>,
}

impl History {
    pub(crate) fn new(limits: HistoryLimits, at: Revision) -> Self {
        Self {
            limits,
            events: VecDeque::new(),
            first: 0,
            bytes: 0,
            oldest: at,
            checkpoints: VecDeque::new(),
        }
    }

    /// Starts again at a revision: what was before is unknown.
    pub(crate) fn restart(&mut self, at: Revision) {
        self.first = self.end();
        self.events.clear();
        self.checkpoints.clear();
        self.bytes = 0;
        self.oldest = at;
    }

    pub(crate) fn oldest(&self) -> Revision {
        self.oldest
    }

    /// The number that the next event gets.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Arc<WatchEvent>> {
        let offset = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.events.get(offset)
    }

    /// The number of the first event behind a revision.
    pub(crate) fn after(&self, revision: Revision) -> u64 {
        self.first + self.events.partition_point(|event| event.revision <= revision) as u64
    }

    /// Adds the events of one transaction, after which the state is `view`.
    pub(crate) fn push(&mut self, events: &[Arc<WatchEvent>], view: &View) {
        for event in events {
            self.bytes += cost(event);
            self.events.push_back(event.clone());
        }
        let last = self.checkpoints.back().map_or(self.first, |(number, ..)| *number);
        if self.end() >= last + CHECKPOINT_EVENTS {
            self.checkpoints.push_back((self.end(), view.revision, view.records.clone()));
        }
    }

    /// Whether there is more than the limits allow.
    pub(crate) fn is_over(&self) -> bool {
        self.events.len() > self.limits.events || self.bytes > self.limits.bytes
    }

    /// The revision of the oldest event.
    pub(crate) fn front(&self) -> Option<Revision> {
        self.events.front().map(|event| event.revision)
    }

    /// Forgets the oldest event; `oldest` moves to its revision. All events of a revision must go
    /// together.
    pub(crate) fn pop(&mut self) -> Option<(u64, Arc<WatchEvent>)> {
        let event = self.events.pop_front()?;
        let number = self.first;
        self.first += 1;
        self.bytes -= cost(&event);
        self.oldest = self.oldest.max(event.revision);
        while self.checkpoints.front().is_some_and(|(end, ..)| *end <= self.first) {
            self.checkpoints.pop_front();
        }
        Some((number, event))
    }

    /// Moves `oldest` on where no event stands in the way.
    pub(crate) fn skip_to(&mut self, revision: Revision) {
        if self.front().is_none_or(|front| front > revision) {
            self.oldest = self.oldest.max(revision);
        }
    }

    /// The state at a revision between `oldest` and `present`.
    pub(crate) fn view_at(&self, revision: Revision, present: &View) -> View {
        let next = self.checkpoints.partition_point(|(_, at, _)| *at < revision);
        let (end, mut records) = match self.checkpoints.get(next) {
            Some((number, _, records)) => (*number, records.clone()),
            None => (self.end(), present.records.clone()),
        };
        let begin = self.after(revision);
        for event in (begin..end).rev().filter_map(|number| self.get(number)) {
            match &event.previous {
                Some(previous) => records.insert(event.key.clone(), previous.clone()),
                None => records.remove(&event.key),
            };
        }
        View { revision, records }
    }
}

fn cost(event: &WatchEvent) -> usize {
    EVENT_BYTES + event.previous.as_ref().map_or(0, |record| record.value.len())
}
