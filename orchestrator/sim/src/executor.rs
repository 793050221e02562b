//! One thread, one seed: the executor under every simulated node.
//!
//! Job: poll the tasks of all nodes in an order drawn from the seed, move virtual time to the next timer when nothing is
//! ready, own each task by one *life* (one boot of one node) so that a crash drops every future of that life at whatever
//! await point it stands, and mix all of it into one trace hash. Clocks are in `clock`, the openraft face is
//! `crate::runtime`; disks, networks and faults know nothing of tasks.
//!
//! Invariants: no thread, no real clock, no randomness but the seed's; a future is never polled or dropped while a cell
//! of the executor is borrowed; a dead life never runs again, and what it spawns while it is torn down is dropped unrun.

mod clock;
mod task;
mod timers;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use clock::NodeClock;
use task::{Pick, ReadyQueue, TaskTable};
pub use timers::TimerKey;
use timers::Timers;

/// After so many polls at one instant virtual time moves on all the same: computing takes time too. A thousand tasks that
/// each wake a hundred times at one instant are already far outside what a sound cluster does, see [`Core::spins`].
const POLLS_OF_AN_INSTANT: u64 = 100_000;

/// One boot of one node. Node 0 is the harness: it has the perfect clock and is never crashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life {
    /// The node's number, from 1.
    pub node: u16,
    /// Which boot of that node, from 1; 0 for the harness.
    pub boot: u32,
}

impl Life {
    /// The harness itself.
    pub const HARNESS: Self = Self { node: 0, boot: 0 };
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
    static NEXT_SIMULATION: Cell<u64> = const { Cell::new(1) };
}

/// The state of one simulation on this thread.
pub struct Core {
    id: u64,
    rng: RefCell<ChaCha8Rng>,
    now: Cell<Duration>,
    tasks: RefCell<TaskTable>,
    ready: Arc<ReadyQueue>,
    timers: RefCell<Timers>,
    current: Cell<Life>,
    nodes: RefCell<BTreeMap<u16, NodeState>>,
    crash_requests: RefCell<VecDeque<u16>>,
    trace: Cell<u64>,
    polls: Cell<u64>,
    spins: Cell<u64>,
    halted: Cell<bool>,
}

struct NodeState {
    boot: u32,
    alive: bool,
    clock: NodeClock,
    /// The node's tasks are not polled before this instant (a paused VM, a long page fault).
    frozen_until: Duration,
    /// Ready tasks that wait for the thaw.
    frozen: Vec<u64>,
}

/// Runs `f` on the simulation of this thread.
///
/// # Panics
/// Outside a simulation: the runtime's static functions have no other world to act on.
pub fn with<R>(f: impl FnOnce(&Rc<Core>) -> R) -> R {
    try_with(f).expect("a simulation must be running on this thread")
}

/// As [`with`], or `None` outside a simulation (drops that run after it ended).
pub fn try_with<R>(f: impl FnOnce(&Rc<Core>) -> R) -> Option<R> {
    // Only `enter` changes it, outside of every task.
    CURRENT.try_with(|current| current.borrow().as_ref().map(f)).ok().flatten()
}

/// A simulation that may be entered. Dropping it drops every task, in task order.
pub struct Executor {
    core: Rc<Core>,
}

impl Executor {
    /// A new world at virtual time zero.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let id = NEXT_SIMULATION.with(|next| next.replace(next.get() + 1));
        let core = Core {
            id,
            rng: RefCell::new(ChaCha8Rng::seed_from_u64(seed)),
            now: Cell::new(Duration::ZERO),
            tasks: RefCell::default(),
            ready: Arc::default(),
            timers: RefCell::default(),
            current: Cell::new(Life::HARNESS),
            nodes: RefCell::default(),
            crash_requests: RefCell::default(),
            trace: Cell::new(0x9e37_79b9_7f4a_7c15 ^ seed),
            polls: Cell::new(0),
            spins: Cell::new(0),
            halted: Cell::new(false),
        };
        Self { core: Rc::new(core) }
    }

    /// Runs the world until `future` is done. `future` belongs to the harness and is polled whenever it is woken.
    ///
    /// # Panics
    /// When nothing can ever wake `future` again.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let _entered = self.enter();
        let core = &self.core;
        let main = core.ready.waker_of_main();
        main.wake_by_ref();
        let mut future = pin!(future);
        let mut context = Context::from_waker(&main);
        let mut at = core.now.get();
        let mut polls_here = 0_u64;
        loop {
            core.carry_out_crashes();
            let Some(pick) = core.pick() else {
                assert!(core.advance(), "deadlock: nothing is ready and no timer is set");
                continue;
            };
            polls_here = if core.now.get() == at { polls_here + 1 } else { 0 };
            at = core.now.get();
            if polls_here > POLLS_OF_AN_INSTANT {
                core.spins.set(core.spins.get() + 1);
                core.now.set(at + Duration::from_millis(1));
            }
            match pick {
                Pick::Main => {
                    core.current.set(Life::HARNESS);
                    if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                        return output;
                    }
                }
                Pick::Task(id) => core.poll_task(id),
            }
        }
    }

    /// The core, to read clocks and counters from outside.
    #[must_use]
    pub fn core(&self) -> &Rc<Core> {
        &self.core
    }

    fn enter(&self) -> Entered {
        let previous = CURRENT.with(|current| current.borrow_mut().replace(self.core.clone()));
        Entered { previous }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let _entered = self.enter();
        self.core.halted.set(true);
        self.core.drop_tasks(|_| true);
    }
}

struct Entered {
    previous: Option<Rc<Core>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let previous = self.previous.take();
        CURRENT.with(|current| *current.borrow_mut() = previous);
    }
}

impl Core {
    /// Which simulation this is; timers of another one are not this one's to cancel.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Virtual time since the simulation began (the harness's clock).
    #[must_use]
    pub fn now(&self) -> Duration {
        self.now.get()
    }

    /// Whose task is being polled.
    #[must_use]
    pub fn current(&self) -> Life {
        self.current.get()
    }

    /// The hash of everything that happened so far.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.trace.get()
    }

    /// Polls so far.
    #[must_use]
    pub fn polls(&self) -> u64 {
        self.polls.get()
    }

    /// How often tasks kept each other busy until virtual time was moved on by force.
    #[must_use]
    pub fn spins(&self) -> u64 {
        self.spins.get()
    }

    /// Mixes a fact into the trace hash.
    pub fn trace(&self, fact: u64) {
        let mixed = (self.trace.get() ^ fact).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        self.trace.set(mixed ^ (mixed >> 29));
    }

    /// The next number of the seed's stream.
    pub fn random(&self) -> u64 {
        self.rng.borrow_mut().next_u64()
    }

    /// Fills `bytes` from the seed's stream.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.rng.borrow_mut().fill_bytes(bytes);
    }

    /// A number below `bound` (0 for a bound of 0). The bias of the multiplication is far below what a fault rate means.
    pub fn below(&self, bound: u64) -> u64 {
        let wide = u128::from(self.random()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// True once in `n` times on average; never for `n` = 0.
    pub fn one_in(&self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }

    /// A duration between the two bounds.
    pub fn between(&self, low: Duration, high: Duration) -> Duration {
        let span = u64::try_from(high.saturating_sub(low).as_nanos()).unwrap_or(u64::MAX);
        low + Duration::from_nanos(self.below(span.saturating_add(1)))
    }

    /// Starts `future` as a task of `life`. A dead life's future is dropped unrun.
    pub fn spawn(&self, life: Life, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        if self.is_dead(life) {
            drop(future);
            return;
        }
        let waker = self.tasks.borrow_mut().insert(life, future, &self.ready);
        waker.wake_by_ref();
    }

    /// Sets a timer at a virtual instant.
    pub fn set_timer(&self, at: Duration, waker: Waker) -> TimerKey {
        self.timers.borrow_mut().set(at, waker)
    }

    /// Replaces the waker of a timer that has not fired; false when it has.
    pub fn renew_timer(&self, key: TimerKey, waker: &Waker) -> bool {
        self.timers.borrow_mut().renew(key, waker)
    }

    /// Forgets a timer.
    pub fn clear_timer(&self, key: TimerKey) {
        let waker = self.timers.borrow_mut().clear(key);
        drop(waker);
    }

    /// Boots a node: a new life with a clock of its own.
    ///
    /// # Panics
    /// When the node is running.
    pub fn boot(&self, node: u16, clock: NodeClock) -> Life {
        let mut nodes = self.nodes.borrow_mut();
        let boot = nodes.get(&node).map_or(1, |state| {
            assert!(!state.alive, "node {node} is already running");
            state.boot + 1
        });
        let state = NodeState {
            boot,
            alive: true,
            clock,
            frozen_until: Duration::ZERO,
            frozen: Vec::new(),
        };
        nodes.insert(node, state);
        Life { node, boot }
    }

    /// Whether this life is over (or never began).
    #[must_use]
    pub fn is_dead(&self, life: Life) -> bool {
        if self.halted.get() {
            return true;
        }
        if life == Life::HARNESS {
            return false;
        }
        self.nodes
            .borrow()
            .get(&life.node)
            .is_none_or(|state| !state.alive || state.boot != life.boot)
    }

    /// Asks for the crash of a node, carried out before the next poll of any task. Callable from the node's own tasks:
    /// a disk that loses power in the middle of a write calls this and never answers.
    pub fn request_crash(&self, node: u16) {
        self.crash_requests.borrow_mut().push_back(node);
    }

    /// Polls no task of `node` for `pause`.
    pub fn freeze(&self, node: u16, pause: Duration) {
        if let Some(state) = self.nodes.borrow_mut().get_mut(&node) {
            state.frozen_until = self.now.get() + pause;
            self.timers.borrow_mut().set(state.frozen_until, self.ready.waker_of_thaw());
        }
    }

    /// Runs `f` on a node's clock; the harness and unknown nodes read virtual time itself.
    pub fn clock<R>(&self, node: u16, f: impl FnOnce(&mut NodeClock) -> R) -> R {
        match self.nodes.borrow_mut().get_mut(&node) {
            Some(state) => f(&mut state.clock),
            None => f(&mut NodeClock::perfect()),
        }
    }

    fn carry_out_crashes(&self) {
        loop {
            let Some(node) = self.crash_requests.borrow_mut().pop_front() else { return };
            {
                let mut nodes = self.nodes.borrow_mut();
                let Some(state) = nodes.get_mut(&node) else { continue };
                if !state.alive {
                    continue;
                }
                state.alive = false;
                state.frozen.clear();
            }
            self.trace(0xdead_0000 ^ u64::from(node));
            self.drop_tasks(|life| life.node == node);
        }
    }

    fn drop_tasks(&self, of: impl Fn(Life) -> bool) {
        loop {
            let doomed = self.tasks.borrow_mut().take_all(&of);
            if doomed.is_empty() {
                return;
            }
            drop(doomed);
        }
    }

    fn pick(&self) -> Option<Pick> {
        loop {
            let count = self.ready.len();
            if count == 0 {
                return None;
            }
            let index = if count == 1 { 0 } else { self.below(count as u64) };
            let id = self.ready.take(usize::try_from(index).unwrap_or(0))?;
            if ReadyQueue::is_main(id) {
                return Some(Pick::Main);
            }
            if ReadyQueue::is_thaw(id) {
                self.thaw();
                continue;
            }
            let Some(life) = self.tasks.borrow().life_of(id) else { continue };
            if self.is_frozen(life, id) {
                continue;
            }
            return Some(Pick::Task(id));
        }
    }

    fn is_frozen(&self, life: Life, id: u64) -> bool {
        let mut nodes = self.nodes.borrow_mut();
        let Some(state) = nodes.get_mut(&life.node) else { return false };
        if state.frozen_until <= self.now.get() {
            return false;
        }
        state.frozen.push(id);
        true
    }

    fn thaw(&self) {
        let now = self.now.get();
        for state in self.nodes.borrow_mut().values_mut() {
            if state.frozen_until <= now {
                for id in state.frozen.drain(..) {
                    self.ready.push(id);
                }
            }
        }
    }

    fn advance(&self) -> bool {
        let Some((at, wakers)) = self.timers.borrow_mut().next() else { return false };
        self.now.set(at.max(self.now.get()));
        for waker in wakers {
            waker.wake();
        }
        true
    }

    fn poll_task(&self, id: u64) {
        let Some((life, mut future, waker)) = self.tasks.borrow_mut().take(id) else { return };
        self.current.set(life);
        self.polls.set(self.polls.get() + 1);
        self.trace(id ^ u64::try_from(self.now.get().as_nanos()).unwrap_or(0).rotate_left(20));
        let done = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        if done {
            self.tasks.borrow_mut().remove(id);
            drop(future);
        } else {
            let orphan = self.tasks.borrow_mut().put_back(id, future);
            drop(orphan);
        }
        self.current.set(Life::HARNESS);
    }
}
