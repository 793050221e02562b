//! The store as a leader's own parts may use it: writes are proposed here, in this term, or not at all.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::{BoxFuture, ready};
use podium_store::{
    Outcome, Revision, Role, Status, StoreError, StoreHandle, Transaction, TransactionId, View,
    Watch,
};

use crate::cluster::SimStore;
use crate::executor;

pub(super) struct TermStore {
    store: SimStore,
    term: u64,
    over: AtomicBool,
}

impl TermStore {
    pub(super) fn new(store: SimStore, term: u64) -> Self {
        Self { store, term, over: AtomicBool::new(false) }
    }

    /// Whether the term, and this leadership, still last as far as the member knows.
    pub(super) fn lasts(&self) -> bool {
        let status = self.store.status();
        !self.over.load(Ordering::Relaxed)
            && status.role == Role::Leader
            && status.term == self.term
    }

    /// No write is begun from here on.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Commits nothing, and says at which revision.
    pub(super) async fn barrier(&self) -> Result<u64, StoreError> {
        let id =
            executor::with(|core| (u128::from(core.random()) << 64) | u128::from(core.random()));
        let transaction =
            Transaction { id: TransactionId(id), guards: Vec::new(), operations: Vec::new() };
        match self.transact(transaction).await? {
            Outcome::Committed { revision } => Ok(revision.0),
            Outcome::Refused { .. } => Ok(0),
        }
    }
}

impl StoreHandle for TermStore {
    fn transact(&self, transaction: Transaction) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        if self.lasts() {
            return self.store.transact(transaction);
        }
        Box::pin(ready(Err(StoreError::NotLeader { leader: None })))
    }

    fn read(&self) -> BoxFuture<'_, Result<View, StoreError>> {
        self.store.read()
    }

    fn local(&self) -> View {
        self.store.local()
    }

    fn view_at(&self, revision: Revision) -> Result<View, StoreError> {
        self.store.view_at(revision)
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.store.watch(prefix, after)
    }

    fn status(&self) -> Status {
        self.store.status()
    }
}
