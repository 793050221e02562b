//! Heartbeats: this node tells every voter that it lives and whom it hears, and hears the others.
//!
//! ```text
//!  Board.beat every Timings::beat ──► one session to each voter (podium-beat/1) ──► Board.heard ──► answer
//!    ▲                                                                                  │
//!    └────────────── whom the beat says we hear ◄── beats that came, answers to ours ───┤
//!                                                                 while it leads: lead ◄┘
//! ```
//!
//! Beats enter no log and no disk. What they mean is decided in [`podium_control::health`], by the leader only. A session on
//! which nothing came back for a whole silence is given up: behind a partition TCP would wait ever longer before it tried
//! again, and the node would be missed long after the partition is over.
//!
//! A node that no voter answers is cut off. It keeps its pods running, because they may still serve those who reach them, and
//! says so on its console; the others take them out of their Services and start replacements.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use podium_api::seams::{Beats, Clock};
use podium_control::health::{Beat, Hearing, Timings};
use podium_peer::frame::{self, FrameError};
use podium_peer::{Peers, Protocol};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, split};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::directory::Directory;

/// A beat names every node that is heard: some thousand of them.
const FRAME_BYTES: usize = 256 * 1024;
/// Beats that the leader's loop has not taken yet. Those that it is too slow for are lost, and the next ones say the same.
const WAITING_MAX: usize = 1024;

/// A beat on its way; who it is from, the session says. The order of variants and fields is the format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Said {
    /// Whether the node can run pods, and the age in milliseconds of what it heard last of each node.
    V1 { ready: bool, hears: Vec<(String, u64)> },
}

/// The answer to a beat: it was heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Noted {
    V1,
}

/// A session with a voter whose key was checked.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// Opens a session for beats with the voter of this name; the error says why there is none.
pub(crate) trait Reach: Send + Sync + 'static {
    /// See the trait.
    fn reach(&self, voter: String) -> BoxFuture<'_, Result<Box<dyn Stream>, String>>;
}

/// Voters, by the keys of their Machine objects.
pub(crate) struct KnownVoters {
    /// The other machines.
    pub(crate) peers: Arc<Peers>,
    /// Their keys.
    pub(crate) directory: watch::Receiver<Directory>,
}

impl Reach for KnownVoters {
    fn reach(&self, voter: String) -> BoxFuture<'_, Result<Box<dyn Stream>, String>> {
        Box::pin(async move {
            let key = self.directory.borrow().get(&voter).map(|entry| entry.key.clone());
            let key = key.ok_or("it is no machine of this cluster")?;
            let session = self.peers.open(&key, Protocol::Beat).await?;
            Ok(Box::new(session.stream) as Box<dyn Stream>)
        })
    }
}

/// What this node has heard of others.
pub(crate) struct Board {
    name: String,
    timings: Timings,
    clock: Arc<dyn Clock>,
    hearing: Mutex<Hearing>,
    beats: broadcast::Sender<Beat>,
}

impl Board {
    /// Of the node of this name.
    pub(crate) fn new(name: &str, timings: Timings, clock: Arc<dyn Clock>) -> Arc<Self> {
        let hearing = Mutex::new(Hearing::new(timings));
        let beats = broadcast::Sender::new(WAITING_MAX);
        Arc::new(Self { name: name.to_owned(), timings, clock, hearing, beats })
    }

    /// The node's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How beats are timed.
    pub(crate) fn timings(&self) -> Timings {
        self.timings
    }

    /// The beats that come from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Beat> {
        self.beats.subscribe()
    }

    fn hearing(&self) -> MutexGuard<'_, Hearing> {
        self.hearing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.clock.now().monotonic
    }

    fn hear(&self, from: &str) {
        let now = self.now();
        self.hearing().hear(from, now);
    }

    fn heard(&self, beat: Beat) {
        self.hear(&beat.from);
        // Nobody listens while this member does not lead.
        let _ = self.beats.send(beat);
    }

    fn beat(&self, ready: bool) -> Beat {
        let now = self.now();
        self.hearing().beat(&self.name, ready, now)
    }

    fn hears_any(&self, voters: &BTreeSet<String>) -> bool {
        let now = self.now();
        self.hearing().count(voters.iter().map(String::as_str), now) > 0
    }
}

impl Beats for Board {
    fn last(&self, node: &str) -> Option<Timestamp> {
        let now = self.clock.now();
        let age = if node == self.name {
            Duration::ZERO
        } else {
            now.monotonic.saturating_sub(self.hearing().last(node)?)
        };
        now.wall.checked_sub(SignedDuration::try_from(age).ok()?).ok()
    }
}

/// Hears the node of this name, whose key has been checked, until its session ends. All nodes beat to voters, so only a
/// voter hears others than voters; what another says of them is passed over, so that it can keep nobody alive.
pub(crate) async fn serve<S: Stream>(
    mut session: S,
    node: &str,
    votes: bool,
    board: &Board,
) -> Result<(), FrameError> {
    let patience = board.timings.alone;
    loop {
        let said: Said = match frame::hear(&mut session, FRAME_BYTES, patience).await {
            Err(FrameError::Closed) => return Ok(()),
            heard => heard?,
        };
        let Said::V1 { ready, hears } = said;
        let hears = hears.into_iter().filter(|_| votes);
        let hears = hears.map(|(name, age)| (name, Duration::from_millis(age)));
        board.heard(Beat { from: node.to_owned(), ready, hears: hears.collect() });
        frame::say(&mut session, &Noted::V1, patience).await?;
    }
}

/// What beating needs.
pub(crate) struct Heart {
    /// What is heard.
    pub(crate) board: Arc<Board>,
    /// The names of the voters, this node's too if it is one.
    pub(crate) voters: watch::Receiver<BTreeSet<String>>,
    /// The way to them.
    pub(crate) reach: Arc<dyn Reach>,
    /// Whether the node can run pods.
    pub(crate) ready: watch::Receiver<bool>,
    /// Told a line when no voter hears this node, and nothing when one does.
    pub(crate) cut_off: watch::Sender<Option<String>>,
}

impl Heart {
    /// Beats; never returns.
    pub(crate) async fn run(mut self) -> ! {
        let timings = self.board.timings();
        let (say, _) = watch::channel(None::<Beat>);
        let mut sessions: BTreeMap<String, tokio::task::AbortHandle> = BTreeMap::new();
        let mut tasks = JoinSet::new();
        let mut ticks = interval(timings.beat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let started = self.board.now();
        loop {
            ticks.tick().await;
            let voters = self.voters.borrow_and_update().clone();
            let others = voters.iter().filter(|name| *name != self.board.name());
            let others: BTreeSet<String> = others.cloned().collect();
            sessions.retain(|name, session| {
                let stays = others.contains(name);
                if !stays {
                    session.abort();
                }
                stays
            });
            for name in &others {
                sessions.entry(name.clone()).or_insert_with(|| {
                    let (board, reach) = (Arc::clone(&self.board), Arc::clone(&self.reach));
                    tasks.spawn(tell(board, reach, name.clone(), say.subscribe()))
                });
            }
            while tasks.try_join_next().is_some() {}
            say.send_replace(Some(self.board.beat(*self.ready.borrow())));
            let early = self.board.now().saturating_sub(started) < timings.silence;
            if !early && !voters.contains(self.board.name()) {
                self.judge_myself(&voters);
            }
        }
    }

    /// A voter that hears no other is without quorum, and says that; this is about the others.
    fn judge_myself(&self, voters: &BTreeSet<String>) {
        let cut_off = (!self.board.hears_any(voters)).then(|| {
            let names: Vec<&str> = voters.iter().map(String::as_str).collect();
            format!("cut off: none of the voters answers ({}); the pods go on", names.join(", "))
        });
        self.cut_off.send_if_modified(|known| {
            let news = *known != cut_off;
            *known = cut_off;
            news
        });
    }
}

/// Tells one voter, over one session after the other.
async fn tell(
    board: Arc<Board>,
    reach: Arc<dyn Reach>,
    voter: String,
    mut says: watch::Receiver<Option<Beat>>,
) {
    loop {
        let ended = match reach.reach(voter.clone()).await {
            Ok(session) => beat_on(session, &board, &voter, &mut says).await.to_string(),
            Err(reason) => reason,
        };
        tracing::debug!(voter, reason = ended, "a voter does not hear this node");
        sleep(board.timings.beat).await;
    }
}

/// Sends every beat, whether the last one was answered or not; returns when nothing comes back any more.
async fn beat_on(
    session: Box<dyn Stream>,
    board: &Board,
    voter: &str,
    says: &mut watch::Receiver<Option<Beat>>,
) -> FrameError {
    let patience = board.timings.silence;
    let (mut incoming, mut outgoing) = split(session);
    let send = async {
        loop {
            let beat = says.borrow_and_update().clone();
            if let Some(beat) = beat
                && let Err(error) = frame::say(&mut outgoing, &said(beat), patience).await
            {
                return error;
            }
            if says.changed().await.is_err() {
                return FrameError::Closed;
            }
        }
    };
    let hear = async {
        loop {
            match frame::hear::<Noted>(&mut incoming, FRAME_BYTES, patience).await {
                Ok(Noted::V1) => board.hear(voter),
                Err(error) => return error,
            }
        }
    };
    tokio::select! {
        error = send => error,
        error = hear => error,
    }
}

fn said(beat: Beat) -> Said {
    let millis = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let hears = beat.hears.into_iter().map(|(name, age)| (name, millis(age))).collect();
    Said::V1 { ready: beat.ready, hears }
}

#[cfg(test)]
mod tests;
