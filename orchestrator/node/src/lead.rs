//! What a member does while it leads: it makes the objects that every cluster has, and runs the controllers.
//!
//! The decisions are `podium_control`'s driver; this keeps the promises that the driver asks of its surroundings. A driver is
//! made from a read after the term began and dropped with the term; each of its calls is a task, dropped with it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt as _;
use podium_api::seams::Clock;
use podium_api::{Pipeline, User, bootstrap};
use podium_control::driver::{Action, Call, CallResult, Driver, Input};
use podium_control::health::{Beat, Health};
use podium_control::{ObjectEvent, Settings, World, controllers};
use podium_store::{Role, StoreHandle, View, Watch, WatchEvent};
use podium_types::ObjectKey;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;

use crate::calls;
use crate::heartbeat::Board;

/// Where objects of the API are in the store.
const ROOT: &str = "/registry/";
/// How often a member looks whether it leads: a fraction of any election.
const LOOK: Duration = Duration::from_millis(100);
const BATCH_MAX: usize = 512;

/// What leading needs.
#[derive(Clone)]
pub(crate) struct Leading {
    /// This member's store.
    pub(crate) store: Arc<dyn StoreHandle>,
    /// The verbs.
    pub(crate) pipeline: Pipeline,
    /// Both clocks.
    pub(crate) clock: Arc<dyn Clock>,
    /// For the controllers.
    pub(crate) settings: Settings,
    /// The machine's addresses: where the API is.
    pub(crate) addresses: watch::Receiver<Vec<IpAddr>>,
    /// The API's port.
    pub(crate) port: u16,
    /// The beats of the nodes.
    pub(crate) board: Arc<Board>,
}

/// Leads whenever the store does; never returns.
pub(crate) async fn run(leading: Leading) -> ! {
    loop {
        let status = leading.store.status();
        if status.role == Role::Leader {
            tracing::info!(term = status.term, "leading");
            match Term::begin(&leading, status.term).await {
                Ok(mut term) => term.run().await,
                Err(error) => tracing::warn!("cannot lead yet: {error:#}"),
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

struct Term<'a> {
    leading: &'a Leading,
    term: u64,
    /// What the cluster's own objects were made with is seen; a change ends the loop.
    addresses: watch::Receiver<Vec<IpAddr>>,
    driver: Driver,
    beats: broadcast::Receiver<Beat>,
    watch: Watch,
    answers: mpsc::UnboundedReceiver<Input>,
    answer: mpsc::UnboundedSender<Input>,
    tasks: JoinSet<()>,
}

impl<'a> Term<'a> {
    async fn begin(leading: &'a Leading, term: u64) -> anyhow::Result<Self> {
        let mut addresses = leading.addresses.clone();
        let servers = addresses.borrow_and_update().clone();
        bootstrap::ensure(&leading.pipeline, &servers, leading.port)
            .await
            .map_err(|status| anyhow::anyhow!(status.message))
            .context("make the cluster's own objects")?;
        let view = leading.store.read().await?;
        let watch = leading.store.watch(ROOT, view.revision())?;
        let (board, now) = (&leading.board, leading.clock.now());
        let health = Health::new(board.timings(), board.name(), now.monotonic);
        let driver = Driver::new(controllers(&leading.settings), world_of(&view));
        let (answer, answers) = mpsc::unbounded_channel();
        Ok(Self {
            leading,
            term,
            addresses,
            driver: driver.judging(health, now),
            beats: board.subscribe(),
            watch,
            answers,
            answer,
            tasks: JoinSet::new(),
        })
    }

    async fn run(&mut self) {
        self.step(Input::Woken);
        while self.lasts() {
            let wait = self.wait();
            let input = tokio::select! {
                event = self.watch.next() => match event {
                    Ok(event) => self.observed(event),
                    Err(error) => {
                        tracing::info!(%error, "the controllers start over");
                        return;
                    }
                },
                Some(input) = self.answers.recv() => input,
                beat = self.beats.recv() => match beat {
                    Ok(beat) => Input::Heard(beat),
                    // Those that come next say the same.
                    Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return,
                },
                Some(_) = self.tasks.join_next() => continue,
                // The objects that name the API's addresses are made anew.
                Ok(()) = self.addresses.changed() => return,
                () = tokio::time::sleep(wait) => Input::Woken,
            };
            self.step(input);
        }
    }

    fn lasts(&self) -> bool {
        let status = self.leading.store.status();
        status.role == Role::Leader && status.term == self.term
    }

    fn wait(&self) -> Duration {
        let now = self.leading.clock.now().monotonic;
        self.driver.next_wake().map_or(LOOK, |at| at.saturating_sub(now).min(LOOK))
    }

    fn observed(&mut self, first: Arc<WatchEvent>) -> Input {
        let mut events = vec![first];
        while events.len() < BATCH_MAX {
            match self.watch.next().now_or_never() {
                Some(Ok(event)) => events.push(event),
                Some(Err(_)) | None => break,
            }
        }
        let through = self.watch.progress().0;
        Input::Observed {
            events: events.iter().filter_map(|event| event_of(event)).collect(),
            through,
        }
    }

    fn step(&mut self, input: Input) {
        for action in self.driver.step(self.leading.clock.now(), input) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        let (pipeline, answer) = (self.leading.pipeline.clone(), self.answer.clone());
        match action {
            Action::Run { run, controller, calls, .. } => {
                self.tasks.spawn(async move {
                    let user = User::system(&format!("controller:{controller}"));
                    let results = make_all(&pipeline, &user, calls).await;
                    // Without a receiver the term is over.
                    let _ = answer.send(Input::Finished { run, results });
                });
            }
            Action::Report(step) => {
                self.tasks.spawn(async move {
                    calls::make(&pipeline, &User::system("controller:events"), step).await;
                });
            }
            Action::Fence { run } => {
                let store = Arc::clone(&self.leading.store);
                self.tasks.spawn(async move {
                    loop {
                        // A read of this term comes after everything that was proposed before it.
                        if let Ok(view) = store.read().await {
                            let _ = answer.send(Input::Fenced { run, revision: view.revision().0 });
                            return;
                        }
                        tokio::time::sleep(LOOK).await;
                    }
                });
            }
            Action::Unreadable { key, reason } => {
                tracing::error!(resource = %key.resource, name = %key.name, %reason, "an object does not fit its kind");
            }
        }
    }
}

async fn make_all(pipeline: &Pipeline, user: &User, all: Vec<Call>) -> Vec<CallResult> {
    let mut results: Vec<CallResult> = Vec::with_capacity(all.len());
    for call in all {
        let before = call.after.and_then(|index| results.get(index));
        let result = match before {
            Some(CallResult::Done { .. }) | None => calls::make(pipeline, user, call.step).await,
            Some(_) => CallResult::Skipped,
        };
        results.push(result);
    }
    results
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
