//! A cluster in memory, for tests: the driver, an API that behaves like the real one where controllers can tell, and nodes that
//! do what they are told.
//!
//! Two ways to run it. [`Cluster::settle`] runs everything until nothing is left to do. [`Cluster::turn`] makes one of the things
//! that may happen next happen, chosen by the caller, so that a property test can try every order: a call is applied, a batch
//! of events is delivered, a node gets on with a pod, time passes. After each write [`checks`] look for broken promises.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use podium_types::k8s::api::core::v1::{Node, Pod};
use podium_types::{Now, ObjectKey};
use serde_json::{Value, json};

use crate::controller::{Controller, Settings, controllers};
use crate::driver::{Action, Call, CallResult, Driver, Input, RunId};
use crate::health::{Health, Hearing, Timings};
use crate::object::Typed;
use crate::plan::{Plan, Step};
use crate::pods;
use crate::world::{Change, ObjectEvent, World};

mod api;
mod checks;
pub mod objects;

pub use api::Api;
pub use checks::Promise;

/// A run that is under way.
struct Underway {
    run: RunId,
    controller: &'static str,
    key: ObjectKey,
    calls: Vec<Call>,
    results: Vec<CallResult>,
}

/// The whole cluster.
pub struct Cluster {
    /// The store and its API.
    pub api: Api,
    /// The clock.
    pub now: Now,
    driver: Driver,
    underway: Vec<Underway>,
    undelivered: VecDeque<ObjectEvent>,
    promises: checks::Checks,
    /// Nodes that neither beat nor work.
    silent: BTreeSet<String>,
    beats: Option<Beats>,
}

/// Whom each node hears, where somebody judges.
struct Beats {
    timings: Timings,
    hearings: BTreeMap<String, Hearing>,
    next: Duration,
}

impl Default for Cluster {
    fn default() -> Self {
        Self::new()
    }
}

impl Cluster {
    /// An empty cluster with all controllers.
    #[must_use]
    pub fn new() -> Self {
        let settings = Settings { root_ca_pem: "PEM".to_owned(), ..Settings::default() };
        Self::with(controllers(&settings))
    }

    /// An empty cluster with some controllers.
    #[must_use]
    pub fn with(controllers: Vec<Box<dyn Controller>>) -> Self {
        let start = Timestamp::from_second(1_700_000_000).unwrap_or_default();
        Self {
            api: Api::default(),
            now: Now { monotonic: Duration::from_secs(1), wall: start },
            driver: Driver::new(controllers, World::new()),
            underway: Vec::new(),
            undelivered: VecDeque::new(),
            promises: checks::Checks::default(),
            silent: BTreeSet::new(),
            beats: None,
        }
    }

    /// A new leader, on the machine of this node, with nothing but what the API has; it judges who lives.
    pub fn lead(&mut self, me: &str) {
        let root_ca_pem = "PEM".to_owned();
        let settings = Settings { leader: me.to_owned(), root_ca_pem, ..Settings::default() };
        let timings = Timings::default();
        let health = Health::new(timings, me, self.now.monotonic);
        let driver = Driver::new(controllers(&settings), self.api.world().clone());
        self.driver = driver.judging(health, self.now);
        self.underway.clear();
        self.undelivered.clear();
        let next = self.now.monotonic;
        let beats = self.beats.take().map(|beats| beats.hearings).unwrap_or_default();
        self.beats = Some(Beats { timings, hearings: beats, next });
        self.step(Input::Woken);
    }

    /// A node falls silent, or comes back: it beats again, and gets on with its pods.
    pub fn silence(&mut self, node: &str, silent: bool) {
        if silent {
            self.silent.insert(node.to_owned());
        } else {
            self.silent.remove(node);
        }
    }

    /// Every node that is not silent says that it lives, and is heard by all others.
    fn beat(&mut self) {
        let now = self.now.monotonic;
        let living: Vec<String> =
            self.api.list(&Node::RESOURCE).map(|(key, _)| key.name.clone()).collect();
        let living: Vec<String> =
            living.into_iter().filter(|name| !self.silent.contains(name)).collect();
        let Some(beats) = &mut self.beats else { return };
        beats.next = now + beats.timings.beat;
        let mut sent = Vec::new();
        for from in &living {
            for to in living.iter().filter(|to| *to != from) {
                let hearing = beats.hearings.entry(to.clone());
                hearing.or_insert_with(|| Hearing::new(beats.timings)).hear(from, now);
            }
            let hearing = beats.hearings.entry(from.clone());
            sent.push(hearing.or_insert_with(|| Hearing::new(beats.timings)).beat(from, true, now));
        }
        sent.into_iter().for_each(|beat| self.step(Input::Heard(beat)));
    }

    fn next_wake(&self) -> Option<Duration> {
        let beat = self.beats.as_ref().map(|beats| beats.next);
        [self.driver.next_wake(), beat].into_iter().flatten().min()
    }

    /// What the driver knows.
    #[must_use]
    pub fn world(&self) -> &World {
        self.driver.world()
    }

    /// Promises that were broken so far.
    #[must_use]
    pub fn broken(&self) -> &[Promise] {
        self.promises.broken()
    }

    /// Checks from now on that rollouts lose no available pod beyond what they may.
    pub fn check_availability(&mut self) {
        self.promises.availability = true;
    }

    /// Lets time pass on both clocks.
    pub fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.wall += SignedDuration::try_from(time).unwrap_or_default();
    }

    /// A user's call.
    ///
    /// # Errors
    /// When the API refuses it.
    pub fn call(&mut self, step: &Step) -> Result<u64, String> {
        let before = self.promises.before(step, &self.api, self.now);
        let result = self.api.call(step, self.now);
        self.promises.after(step, &before, &self.api, self.now);
        self.undelivered.extend(self.api.take_events());
        result
    }

    /// Creates an object, or replaces it if it is there.
    ///
    /// # Panics
    /// When the API refuses it.
    pub fn put(&mut self, object: Value) {
        let key = objects::key_of(&object);
        let step = match self.api.get(&key) {
            None => Step::Create { resource: key.resource, object },
            Some(_) => Step::Update { key, subresource: None, object },
        };
        self.call(&step).expect("the API takes the object");
    }

    /// Changes an object by a merge patch.
    ///
    /// # Panics
    /// When the API refuses it.
    pub fn patch(&mut self, key: &ObjectKey, subresource: Option<&'static str>, patch: Value) {
        let step = Step::Patch { key: key.clone(), subresource, patch };
        self.call(&step).expect("the API takes the patch");
    }

    /// Whether nothing can happen but time passing and nodes working.
    #[must_use]
    pub fn quiet(&self) -> bool {
        self.underway.is_empty() && self.undelivered.is_empty() && self.driver.idle()
    }

    /// One thing happens. `choice` says which of those that can.
    pub fn turn(&mut self, choice: usize) {
        let kinds = [!self.undelivered.is_empty(), !self.underway.is_empty()];
        self.pass(Duration::from_millis(1));
        match choice % 8 {
            0 | 1 if kinds[0] => self.deliver(1 + (choice / 8) % self.undelivered.len()),
            2..=4 if kinds[1] => self.apply_one(choice / 8),
            5 => self.step(Input::Woken),
            _ => self.work_on(choice / 8),
        }
    }

    /// Delivers the next events, in order; a revision is complete when its last one is.
    fn deliver(&mut self, count: usize) {
        let events: Vec<ObjectEvent> = self.undelivered.drain(..count).collect();
        let next = self.undelivered.front().map_or(u64::MAX, |event| event.revision);
        let through = events.last().map_or(0, |event| event.revision).min(next - 1);
        self.step(Input::Observed { events, through });
    }

    fn step(&mut self, input: Input) {
        for action in self.driver.step(self.now, input) {
            match action {
                Action::Run { run, controller, key, calls } => {
                    self.promises.asked((controller, &key), &calls, &self.api);
                    let results = Vec::with_capacity(calls.len());
                    self.underway.push(Underway { run, controller, key, calls, results });
                }
                Action::Report(step) => drop(self.call(&step)),
                Action::Fence { run } => {
                    let revision = self.api.revision();
                    self.step(Input::Fenced { run, revision });
                }
                Action::Unreadable { key, reason } => panic!("{key} is unreadable: {reason}"),
            }
        }
    }

    /// Applies the next call of one of the runs.
    fn apply_one(&mut self, which: usize) {
        let index = which % self.underway.len();
        let run = &self.underway[index];
        if let Some(call) = run.calls.get(run.results.len()).cloned() {
            let ready = call
                .after
                .is_none_or(|after| matches!(run.results[after], CallResult::Done { .. }));
            let result = match ready.then(|| self.call(&call.step)) {
                None => CallResult::Skipped,
                Some(Ok(revision)) => CallResult::Done { revision },
                Some(Err(message)) => CallResult::Refused { message },
            };
            self.underway[index].results.push(result);
        }
        if self.underway[index].results.len() >= self.underway[index].calls.len() {
            let Underway { run, controller, key, calls, results } = self.underway.remove(index);
            let done = |result: &CallResult| matches!(result, CallResult::Done { .. });
            let done = calls.into_iter().zip(&results).filter(|(_, result)| done(result));
            self.promises.done(controller, key, done.map(|(call, _)| call.step).collect());
            self.step(Input::Finished { run, results });
        }
    }

    /// A node gets on with one pod: starts it, makes it ready, or ends it.
    fn work_on(&mut self, which: usize) {
        let waiting = self.waiting_pods();
        if let Some((key, next)) = waiting.get(which % waiting.len().max(1)) {
            self.work(key, next);
        }
    }

    fn work(&mut self, key: &ObjectKey, next: &Value) {
        if next.is_null() {
            self.end_pod(key);
        } else {
            self.patch(key, Some("status"), json!({"status": next}));
        }
    }

    fn end_pod(&mut self, key: &ObjectKey) {
        let uid = self.api.uid(key);
        let step = Step::Delete {
            key: key.clone(),
            uid,
            grace_seconds: Some(0),
            propagation: crate::plan::Propagation::Background,
        };
        self.call(&step).expect("a node may end its pod");
    }

    /// The pods that a node has something to do for, with their next status; null for the end.
    fn waiting_pods(&self) -> Vec<(ObjectKey, Value)> {
        let mut waiting = Vec::new();
        for (key, pod) in self.api.world().all::<Pod>() {
            let (key, node) = ((**key).clone(), pods::node_name(pod));
            let there = self.api.get(&objects::node_key(node)).is_some();
            if node.is_empty() || !there || self.silent.contains(node) {
                continue;
            }
            if pods::terminating(pod) {
                waiting.push((key, Value::Null));
            } else if pods::phase(pod) == "Pending" {
                let address = objects::address(pod.metadata.uid.as_deref().unwrap_or_default());
                waiting.push((key, json!({"phase": "Running", "podIP": address})));
            } else if pods::phase(pod) == "Running" && pods::condition(pod, "Ready").is_none() {
                waiting.push((key, objects::readiness(true, self.now)));
            }
        }
        waiting
    }

    /// Delivers, applies and lets nodes work until nothing is left to do, in the order in which things came up.
    ///
    /// # Panics
    /// When it does not come to an end.
    pub fn settle(&mut self) {
        self.run(true);
    }

    /// As [`Cluster::settle`], but the nodes do nothing.
    ///
    /// # Panics
    /// When it does not come to an end.
    pub fn settle_controllers(&mut self) {
        self.run(false);
    }

    /// Applies the next call or, if there is none, delivers all events. Gives whether there was anything to do.
    pub fn advance(&mut self) -> bool {
        if !self.underway.is_empty() {
            self.apply_one(0);
        } else if !self.undelivered.is_empty() {
            self.deliver(self.undelivered.len());
        } else {
            return false;
        }
        true
    }

    fn run(&mut self, nodes: bool) {
        for _ in 0..200_000 {
            if self.advance() {
                continue;
            }
            let waiting = if nodes { self.waiting_pods() } else { Vec::new() };
            if !waiting.is_empty() {
                waiting.iter().for_each(|(key, next)| self.work(key, next));
            } else if self.driver.idle() {
                return;
            } else {
                self.pass(Duration::from_millis(10));
                self.step(Input::Woken);
            }
        }
        panic!("the cluster does not settle");
    }

    /// As [`Cluster::settle`], and then through all wake times within `time`.
    pub fn settle_for(&mut self, time: Duration) {
        let end = self.now.monotonic + time;
        self.settle();
        while let Some(at) = self.next_wake().filter(|at| *at <= end) {
            self.pass(at.saturating_sub(self.now.monotonic));
            if self.beats.as_ref().is_some_and(|beats| beats.next <= self.now.monotonic) {
                self.beat();
            }
            self.step(Input::Woken);
            self.settle();
        }
        self.pass(end.saturating_sub(self.now.monotonic));
    }

    /// Every plan, of every controller, for every key that any object concerns, that is not empty. At rest there is none; one
    /// that there is was forgotten by `keys_for`, or repeats itself.
    #[must_use]
    pub fn unfinished(&self, controllers: &[Box<dyn Controller>]) -> BTreeMap<String, Plan> {
        let world = self.driver.world();
        let mut unfinished = BTreeMap::new();
        for controller in controllers {
            for object in world.objects() {
                let change = Change {
                    key: object.key.clone(),
                    revision: object.revision,
                    before: None,
                    after: Some(object.clone()),
                };
                for key in controller.keys_for(world, &change) {
                    let plan = controller.plan(world, &key, self.now);
                    if !plan.is_empty() {
                        unfinished.insert(format!("{} {key}", controller.name()), plan);
                    }
                }
            }
        }
        unfinished
    }
}
