//! The store as a leader's own parts may use it: writes are proposed here, in this term, or not at all.

use std::sync::Arc;

use futures::future::BoxFuture;
use podium_store::{
    Outcome, Revision, Standing, Status, StoreError, StoreHandle, Transaction, View, Watch,
};

/// See the module.
pub(crate) struct TermStore {
    store: Arc<dyn StoreHandle>,
    term: u64,
}

impl TermStore {
    pub(crate) fn new(store: Arc<dyn StoreHandle>, term: u64) -> Self {
        Self { store, term }
    }
}

impl StoreHandle for TermStore {
    fn transact(&self, transaction: Transaction) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        self.store.transact_in(self.term, transaction)
    }

    fn transact_in(
        &self,
        term: u64,
        transaction: Transaction,
    ) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        self.store.transact_in(term, transaction)
    }

    /// Not passed on to anybody: a decision of this leader must not be carried out by the next.
    fn submit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        self.transact(transaction)
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

    fn standing(&self) -> Standing {
        self.store.standing()
    }

    fn standing_other_than(&self, seen: Standing) -> BoxFuture<'static, Standing> {
        self.store.standing_other_than(seen)
    }
}
