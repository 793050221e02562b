//! The voter's side: the node's share of the state, and its calls.

use std::net::IpAddr;
use std::sync::Arc;

use podium_api::pipeline::ReadOptions;
use podium_api::share::{Feed, FeedError, REMINDER};
use podium_api::{Pipeline, Status, Target, User};
use podium_peer::frame::{self, FrameError};
use podium_store::StoreError;
use podium_types::ObjectKey;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, split};
use tokio::sync::watch;

use super::wire::{Answer, Ask, FRAME_BYTES, News, PATIENCE};
use crate::authority::Authority;
use crate::voters::{Keys, Voters};
use podium_lead::calls;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Feed(#[from] FeedError),
}

/// What a voter serves nodes from.
#[derive(Clone)]
pub(crate) struct Desk {
    /// Their share of the state, and their calls.
    pub(crate) pipeline: Pipeline,
    /// Whom they may trust.
    pub(crate) voters: Voters,
    /// Says to the API's servers who they are.
    pub(crate) authority: Arc<Authority>,
}

/// A node whose key has been checked.
#[derive(Clone, Debug)]
pub(crate) struct Visitor {
    /// Its name.
    pub(crate) node: String,
    /// The public key.
    pub(crate) key: Vec<u8>,
    /// Where it speaks from.
    pub(crate) address: Option<IpAddr>,
}

/// Serves one session of a node to its end.
pub(crate) async fn serve<S>(
    mut stream: S,
    desk: &Desk,
    visitor: &Visitor,
) -> Result<(), ServeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (pipeline, user) = (&desk.pipeline, User::node(&visitor.node, visitor.address));
    loop {
        // No time limit: a node keeps sessions for its next call.
        let bytes = match frame::read(&mut stream, FRAME_BYTES).await {
            Err(FrameError::Closed) => return Ok(()),
            read => read?,
        };
        let answer = match postcard::from_bytes(&bytes).map_err(FrameError::from)? {
            Ask::Follow => return send_share(stream, desk, &visitor.node).await,
            Ask::Get { key } => get(pipeline, &user, &key.into()).await,
            Ask::Certify { request } => certify(&desk.authority, visitor, &request),
            call => make(pipeline, &user, call).await,
        };
        frame::say(&mut stream, &answer, PATIENCE).await?;
    }
}

async fn get(pipeline: &Pipeline, user: &User, key: &ObjectKey) -> Answer {
    let Some(target) = Target::object(key) else { return refused(Status::no_such_resource()) };
    match pipeline.get(user, &target, &ReadOptions::default()).await {
        Ok(served) => Answer::Object(Some(served.json().to_vec())),
        Err(status) if status.reason == "NotFound" => Answer::Object(None),
        Err(status) => refused(status),
    }
}

fn certify(authority: &Authority, visitor: &Visitor, request: &[u8]) -> Answer {
    let Visitor { node, key, .. } = visitor;
    match authority.certify(node, key, request) {
        Ok(certificate) => {
            tracing::info!(%node, "a node has a new certificate");
            Answer::Certified(certificate)
        }
        Err(error) => refused(Status::bad_request(format!("{:#}", anyhow::Error::from(error)))),
    }
}

async fn make(pipeline: &Pipeline, user: &User, call: Ask) -> Answer {
    let step = match call.step() {
        Ok(step) => step,
        Err(reason) => return refused(Status::bad_request(reason)),
    };
    match calls::attempt(pipeline, user, step).await {
        Ok(revision) => Answer::Done { revision },
        Err(status) => refused(status),
    }
}

fn refused(status: Status) -> Answer {
    podium_form::client::Refusal::from(status).into()
}

async fn send_share<S>(stream: S, desk: &Desk, node: &str) -> Result<(), ServeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut incoming, mut outgoing) = split(stream);
    let mut voters = desk.voters.subscribe();
    let mut feed = Feed::open(&desk.pipeline, node).await?;
    let send = async {
        frame::say(&mut outgoing, &told(&mut voters), PATIENCE).await?;
        loop {
            let news = feed.next(tokio::time::sleep(REMINDER)).await?;
            frame::say(&mut outgoing, &News::from(news), PATIENCE).await?;
            // Heard with the next reminder at the latest; the voters change seldom.
            if voters.has_changed().unwrap_or_default() {
                frame::say(&mut outgoing, &told(&mut voters), PATIENCE).await?;
            }
        }
    };
    tokio::select! {
        ended = send => ended,
        // The node says nothing more; that it is gone is heard at once.
        _ = incoming.read_u8() => Ok(()),
    }
}

fn told(voters: &mut watch::Receiver<Keys>) -> News {
    News::Voters(voters.borrow_and_update().iter().cloned().collect())
}
