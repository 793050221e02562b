//! One member's copy of the state, and everybody who reads it: views, the history, watchers, and
//! readers who wait until a log position has been applied.
//!
//! One short critical section per applied record; nobody waits in it for anybody.
//!
//! Invariants: a watcher's `cursor` is at most the end of the history and at least its beginning,
//! or `lost` is set; no event between a watcher's start and its cursor that matches it was left
//! out; `history.oldest()` ≤ the state's revision.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::channel::oneshot;

use crate::bugs::{Bug, Bugs};
use crate::error::{StoreError, WatchError};
use crate::history::{History, HistoryLimits};
use crate::member::{FeatureLevel, MemberId};
use crate::mirror::MirrorChange;
use crate::record::Revision;
use crate::state::{Command, Position, Reply, State};
use crate::view::View;
use crate::watch::{Watch, WatchEvent};

#[derive(Debug)]
struct Watcher {
    prefix: String,
    after: Revision,
    cursor: u64,
    /// An event that it wanted is gone.
    lost: bool,
    waker: Option<Waker>,
}

impl Watcher {
    fn wants(&self, number: u64, event: &WatchEvent, bugs: Bugs) -> bool {
        event.revision > self.after
            && event.key.starts_with(&self.prefix)
            && !(bugs.has(Bug::LostWatchEvent) && number % 7 == 6)
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

struct Inner {
    state: State,
    history: History,
    watchers: BTreeMap<u64, Watcher>,
    next_watcher: u64,
    waiting: Vec<(u64, oneshot::Sender<()>)>,
    closed: Option<String>,
    bugs: Bugs,
}

/// See the module.
pub(crate) struct Replica {
    inner: Mutex<Inner>,
}

impl fmt::Debug for Replica {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Replica").finish_non_exhaustive()
    }
}

impl Replica {
    pub(crate) fn new(limits: HistoryLimits, bugs: Bugs) -> Arc<Self> {
        let inner = Inner {
            state: State::new(),
            history: History::new(limits, Revision::ZERO),
            watchers: BTreeMap::new(),
            next_watcher: 0,
            waiting: Vec::new(),
            closed: None,
            bugs,
        };
        Arc::new(Self { inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere leaves at worst an event that was not announced; the process aborts
        // on panics anyhow.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the whole state. O(1).
    pub(crate) fn state(&self) -> State {
        self.lock().state.clone()
    }

    /// The current view.
    pub(crate) fn view(&self) -> View {
        self.lock().state.view.clone()
    }

    /// The last applied log index.
    pub(crate) fn applied_index(&self) -> u64 {
        self.lock().state.applied_index()
    }

    /// The cluster's feature level.
    pub(crate) fn level(&self) -> FeatureLevel {
        self.lock().state.level
    }

    /// Up to which revision the cluster has given up its history.
    pub(crate) fn compacted(&self) -> Revision {
        self.lock().state.compacted
    }

    /// What a member has announced that it understands.
    pub(crate) fn announced(&self, member: MemberId) -> Option<FeatureLevel> {
        self.lock().state.announced.get(&member).copied()
    }

    /// The oldest revision of the history.
    pub(crate) fn oldest(&self) -> Revision {
        self.lock().history.oldest()
    }

    /// Applies what stands at a position; a record without a command only moves the position.
    pub(crate) fn apply(&self, position: Position, command: Option<&Command>) -> Reply {
        let mut inner = self.lock();
        inner.state.applied = Some(position);
        let bugs = inner.bugs;
        let mut reply = Reply::Done;
        if let Some(command) = command {
            let (answer, events) = inner.state.apply(position.index, command, bugs);
            reply = answer;
            inner.publish(&events);
            inner.trim();
        }
        inner.wake_waiting();
        reply
    }

    /// Changes the state other than by a command.
    pub(crate) fn update(&self, change: impl FnOnce(&mut State)) {
        let mut inner = self.lock();
        change(&mut inner.state);
        inner.wake_waiting();
    }

    /// Takes over changes that were decided elsewhere, all of one revision or of several up to it.
    pub(crate) fn follow(&self, revision: Revision, changes: Vec<MirrorChange>) {
        let mut inner = self.lock();
        let events = inner.state.follow(revision, changes);
        inner.publish(&events);
        inner.trim();
    }

    /// Replaces the state by a later one. The history starts again, and watchers that are not
    /// already past it have lost events.
    pub(crate) fn install(&self, state: State) {
        let mut inner = self.lock();
        let moved = state.view.revision != inner.state.view.revision;
        inner.state = state;
        let revision = inner.state.view.revision;
        if moved {
            inner.history.restart(revision);
            let end = inner.history.end();
            for watcher in inner.watchers.values_mut() {
                watcher.lost |= watcher.after < revision;
                watcher.cursor = end;
                watcher.wake();
            }
        }
        inner.wake_waiting();
    }

    /// The state at a revision of the history.
    pub(crate) fn view_at(&self, revision: Revision) -> Result<View, StoreError> {
        let inner = self.lock();
        let current = inner.state.view.revision;
        if revision > current {
            return Err(StoreError::Future { asked: revision, current });
        }
        if revision < inner.history.oldest() {
            return Err(StoreError::TooOld { oldest: inner.history.oldest() });
        }
        Ok(inner.history.view_at(revision, &inner.state.view))
    }

    /// Starts a watch behind a revision.
    pub(crate) fn watch(
        self: &Arc<Self>,
        prefix: &str,
        after: Revision,
    ) -> Result<Watch, StoreError> {
        let mut inner = self.lock();
        if after < inner.history.oldest() {
            return Err(StoreError::TooOld { oldest: inner.history.oldest() });
        }
        let id = inner.next_watcher;
        inner.next_watcher += 1;
        let cursor = inner.history.after(after);
        let watcher =
            Watcher { prefix: prefix.to_owned(), after, cursor, lost: false, waker: None };
        inner.watchers.insert(id, watcher);
        Ok(Watch::new(self.clone(), id))
    }

    pub(crate) fn unwatch(&self, id: u64) {
        self.lock().watchers.remove(&id);
    }

    pub(crate) fn poll_watch(
        &self,
        id: u64,
        context: &Context<'_>,
    ) -> Poll<Result<Arc<WatchEvent>, WatchError>> {
        let mut inner = self.lock();
        if let Some(event) = inner.advance(id) {
            if let Some(watcher) = inner.watchers.get_mut(&id) {
                watcher.cursor += 1;
            }
            return Poll::Ready(Ok(event));
        }
        let closed = inner.closed.is_some();
        match inner.watchers.get_mut(&id) {
            Some(watcher) if watcher.lost => Poll::Ready(Err(WatchError::TooOld)),
            Some(watcher) if !closed => {
                watcher.waker = Some(context.waker().clone());
                Poll::Pending
            }
            Some(_) | None => Poll::Ready(Err(WatchError::Closed)),
        }
    }

    pub(crate) fn watch_progress(&self, id: u64) -> Revision {
        let mut inner = self.lock();
        let next = inner.advance(id);
        let Some(watcher) = inner.watchers.get(&id) else { return Revision::ZERO };
        let reached = match next {
            Some(event) => Revision(event.revision.0.saturating_sub(1)),
            None if watcher.lost => watcher.after,
            None => inner.state.view.revision,
        };
        reached.max(watcher.after)
    }

    /// Resolves once the log has been applied up to an index; an error if that will not happen.
    pub(crate) async fn applied(&self, index: u64) -> Result<(), StoreError> {
        let waiting = {
            let mut inner = self.lock();
            if inner.state.applied_index() >= index {
                return Ok(());
            }
            if let Some(reason) = &inner.closed {
                return Err(StoreError::Stopped { reason: reason.clone() });
            }
            let (sender, receiver) = oneshot::channel();
            inner.waiting.retain(|(_, sender)| !sender.is_canceled());
            inner.waiting.push((index, sender));
            receiver
        };
        waiting.await.map_err(|_| StoreError::Stopped { reason: "the store was closed".into() })
    }

    /// Ends all watches and waits.
    pub(crate) fn close(&self, reason: &str) {
        let mut inner = self.lock();
        inner.closed.get_or_insert_with(|| reason.to_owned());
        inner.waiting.clear();
        for watcher in inner.watchers.values_mut() {
            watcher.wake();
        }
    }

    /// Why it was closed.
    pub(crate) fn closed(&self) -> Option<String> {
        self.lock().closed.clone()
    }
}

impl Inner {
    /// Adds events to the history and wakes who wants them. A watcher that has taken everything
    /// so far moves past what it does not want, so that being idle does not make it old.
    fn publish(&mut self, events: &[Arc<WatchEvent>]) {
        let end = self.history.end();
        self.history.push(events, &self.state.view);
        for watcher in self.watchers.values_mut().filter(|watcher| watcher.cursor == end) {
            for (number, event) in (end..).zip(events) {
                if watcher.wants(number, event, self.bugs) {
                    watcher.wake();
                    break;
                }
                watcher.cursor = number + 1;
            }
        }
    }

    /// Forgets what the limits and the last `Compact` allow to be forgotten.
    fn trim(&mut self) {
        let compacted = self.state.compacted;
        while self.history.front().is_some_and(|front| front <= compacted) || self.history.is_over()
        {
            let Some(revision) = self.history.front() else { break };
            while self.history.front() == Some(revision) {
                self.forget_oldest();
            }
        }
        self.history.skip_to(compacted);
    }

    fn forget_oldest(&mut self) {
        let Some((number, event)) = self.history.pop() else { return };
        for watcher in self.watchers.values_mut().filter(|watcher| watcher.cursor == number) {
            watcher.cursor += 1;
            if watcher.wants(number, &event, self.bugs) {
                watcher.lost = true;
                watcher.wake();
            }
        }
    }

    /// The next event that a watcher wants, with its cursor on it; none if it lost one before.
    fn advance(&mut self, id: u64) -> Option<Arc<WatchEvent>> {
        let watcher = self.watchers.get_mut(&id)?;
        if watcher.lost {
            return None;
        }
        while let Some(event) = self.history.get(watcher.cursor) {
            if watcher.wants(watcher.cursor, event, self.bugs) {
                return Some(event.clone());
            }
            watcher.cursor += 1;
        }
        None
    }

    fn wake_waiting(&mut self) {
        let applied = self.state.applied_index();
        let mut index = 0;
        while index < self.waiting.len() {
            if self.waiting[index].0 <= applied {
                // A reader that gave up is no matter.
                let _ = self.waiting.swap_remove(index).1.send(());
            } else {
                index += 1;
            }
        }
    }
}
