//! Openraft's calls to other members, carried by a [`Transport`].

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AsyncRuntime, OptionalSend, RaftNetworkFactory, RaftNetworkV2};

use super::{Term, TypeConfig, Vote, ballot, payload_to_v1, position};
use crate::config::Timings;
use crate::format::v1;
use crate::member::{Member, MemberId};
use crate::snapshot::{Snapshot, Snapshots};
use crate::transport::{Message, MessageKind, Transport, TransportError};

/// A snapshot travels in parts of this size.
const PART_BYTES: usize = 256 * 1024;

type RaftSnapshot = openraft::Snapshot<Term, MemberId, Member, Snapshot>;

/// Makes connections to members.
pub(crate) struct Network {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) timings: Timings,
    pub(crate) snapshots: Arc<Snapshots>,
}

/// A connection to one member.
pub(crate) struct Connection {
    to: MemberId,
    transport: Arc<dyn Transport>,
    timings: Timings,
    snapshots: Arc<Snapshots>,
}

impl<R: AsyncRuntime> RaftNetworkFactory<TypeConfig<R>> for Network {
    type Network = Connection;

    async fn new_client(&mut self, to: MemberId, _member: &Member) -> Connection {
        Connection {
            to,
            transport: self.transport.clone(),
            timings: self.timings,
            snapshots: self.snapshots.clone(),
        }
    }
}

/// Sends a message and waits for the reply so long.
pub(crate) async fn call<R: AsyncRuntime>(
    transport: &dyn Transport,
    to: MemberId,
    message: Message,
    patience: Duration,
) -> Result<v1::Reply, CallError> {
    let reply = R::timeout(patience, transport.call(to, message))
        .await
        .map_err(|_| CallError::Timeout { to })??;
    match reply.decode::<v1::Reply>() {
        Ok(v1::Reply::Failed(reason)) => Err(CallError::Failed { to, reason }),
        Ok(reply) => Ok(reply),
        Err(error) => Err(CallError::Failed { to, reason: error.to_string() }),
    }
}

/// Why a call got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("{to} did not answer in time")]
    Timeout { to: MemberId },
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("{to} could not do it: {reason}")]
    Failed { to: MemberId, reason: String },
    #[error("{to} gave an answer to something else")]
    Mismatch { to: MemberId },
}

/// Openraft retries at once after a broken connection and waits after an unreachable member.
fn rpc_error<R: AsyncRuntime>(error: &CallError) -> RPCError<TypeConfig<R>> {
    match error {
        CallError::Transport(TransportError::Broken { .. }) | CallError::Mismatch { .. } => {
            RPCError::Network(NetworkError::new(error))
        }
        CallError::Timeout { .. } | CallError::Failed { .. } | CallError::Transport(_) => {
            RPCError::Unreachable(Unreachable::new(error))
        }
    }
}

impl Connection {
    async fn call<R: AsyncRuntime, T: crate::format::Frozen>(
        &self,
        kind: MessageKind,
        request: &T,
        patience: Duration,
    ) -> Result<v1::Reply, CallError> {
        let message = Message::encode(kind, request);
        call::<R>(&*self.transport, self.to, message, patience).await
    }

    fn mismatch(&self) -> CallError {
        CallError::Mismatch { to: self.to }
    }

    async fn ask_for_vote<R: AsyncRuntime>(
        &self,
        rpc: VoteRequest<TypeConfig<R>>,
        pre: bool,
        patience: Duration,
    ) -> Result<VoteResponse<TypeConfig<R>>, CallError> {
        let request = v1::VoteRequest {
            vote: ballot(&rpc.vote),
            last: rpc.last_log_id.as_ref().map(|id| position(id).into()),
            pre,
            transfer: rpc.leadership_transfer,
        };
        match self.call::<R, _>(MessageKind::Vote, &request, patience).await? {
            v1::Reply::Vote { vote, granted, last } => {
                let last = last.map(|last| super::log_id(last.into()));
                Ok(VoteResponse::new(super::vote(vote), last, granted))
            }
            _ => Err(self.mismatch()),
        }
    }

    async fn send_snapshot<R: AsyncRuntime>(
        &self,
        vote: Vote,
        snapshot: &Snapshot,
    ) -> Result<SnapshotResponse<TypeConfig<R>>, CallError> {
        let mut offset = 0;
        let mut stuck = 0;
        loop {
            let bytes = self.read_part(snapshot, offset).await?;
            let part = v1::SnapshotPart {
                vote: ballot(&vote),
                applied: snapshot.applied.map(Into::into),
                membership_position: snapshot.membership_position.map(Into::into),
                membership: (&*snapshot.membership).into(),
                total: snapshot.bytes,
                offset,
                bytes,
            };
            let patience = self.timings.snapshot_part;
            match self.call::<R, _>(MessageKind::Snapshot, &part, patience).await? {
                v1::Reply::SnapshotInstalled(vote) | v1::Reply::HigherVote(vote) => {
                    return Ok(SnapshotResponse::new(super::vote(vote)));
                }
                v1::Reply::SnapshotNext(next) => {
                    stuck = if next > offset { 0 } else { stuck + 1 };
                    offset = next;
                }
                v1::Reply::SnapshotCorrupt => {
                    // What is on our disk is not what was written there. The state is in memory:
                    // write it again before the next try.
                    self.snapshots.distrust();
                    let reason = "the snapshot arrived with a wrong checksum".into();
                    return Err(CallError::Failed { to: self.to, reason });
                }
                v1::Reply::DiskFull { .. } => {
                    let reason = "no room for a snapshot".into();
                    return Err(CallError::Failed { to: self.to, reason });
                }
                _ => return Err(self.mismatch()),
            }
            if stuck > 3 {
                return Err(self.mismatch());
            }
        }
    }

    async fn read_part(&self, snapshot: &Snapshot, offset: u64) -> Result<Bytes, CallError> {
        let read = snapshot.file.read(offset, PART_BYTES).await;
        read.map_err(|error| {
            self.snapshots.distrust();
            CallError::Failed { to: self.to, reason: format!("reading the snapshot here: {error}") }
        })
    }
}

impl<R: AsyncRuntime> RaftNetworkV2<TypeConfig<R>> for Connection {
    type SnapshotData = Snapshot;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig<R>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig<R>>, RPCError<TypeConfig<R>>> {
        let entries = rpc
            .entries
            .iter()
            .map(|entry| (position(&entry.log_id).into(), payload_to_v1(&entry.payload)))
            .collect::<Vec<_>>();
        // A slow disk must not turn a large append into an endless series of them.
        let patience = match entries.is_empty() {
            true => option.hard_ttl(),
            false => option.hard_ttl().max(self.timings.election_max),
        };
        let request = v1::AppendRequest {
            vote: ballot(&rpc.vote),
            previous: rpc.prev_log_id.as_ref().map(|id| position(id).into()),
            entries,
            commit: rpc.leader_commit.as_ref().map(|id| position(id).into()),
        };
        let reply = self.call::<R, _>(MessageKind::Append, &request, patience).await;
        match reply.map_err(|error| rpc_error(&error))? {
            v1::Reply::Appended => Ok(AppendEntriesResponse::Success),
            v1::Reply::AppendedUpTo(last) => {
                let last = last.map(|last| super::log_id(last.into()));
                Ok(AppendEntriesResponse::PartialSuccess(last))
            }
            v1::Reply::Conflict => Ok(AppendEntriesResponse::Conflict),
            v1::Reply::HigherVote(vote) => Ok(AppendEntriesResponse::HigherVote(super::vote(vote))),
            _ => Err(rpc_error(&self.mismatch())),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig<R>>, RPCError<TypeConfig<R>>> {
        self.ask_for_vote(rpc, false, option.hard_ttl()).await.map_err(|error| rpc_error(&error))
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig<R>>, RPCError<TypeConfig<R>>> {
        self.ask_for_vote(rpc, true, option.hard_ttl()).await.map_err(|error| rpc_error(&error))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: RaftSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig<R>>, StreamingError<TypeConfig<R>>> {
        let send = pin!(self.send_snapshot::<R>(vote, &snapshot.snapshot));
        match select(send, pin!(cancel)).await {
            Either::Left((sent, _)) => sent.map_err(|error| rpc_error(&error).into()),
            Either::Right((closed, _)) => Err(closed.into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig<R>>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig<R>>, RPCError<TypeConfig<R>>> {
        let message = v1::TransferRequest {
            from: ballot(request.from_leader()),
            to: request.to_node_id().0,
            last: request.last_log_id().map(|id| position(id).into()),
        };
        let reply = self.call::<R, _>(MessageKind::Transfer, &message, option.hard_ttl()).await;
        match reply.map_err(|error| rpc_error(&error))? {
            v1::Reply::TransferAccepted => Ok(Ok(())),
            _ => Err(rpc_error(&self.mismatch())),
        }
    }
}
