//! Answers to the messages of other members.

use std::sync::Arc;

use openraft::AsyncRuntime;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest,
};

use super::Core;
use crate::consensus::{
    Entry, SnapshotMeta, StoredMembership, TypeConfig, ballot, log_id, payload_from_v1, position,
    raft_membership, vote,
};
use crate::disk::{DiskFile, is_full};
use crate::error::StoreError;
use crate::format::{FormatError, v1};
use crate::member::MemberId;
use crate::snapshot::Snapshot;
use crate::state::{Command, Reply};
use crate::transport::{Message, MessageKind};

/// A snapshot on its way in. Which one it is says everything but its bytes.
pub(super) struct Incoming {
    from: MemberId,
    vote: v1::Ballot,
    applied: Option<v1::Position>,
    total: u64,
    file: Arc<dyn DiskFile>,
    offset: u64,
}

impl Incoming {
    fn is_of(&self, from: MemberId, part: &v1::SnapshotPart) -> bool {
        self.from == from
            && self.vote == part.vote
            && self.applied == part.applied
            && self.total == part.total
    }
}

fn failed(reason: impl ToString) -> v1::Reply {
    v1::Reply::Failed(reason.to_string())
}

impl From<FormatError> for v1::Reply {
    fn from(error: FormatError) -> Self {
        failed(error)
    }
}

impl<R: AsyncRuntime> Core<R> {
    pub(super) async fn serve(&self, from: MemberId, message: Message) -> v1::Reply {
        let answer = match message.kind {
            MessageKind::Append => self.serve_append(&message).await,
            MessageKind::Vote => self.serve_vote(&message).await,
            MessageKind::Snapshot => self.serve_snapshot(from, &message).await,
            MessageKind::ReadIndex => self.serve_read_index().await,
            MessageKind::Forward => self.serve_forward(&message).await,
            MessageKind::Transfer => self.serve_transfer(&message).await,
            MessageKind::Reply => Err(failed("a reply is not a request")),
        };
        answer.unwrap_or_else(|refusal| refusal)
    }

    async fn serve_append(&self, message: &Message) -> Result<v1::Reply, v1::Reply> {
        let request: v1::AppendRequest = message.decode()?;
        let entry = |(position, payload): (v1::Position, _)| Entry {
            log_id: log_id(position.into()),
            payload: payload_from_v1(payload),
        };
        let rpc = AppendEntriesRequest::<TypeConfig<R>> {
            vote: vote(request.vote),
            prev_log_id: request.previous.map(|previous| log_id(previous.into())),
            entries: request.entries.into_iter().map(entry).collect(),
            leader_commit: request.commit.map(|commit| log_id(commit.into())),
        };
        let last = rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id);
        let answer = self.raft.append_entries(rpc).await.map_err(failed)?;
        if let (
            AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_),
            Some(last),
        ) = (&answer, last)
        {
            self.log.reaches(last.index()).await.map_err(failed)?;
        }
        Ok(match answer {
            AppendEntriesResponse::Success => v1::Reply::Appended,
            AppendEntriesResponse::PartialSuccess(last) => {
                v1::Reply::AppendedUpTo(last.as_ref().map(|last| position(last).into()))
            }
            AppendEntriesResponse::Conflict => v1::Reply::Conflict,
            AppendEntriesResponse::HigherVote(higher) => v1::Reply::HigherVote(ballot(&higher)),
        })
    }

    async fn serve_vote(&self, message: &Message) -> Result<v1::Reply, v1::Reply> {
        let request: v1::VoteRequest = message.decode()?;
        if self.is_damaged() {
            return Err(failed("this member lost a part of its log and may not vote yet"));
        }
        let rpc = VoteRequest::<TypeConfig<R>> {
            vote: vote(request.vote),
            last_log_id: request.last.map(|last| log_id(last.into())),
            leadership_transfer: request.transfer,
        };
        let answer = match request.pre {
            true => self.raft.pre_vote(rpc).await,
            false => self.raft.vote(rpc).await,
        };
        let answer = answer.map_err(failed)?;
        Ok(v1::Reply::Vote {
            vote: ballot(&answer.vote),
            granted: answer.vote_granted,
            last: answer.last_log_id.as_ref().map(|last| position(last).into()),
        })
    }

    async fn serve_read_index(&self) -> Result<v1::Reply, v1::Reply> {
        match self.read_index_as_leader().await {
            Ok(index) => {
                let last = self.log.shared.memory().last().map(Into::into);
                Ok(v1::Reply::ReadIndex { index, last })
            }
            Err(StoreError::NotLeader { leader }) => {
                Ok(v1::Reply::NotLeader(leader.map(|leader| leader.0)))
            }
            Err(error) => Err(failed(error)),
        }
    }

    async fn serve_forward(&self, message: &Message) -> Result<v1::Reply, v1::Reply> {
        let request: v1::ForwardRequest = message.decode()?;
        let command = Command::from(request.command);
        if let Command::Transact { transaction, .. } = &command {
            transaction.validate().map_err(failed)?;
        }
        Ok(match self.propose(command, None).await {
            Ok(Reply::Outcome(outcome)) => v1::Reply::Outcome((&outcome).into()),
            Ok(Reply::Expired) => v1::Reply::Expired,
            Ok(Reply::NotKnownBy(member)) => v1::Reply::NotKnownBy(member.0),
            Ok(Reply::Done) => v1::Reply::Done,
            Err(StoreError::NotLeader { leader }) => {
                v1::Reply::NotLeader(leader.map(|leader| leader.0))
            }
            Err(StoreError::DiskFull { outcome_unknown }) => {
                v1::Reply::DiskFull { outcome_unknown }
            }
            Err(error) if error.outcome_is_unknown() => v1::Reply::Unknown,
            Err(error) => failed(error),
        })
    }

    async fn serve_transfer(&self, message: &Message) -> Result<v1::Reply, v1::Reply> {
        let request: v1::TransferRequest = message.decode()?;
        if self.is_damaged() {
            return Err(failed("this member lost a part of its log and may not lead yet"));
        }
        let rpc = TransferLeaderRequest::<TypeConfig<R>>::new(
            vote(request.from),
            MemberId(request.to),
            request.last.map(|last| log_id(last.into())),
        );
        match self.raft.handle_transfer_leader(rpc).await.map_err(failed)? {
            Ok(()) => Ok(v1::Reply::TransferAccepted),
            Err(refusal) => Err(failed(refusal)),
        }
    }

    async fn serve_snapshot(
        &self,
        from: MemberId,
        message: &Message,
    ) -> Result<v1::Reply, v1::Reply> {
        let part: v1::SnapshotPart = message.decode()?;
        let mut incoming = self.incoming.lock().await;
        if part.offset == 0 {
            *incoming = Some(self.begin_incoming(from, &part).await?);
        }
        let expected = match incoming.as_mut().filter(|incoming| incoming.is_of(from, &part)) {
            Some(incoming) if incoming.offset == part.offset => incoming,
            Some(incoming) => return Ok(v1::Reply::SnapshotNext(incoming.offset)),
            None => return Ok(v1::Reply::SnapshotNext(0)),
        };
        let length = part.bytes.len() as u64;
        expected
            .file
            .write(part.offset, part.bytes.clone())
            .await
            .map_err(|error| no_room(&error))?;
        expected.offset += length;
        if expected.offset < part.total && length > 0 {
            return Ok(v1::Reply::SnapshotNext(expected.offset));
        }
        let file = expected.file.clone();
        *incoming = None;
        match self.snapshots.finish_incoming(file).await {
            Ok(snapshot) => self.install(&part, snapshot).await,
            Err(StoreError::Damaged { .. }) => Ok(v1::Reply::SnapshotCorrupt),
            Err(error) => Err(failed(error)),
        }
    }

    async fn begin_incoming(
        &self,
        from: MemberId,
        part: &v1::SnapshotPart,
    ) -> Result<Incoming, v1::Reply> {
        let file = self.snapshots.begin_incoming().await.map_err(|error| no_room(&error))?;
        let (vote, applied, total) = (part.vote, part.applied, part.total);
        Ok(Incoming { from, vote, applied, total, file, offset: 0 })
    }

    async fn install(
        &self,
        part: &v1::SnapshotPart,
        snapshot: Snapshot,
    ) -> Result<v1::Reply, v1::Reply> {
        if snapshot.level > self.config.supports {
            let (required, supported) = (snapshot.level, self.config.supports);
            return Err(failed(StoreError::TooNew { required, supported }));
        }
        let meta = SnapshotMeta {
            last_log_id: snapshot.applied.map(log_id),
            last_membership: StoredMembership::new(
                snapshot.membership_position.map(log_id),
                raft_membership(&snapshot.membership),
            ),
        };
        let snapshot = openraft::Snapshot { meta, snapshot };
        let answer = self.raft.install_full_snapshot(vote(part.vote), snapshot).await;
        Ok(v1::Reply::SnapshotInstalled(ballot(&answer.map_err(failed)?.vote)))
    }
}

fn no_room(error: &std::io::Error) -> v1::Reply {
    match is_full(error) {
        true => v1::Reply::DiskFull { outcome_unknown: false },
        false => failed(error),
    }
}

/// What a leader answered to a command that was passed on to it.
pub(super) fn command_reply(reply: v1::Reply) -> Result<Reply, StoreError> {
    match reply {
        v1::Reply::Outcome(outcome) => Ok(Reply::Outcome(outcome.into())),
        v1::Reply::Expired => Ok(Reply::Expired),
        v1::Reply::NotKnownBy(member) => Ok(Reply::NotKnownBy(MemberId(member))),
        v1::Reply::Done => Ok(Reply::Done),
        v1::Reply::NotLeader(leader) => Err(StoreError::NotLeader { leader: leader.map(MemberId) }),
        v1::Reply::DiskFull { outcome_unknown } => Err(StoreError::DiskFull { outcome_unknown }),
        v1::Reply::Unknown
        | v1::Reply::Failed(_)
        | v1::Reply::Appended
        | v1::Reply::AppendedUpTo(_)
        | v1::Reply::Conflict
        | v1::Reply::HigherVote(_)
        | v1::Reply::Vote { .. }
        | v1::Reply::SnapshotNext(_)
        | v1::Reply::SnapshotInstalled(_)
        | v1::Reply::SnapshotCorrupt
        | v1::Reply::ReadIndex { .. }
        | v1::Reply::TransferAccepted => Err(StoreError::Timeout),
    }
}
