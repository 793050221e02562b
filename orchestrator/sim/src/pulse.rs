//! Heartbeats over the simulated network: the shipped `podium_control::health` says what is told and what it means.
//!
//! Every node beats to every other, because all of them vote here. A beat that arrives waits in the node's inbox until the
//! node gets on with it, so that one which is frozen hears everything at once when it goes on, as it would from a socket.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::future::{Either, select};
use podium_control::health::{Beat, Hearing, Timings};

use crate::access::now_of;
use crate::cluster::Cluster;
use crate::executor::Life;
use crate::runtime::{Sleep, spawn_in};

/// The name of a node's Node.
pub(crate) fn name_of(node: u16) -> String {
    format!("node-{node}")
}

/// What one life of a node hears. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Pulse(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    inbox: VecDeque<Arrival>,
    inbox_waker: Option<Waker>,
    /// Beats for the leader's driver, while there is one.
    beats: VecDeque<Beat>,
    beats_waker: Option<Waker>,
    listens: bool,
}

enum Arrival {
    Beat(Beat),
    /// The answer of this node.
    Answer(u16),
}

impl Pulse {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps beats from now on for [`Pulse::next`].
    pub(crate) fn begin_to_listen(&self) {
        let mut state = self.state();
        state.listens = true;
        state.beats.clear();
    }

    /// The next beat.
    pub(crate) async fn next(self) -> Beat {
        poll_fn(|context| self.poll_beat(context)).await
    }

    fn poll_beat(&self, context: &mut Context<'_>) -> Poll<Beat> {
        let mut state = self.state();
        match state.beats.pop_front() {
            Some(beat) => Poll::Ready(beat),
            None => {
                state.beats_waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn poll_arrival(&self, context: &mut Context<'_>) -> Poll<Arrival> {
        let mut state = self.state();
        match state.inbox.pop_front() {
            Some(arrival) => Poll::Ready(arrival),
            None => {
                state.inbox_waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn arrived(&self, arrival: Arrival) {
        let mut state = self.state();
        state.inbox.push_back(arrival);
        if let Some(waker) = state.inbox_waker.take() {
            drop(state);
            waker.wake();
        }
    }

    fn pass_on(&self, beat: Beat) {
        let mut state = self.state();
        if !state.listens {
            return;
        }
        state.beats.push_back(beat);
        if let Some(waker) = state.beats_waker.take() {
            drop(state);
            waker.wake();
        }
    }

    /// Beats and hears, for as long as the life lasts.
    pub(crate) async fn beat(self, cluster: Cluster, node: u16) {
        let timings = Timings::default();
        let mut hearing = Hearing::new(timings);
        let me = name_of(node);
        loop {
            let beat = hearing.beat(&me, true, now_of(node).monotonic);
            for to in cluster.numbers().into_iter().filter(|to| *to != node) {
                send(&cluster, node, to, beat.clone());
            }
            let mut pause = std::pin::pin!(Sleep::after(timings.beat));
            while let Either::Left((arrival, _)) =
                select(poll_fn(|context| self.poll_arrival(context)), &mut pause).await
            {
                let now = now_of(node).monotonic;
                match arrival {
                    Arrival::Answer(from) => hearing.hear(&name_of(from), now),
                    Arrival::Beat(beat) => {
                        hearing.hear(&beat.from, now);
                        self.pass_on(beat);
                    }
                }
            }
        }
    }
}

/// One beat on its way, and the answer. What is on the wire belongs to nobody's life.
fn send(cluster: &Cluster, from: u16, to: u16, beat: Beat) {
    let cluster = cluster.clone();
    drop(spawn_in(Life::HARNESS, async move {
        if !cluster.network().carries(from, to).await {
            return;
        }
        let Some(there) = cluster.pulse(to) else { return };
        there.arrived(Arrival::Beat(beat));
        if cluster.network().carries(to, from).await
            && let Some(here) = cluster.pulse(from)
        {
            here.arrived(Arrival::Answer(to));
        }
    }));
}
