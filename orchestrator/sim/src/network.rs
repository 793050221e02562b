//! A network that delays, reorders, duplicates and loses what nodes send each other.
//!
//! Job: carry an exchange (a request and its reply) between two nodes. The work that a request causes runs in the life of
//! the node that receives it; what is on the wire belongs to nobody's life, so it arrives although its sender crashed.
//! A sender learns of a loss only by time, except that a dead node refuses at once, as a kernel without the process does.
//!
//! The store's `Transport` trait is implemented in `seam`.

pub mod seam;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::BoxFuture;

use crate::executor::{self, Life};
use crate::fault::{Coverage, Fault};
use crate::runtime::{Sleep, spawn_in};

/// One way through a rack, with its spread.
const USUAL_DELAY: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(2));

/// What counts as a delay: longer than the shipped heartbeat interval would forgive on its own.
const NOTABLE_DELAY: Duration = Duration::from_millis(300);

/// How long a connection on which nothing comes back stays open.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// Why an exchange has no reply. The work may or may not have been done, except for `Refused`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Nobody listens there: the work was not done.
    #[error("the connection was refused")]
    Refused,
    /// The connection broke after the request was sent.
    #[error("the connection broke")]
    Broken,
}

/// The network between all nodes. Clones are the same network.
#[derive(Clone)]
pub struct Network {
    state: Arc<Mutex<State>>,
    coverage: Coverage,
}

/// What is wrong with the network now. A rate of 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// One message in this many is lost.
    pub lose_one_in: u64,
    /// One request in this many arrives twice.
    pub duplicate_one_in: u64,
    /// One message in this many takes up to `late_by`.
    pub delay_one_in: u64,
    /// How late a delayed message may be.
    pub late_by: Duration,
}

#[derive(Default)]
struct State {
    lives: BTreeMap<u16, Life>,
    cuts: BTreeSet<(u16, u16)>,
    weather: Weather,
    sent: BTreeMap<(u16, u16), u64>,
    arrived: BTreeMap<(u16, u16), u64>,
}

/// One direction of an exchange.
#[derive(Clone, Copy)]
struct Leg {
    from: u16,
    to: u16,
    lost: Fault,
}

/// What an exchange does where it arrives; called once for each arrival.
pub type Work<T> = Arc<dyn Fn() -> BoxFuture<'static, T> + Send + Sync>;

impl Network {
    /// A network without nodes.
    #[must_use]
    pub fn new(coverage: Coverage) -> Self {
        Self { state: Arc::default(), coverage }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on `life` is what answers at its node's address.
    pub fn plug(&self, life: Life) {
        self.state().lives.insert(life.node, life);
    }

    /// Sets what is wrong with the network.
    pub fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// Cuts the direction `from` → `to`.
    pub fn cut(&self, from: u16, to: u16) {
        self.state().cuts.insert((from, to));
    }

    /// Repairs every cut and calms the weather.
    pub fn heal(&self) {
        let mut state = self.state();
        state.cuts.clear();
        state.weather = Weather::default();
    }

    /// Repairs every cut.
    pub fn mend(&self) {
        self.state().cuts.clear();
    }

    /// Sends a request that makes `to` do `work`, and waits for what comes of it.
    ///
    /// # Errors
    /// [`Lost`]: the sender cannot know whether the work was done unless it was refused.
    pub async fn exchange<T: Send + 'static>(
        &self,
        from: u16,
        to: u16,
        work: Work<T>,
    ) -> Result<T, Lost> {
        let rate = self.state().weather.duplicate_one_in;
        let copies = if executor::with(|core| core.one_in(rate)) { 2 } else { 1 };
        self.send(from, to, work, copies).await
    }

    /// As [`Network::exchange`], for protocols that do not repeat a request by themselves.
    ///
    /// # Errors
    /// As there.
    pub async fn exchange_once<T: Send + 'static>(
        &self,
        from: u16,
        to: u16,
        work: Work<T>,
    ) -> Result<T, Lost> {
        self.send(from, to, work, 1).await
    }

    async fn send<T: Send + 'static>(
        &self,
        from: u16,
        to: u16,
        work: Work<T>,
        copies: u64,
    ) -> Result<T, Lost> {
        let (reply, answer) = oneshot::channel();
        let reply = Arc::new(Mutex::new(Some(reply)));
        for copy in 0..copies {
            if copy > 0 {
                self.coverage.count(Fault::Duplication);
            }
            let (network, work, reply) = (self.clone(), work.clone(), reply.clone());
            drop(spawn_in(
                Life::HARNESS,
                async move { network.carry(from, to, work, reply).await },
            ));
        }
        drop(reply);
        answer.await.unwrap_or(Err(Lost::Broken))
    }

    async fn carry<T: Send + 'static>(&self, from: u16, to: u16, work: Work<T>, reply: Reply<T>) {
        if !self.travel(Leg { from, to, lost: Fault::LostRequest }).await {
            Sleep::after(LOST_AFTER).await;
            return;
        }
        let life = self.state().lives.get(&to).copied();
        let life = life.filter(|life| executor::with(|core| !core.is_dead(*life)));
        let outcome = match life {
            None => Err(Lost::Refused),
            Some(life) => {
                spawn_in(life, async move { work().await }).await.map_err(|_| Lost::Broken)
            }
        };
        if !self.travel(Leg { from: to, to: from, lost: Fault::LostReply }).await {
            Sleep::after(LOST_AFTER).await;
            return;
        }
        let sender = reply.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            drop(sender.send(outcome));
        }
    }

    /// Carries a message that nobody answers; false when it did not arrive.
    pub(crate) async fn carries(&self, from: u16, to: u16) -> bool {
        self.travel(Leg { from, to, lost: Fault::LostRequest }).await
    }

    /// Takes the time of one leg; false when the message did not arrive.
    async fn travel(&self, leg: Leg) -> bool {
        let link = (leg.from, leg.to);
        let (weather, sequence) = {
            let mut state = self.state();
            let sequence = state.sent.entry(link).or_default();
            *sequence += 1;
            (state.weather, *state.sent.get(&link).unwrap_or(&0))
        };
        let (delay, lost) = executor::with(|core| {
            let mut delay = core.between(USUAL_DELAY.0, USUAL_DELAY.1);
            if core.one_in(weather.delay_one_in) {
                delay += core.between(Duration::ZERO, weather.late_by);
            }
            (delay, core.one_in(weather.lose_one_in))
        });
        if delay > NOTABLE_DELAY {
            self.coverage.count(Fault::Delay);
        }
        if lost {
            self.coverage.count(leg.lost);
            return false;
        }
        if self.is_cut(link) {
            return false;
        }
        Sleep::after(delay).await;
        if self.is_cut(link) {
            return false;
        }
        let mut state = self.state();
        let newest = state.arrived.entry(link).or_default();
        if *newest > sequence {
            self.coverage.count(Fault::Reordering);
        } else {
            *newest = sequence;
        }
        true
    }

    fn is_cut(&self, (from, to): (u16, u16)) -> bool {
        let state = self.state();
        if !state.cuts.contains(&(from, to)) {
            return false;
        }
        let both_ways = state.cuts.contains(&(to, from));
        self.coverage.count(if both_ways { Fault::Partition } else { Fault::OneWayCut });
        true
    }
}

type Reply<T> = Arc<Mutex<Option<oneshot::Sender<Result<T, Lost>>>>>;
