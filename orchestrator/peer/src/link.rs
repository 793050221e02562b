//! `podium-store/1`: messages of the store between its members, many in flight on one connection.
//!
//! The client's first frame names the cluster; each further one is a number and a message, and the server answers with the
//! same number when it has the answer. Two connections lead to each member, so that a snapshot delays no heartbeat.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use podium_control::forming::{ClusterId, Fingerprint};
use podium_store::{MemberId, Message, MessageKind, Transport, TransportError};
use tokio::io::{AsyncRead, AsyncWrite, split};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::frame::{self, FrameError};
use crate::peers::Shared;
use crate::tls::{Protocol, Secured};

/// A transaction of the largest size (8 MiB) in an append, with room.
const FRAME_BYTES: usize = 12 * 1024 * 1024;
/// All frames on their way in together; in units of [`BUDGET_UNIT_BYTES`]. Members are trusted with no more.
pub(crate) const BUDGET_UNITS: usize = 4 * FRAME_BYTES / BUDGET_UNIT_BYTES;
const BUDGET_UNIT_BYTES: usize = 1024;
/// Requests that wait for a connection, or for their turn to be written.
const QUEUE: usize = 256;
/// Requests of one connection that are answered at a time.
const SERVED_MAX: usize = 64;
/// What is written at once: as much as is waiting, but a heartbeat should not wait for more than this.
const BATCH_BYTES: usize = 64 * 1024;

/// Which of the connections to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    Usual,
    Bulk,
}

impl Lane {
    fn of(kind: MessageKind) -> Self {
        match kind {
            MessageKind::Snapshot => Self::Bulk,
            MessageKind::Append
            | MessageKind::Vote
            | MessageKind::ReadIndex
            | MessageKind::Forward
            | MessageKind::Transfer
            | MessageKind::Reply => Self::Usual,
        }
    }
}

type Answer = oneshot::Sender<Result<Message, TransportError>>;

pub(crate) struct Call {
    message: Message,
    answer: Answer,
}

/// The store's way to its other members.
#[derive(Debug)]
pub(crate) struct PeerTransport(pub(crate) Arc<Shared>);

impl Transport for PeerTransport {
    fn call(
        &self,
        to: MemberId,
        message: Message,
    ) -> BoxFuture<'static, Result<Message, TransportError>> {
        let queue = self.0.link(to, Lane::of(message.kind));
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            if queue.try_send(Call { message, answer }).is_err() {
                let reason = "too much waits for it already".to_owned();
                return Err(TransportError::Unreachable { to, reason });
            }
            let reason = "the connection was given up".to_owned();
            answered.await.unwrap_or(Err(TransportError::Broken { to, reason }))
        })
    }
}

/// Makes the queue of a link and starts the task behind it.
pub(crate) fn start(shared: Arc<Shared>, to: MemberId) -> mpsc::Sender<Call> {
    let (queue, calls) = mpsc::channel(QUEUE);
    // Ends when the queue's last sender is dropped: when the machine's peers are shut down.
    tokio::spawn(run(shared, to, calls));
    queue
}

/// After an attempt that failed: until when the next is not made, and why it failed.
struct BackOff {
    until: Instant,
    wait: Duration,
    reason: String,
}

async fn run(shared: Arc<Shared>, to: MemberId, mut calls: mpsc::Receiver<Call>) {
    let mut back_off: Option<BackOff> = None;
    let mut known = Vec::new();
    while let Some(first) = calls.recv().await {
        if first.answer.is_closed() {
            continue;
        }
        let addresses = shared.addresses_of(to);
        let news = std::mem::replace(&mut known, addresses) != known;
        if let Some(back_off) = back_off.as_ref().filter(|it| !news && Instant::now() < it.until) {
            let reason = back_off.reason.clone();
            let _ = first.answer.send(Err(TransportError::Unreachable { to, reason }));
            continue;
        }
        match connect(&shared, to, &known).await {
            Ok((secured, cluster)) => {
                back_off = None;
                let broken = converse(&shared, to, secured, (cluster, first), &mut calls).await;
                tracing::debug!(%to, error = %broken, "a connection of the store broke");
            }
            Err(reason) => {
                let pace = &shared.pace;
                let wait = back_off.map_or(pace.retry_min, |it| it.wait * 2).min(pace.hello);
                let refusal = TransportError::Unreachable { to, reason: reason.clone() };
                back_off = Some(BackOff { until: Instant::now() + wait, wait, reason });
                let _ = first.answer.send(Err(refusal));
            }
        }
    }
}

async fn connect(
    shared: &Shared,
    to: MemberId,
    addresses: &[SocketAddr],
) -> Result<(Secured, ClusterId), String> {
    let pinned = shared.pinned.borrow().clone();
    let (Some(cluster), Some(key)) = (pinned.cluster, pinned.keys.get(&to)) else {
        return Err("it is not a member".to_owned());
    };
    Ok((shared.reach(key, addresses, Protocol::Store).await?, cluster))
}

/// Requests without an answer, by number.
#[derive(Default)]
struct Pending {
    answers: BTreeMap<u64, (Instant, Answer)>,
    heard: Option<Instant>,
}

impl Pending {
    /// Whether something is due for longer than `patience`, and nothing has come since.
    fn is_stalled(&self, patience: Duration) -> bool {
        let oldest = self.answers.values().next().map(|(asked, _)| *asked);
        oldest
            .is_some_and(|asked| self.heard.map_or(asked, |at| at.max(asked)).elapsed() > patience)
    }
}

/// Carries calls until the connection breaks; what had no answer then is told so.
async fn converse(
    shared: &Shared,
    to: MemberId,
    secured: Secured,
    (cluster, first): (ClusterId, Call),
    calls: &mut mpsc::Receiver<Call>,
) -> FrameError {
    let patience = shared.pace.patience;
    let (mut incoming, mut outgoing) = split(secured.stream);
    let pending = Mutex::new(Pending::default());
    if let Err(error) = frame::say(&mut outgoing, &cluster, patience).await {
        let reason = error.to_string();
        let _ = first.answer.send(Err(TransportError::Broken { to, reason }));
        return error;
    }
    let error = tokio::select! {
        error = write_calls(&mut outgoing, &pending, first, calls, patience) => error,
        error = read_answers(&mut incoming, &pending) => error,
        error = watch_stall(&pending, patience) => error,
    };
    let reason = error.to_string();
    for (_, answer) in std::mem::take(&mut lock(&pending).answers).into_values() {
        let _ = answer.send(Err(TransportError::Broken { to, reason: reason.clone() }));
    }
    error
}

fn lock(pending: &Mutex<Pending>) -> std::sync::MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn write_calls(
    outgoing: &mut (impl AsyncWrite + Unpin),
    pending: &Mutex<Pending>,
    first: Call,
    calls: &mut mpsc::Receiver<Call>,
    patience: Duration,
) -> FrameError {
    let mut number = 0;
    let mut next = Some(first);
    let mut batch = Vec::new();
    loop {
        let Some(call) = next.take() else {
            match calls.recv().await {
                Some(call) => next = Some(call),
                None => return FrameError::Closed,
            }
            continue;
        };
        let mut taken = Some(call);
        while let Some(Call { message, answer }) = taken {
            // Who asked may have given up while this waited.
            if !answer.is_closed() {
                frame::append_numbered(&mut batch, number, &message.bytes);
                lock(pending).answers.insert(number, (Instant::now(), answer));
                number += 1;
            }
            taken = if batch.len() < BATCH_BYTES { calls.try_recv().ok() } else { None };
        }
        if let Err(error) = frame::write(outgoing, &batch, patience).await {
            return error;
        }
        batch.clear();
        batch.shrink_to(BATCH_BYTES);
    }
}

async fn read_answers(
    incoming: &mut (impl AsyncRead + Unpin),
    pending: &Mutex<Pending>,
) -> FrameError {
    loop {
        let bytes = match frame::read(incoming, FRAME_BYTES).await {
            Ok(bytes) => bytes,
            Err(error) => return error,
        };
        let Some((number, message)) = numbered(bytes) else {
            return FrameError::Malformed(postcard::Error::DeserializeBadEncoding);
        };
        let mut pending = lock(pending);
        pending.heard = Some(Instant::now());
        if let Some((_, answer)) = pending.answers.remove(&number) {
            let _ = answer.send(Ok(message));
        }
    }
}

async fn watch_stall(pending: &Mutex<Pending>, patience: Duration) -> FrameError {
    loop {
        tokio::time::sleep(patience / 4).await;
        if lock(pending).is_stalled(patience) {
            return FrameError::Slow(patience);
        }
    }
}

fn numbered(bytes: Vec<u8>) -> Option<(u64, Message)> {
    let mut bytes = Bytes::from(bytes);
    let number = u64::from_le_bytes(*bytes.first_chunk::<8>()?);
    Some((number, Message::from_bytes(bytes.split_off(8))?))
}

/// Answers a member; returns when it has gone. `identified` is called when its key was found among the members'.
pub(crate) async fn serve(shared: &Arc<Shared>, mut secured: Secured, identified: impl FnOnce()) {
    let (remote, key) = (secured.remote, secured.fingerprint);
    let Some(member) = shared.pinned.borrow().member_of(&secured.key) else {
        return shared.complaints.note(format!("{} (key {key}): is not a member", remote.ip()));
    };
    let spoken = frame::hear(&mut secured.stream, 64, shared.pace.connect).await;
    let (theirs, ours): (Option<ClusterId>, _) = (spoken.ok(), shared.pinned.borrow().cluster);
    if theirs.is_none() || theirs != ours {
        let text = format!("{} (key {key}): is a member of another cluster", remote.ip());
        return shared.complaints.note(text);
    }
    identified();
    let error = serve_member(shared, member, secured).await;
    tracing::debug!(%remote, %member, %error, "a member's connection ended");
}

async fn serve_member(shared: &Arc<Shared>, member: MemberId, secured: Secured) -> FrameError {
    let key = secured.key;
    let (mut incoming, mut outgoing) = split(secured.stream);
    let (answers, mut answered) = mpsc::channel::<(u64, Message)>(SERVED_MAX);
    let turns = Arc::new(Semaphore::new(SERVED_MAX));
    let mut tasks = JoinSet::new();
    let patience = shared.pace.patience;
    let write = async {
        let mut batch = Vec::new();
        while let Some((number, message)) = answered.recv().await {
            frame::append_numbered(&mut batch, number, &message.bytes);
            if let Err(error) = frame::write(&mut outgoing, &batch, patience).await {
                return error;
            }
            batch.clear();
            batch.shrink_to(BATCH_BYTES);
        }
        FrameError::Closed
    };
    let read = async {
        loop {
            let bytes = match read_within(shared, &mut incoming).await {
                Ok(bytes) => bytes,
                Err(error) => return error,
            };
            let Some((number, message)) = numbered(bytes) else {
                return FrameError::Malformed(postcard::Error::DeserializeBadEncoding);
            };
            // Whoever was removed has nothing more to say.
            if shared.pinned.borrow().member_of(&key) != Some(member) {
                return FrameError::Closed;
            }
            let Ok(turn) = Arc::clone(&turns).acquire_owned().await else {
                return FrameError::Closed;
            };
            while tasks.try_join_next().is_some() {}
            let (shared, answers) = (Arc::clone(shared), answers.clone());
            tasks.spawn(async move {
                if let Some(reply) = shared.services.store(member, message).await {
                    let _ = answers.send((number, reply)).await;
                }
                drop(turn);
            });
        }
    };
    tokio::select! { error = write => error, error = read => error }
}

/// Reads a frame whose memory comes out of a common budget, and which must arrive in time once it has begun.
async fn read_within(
    shared: &Shared,
    incoming: &mut (impl AsyncRead + Unpin),
) -> Result<Vec<u8>, FrameError> {
    let length = frame::read_length(incoming, FRAME_BYTES).await?;
    let units = (length / BUDGET_UNIT_BYTES + 1) as u32;
    let patience = shared.pace.patience;
    let body = async {
        let _lent = shared.budget.acquire_many(units).await;
        frame::read_body(incoming, length).await
    };
    timeout(patience * 2, body).await.map_err(|_| FrameError::Slow(patience * 2))?
}

impl Shared {
    /// Where a member may be reached.
    fn addresses_of(&self, member: MemberId) -> Vec<SocketAddr> {
        let pinned = self.pinned.borrow();
        let key = pinned.keys.get(&member).map(|key| Fingerprint::of(key));
        drop(pinned);
        key.map(|key| self.book().of(&key)).unwrap_or_default()
    }
}
