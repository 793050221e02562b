//! A store of one member without a log: the same state, history and watches, and nothing kept.
//!
//! For tests of what stands above the store. Every call is answered at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use futures::future::{BoxFuture, pending, ready};

use crate::bugs::Bugs;
use crate::error::StoreError;
use crate::handle::{Role, Standing, Status, StoreHandle};
use crate::history::HistoryLimits;
use crate::member::{MemberId, Membership};
use crate::record::{Outcome, Revision, Transaction};
use crate::replica::Replica;
use crate::state::{Command, Position};
use crate::view::View;
use crate::watch::Watch;

/// See the module. Clones are the same store.
#[derive(Debug, Clone)]
pub struct EphemeralStore {
    replica: Arc<Replica>,
    index: Arc<AtomicU64>,
}

impl Default for EphemeralStore {
    fn default() -> Self {
        Self::new(HistoryLimits::default())
    }
}

impl EphemeralStore {
    /// An empty store with this much history.
    #[must_use]
    pub fn new(limits: HistoryLimits) -> Self {
        Self { replica: Replica::new(limits, Bugs::NONE), index: Arc::new(AtomicU64::new(0)) }
    }

    /// Forgets the history up to and including a revision, as the leader of a real store does
    /// after some minutes.
    pub fn compact(&self, before: Revision) {
        self.apply(&Command::Compact { before });
    }

    fn apply(&self, command: &Command) -> crate::state::Reply {
        let index = self.index.fetch_add(1, Ordering::Relaxed) + 1;
        self.replica.apply(Position { term: 1, index }, Some(command))
    }

    fn decide(&self, transaction: Transaction) -> Result<Outcome, StoreError> {
        transaction.validate()?;
        let basis = self.replica.applied_index();
        self.apply(&Command::Transact { transaction, basis }).into_outcome()
    }
}

impl StoreHandle for EphemeralStore {
    fn transact(&self, transaction: Transaction) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        ready(self.decide(transaction)).boxed()
    }

    fn transact_in(
        &self,
        term: u64,
        transaction: Transaction,
    ) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        match self.standing().leads_in(term) {
            true => self.transact(transaction),
            false => ready(Err(StoreError::NotLeader { leader: Some(MemberId(1)) })).boxed(),
        }
    }

    fn read(&self) -> BoxFuture<'_, Result<View, StoreError>> {
        ready(Ok(self.replica.view())).boxed()
    }

    fn local(&self) -> View {
        self.replica.view()
    }

    fn view_at(&self, revision: Revision) -> Result<View, StoreError> {
        self.replica.view_at(revision)
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.replica.watch(prefix, after)
    }

    fn status(&self) -> Status {
        let state = self.replica.state();
        Status {
            member: MemberId(1),
            role: Role::Leader,
            term: 1,
            leader: Some(MemberId(1)),
            applied: state.view.revision,
            applied_index: state.applied_index(),
            oldest: self.replica.oldest(),
            last_index: state.applied_index(),
            snapshot_index: 0,
            membership: Membership::default(),
            feature_level: state.level,
            keys: state.view.len(),
            state_bytes: state.bytes,
            log_bytes: 0,
            disk_full: false,
            stopped: None,
        }
    }

    fn standing(&self) -> Standing {
        Standing { leads: true, term: 1 }
    }

    fn standing_other_than(&self, seen: Standing) -> BoxFuture<'static, Standing> {
        match self.standing() == seen {
            true => pending().boxed(),
            false => ready(self.standing()).boxed(),
        }
    }
}
