//! Timers in virtual time, ordered by instant and then by when they were set.

use std::collections::BTreeMap;
use std::task::Waker;
use std::time::Duration;

/// Names one timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerKey {
    at: Duration,
    sequence: u64,
}

#[derive(Default)]
pub(super) struct Timers {
    entries: BTreeMap<TimerKey, Waker>,
    sequence: u64,
}

impl Timers {
    pub(super) fn set(&mut self, at: Duration, waker: Waker) -> TimerKey {
        self.sequence += 1;
        let key = TimerKey { at, sequence: self.sequence };
        self.entries.insert(key, waker);
        key
    }

    pub(super) fn renew(&mut self, key: TimerKey, waker: &Waker) -> bool {
        self.entries.get_mut(&key).is_some_and(|kept| {
            kept.clone_from(waker);
            true
        })
    }

    pub(super) fn clear(&mut self, key: TimerKey) -> Option<Waker> {
        self.entries.remove(&key)
    }

    /// Takes all timers of the earliest instant.
    pub(super) fn next(&mut self) -> Option<(Duration, Vec<Waker>)> {
        let (first, waker) = self.entries.pop_first()?;
        let mut wakers = vec![waker];
        while let Some(entry) = self.entries.first_entry() {
            if entry.key().at > first.at {
                break;
            }
            wakers.push(entry.remove());
        }
        Some((first.at, wakers))
    }
}
