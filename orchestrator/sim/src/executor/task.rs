//! The table of tasks and the queue of those that are ready.
//!
//! Wakers must be `Send + Sync` although everything runs on one thread, so the queue sits behind an (always free) mutex.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

use super::Life;

const MAIN: u64 = u64::MAX;
const THAW: u64 = u64::MAX - 1;

/// What runs next.
pub(super) enum Pick {
    /// The harness's main future.
    Main,
    /// A task.
    Task(u64),
}

/// The ids that are ready, unordered: the seed chooses.
#[derive(Default)]
pub(super) struct ReadyQueue {
    ids: Mutex<Vec<u64>>,
}

impl ReadyQueue {
    fn ids(&self) -> MutexGuard<'_, Vec<u64>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, id: u64) {
        self.ids().push(id);
    }

    pub(super) fn len(&self) -> usize {
        self.ids().len()
    }

    /// Takes the id at `index` and lets its task be woken again.
    pub(super) fn take(&self, index: usize) -> Option<u64> {
        let mut ids = self.ids();
        (index < ids.len()).then(|| ids.swap_remove(index))
    }

    pub(super) fn is_main(id: u64) -> bool {
        id == MAIN
    }

    pub(super) fn is_thaw(id: u64) -> bool {
        id == THAW
    }

    pub(super) fn waker_of_main(self: &Arc<Self>) -> Waker {
        self.unconditional(MAIN)
    }

    pub(super) fn waker_of_thaw(self: &Arc<Self>) -> Waker {
        self.unconditional(THAW)
    }

    fn unconditional(self: &Arc<Self>, id: u64) -> Waker {
        Waker::from(Arc::new(Unconditional { id, ready: self.clone() }))
    }
}

/// Wakes something that tolerates being polled twice.
struct Unconditional {
    id: u64,
    ready: Arc<ReadyQueue>,
}

impl Wake for Unconditional {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut ids = self.ready.ids();
        if !ids.contains(&self.id) {
            ids.push(self.id);
        }
    }
}

struct TaskWaker {
    id: u64,
    queued: AtomicBool,
    ready: Arc<ReadyQueue>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.push(self.id);
        }
    }
}

type TaskFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Slot {
    generation: u32,
    task: Option<Task>,
}

struct Task {
    life: Life,
    /// Empty while the task is being polled.
    future: Option<TaskFuture>,
    waker: Waker,
    state: Arc<TaskWaker>,
}

/// All tasks. An id is a slot and the generation of its use, so a late waker of a finished task wakes nobody.
#[derive(Default)]
pub(super) struct TaskTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

fn split(id: u64) -> (usize, u32) {
    let slot = usize::try_from(id & 0xffff_ffff).unwrap_or(usize::MAX);
    let generation = u32::try_from(id >> 32).unwrap_or(u32::MAX);
    (slot, generation)
}

impl TaskTable {
    pub(super) fn insert(
        &mut self,
        life: Life,
        future: TaskFuture,
        ready: &Arc<ReadyQueue>,
    ) -> Waker {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, task: None });
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 tasks at once")
        });
        let slot = &mut self.slots[index as usize];
        let id = (u64::from(slot.generation) << 32) | u64::from(index);
        let state =
            Arc::new(TaskWaker { id, queued: AtomicBool::new(false), ready: ready.clone() });
        let waker = Waker::from(state.clone());
        slot.task = Some(Task { life, future: Some(future), waker: waker.clone(), state });
        waker
    }

    fn task(&mut self, id: u64) -> Option<&mut Task> {
        let (index, generation) = split(id);
        let slot = self.slots.get_mut(index)?;
        if slot.generation != generation {
            return None;
        }
        slot.task.as_mut()
    }

    pub(super) fn life_of(&self, id: u64) -> Option<Life> {
        let (index, generation) = split(id);
        let slot = self.slots.get(index)?;
        if slot.generation != generation {
            return None;
        }
        slot.task.as_ref().map(|task| task.life)
    }

    /// Takes a task's future out for polling; wake-ups from here on queue it again.
    pub(super) fn take(&mut self, id: u64) -> Option<(Life, TaskFuture, Waker)> {
        let task = self.task(id)?;
        task.state.queued.store(false, Ordering::Relaxed);
        let future = task.future.take()?;
        Some((task.life, future, task.waker.clone()))
    }

    /// Puts a polled future back, or returns it when its task is gone meanwhile.
    pub(super) fn put_back(&mut self, id: u64, future: TaskFuture) -> Option<TaskFuture> {
        match self.task(id) {
            Some(task) => {
                task.future = Some(future);
                None
            }
            None => Some(future),
        }
    }

    pub(super) fn remove(&mut self, id: u64) {
        if self.task(id).is_some() {
            self.free_slot(split(id).0);
        }
    }

    fn free_slot(&mut self, index: usize) -> Option<TaskFuture> {
        let slot = self.slots.get_mut(index)?;
        let task = slot.task.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.extend(u32::try_from(index));
        task.future
    }

    /// Removes every task whose life matches and hands its futures out, to be dropped outside any borrow.
    pub(super) fn take_all(&mut self, of: &impl Fn(Life) -> bool) -> Vec<TaskFuture> {
        let doomed: Vec<usize> = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.task.as_ref().is_some_and(|task| of(task.life)))
            .map(|(index, _)| index)
            .collect();
        doomed.into_iter().filter_map(|index| self.free_slot(index)).collect()
    }
}
