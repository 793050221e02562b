//! Which key is planned next: a queue with delays, back-off and barriers, as a state machine without a clock.
//!
//! ```text
//!           ask, wake                start                    done
//!   idle ──────────────► queued ──────────────► running ──────────────► idle
//!                          ▲  │ family is busy or    │ failed, or asked meanwhile
//!                          │  ▼ world is behind      ▼
//!                          parked              delayed / queued
//! ```
//!
//! Keys are planned in the order in which they were asked for, except that a parked key lets others pass. A key that is
//! asked for while it runs is queued again when it ends; one that is asked for while it backs off waits that out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use podium_types::ObjectKey;

/// The first delay after a failure: a conflict is over as soon as the watch has delivered what it was about.
const FIRST_DELAY: Duration = Duration::from_millis(5);
/// The longest delay: a refusal that lasts (a quota, an admission rule) is looked at again about once a minute.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// One key of one controller.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskKey {
    /// Index of the controller.
    pub controller: usize,
    /// The key.
    pub key: ObjectKey,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Nothing asked for it; its timer may.
    Idle,
    /// In `queued` at this place.
    Queued { place: u64 },
    /// In the parked set of a family; goes back to its place.
    Parked { place: u64 },
    /// Being planned and applied.
    Running { family: ObjectKey, asked: bool },
    /// Backing off; its timer ends that.
    Delayed,
}

#[derive(Debug, Clone)]
struct Task {
    state: State,
    failures: u32,
    timer: Option<Duration>,
}

#[derive(Debug, Clone, Default)]
struct Family {
    running: bool,
    /// The world has to have reached this revision before the next plan.
    barrier: u64,
    parked: BTreeSet<TaskKey>,
}

/// The keys that wait, run and sleep.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    tasks: BTreeMap<TaskKey, Task>,
    queued: BTreeMap<u64, TaskKey>,
    timers: BTreeSet<(Duration, TaskKey)>,
    /// Only families that run or wait for their barrier.
    families: BTreeMap<ObjectKey, Family>,
    last_place: u64,
    /// How many keys back off.
    delayed: usize,
    /// What the world has reached.
    revision: u64,
}

impl Queue {
    /// Something has changed for this key.
    pub fn ask(&mut self, task: TaskKey) {
        let entry = self.tasks.entry(task.clone()).or_insert(Task {
            state: State::Idle,
            failures: 0,
            timer: None,
        });
        match &mut entry.state {
            State::Idle => self.enqueue(task),
            State::Running { asked, .. } => *asked = true,
            State::Queued { .. } | State::Parked { .. } | State::Delayed => {}
        }
    }

    /// Queues every key whose time has come.
    pub fn wake(&mut self, now: Duration) {
        while let Some((at, task)) = self.timers.first().cloned() {
            if at > now {
                return;
            }
            self.timers.pop_first();
            let Some(entry) = self.tasks.get_mut(&task) else { continue };
            entry.timer = None;
            match &mut entry.state {
                State::Idle => self.enqueue(task),
                State::Delayed => {
                    self.delayed -= 1;
                    self.enqueue(task);
                }
                State::Running { asked, .. } => *asked = true,
                State::Queued { .. } | State::Parked { .. } => {}
            }
        }
    }

    /// When [`Queue::wake`] has something to do.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Whether no key waits to be planned, runs, or backs off.
    #[must_use]
    pub fn idle(&self) -> bool {
        // A family that neither runs nor has parked keys is kept for its barrier only.
        let at_rest = |family: &Family| !family.running && family.parked.is_empty();
        self.queued.is_empty() && self.delayed == 0 && self.families.values().all(at_rest)
    }

    /// The world has reached this revision: parked keys whose barrier that is may go on.
    pub fn reached(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
        let idle = self.families.iter().filter(|(_, family)| !family.running);
        let idle: Vec<ObjectKey> = idle.map(|(name, _)| name.clone()).collect();
        for name in idle {
            self.release(&name);
        }
    }

    /// The next key to plan. It runs until [`Queue::done`] or [`Queue::failed`].
    pub fn start(&mut self, family_of: impl Fn(&TaskKey) -> ObjectKey) -> Option<TaskKey> {
        while let Some((place, task)) = self.queued.pop_first() {
            let name = family_of(&task);
            let family = self.families.entry(name.clone()).or_default();
            let Some(entry) = self.tasks.get_mut(&task) else { continue };
            if family.running || family.barrier > self.revision {
                entry.state = State::Parked { place };
                family.parked.insert(task);
                continue;
            }
            family.running = true;
            entry.state = State::Running { family: name, asked: false };
            return Some(task);
        }
        None
    }

    /// The key's plan has been applied, its last write at `revision` (0: it wrote nothing).
    pub fn done(
        &mut self,
        now: Duration,
        task: &TaskKey,
        revision: u64,
        wake_after: Option<Duration>,
    ) {
        let Some(asked) = self.leave(task, revision) else { return };
        if let Some(entry) = self.tasks.get_mut(task) {
            entry.failures = 0;
        }
        match wake_after {
            Some(after) => self.set_timer(task, now.saturating_add(after)),
            None => self.clear_timer(task),
        }
        if asked {
            self.enqueue(task.clone());
        } else if wake_after.is_none() {
            self.tasks.remove(task);
        }
    }

    /// Some of the key's steps were not done; what was written last was at `revision` (0: nothing).
    pub fn failed(&mut self, now: Duration, task: &TaskKey, revision: u64) {
        if self.leave(task, revision).is_none() {
            return;
        }
        let Some(entry) = self.tasks.get_mut(task) else { return };
        let delay = FIRST_DELAY.saturating_mul(1 << entry.failures.min(20)).min(LONGEST_DELAY);
        entry.failures = entry.failures.saturating_add(1);
        entry.state = State::Delayed;
        self.delayed += 1;
        self.set_timer(task, now.saturating_add(delay));
    }

    /// Ends a run; says whether the key was asked for meanwhile, `None` if it did not run.
    fn leave(&mut self, task: &TaskKey, revision: u64) -> Option<bool> {
        let entry = self.tasks.get_mut(task)?;
        let State::Running { family, asked } = &entry.state else { return None };
        let (name, asked) = (family.clone(), *asked);
        entry.state = State::Idle;
        let family = self.families.entry(name.clone()).or_default();
        family.running = false;
        family.barrier = family.barrier.max(revision);
        self.release(&name);
        Some(asked)
    }

    /// Forgets a family that neither runs nor waits, and queues its parked keys at their old places.
    fn release(&mut self, name: &ObjectKey) {
        let open = |family: &Family| !family.running && family.barrier <= self.revision;
        if !self.families.get(name).is_some_and(open) {
            return;
        }
        let parked = self.families.remove(name).map(|family| family.parked).unwrap_or_default();
        for task in parked {
            let Some(entry) = self.tasks.get_mut(&task) else { continue };
            if let State::Parked { place } = entry.state {
                entry.state = State::Queued { place };
                self.queued.insert(place, task);
            }
        }
    }

    fn enqueue(&mut self, task: TaskKey) {
        if let Some(entry) = self.tasks.get_mut(&task) {
            self.last_place += 1;
            entry.state = State::Queued { place: self.last_place };
            self.queued.insert(self.last_place, task);
        }
    }

    fn set_timer(&mut self, task: &TaskKey, at: Duration) {
        self.clear_timer(task);
        if let Some(entry) = self.tasks.get_mut(task) {
            entry.timer = Some(at);
            self.timers.insert((at, task.clone()));
        }
    }

    fn clear_timer(&mut self, task: &TaskKey) {
        if let Some(at) = self.tasks.get_mut(task).and_then(|entry| entry.timer.take()) {
            self.timers.remove(&(at, task.clone()));
        }
    }
}
