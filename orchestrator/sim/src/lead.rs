//! What a member does while it leads: the shipped driver with all controllers, over the shipped pipeline.
//!
//! Job: keep the promises that `podium_control::driver` asks of its surroundings. A driver is made from a read after the
//! term began, and lives as long as the term; its calls go through a store that commits in that term or not at all; an
//! unknown outcome is fenced by a write of the same term.

mod term;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc::{self, UnboundedReceiver, UnboundedSender};
use futures::future::{Either, select};
use podium_api::{Pipeline, User, bootstrap};
use podium_control::driver::{Action, Call, CallResult, Driver, Input, RunId};
use podium_control::{ObjectEvent, Settings, World, controllers};
use podium_store::{Role, StoreHandle, View, Watch, WatchError, WatchEvent};
use podium_types::{Now, ObjectKey};

use crate::access::{self, Outcome, Request};
use crate::agent::host::Host;
use crate::cluster::{Cluster, SimStore};
use crate::executor;
use crate::runtime::{Sleep, spawn};
use term::TermStore;

/// Where objects of the API are.
const ROOT: &str = "/registry/";

/// Where the API is served.
const API_PORT: u16 = 6443;

/// How often a member looks whether it leads.
const LOOK: Duration = Duration::from_millis(100);

/// Leads whenever the store does, for as long as the life lasts.
pub(crate) async fn run(cluster: Cluster, node: u16, store: SimStore) {
    loop {
        let status = store.status();
        if status.role == Role::Leader {
            let term = Arc::new(TermStore::new(store.clone(), status.term));
            if let Some(mut lead) = Lead::begin(&cluster, node, term.clone()).await {
                lead.run().await;
            }
            term.end();
            cluster.set_idle(node, false);
        }
        Sleep::after(LOOK).await;
    }
}

struct Lead {
    cluster: Cluster,
    node: u16,
    store: Arc<TermStore>,
    pipeline: Pipeline,
    driver: Driver,
    watch: Watch,
    inputs: UnboundedSender<Input>,
    answers: UnboundedReceiver<Input>,
}

enum Happening {
    Watched(Result<Arc<WatchEvent>, WatchError>),
    Answered(Input),
    Woken,
}

impl Lead {
    async fn begin(cluster: &Cluster, node: u16, store: Arc<TermStore>) -> Option<Self> {
        let view = store.read().await.ok()?;
        let watch = store.watch(ROOT, view.revision()).ok()?;
        let pipeline = access::pipeline(cluster, node, store.clone());
        let driver = Driver::new(controllers(&Settings::default()), world_of(&view));
        let servers: Vec<IpAddr> = cluster.hosts().values().flat_map(Host::addresses).collect();
        bootstrap::ensure(&pipeline, &servers, API_PORT).await.ok()?;
        let (inputs, answers) = mpsc::unbounded();
        Some(Self {
            cluster: cluster.clone(),
            node,
            store,
            pipeline,
            driver,
            watch,
            inputs,
            answers,
        })
    }

    async fn run(&mut self) {
        self.step(Input::Woken);
        while self.store.lasts() {
            match self.next().await {
                Happening::Woken => self.step(Input::Woken),
                Happening::Answered(input) => self.step(input),
                Happening::Watched(Ok(event)) => self.observed(&event),
                Happening::Watched(Err(WatchError::TooOld | WatchError::Closed)) => return,
            }
            self.cluster.set_idle(self.node, self.driver.idle());
        }
    }

    fn now(&self) -> Now {
        executor::with(|core| {
            let now = core.now();
            core.clock(self.node, |clock| clock.read(now))
        })
    }

    async fn next(&mut self) -> Happening {
        let wait = self
            .driver
            .next_wake()
            .map_or(LOOK, |at| at.saturating_sub(self.now().monotonic).min(LOOK));
        let watched = std::pin::pin!(self.watch.next());
        let timed = std::pin::pin!(Sleep::after(wait));
        match select(watched, select(self.answers.next(), timed)).await {
            Either::Left((event, _)) => Happening::Watched(event),
            Either::Right((Either::Left((Some(input), _)), _)) => Happening::Answered(input),
            Either::Right((Either::Left((None, _)) | Either::Right(_), _)) => Happening::Woken,
        }
    }

    fn observed(&mut self, event: &WatchEvent) {
        let events = event_of(event).into_iter().collect();
        let through = self.watch.progress().0;
        self.step(Input::Observed { events, through });
    }

    fn step(&mut self, input: Input) {
        let now = self.now();
        for action in self.driver.step(now, input) {
            self.act(action);
        }
    }

    fn act(&self, action: Action) {
        let (pipeline, store, inputs) =
            (self.pipeline.clone(), self.store.clone(), self.inputs.clone());
        match action {
            Action::Run { run, controller, calls, .. } => drop(spawn(async move {
                let user = User::system(&format!("controller:{controller}"));
                let results = make(&pipeline, &store, &user, calls).await;
                drop(inputs.unbounded_send(Input::Finished { run, results }));
            })),
            Action::Report(step) => drop(spawn(async move {
                let user = User::system("controller:events");
                if let Some(request) = Request::of_step(step) {
                    drop(access::perform(&pipeline, &user, request).await);
                }
            })),
            Action::Fence { run } => drop(spawn(async move { fence(&store, run, &inputs).await })),
            Action::Unreadable { key, reason } => {
                let what = format!("{} {} does not fit its kind: {reason}", key.resource, key.name);
                self.cluster.ledger().accuse(crate::ledger::Violation::Rule(what));
            }
        }
    }
}

/// Makes the calls of one run in order.
async fn make(
    pipeline: &Pipeline,
    store: &TermStore,
    user: &User,
    calls: Vec<Call>,
) -> Vec<CallResult> {
    let mut results: VecDeque<CallResult> = VecDeque::with_capacity(calls.len());
    for call in calls {
        let held_up = call
            .after
            .is_some_and(|index| !matches!(results.get(index), Some(CallResult::Done { .. })));
        let result = match Request::of_step(call.step) {
            _ if held_up => CallResult::Skipped,
            None => CallResult::Skipped,
            Some(_) if !store.lasts() => CallResult::Unknown,
            Some(request) => match access::perform(pipeline, user, request).await {
                Outcome::Done { revision, .. } => CallResult::Done { revision },
                Outcome::Refused { status } => CallResult::Refused { message: status.message },
                Outcome::Unknown => CallResult::Unknown,
            },
        };
        results.push_back(result);
    }
    results.into()
}

/// A write of the same term comes after everything that was proposed before it.
async fn fence(store: &TermStore, run: RunId, inputs: &UnboundedSender<Input>) {
    while store.lasts() {
        if let Ok(revision) = store.barrier().await {
            drop(inputs.unbounded_send(Input::Fenced { run, revision }));
            return;
        }
        Sleep::after(LOOK).await;
    }
}

fn world_of(view: &View) -> World {
    let mut world = World::new();
    for record in view.range(ROOT) {
        if let Some(key) = ObjectKey::parse(&record.key) {
            world.apply(&ObjectEvent::put(key, record.mod_revision.0, &record.value));
        }
    }
    world.complete(view.revision().0);
    world
}

fn event_of(event: &WatchEvent) -> Option<ObjectEvent> {
    let key = ObjectKey::parse(&event.key)?;
    Some(match &event.record {
        Some(record) => ObjectEvent::put(key, event.revision.0, &record.value),
        None => ObjectEvent::delete(key, event.revision.0),
    })
}
