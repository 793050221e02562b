//! One term of leadership: a driver, what it sees, and what it has under way.

use std::sync::Arc;

use futures::future::{BoxFuture, Fuse, pending};
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{FutureExt, StreamExt, select_biased};
use podium_api::{Pipeline, Status, User, bootstrap};
use podium_control::driver::{Action, Call, CallResult, Driver, Input, RunId};
use podium_control::{ObjectEvent, World, controllers};
use podium_store::{Standing, StoreHandle, View, Watch, WatchError, WatchEvent};
use podium_types::ObjectKey;

use crate::term_store::TermStore;
use crate::{AGAIN, Leading, Surroundings, calls};

/// Where objects of the API are in the store.
const ROOT: &str = "/registry/";

/// The most events that go to the driver in one step, so that a flood of them does not hold up the answers.
const MOST_EVENTS: usize = 512;

/// What a future of the term comes to; reports come to nothing.
type Answer = Option<Input>;

/// See the module.
pub(crate) struct Term<'a> {
    surroundings: &'a Arc<dyn Surroundings>,
    pipeline: Pipeline,
    driver: Driver,
    watch: Watch,
    told: BoxStream<'static, Input>,
    /// Everything that the driver has asked for and that has not ended.
    under_way: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// Done when the term is over, or the servers are others.
    over: Fuse<BoxFuture<'static, ()>>,
}

enum Happening {
    Over,
    Answered(Answer),
    Told(Option<Input>),
    Watched(Result<Arc<WatchEvent>, WatchError>),
    Woken,
}

impl<'a> Term<'a> {
    /// Makes what every cluster has, and a driver of all that has been decided before.
    ///
    /// # Errors
    /// Of the store.
    pub(crate) async fn begin(
        leading: &Leading,
        surroundings: &'a Arc<dyn Surroundings>,
        standing: Standing,
    ) -> Result<Self, Status> {
        let store: Arc<dyn StoreHandle> =
            Arc::new(TermStore::new(Arc::clone(&leading.store), standing.term));
        let pipeline = leading.pipeline.clone().with_store(Arc::clone(&store));
        let servers = surroundings.servers();
        bootstrap::ensure(&pipeline, &servers, leading.port).await?;
        pipeline.barrier().await?;
        let failed = |error| Status::from_store(&error);
        let view = store.read().await.map_err(failed)?;
        let watch = store.watch(ROOT, view.revision()).map_err(failed)?;
        let deposed = store.standing_other_than(standing).map(drop).boxed();
        let moved = surroundings.servers_other_than(servers);
        let over = async move { drop(futures::future::select(deposed, moved).await) };
        let driver = Driver::new(controllers(&leading.settings), world_of(&view));
        let driver = surroundings.prepare(driver, pipeline.now());
        Ok(Self {
            surroundings,
            pipeline,
            driver,
            watch,
            told: surroundings.told(),
            under_way: FuturesUnordered::new(),
            over: over.boxed().fuse(),
        })
    }

    /// Leads until that is over, or until it has to begin anew.
    pub(crate) async fn run(&mut self) {
        self.step(Input::Woken);
        loop {
            match self.next().await {
                Happening::Over | Happening::Told(None) => return,
                Happening::Told(Some(input)) => self.step(input),
                Happening::Answered(None) => {}
                Happening::Answered(Some(input)) => self.step(input),
                Happening::Woken => self.step(Input::Woken),
                Happening::Watched(Ok(event)) => {
                    let input = self.observed(event);
                    self.step(input);
                }
                Happening::Watched(Err(error)) => {
                    tracing::info!(%error, "the controllers start over");
                    return;
                }
            }
        }
    }

    async fn next(&mut self) -> Happening {
        let now = self.pipeline.now().monotonic;
        let mut woken = match self.driver.next_wake() {
            Some(at) => self.surroundings.sleep(at.saturating_sub(now)),
            None => pending().boxed(),
        }
        .fuse();
        let under_way = &mut self.under_way;
        let answered = async move {
            match under_way.next().await {
                Some(answer) => answer,
                None => pending().await,
            }
        };
        let mut answered = std::pin::pin!(answered.fuse());
        let mut watched = std::pin::pin!(self.watch.next().fuse());
        let mut told = self.told.next().fuse();
        select_biased! {
            () = &mut self.over => Happening::Over,
            answer = answered => Happening::Answered(answer),
            event = watched => Happening::Watched(event),
            input = told => Happening::Told(input),
            () = woken => Happening::Woken,
        }
    }

    /// An event, and those that are there behind it.
    fn observed(&mut self, first: Arc<WatchEvent>) -> Input {
        let mut events: Vec<ObjectEvent> = event_of(&first).into_iter().collect();
        while events.len() < MOST_EVENTS {
            match self.watch.next().now_or_never() {
                Some(Ok(event)) => events.extend(event_of(&event)),
                // An error comes again at the next call.
                Some(Err(_)) | None => break,
            }
        }
        Input::Observed { events, through: self.watch.progress().0 }
    }

    fn step(&mut self, input: Input) {
        for action in self.driver.step(self.pipeline.now(), input) {
            self.act(action);
        }
        self.surroundings.at_rest(self.driver.idle());
    }

    fn act(&self, action: Action) {
        let pipeline = self.pipeline.clone();
        let future = match action {
            Action::Run { run, controller, calls, .. } => async move {
                let user = User::system(&format!("controller:{controller}"));
                let results = make(&pipeline, &user, calls).await;
                Some(Input::Finished { run, results })
            }
            .boxed(),
            Action::Report(step) => async move {
                calls::make(&pipeline, &User::system("controller:events"), step).await;
                None
            }
            .boxed(),
            Action::Fence { run } => {
                fence(pipeline, Arc::clone(self.surroundings), run).map(Some).boxed()
            }
            Action::Unreadable { key, reason } => {
                return self.surroundings.unreadable(&key, &reason);
            }
        };
        self.under_way.push(future);
    }
}

/// Makes the calls of one run in order.
async fn make(pipeline: &Pipeline, user: &User, calls: Vec<Call>) -> Vec<CallResult> {
    let mut results: Vec<CallResult> = Vec::with_capacity(calls.len());
    for call in calls {
        let before = call.after.and_then(|index| results.get(index));
        let result = match before {
            Some(CallResult::Done { .. }) | None => calls::make(pipeline, user, call.step).await,
            Some(_) => CallResult::Skipped,
        };
        results.push(result);
    }
    results
}

/// A write of the same term comes after everything that was proposed before it. It is tried until the term is over.
async fn fence(pipeline: Pipeline, surroundings: Arc<dyn Surroundings>, run: RunId) -> Input {
    loop {
        match pipeline.barrier().await {
            Ok(revision) => return Input::Fenced { run, revision },
            Err(status) => tracing::debug!(message = status.message, "cannot fence yet"),
        }
        surroundings.sleep(AGAIN).await;
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
