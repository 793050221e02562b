//! One member of the store, running: its parts, and what is asked of it.
//!
//! Elsewhere: how it comes up from a disk ([`open`]), how it answers other members ([`serve`]),
//! and what it does unasked ([`maintain`], [`repair`]).

mod maintain;
mod open;
mod repair;
mod serve;
mod ticking;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::pending;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::{BoxFuture, Either, select};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use openraft::impls::ProgressResponder;
use openraft::metrics::RaftServerMetrics;
use openraft::{AsyncRuntime, Raft, ReadPolicy, ServerState};

use crate::bugs::Bug;
use crate::config::Config;
use crate::consensus::machine::Machine;
use crate::consensus::network::{CallError, call};
use crate::consensus::{LeaderId, Term, TypeConfig, membership};
use crate::disk::Disk;
use crate::error::StoreError;
use crate::format::v1;
use crate::handle::{Role, Standing, Status, StoreHandle};
use crate::log::Log;
use crate::member::{FeatureLevel, Member, MemberId};
use crate::record::{Outcome, Revision, Transaction};
use crate::replica::Replica;
use crate::snapshot::Snapshots;
use crate::state::{Command, Reply};
use crate::transport::{Message, MessageKind, Transport};
use crate::view::View;
use crate::watch::Watch;
use repair::Repair;
use serve::Incoming;

/// One member, on the runtime `R`. Clones are the same member.
///
/// A member that is dropped without [`Store::shutdown`] may go on for a while; a transport that
/// holds the store it serves keeps it alive.
pub struct Store<R: AsyncRuntime> {
    core: Arc<Core<R>>,
}

/// The parts of a member.
struct Core<R: AsyncRuntime> {
    config: Config,
    disk: Arc<dyn Disk>,
    transport: Arc<dyn Transport>,
    log: Log<R>,
    replica: Arc<Replica>,
    snapshots: Arc<Snapshots>,
    raft: Raft<TypeConfig<R>, Machine>,
    repair: Mutex<Repair>,
    incoming: futures::lock::Mutex<Option<Incoming>>,
}

impl<R: AsyncRuntime> Clone for Store<R> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone() }
    }
}

impl<R: AsyncRuntime> fmt::Debug for Store<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Store({})", self.core.config.member)
    }
}

impl<R: AsyncRuntime> Store<R> {
    /// Opens what is on the disk and starts. A blank disk gives a member that waits to be
    /// initialised, or to be taken into a cluster.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the disk holds less than it once promised and no other member can
    /// make up for it; [`StoreError::TooNew`]; [`StoreError::Disk`].
    pub async fn open(
        config: Config,
        disk: Arc<dyn Disk>,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, StoreError> {
        open::open(config, disk, transport).await
    }

    /// Makes a cluster of these voters, this member among them. One of them is told, or all, and
    /// then with the same set. When it returns, that this member is one is on its disk.
    ///
    /// # Errors
    /// [`StoreError::Membership`] if it has a cluster already, or is not among the members.
    pub async fn initialise(&self, members: Vec<Member>) -> Result<(), StoreError> {
        let members: BTreeMap<_, _> =
            members.into_iter().map(|member| (member.id, member)).collect();
        match self.core.raft.initialize(members).await {
            // Openraft answers when the entry is on its way to the disk.
            Ok(()) => {
                let synced = self.core.log.reaches(0).await;
                synced.map_err(|error| StoreError::disk("keeping the first members", error))
            }
            Err(RaftError::APIError(error)) => Err(refused_membership(&error)),
            Err(RaftError::Fatal(fatal)) => Err(stopped(&fatal)),
        }
    }

    /// Answers a message of another member, whose name the transport has proven.
    pub fn serve(&self, from: MemberId, message: Message) -> BoxFuture<'static, Message> {
        let core = self.core.clone();
        async move { Message::reply(&core.serve(from, message).await) }.boxed()
    }

    /// Lets a member receive the log without a vote. Returns when that is committed, not when
    /// the member has caught up.
    ///
    /// # Errors
    /// [`StoreError::NotLeader`], [`StoreError::Membership`].
    pub async fn add_learner(&self, member: Member) -> Result<(), StoreError> {
        let added = self.core.raft.add_learner(member.id, member, false).await;
        added.map(drop).map_err(|error| write_error(&error))
    }

    /// Makes exactly these members, learners until now or voters already, the voters; the others
    /// leave the cluster.
    ///
    /// # Errors
    /// [`StoreError::NotLeader`], [`StoreError::Membership`].
    pub async fn set_voters(&self, voters: BTreeSet<MemberId>) -> Result<(), StoreError> {
        let changed = self.core.raft.change_membership(voters, false).await;
        changed.map(drop).map_err(|error| write_error(&error))
    }

    /// Asks another voter to lead. Returns when it was asked.
    ///
    /// # Errors
    /// [`StoreError::Stopped`].
    pub async fn transfer_leadership(&self, to: MemberId) -> Result<(), StoreError> {
        self.core.raft.trigger().transfer_leader(to).await.map_err(|fatal| stopped(&fatal))
    }

    /// Raises the feature level, on the leader, if every member has announced that it knows it.
    ///
    /// # Errors
    /// [`StoreError::NotKnownByAll`], and those of a write.
    pub async fn raise_feature_level(&self, to: FeatureLevel) -> Result<(), StoreError> {
        match self.core.propose(Command::Raise { to }, None).await? {
            Reply::NotKnownBy(member) => Err(StoreError::NotKnownByAll { level: to, member }),
            Reply::Outcome(_) | Reply::Expired | Reply::Done => Ok(()),
        }
    }

    /// Writes a snapshot now, whatever the log's length, and lets go of the log behind it.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Disk`], [`StoreError::Stopped`].
    pub async fn snapshot(&self) -> Result<(), StoreError> {
        self.core.snapshot().await
    }

    /// Stops in order: nothing is acknowledged afterwards, what was acknowledged is on the disk,
    /// and all watches end.
    pub async fn shutdown(&self) {
        if let Err(error) = self.core.raft.shutdown().await {
            tracing::warn!(%error, "the consensus did not stop in order");
        }
        self.core.replica.close("it was shut down");
        self.core.log.close().await;
    }
}

impl<R: AsyncRuntime> StoreHandle for Store<R> {
    fn transact(&self, transaction: Transaction) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        async move {
            transaction.validate()?;
            let basis = self.core.replica.applied_index();
            let command = Command::Transact { transaction, basis };
            self.core.propose(command, None).await?.into_outcome()
        }
        .boxed()
    }

    fn transact_in(
        &self,
        term: u64,
        transaction: Transaction,
    ) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        async move {
            transaction.validate()?;
            let basis = self.core.replica.applied_index();
            let command = Command::Transact { transaction, basis };
            self.core.propose(command, Some(term)).await?.into_outcome()
        }
        .boxed()
    }

    fn submit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        async move {
            transaction.validate()?;
            let basis = self.core.replica.applied_index();
            let command = Command::Transact { transaction, basis };
            self.core.submit(&command).await?.into_outcome()
        }
        .boxed()
    }

    fn read(&self) -> BoxFuture<'_, Result<View, StoreError>> {
        self.core.read().boxed()
    }

    fn local(&self) -> View {
        self.core.replica.view()
    }

    fn view_at(&self, revision: Revision) -> Result<View, StoreError> {
        self.core.replica.view_at(revision)
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.core.replica.watch(prefix, after)
    }

    fn status(&self) -> Status {
        self.core.status()
    }

    fn standing(&self) -> Standing {
        standing(&self.core.raft.server_metrics())
    }

    fn standing_other_than(&self, seen: Standing) -> BoxFuture<'static, Standing> {
        let mut metrics = self.core.raft.server_metrics();
        async move {
            loop {
                let now = standing(&metrics);
                if now != seen {
                    return now;
                }
                if metrics.changed().await.is_err() {
                    return pending().await;
                }
            }
        }
        .boxed()
    }
}

/// The vote that is reported is the last durable one: who has just won, and leads already, is said to lead only then.
fn standing<R: AsyncRuntime>(
    metrics: &impl WatchReceiver<R::Watch, RaftServerMetrics<TypeConfig<R>>>,
) -> Standing {
    let metrics = metrics.borrow_watched();
    let LeaderId { term, voted_for } = metrics.vote.leader_id;
    let leads = metrics.state == ServerState::Leader && voted_for == metrics.id;
    Standing { leads, term }
}

impl<R: AsyncRuntime> Core<R> {
    fn member(&self) -> MemberId {
        self.config.member
    }

    /// Who leads, as far as is known here.
    fn leader(&self) -> Option<MemberId> {
        self.raft.metrics().borrow_watched().current_leader
    }

    /// Puts a command into the log, here and only here, and if a term is given, only in that.
    async fn propose(&self, command: Command, term: Option<u64>) -> Result<Reply, StoreError> {
        if let Some(reason) = self.replica.closed() {
            return Err(StoreError::Stopped { reason });
        }
        if self.log.shared.room.is_full() {
            return Err(StoreError::DiskFull { outcome_unknown: false });
        }
        let (required, supported) = (command.level(), self.replica.level());
        if required > supported {
            return Err(StoreError::TooNew { required, supported });
        }
        let write = self.write(Arc::new(command), term);
        let write = pin!(R::timeout(self.config.timings.request, write));
        match select(write, pin!(self.log.shared.room.until_full())).await {
            Either::Left((Ok(answer), _)) => answer,
            Either::Left((Err(_), _)) => Err(StoreError::Timeout),
            Either::Right(((), _)) => Err(StoreError::DiskFull { outcome_unknown: true }),
        }
    }

    /// A leader that has not heard of a quorum lately takes nothing, and names nobody else. That
    /// passes, one way or the other: it hears of them, or another leads.
    async fn write(&self, command: Arc<Command>, term: Option<u64>) -> Result<Reply, StoreError> {
        loop {
            let (responder, answer) = ProgressResponder::complete_only();
            let mut request = self.raft.write(command.clone()).responder(responder);
            if let Some(term) = term {
                request = request.with_leader(Term::new(term));
            }
            request.await.map_err(|fatal| stopped(&fatal))?;
            let answer = answer.await.map_err(|error| stopped(&error))?;
            match answer {
                Ok(written) => return Ok(written.data),
                Err(error) => match write_error::<R>(&RaftError::APIError(error)) {
                    StoreError::NotLeader { leader: None }
                        if self.leader() == Some(self.member()) => {}
                    error => return Err(error),
                },
            }
            R::sleep(self.config.timings.heartbeat / 4).await;
        }
    }

    /// Gets a command into the log through whoever leads. Sent again until there is an answer, so
    /// it must be one that may be repeated.
    async fn submit(&self, command: &Command) -> Result<Reply, StoreError> {
        let attempts = async {
            loop {
                match self.attempt(command).await {
                    Err(StoreError::NotLeader { .. } | StoreError::Timeout) => {}
                    answer => return answer,
                }
                R::sleep(self.config.timings.heartbeat).await;
            }
        };
        R::timeout(self.config.timings.request, attempts).await.map_err(|_| StoreError::Timeout)?
    }

    async fn attempt(&self, command: &Command) -> Result<Reply, StoreError> {
        let leader = match self.leader() {
            None => return Err(StoreError::NotLeader { leader: None }),
            Some(leader) if leader == self.member() => {
                return self.propose(command.clone(), None).await;
            }
            Some(leader) => leader,
        };
        let request = v1::ForwardRequest { command: command.into() };
        let message = Message::encode(MessageKind::Forward, &request);
        let patience = self.config.timings.election_max * 2;
        match call::<R>(&*self.transport, leader, message, patience).await {
            Ok(reply) => serve::command_reply(reply),
            Err(CallError::Timeout { .. } | CallError::Transport(_) | CallError::Failed { .. }) => {
                Err(StoreError::Timeout)
            }
            Err(CallError::Mismatch { .. }) => Err(StoreError::NotLeader { leader: Some(leader) }),
        }
    }

    /// The state, not older than this call.
    async fn read(&self) -> Result<View, StoreError> {
        if self.config.bugs.has(Bug::StaleRead) {
            return Ok(self.replica.view());
        }
        let attempts = async {
            loop {
                match self.read_index().await {
                    Ok(index) => break self.replica.applied(index).await,
                    Err(StoreError::NotLeader { .. } | StoreError::Timeout) => {}
                    Err(error) => break Err(error),
                }
                R::sleep(self.config.timings.heartbeat).await;
            }
        };
        R::timeout(self.config.timings.request, attempts)
            .await
            .map_err(|_| StoreError::Timeout)??;
        Ok(self.replica.view())
    }

    /// How far this member must have applied before it may answer a read that begins now.
    async fn read_index(&self) -> Result<u64, StoreError> {
        match self.leader() {
            None => Err(StoreError::NotLeader { leader: None }),
            Some(leader) if leader == self.member() => self.read_index_as_leader().await,
            Some(leader) => self.ask_read_index(leader).await.map(|(index, _)| index),
        }
    }

    /// Makes sure, with a quorum, that this member still leads.
    async fn read_index_as_leader(&self) -> Result<u64, StoreError> {
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(StoreError::NotLeader { leader: forward.leader_id })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(StoreError::Timeout)
            }
            Err(RaftError::Fatal(fatal)) => Err(stopped(&fatal)),
        }
    }

    /// The leader's read index, and the last entry of its log at that time.
    async fn ask_read_index(
        &self,
        leader: MemberId,
    ) -> Result<(u64, Option<v1::Position>), StoreError> {
        let message = Message::encode(MessageKind::ReadIndex, &v1::ReadIndexRequest {});
        let patience = self.config.timings.election_max * 2;
        match call::<R>(&*self.transport, leader, message, patience).await {
            Ok(v1::Reply::ReadIndex { index, last }) => Ok((index, last)),
            Ok(v1::Reply::NotLeader(leader)) => {
                Err(StoreError::NotLeader { leader: leader.map(MemberId) })
            }
            Ok(_) | Err(_) => Err(StoreError::Timeout),
        }
    }

    fn status(&self) -> Status {
        let state = self.replica.state();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let stopped = self
            .replica
            .closed()
            .or_else(|| metrics.running_state.as_ref().err().map(ToString::to_string));
        let members = membership(metrics.membership_config.membership());
        let role = match metrics.state {
            _ if stopped.is_some() => Role::Stopped,
            // Who the members are may be what was lost.
            _ if self.is_damaged() => Role::Damaged,
            _ if members.voters.is_empty() => Role::Blank,
            ServerState::Leader => Role::Leader,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Learner => Role::Learner,
            ServerState::Shutdown => Role::Stopped,
        };
        Status {
            member: self.member(),
            role,
            term: metrics.current_term,
            leader: metrics.current_leader,
            applied: state.view.revision,
            applied_index: state.applied_index(),
            oldest: self.replica.oldest(),
            last_index: metrics.last_log_index.unwrap_or(0),
            snapshot_index: self
                .snapshots
                .current()
                .and_then(|snapshot| snapshot.applied)
                .map_or(0, |applied| applied.index),
            membership: members,
            feature_level: state.level,
            keys: state.view.len(),
            state_bytes: state.bytes,
            log_bytes: self.log.bytes(),
            disk_full: self.log.shared.room.is_full(),
            stopped,
        }
    }
}

fn stopped(fatal: &impl fmt::Display) -> StoreError {
    StoreError::Stopped { reason: fatal.to_string() }
}

fn refused_membership(error: &impl fmt::Display) -> StoreError {
    StoreError::Membership { reason: error.to_string() }
}

fn write_error<R: AsyncRuntime>(
    error: &RaftError<TypeConfig<R>, ClientWriteError<TypeConfig<R>>>,
) -> StoreError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            StoreError::NotLeader { leader: forward.leader_id }
        }
        // It stood in the log of a leader that is none any more; the next one may have kept it.
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => StoreError::Timeout,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            refused_membership(error)
        }
        RaftError::APIError(ClientWriteError::PreconditionFailed(error)) => {
            refused_membership(error)
        }
        RaftError::Fatal(fatal) => stopped(fatal),
    }
}
