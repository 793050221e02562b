//! `podium-meet/1`: what machines with the same token say to each other.
//!
//! Every machine keeps one session to each other that it knows an address of: it asks, the other answers. So a machine is
//! heard only by who can reach it, and a pair that hears each other can speak both ways.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use podium_control::forming::{Fingerprint, Hello, Joined, Machine, MemberSet};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::frame::{self, FrameError};
use crate::peers::Shared;
use crate::proof::{ProofError, Side, exchange};
use crate::tls::{Protocol, Secured};

/// A hello of seven machines that tells the addresses of [`GOSSIP_MAX`] more has some 10 kB.
pub(crate) const FRAME_BYTES: usize = 64 * 1024;
/// Of so many other machines the addresses are told.
pub(crate) const GOSSIP_MAX: usize = 64;
/// A machine that knows another token is asked again after so long: somebody has to give it another config.
const WRONG_TOKEN_WAIT: Duration = Duration::from_secs(30);
/// An address that is this machine's own may be another's some day.
const MYSELF_WAIT: Duration = Duration::from_secs(60);

/// A hello with what only transport cares for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HelloFrame {
    pub(crate) hello: Hello,
    /// Random, per run of the program.
    pub(crate) epoch: u64,
    /// Counts the hellos of the run.
    pub(crate) count: u64,
    /// Where the machine is to be found.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Where it found others.
    pub(crate) known: Vec<(Fingerprint, Vec<SocketAddr>)>,
}

/// What is asked. A further version is a further variant.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    V1(RequestV1),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum RequestV1 {
    Hello(Box<HelloFrame>),
    Propose(MemberSet),
    Join(Machine),
    /// An operator's, see `operator`.
    Narrow(BTreeSet<Fingerprint>),
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    V1(ReplyV1),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ReplyV1 {
    Hello(Box<HelloFrame>),
    Accepted,
    Refused(String),
    Joined(Box<Joined>),
}

/// A wish of this machine about another, for the session to it.
pub(crate) enum Command {
    Propose(MemberSet, oneshot::Sender<Result<(), String>>),
    Join(Machine, oneshot::Sender<Result<Joined, String>>),
}

/// How a session ended.
#[derive(Debug, thiserror::Error)]
enum MeetError {
    #[error("it does not answer: {0}")]
    Unreachable(std::io::Error),
    #[error("it does not answer")]
    Silent,
    #[error(transparent)]
    Proof(#[from] ProofError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("it speaks for another key")]
    AnotherKey,
    #[error("it answers something else")]
    Mismatch,
}

/// What came of an address.
enum Met {
    /// There was a session.
    Session,
    /// It is this machine.
    Myself,
    /// There is a session with its machine already.
    Already,
}

/// Tries an address, and keeps the session with the machine there until it breaks.
pub(crate) async fn dial(shared: Arc<Shared>, address: SocketAddr) {
    let (worked, wait) = match session(&shared, address).await {
        Ok(Met::Session | Met::Already) => (true, Duration::ZERO),
        Ok(Met::Myself) => (true, MYSELF_WAIT),
        Err(error) => {
            tracing::debug!(%address, %error, "no session");
            let wrong = matches!(error, MeetError::Proof(ProofError::AnotherToken { .. }));
            (false, if wrong { WRONG_TOKEN_WAIT } else { Duration::ZERO })
        }
    };
    shared.book().done(address, worked, wait, shared.now());
    shared.book_news.notify_one();
}

async fn session(shared: &Arc<Shared>, address: SocketAddr) -> Result<Met, MeetError> {
    let connected = timeout(shared.pace.connect, shared.tls.connect(address, Protocol::Meet)).await;
    let mut secured = connected.map_err(|_| MeetError::Silent)?.map_err(MeetError::Unreachable)?;
    let key = secured.fingerprint;
    shared.book().found(address, key, shared.now());
    if key == shared.me {
        return Ok(Met::Myself);
    }
    prove(shared, &mut secured, Side::Client).await?;
    let (commands, wishes) = mpsc::channel(4);
    if !shared.sessions.begin(key, commands) {
        return Ok(Met::Already);
    }
    tracing::debug!(%address, %key, "a session began");
    let ended = ask(shared, &mut secured, wishes).await;
    shared.sessions.end(&key);
    match ended {
        Err(error) => {
            tracing::debug!(%address, %key, %error, "a session ended");
            Ok(Met::Session)
        }
        Ok(never) => match never {},
    }
}

/// Proves the token both ways; a wrong one is named.
async fn prove(shared: &Shared, secured: &mut Secured, side: Side) -> Result<(), ProofError> {
    let proven = exchange(secured, side, &shared.tokens, (shared.me, &shared.name), &shared.pace);
    match proven.await {
        Ok(_) => Ok(()),
        Err(error) => {
            if let ProofError::AnotherToken { name } = &error {
                let (ip, key) = (secured.remote.ip(), secured.fingerprint);
                shared.complaints.note(format!("{ip} ({name}, key {key}): proves another token"));
            }
            Err(error)
        }
    }
}

async fn ask(
    shared: &Arc<Shared>,
    secured: &mut Secured,
    mut wishes: mpsc::Receiver<Command>,
) -> Result<std::convert::Infallible, MeetError> {
    let patience = shared.pace.patience;
    let mut said = shared.said.subscribe();
    loop {
        said.mark_unchanged();
        let request = Request::V1(RequestV1::Hello(Box::new(shared.hello())));
        frame::say(&mut secured.stream, &request, patience).await?;
        match frame::hear(&mut secured.stream, FRAME_BYTES, patience).await? {
            Reply::V1(ReplyV1::Hello(hello)) => {
                shared.hear(secured.fingerprint, *hello, true).ok_or(MeetError::AnotherKey)?;
            }
            Reply::V1(_) => return Err(MeetError::Mismatch),
        }
        let wish = tokio::select! {
            wish = wishes.recv() => wish,
            _ = said.changed() => None,
            () = sleep(shared.pace.hello) => None,
        };
        if let Some(Command::Join(machine, answer)) = wish {
            let request = Request::V1(RequestV1::Join(machine));
            frame::say(&mut secured.stream, &request, patience).await?;
            // A place takes some writes of the cluster.
            let answered = match frame::hear(&mut secured.stream, FRAME_BYTES, patience * 4).await?
            {
                Reply::V1(ReplyV1::Joined(joined)) => Ok(*joined),
                Reply::V1(ReplyV1::Refused(reason)) => Err(reason),
                Reply::V1(ReplyV1::Accepted | ReplyV1::Hello(_)) => {
                    return Err(MeetError::Mismatch);
                }
            };
            // Nobody waits for it any more: it may be asked for again.
            let _ = answer.send(answered);
        } else if let Some(Command::Propose(set, answer)) = wish {
            let request = Request::V1(RequestV1::Propose(set));
            frame::say(&mut secured.stream, &request, patience).await?;
            let answered = match frame::hear(&mut secured.stream, FRAME_BYTES, patience).await? {
                Reply::V1(ReplyV1::Accepted) => Ok(()),
                Reply::V1(ReplyV1::Refused(reason)) => Err(reason),
                Reply::V1(ReplyV1::Hello(_) | ReplyV1::Joined(_)) => {
                    return Err(MeetError::Mismatch);
                }
            };
            // Nobody waits for it any more: the hellos will tell as well.
            let _ = answer.send(answered);
        }
    }
}

/// Answers a machine; returns when it has gone. `identified` is called when it has proven the token.
pub(crate) async fn serve(shared: &Arc<Shared>, mut secured: Secured, identified: impl FnOnce()) {
    if let Err(error) = prove(shared, &mut secured, Side::Server).await {
        tracing::debug!(remote = %secured.remote, %error, "a stranger was not met");
        return;
    }
    identified();
    let (key, remote) = (secured.fingerprint, secured.remote);
    if let Err(error) = answer(shared, &mut secured).await {
        tracing::debug!(%remote, %key, %error, "a session from elsewhere ended");
    }
}

async fn answer(shared: &Arc<Shared>, secured: &mut Secured) -> Result<(), MeetError> {
    let patience = shared.pace.patience;
    loop {
        // The other end says hello every second.
        let Request::V1(request) =
            frame::hear(&mut secured.stream, FRAME_BYTES, patience * 2).await?;
        let reply = match request {
            RequestV1::Hello(hello) => {
                let ports = hello.addresses.iter().map(SocketAddr::port).take(1);
                let seen: Vec<_> =
                    ports.map(|port| SocketAddr::new(secured.remote.ip(), port)).collect();
                shared.learn(&seen, Some(secured.fingerprint));
                shared.hear(secured.fingerprint, *hello, false).ok_or(MeetError::AnotherKey)?;
                ReplyV1::Hello(Box::new(shared.hello()))
            }
            RequestV1::Join(machine) if machine.fingerprint() != secured.fingerprint => {
                return Err(MeetError::AnotherKey);
            }
            RequestV1::Join(machine) => match shared.services.join(machine).await {
                Ok(joined) => ReplyV1::Joined(Box::new(joined)),
                Err(reason) => ReplyV1::Refused(reason),
            },
            RequestV1::Narrow(only) => match shared.services.narrow(only).await {
                Ok(()) => ReplyV1::Accepted,
                Err(reason) => ReplyV1::Refused(reason),
            },
            RequestV1::Propose(set) => {
                match shared.services.propose(secured.fingerprint, set).await {
                    Ok(()) => ReplyV1::Accepted,
                    Err(reason) => ReplyV1::Refused(reason),
                }
            }
        };
        frame::say(&mut secured.stream, &Reply::V1(reply), patience).await?;
    }
}
