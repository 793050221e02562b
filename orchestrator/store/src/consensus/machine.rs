//! The state machine as openraft drives it: apply what is committed, hand out and take snapshots.
//!
//! A snapshot is made by [`crate::store`]'s maintenance, which can wait out a full disk; when
//! openraft asks for one, it gets the one that is already durable.

use std::fmt;
use std::io;
use std::sync::Arc;

use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{AsyncRuntime, EntryPayload, OptionalSend, RaftSnapshotBuilder};

use super::{
    LogId, SnapshotMeta, StoredMembership, Term, TypeConfig, log_id, membership, position,
    raft_membership,
};
use crate::error::StoreError;
use crate::member::{FeatureLevel, Member, MemberId};
use crate::replica::Replica;
use crate::snapshot::{Snapshot, Snapshots};
use crate::state::Reply;

type RaftSnapshot = openraft::Snapshot<Term, MemberId, Member, Snapshot>;

/// See the module.
#[derive(Clone)]
pub(crate) struct Machine {
    replica: Arc<Replica>,
    snapshots: Arc<Snapshots>,
    supports: FeatureLevel,
}

impl fmt::Debug for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Machine").finish_non_exhaustive()
    }
}

impl Machine {
    pub(crate) fn new(
        replica: Arc<Replica>,
        snapshots: Arc<Snapshots>,
        supports: FeatureLevel,
    ) -> Self {
        Self { replica, snapshots, supports }
    }

    fn apply_entry(&self, log: &LogId, payload: &super::Payload) -> Reply {
        let at = position(log);
        tracing::trace!(?at, %payload, "apply");
        match payload {
            EntryPayload::Blank => self.replica.apply(at, None),
            EntryPayload::Normal(command) => self.replica.apply(at, Some(command)),
            EntryPayload::Membership(members) => {
                let members = Arc::new(membership(members));
                self.replica.update(|state| {
                    state.membership = members;
                    state.membership_position = Some(at);
                    state.applied = Some(at);
                });
                Reply::Done
            }
        }
    }

    fn check_level(&self, level: FeatureLevel) -> io::Result<()> {
        if level > self.supports {
            let error = StoreError::TooNew { required: level, supported: self.supports };
            return Err(io::Error::other(error));
        }
        Ok(())
    }
}

fn raft_snapshot(snapshot: Snapshot) -> RaftSnapshot {
    let meta = SnapshotMeta {
        last_log_id: snapshot.applied.map(log_id),
        last_membership: StoredMembership::new(
            snapshot.membership_position.map(log_id),
            raft_membership(&snapshot.membership),
        ),
    };
    RaftSnapshot { meta, snapshot }
}

impl<R: AsyncRuntime> RaftStateMachine<TypeConfig<R>> for Machine {
    type SnapshotData = Snapshot;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let state = self.replica.state();
        let members = raft_membership(&state.membership);
        let membership = StoredMembership::new(state.membership_position.map(log_id), members);
        Ok((state.applied.map(log_id), membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm:
            Stream<Item = Result<EntryResponder<TypeConfig<R>>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let reply = self.apply_entry(&entry.log_id, &entry.payload);
            self.check_level(self.replica.level())?;
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta,
        snapshot: Snapshot,
    ) -> Result<(), io::Error> {
        let state = self.snapshots.install(snapshot).await.map_err(io::Error::other)?;
        self.check_level(state.level)?;
        self.replica.install(state);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<RaftSnapshot>, io::Error> {
        Ok(self.snapshots.current().map(raft_snapshot))
    }
}

impl<R: AsyncRuntime> RaftSnapshotBuilder<TypeConfig<R>> for Machine {
    type SnapshotData = Snapshot;

    async fn build_snapshot(&mut self) -> Result<RaftSnapshot, io::Error> {
        if let Some(current) = self.snapshots.current() {
            return Ok(raft_snapshot(current));
        }
        let state = self.replica.state();
        self.snapshots.write(&state).await.map(raft_snapshot)
    }
}
