//! The loop around all controllers, as a state machine.
//!
//! ```text
//!            Observed{events, through}                Run{calls}
//!  watch ───────────────────────────►  ┌────────┐ ──────────────► API pipeline
//!                                      │ Driver │
//!  timer ──────── Woken ────────────►  └────────┘ ◄────────────── Finished{results}
//!                                          │ Fence                      Fenced{revision}
//!                                          ▼
//!                                   linearizable read
//! ```
//!
//! # What the surroundings promise
//!
//! 1. A driver lives as long as one term of this node's leadership. It is made from a snapshot of the store taken after
//!    the term began, gets every event after that snapshot in order, and is dropped when leadership is lost. No call of a
//!    dropped driver is started, and none is forwarded to another leader: the store commits it in this term or never.
//! 2. `Observed.through` is a revision of which every event has been handed over, in this batch or an earlier one.
//! 3. Each [`Action::Run`] is answered by exactly one [`Input::Finished`] with one result per call, however long it takes.
//!    A call is applied through the API as the user `system:controller:<controller>`, no earlier than the call it names in
//!    [`Call::after`] has been done, and not at all (`Skipped`) if that one was not done.
//! 4. `Unknown` is for a call that may or may not have been committed. An [`Action::Fence`] asks for a linearizable read made
//!    after everything that is unknown has been decided; its revision is the answer.
//! 5. [`Driver::next_wake`] is asked after every step, and [`Input::Woken`] is given then or later.
//!
//! # What the driver promises
//!
//! - **The barrier.** A family of keys is planned one at a time, and only on a world whose revision has reached that of the
//!   family's last own write. So no plan is repeated because its own result has not come back yet, and two controllers
//!   that share a bound (a Deployment's surge) never both spend it.
//! - A key whose steps did not all succeed is planned again after a delay that doubles from 5 ms to 60 s, events or not.
//! - Events are reported after what they are about has been done, and hold nothing up.
//! - A key that nothing asked for and that has no wake time is not planned.
//! - The actions are a function of the inputs.

use std::collections::BTreeMap;
use std::time::Duration;

use podium_types::k8s::api::core::v1::Node;
use podium_types::{Now, ObjectKey};

use crate::controller::Controller;
use crate::event;
use crate::health::{Beat, Health};
use crate::object::Typed;
use crate::plan::{EventStep, Step};
use crate::world::{Change, ObjectEvent, World};

mod queue;
#[cfg(test)]
mod tests;

pub use queue::{Queue, TaskKey};

/// How many runs may be under way at once. Enough to fill a group commit of the store, little enough that a plan made now
/// is carried out soon.
const MOST_RUNS: usize = 64;

/// Names one [`Action::Run`] of a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// What the surroundings tell the driver.
#[derive(Debug, Clone)]
pub enum Input {
    /// Events of the store's watch, in order.
    Observed {
        /// The events; may be empty.
        events: Vec<ObjectEvent>,
        /// All events up to this revision have now been handed over.
        through: u64,
    },
    /// A run has ended.
    Finished {
        /// Which.
        run: RunId,
        /// One for each of its calls.
        results: Vec<CallResult>,
    },
    /// The answer to [`Action::Fence`].
    Fenced {
        /// Whose.
        run: RunId,
        /// The revision that was read.
        revision: u64,
    },
    /// A node says that it lives.
    Heard(Beat),
    /// The time of [`Driver::next_wake`] has come.
    Woken,
}

/// How one call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallResult {
    /// It has been committed, or there was nothing to change.
    Done {
        /// The revision that wrote it; for a call that changed nothing, the object's.
        revision: u64,
    },
    /// The API refused it, whatever the reason (conflict, gone, exists, forbidden, invalid), and nothing was written; of a
    /// Bind, it refused at least one pod.
    Refused {
        /// The message of the API's Status.
        message: String,
    },
    /// It may have been committed, or may yet be.
    Unknown,
    /// It was not made, because the call it comes after was not done.
    Skipped,
}

/// One call of the API. Its step is never [`Step::Event`]: the driver makes an [`Action::Report`] of that.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// What to do.
    pub step: Step,
    /// Index of a call in the same run that has to be done before.
    pub after: Option<usize>,
}

/// What the surroundings have to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Make these calls and answer with [`Input::Finished`].
    Run {
        /// Its name in the answer.
        run: RunId,
        /// Which controller asks.
        controller: &'static str,
        /// What it is about.
        key: ObjectKey,
        /// The calls.
        calls: Vec<Call>,
    },
    /// Make one call; nobody waits for its outcome.
    Report(Step),
    /// Answer with [`Input::Fenced`].
    Fence {
        /// Its name in the answer.
        run: RunId,
    },
    /// Tell the log: an object does not fit its kind, and typed controllers do not see it.
    Unreadable {
        /// The object.
        key: ObjectKey,
        /// What does not fit.
        reason: String,
    },
}

struct Run {
    task: TaskKey,
    steps: Vec<Step>,
    /// What to report when the step that it is about is done.
    reports: Vec<EventStep>,
    revision: u64,
    outcome: Outcome,
    wake_after: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Failed,
}

/// The loop around all controllers.
pub struct Driver {
    world: World,
    controllers: Vec<Box<dyn Controller>>,
    queue: Queue,
    runs: BTreeMap<RunId, Run>,
    last_run: u64,
    /// Who lives, if anybody is to judge that.
    health: Option<Health>,
}

impl Driver {
    /// Starts from a snapshot: every object in `world` counts as new.
    #[must_use]
    pub fn new(controllers: Vec<Box<dyn Controller>>, world: World) -> Self {
        let mut driver = Self {
            world,
            controllers,
            queue: Queue::default(),
            runs: BTreeMap::new(),
            last_run: 0,
            health: None,
        };
        driver.queue.reached(driver.world.revision());
        for object in driver.world.objects() {
            let change = Change {
                key: object.key.clone(),
                revision: object.revision,
                before: None,
                after: Some(object.clone()),
            };
            ask(&driver.controllers, &driver.world, &mut driver.queue, &change);
        }
        driver
    }

    /// Judges from now on which nodes live.
    #[must_use]
    pub fn judging(mut self, health: Health, now: Now) -> Self {
        self.health = Some(health);
        let nodes: Vec<_> = self.world.nodes().cloned().collect();
        for node in nodes {
            let name = node.metadata.name.clone().unwrap_or_default();
            self.observe_node(&name, Some(&node), now.monotonic);
        }
        self
    }

    /// The table of those who are heard, if this driver judges.
    #[must_use]
    pub fn health(&self) -> Option<&Health> {
        self.health.as_ref()
    }

    /// What is known.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Whether the world is as the controllers want it: nothing is under way, waits, or backs off after a failure.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.runs.is_empty() && self.queue.idle()
    }

    /// When to give [`Input::Woken`], on the monotonic clock.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        let look = self.health.as_ref().and_then(Health::next_look);
        [self.queue.next_wake(), look].into_iter().flatten().min()
    }

    /// Takes in what happened and says what to do now.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Observed { events, through } => {
                self.observe(&events, through, now.monotonic, &mut actions);
            }
            Input::Finished { run, results } => self.finish(now, run, &results, &mut actions),
            Input::Fenced { run, revision } => self.fenced(now, run, revision),
            Input::Heard(beat) => {
                if let Some(health) = &mut self.health {
                    health.hear(beat, now.monotonic);
                }
            }
            Input::Woken => {}
        }
        self.look(now.monotonic);
        self.queue.wake(now.monotonic);
        self.start_runs(now, &mut actions);
        actions
    }

    /// Judges the nodes, if it is time to.
    fn look(&mut self, now: Duration) {
        let Some(health) = &mut self.health else { return };
        if health.next_look().is_none_or(|at| now < at) {
            return;
        }
        for name in health.look(now) {
            self.judged(&name);
        }
    }

    fn observe_node(&mut self, name: &str, node: Option<&Node>, now: Duration) {
        if self.health.as_mut().is_some_and(|health| health.observe(name, node, now)) {
            self.judged(name);
        }
    }

    /// A node's judgement is another: whoever acts on it plans anew.
    fn judged(&mut self, name: &str) {
        let judgement = self.health.as_ref().and_then(|health| health.judgement(name));
        self.world.judge(name, judgement);
        for (index, controller) in self.controllers.iter().enumerate() {
            for key in controller.keys_for_judgement(name) {
                self.queue.ask(TaskKey { controller: index, key });
            }
        }
    }

    fn observe(
        &mut self,
        events: &[ObjectEvent],
        through: u64,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        for event in events {
            let Some(change) = self.world.apply(event) else { continue };
            if change.key.resource == Node::RESOURCE {
                let node = change.after::<Node>().map(|node| &**node);
                self.observe_node(&change.key.name, node, now);
            }
            if let Some(reason) = change.after.as_ref().and_then(|object| object.defect.as_ref()) {
                let (key, reason) = (event.key.clone(), reason.to_string());
                actions.push(Action::Unreadable { key, reason });
            }
            ask(&self.controllers, &self.world, &mut self.queue, &change);
        }
        self.world.complete(through);
        self.queue.reached(self.world.revision());
    }

    fn start_runs(&mut self, now: Now, actions: &mut Vec<Action>) {
        while self.runs.len() < MOST_RUNS {
            let (controllers, world) = (&self.controllers, &self.world);
            let family = |task: &TaskKey| controllers[task.controller].family(world, &task.key);
            let Some(task) = self.queue.start(family) else { return };
            let controller = &self.controllers[task.controller];
            let plan = controller.plan(&self.world, &task.key, now);
            if plan.is_empty() {
                self.queue.done(now.monotonic, &task, 0, plan.wake_after);
                continue;
            }
            let name = controller.name();
            let Split { calls, steps, reports, at_once } = split(plan.steps);
            for report in at_once {
                actions.push(Action::Report(event::record(&self.world, &report, now)));
            }
            let wake_after = plan.wake_after;
            if calls.is_empty() {
                self.queue.done(now.monotonic, &task, 0, wake_after);
                continue;
            }
            self.last_run += 1;
            let run = RunId(self.last_run);
            actions.push(Action::Run { run, controller: name, key: task.key.clone(), calls });
            let outcome = Outcome::Done;
            self.runs.insert(run, Run { task, steps, reports, revision: 0, outcome, wake_after });
        }
    }

    fn finish(&mut self, now: Now, id: RunId, results: &[CallResult], actions: &mut Vec<Action>) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let mut fence = false;
        for (index, step) in run.steps.iter().enumerate() {
            match results.get(index).unwrap_or(&CallResult::Unknown) {
                CallResult::Done { revision } => run.revision = run.revision.max(*revision),
                CallResult::Unknown => {
                    fence = true;
                    run.outcome = Outcome::Failed;
                }
                CallResult::Refused { message } => {
                    // Other pods of the same Bind may have been bound, at a revision that nobody has told.
                    fence |= matches!(step, Step::Bind { pods, .. } if pods.len() > 1);
                    run.outcome = Outcome::Failed;
                    let controller = &self.controllers[run.task.controller];
                    if let Some(report) =
                        controller.refused(&self.world, &run.task.key, step, message)
                    {
                        actions.push(Action::Report(event::record(&self.world, &report, now)));
                    }
                }
                CallResult::Skipped => {}
            }
        }
        let done = |index| matches!(results.get(index), Some(CallResult::Done { .. }));
        for report in run.reports.drain(..).filter(|report| report.reports.is_none_or(done)) {
            actions.push(Action::Report(event::record(&self.world, &report, now)));
        }
        if fence {
            actions.push(Action::Fence { run: id });
        } else {
            self.close(now, id);
        }
    }

    fn fenced(&mut self, now: Now, id: RunId, revision: u64) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.revision = run.revision.max(revision);
            self.close(now, id);
        }
    }

    fn close(&mut self, now: Now, id: RunId) {
        let Some(run) = self.runs.remove(&id) else { return };
        match run.outcome {
            Outcome::Done => {
                self.queue.done(now.monotonic, &run.task, run.revision, run.wake_after);
            }
            Outcome::Failed => self.queue.failed(now.monotonic, &run.task, run.revision),
        }
    }
}

fn ask(controllers: &[Box<dyn Controller>], world: &World, queue: &mut Queue, change: &Change) {
    for (index, controller) in controllers.iter().enumerate() {
        for key in controller.keys_for(world, change) {
            queue.ask(TaskKey { controller: index, key });
        }
    }
}

/// A plan, sorted by who waits for it.
#[derive(Default)]
struct Split {
    calls: Vec<Call>,
    /// The step of each call.
    steps: Vec<Step>,
    /// Events about a step, by index of its call.
    reports: Vec<EventStep>,
    /// Events about nothing else.
    at_once: Vec<EventStep>,
}

/// Calls come after those before them on the same object. Events are no calls: nobody waits for them, and a lost one is not
/// worth planning again for.
fn split(plan: Vec<Step>) -> Split {
    let mut split = Split::default();
    let mut last: BTreeMap<ObjectKey, usize> = BTreeMap::new();
    let mut calls: Vec<Option<usize>> = Vec::with_capacity(plan.len());
    for step in plan {
        let index = split.calls.len();
        let after = match &step {
            Step::Event(report) => {
                let mut report = report.clone();
                calls.push(None);
                report.reports = report.reports.and_then(|step| calls.get(step).copied().flatten());
                if report.reports.is_some() {
                    split.reports.push(report);
                } else {
                    split.at_once.push(report);
                }
                continue;
            }
            Step::Update { key, .. } | Step::Patch { key, .. } | Step::Delete { key, .. } => {
                last.insert(key.clone(), index)
            }
            Step::Create { .. } | Step::Bind { .. } => None,
        };
        calls.push(Some(index));
        split.calls.push(Call { step: step.clone(), after });
        split.steps.push(step);
    }
    split
}
