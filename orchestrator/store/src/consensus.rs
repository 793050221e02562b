//! What openraft is told about us, and the way between its types and ours.
//!
//! Elsewhere: the log it appends to ([`crate::log`]), the machine it drives
//! ([`machine`]), and the network it speaks over ([`network`]).

pub(crate) mod machine;
pub(crate) mod network;

use std::cmp::Ordering;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use openraft::impls::{BoxedErrorSource, InlineBatch, ProgressResponder, leader_id_std};
use openraft::vote::RaftLeaderId;
use openraft::{AsyncRuntime, EntryPayload, OptionalSend, RaftTypeConfig};

use crate::format::v1;
use crate::member::{Member, MemberId, Membership};
use crate::state::{Command, Position, Reply};

/// One leader per term: an election decides, rather than the larger id.
pub(crate) type LeaderId = leader_id_std::LeaderId<u64, MemberId>;
pub(crate) type Term = <LeaderId as RaftLeaderId>::Committed;
pub(crate) type LogId = openraft::LogId<Term>;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type Payload = EntryPayload<Arc<Command>, MemberId, Member>;
pub(crate) type Entry = openraft::Entry<Term, Payload>;
pub(crate) type RaftMembership = openraft::Membership<MemberId, Member>;
pub(crate) type StoredMembership = openraft::StoredMembership<Term, MemberId, Member>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<Term, MemberId, Member>;

/// Openraft's types, chosen, on the runtime `R`.
pub(crate) struct TypeConfig<R>(PhantomData<fn() -> R>);

impl<R: AsyncRuntime> RaftTypeConfig for TypeConfig<R> {
    type D = Arc<Command>;
    type R = Reply;
    type NodeId = MemberId;
    type Node = Member;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = R;
    type Responder<T>
        = ProgressResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

// Openraft asks these of a type that has no value worth comparing; a derive would ask them of R.
impl<R> fmt::Debug for TypeConfig<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TypeConfig")
    }
}
impl<R> Clone for TypeConfig<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for TypeConfig<R> {}
impl<R> Default for TypeConfig<R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}
impl<R> PartialEq for TypeConfig<R> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<R> Eq for TypeConfig<R> {}
impl<R> PartialOrd for TypeConfig<R> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<R> Ord for TypeConfig<R> {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

pub(crate) fn position(log_id: &LogId) -> Position {
    Position { term: log_id.committed_leader_id().term, index: log_id.index() }
}

pub(crate) fn log_id(position: Position) -> LogId {
    LogId::new(Term::new(position.term), position.index)
}

pub(crate) fn ballot(vote: &Vote) -> v1::Ballot {
    let LeaderId { term, voted_for } = vote.leader_id;
    v1::Ballot { term, voted_for: voted_for.0, committed: vote.committed }
}

pub(crate) fn vote(ballot: v1::Ballot) -> Vote {
    let leader_id = LeaderId { term: ballot.term, voted_for: MemberId(ballot.voted_for) };
    Vote { leader_id, committed: ballot.committed }
}

pub(crate) fn membership(membership: &RaftMembership) -> Membership {
    let members = membership.nodes().map(|(id, member)| (*id, member.clone())).collect();
    Membership { members, voters: membership.get_joint_config().clone() }
}

/// A voter that is not among the members, which no leader writes, becomes one without a key.
pub(crate) fn raft_membership(membership: &Membership) -> RaftMembership {
    let mut members = membership.members.clone();
    for id in membership.voters.iter().flatten() {
        members.entry(*id).or_insert_with(|| Member { id: *id, public_key: Vec::new() });
    }
    // What is left to be refused is a membership without voters: that of a blank member.
    RaftMembership::new(membership.voters.clone(), members).unwrap_or_default()
}

pub(crate) fn payload_to_v1(payload: &Payload) -> v1::Payload {
    match payload {
        EntryPayload::Blank => v1::Payload::Blank,
        EntryPayload::Normal(command) => v1::Payload::Command((&**command).into()),
        EntryPayload::Membership(raft) => v1::Payload::Membership((&membership(raft)).into()),
    }
}

pub(crate) fn payload_from_v1(payload: v1::Payload) -> Payload {
    match payload {
        v1::Payload::Blank => EntryPayload::Blank,
        v1::Payload::Command(command) => EntryPayload::Normal(Arc::new(command.into())),
        v1::Payload::Membership(membership) => {
            EntryPayload::Membership(raft_membership(&membership.into()))
        }
    }
}

/// About how many bytes an entry takes, in memory and in a message.
pub(crate) fn entry_bytes(entry: &Entry) -> u64 {
    use crate::record::Operation;
    let payload = match &entry.payload {
        EntryPayload::Normal(command) => match &**command {
            Command::Transact { transaction, .. } => transaction
                .operations
                .iter()
                .map(|operation| match operation {
                    Operation::Put { key, value } => key.len() + value.len() + 32,
                    Operation::Delete { key } => key.len() + 32,
                })
                .sum(),
            Command::Compact { .. } | Command::Announce { .. } | Command::Raise { .. } => 16,
        },
        EntryPayload::Blank => 0,
        EntryPayload::Membership(_) => 1024,
    };
    payload as u64 + 96
}
