//! One life's sessions with the other machines: what it says, and what it hears.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, select};
use openraft::rt::{AsyncRuntime, Watch, WatchReceiver, WatchSender};
use podium_control::forming::{Fingerprint, Hearing, Hello, Joined, Machine, MemberSet, Order};
use podium_form::{Company, Ears, Former, Hellos};

use super::life::give_place;
use super::{HELLO, PATIENCE};
use crate::access::now_of;
use crate::cluster::Cluster;
use crate::executor;
use crate::fault::Fault;
use crate::ledger::Violation;
use crate::network::Work;
use crate::runtime::{SimRuntime, SimWatch, Sleep, spawn};

/// Before an address that did not answer is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A place takes some writes of the cluster.
const PLACE: Duration = Duration::from_secs(16);

type Sender<T> = <SimWatch as Watch>::Sender<T>;

/// See the module. Clones are the same.
#[derive(Clone)]
pub(crate) struct Meeting(Arc<Shared>);

struct Shared {
    cluster: Cluster,
    node: u16,
    key: Fingerprint,
    former: Former,
    epoch: u64,
    said: Sender<(Hello, u64)>,
    heard: Heard,
    hearing: Mutex<Hearing>,
}

/// What was heard; apart, because the former has it.
#[derive(Clone)]
struct Heard(Arc<Sender<Hellos>>);

/// A hello on its way.
type Frame = (Fingerprint, Hello, Order);

impl Meeting {
    pub(super) fn new(cluster: Cluster, node: u16, former: Former) -> Self {
        let key = former.founding().me.fingerprint();
        let said = SimWatch::channel((former.first_hello(), 0)).0;
        let heard = Heard(Arc::new(SimWatch::channel(Hellos::new()).0));
        let epoch = executor::with(|core| core.random());
        let hearing = Mutex::default();
        Self(Arc::new(Shared { cluster, node, key, former, epoch, said, heard, hearing }))
    }

    pub(super) fn former(&self) -> &Former {
        &self.0.former
    }

    /// Keeps a session to each other node, for as long as the life lasts.
    pub(super) fn begin(&self) {
        self.0.former.listen(Arc::new(self.0.heard.clone()));
        for other in self.0.cluster.numbers().into_iter().filter(|other| *other != self.0.node) {
            drop(spawn(self.clone().ask(other)));
        }
    }

    /// Says hello to a node, and hears its answer, again and again.
    async fn ask(self, other: u16) {
        let mut said = self.0.said.subscribe();
        loop {
            drop(said.borrow_and_update());
            let (cluster, frame) = (self.0.cluster.clone(), self.frame());
            let work: Work<Option<Frame>> = Arc::new(move || {
                let answer = cluster.meeting(other).map(|it| it.answer(frame.clone()));
                Box::pin(async move { answer })
            });
            let exchange = self.0.cluster.network().exchange(self.0.node, other, work);
            if let Ok(Ok(Some(frame))) = SimRuntime::timeout(PATIENCE, exchange).await {
                self.hear(frame, true);
                let changed = std::pin::pin!(said.changed());
                drop(select(changed, Sleep::after(HELLO)).await);
            } else {
                Sleep::after(executor::with(|core| core.between(RETRY.0, RETRY.1))).await;
            }
        }
    }

    fn answer(&self, frame: Frame) -> Frame {
        self.hear(frame, false);
        self.frame()
    }

    fn frame(&self) -> Frame {
        let (hello, count) = self.0.said.borrow_watched().clone();
        (self.0.key, hello, Order { epoch: self.0.epoch, count })
    }

    fn hear(&self, frame: Frame, asked: bool) {
        let now = now_of(self.0.node).monotonic;
        let mut hearing = self.0.hearing.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.heard.0.send_if_modified(|heard| hearing.hear(heard, frame, asked, now));
    }

    /// Asks the machine with this key something; the answer is lost if it is not there any more.
    async fn call<T: Send + 'static>(
        &self,
        to: Fingerprint,
        patience: Duration,
        ask: impl Fn(Self) -> BoxFuture<'static, Result<T, String>> + Send + Sync + 'static,
    ) -> Result<T, String> {
        let unreachable = || "there is no session to it".to_owned();
        let cluster = self.0.cluster.clone();
        let node = cluster.census().node_of(&to).ok_or_else(unreachable)?;
        let work: Work<Result<T, String>> = Arc::new(move || {
            let there = cluster.meeting(node).filter(|there| there.0.key == to);
            match there.map(&ask) {
                Some(answer) => answer,
                None => Box::pin(async { Err("another machine is there".to_owned()) }),
            }
        });
        let exchange = self.0.cluster.network().exchange(self.0.node, node, work);
        match SimRuntime::timeout(patience, exchange).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(unreachable()),
        }
    }
}

impl Ears for Heard {
    fn heard(&self) -> Hellos {
        self.0.borrow_watched().clone()
    }

    fn news(&self) -> BoxFuture<'static, ()> {
        let mut heard = self.0.subscribe();
        Box::pin(async move {
            if heard.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

impl Company for Meeting {
    fn say(&self, hello: Hello) {
        if let Err(what) = self.0.cluster.census().said(&hello) {
            self.0.cluster.ledger().accuse(Violation::Rule(what));
        }
        self.0.said.send_if_modified(|(said, count)| {
            let news = *said != hello;
            if news {
                (*said, *count) = (hello, *count + 1);
            }
            news
        });
    }

    fn propose(&self, to: Fingerprint, set: MemberSet) -> BoxFuture<'_, Result<(), String>> {
        let from = self.0.key;
        Box::pin(self.call(to, PATIENCE, move |there| {
            let set = set.clone();
            Box::pin(async move { there.0.former.consider(from, set).await })
        }))
    }

    fn join(&self, to: Fingerprint, me: Machine) -> BoxFuture<'_, Result<Joined, String>> {
        Box::pin(self.call(to, PLACE, move |there| {
            Box::pin(give_place(there.0.cluster.clone(), there.0.node, me.clone()))
        }))
    }

    fn complaint(&self) -> Option<String> {
        None
    }

    fn tell(&self, line: Option<String>) {
        let by_some = line.as_ref().is_some_and(|line| line.contains(" does not"));
        if self.0.cluster.census().tell(self.0.node, line) && by_some {
            self.0.cluster.coverage().count(Fault::SeenBySome);
        }
    }
}
