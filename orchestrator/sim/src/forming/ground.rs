//! What a simulated machine stands on.

use std::io;
use std::time::Duration;

use futures::future::BoxFuture;
use podium_control::forming::{ClusterId, MemberSet};
use podium_form::Ground;
use podium_store::StoreError;

use crate::access::now_of;
use crate::cluster::{Cluster, SimStore};
use crate::executor;
use crate::ledger::Violation;
use crate::runtime::Sleep;

pub(super) struct SimGround {
    pub(super) cluster: Cluster,
    pub(super) node: u16,
    pub(super) store: SimStore,
}

impl Ground for SimGround {
    fn now(&self) -> Duration {
        now_of(self.node).monotonic
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        Box::pin(Sleep::after(span))
    }

    fn fresh(&self) -> io::Result<ClusterId> {
        let halves = executor::with(|core| (core.random(), core.random()));
        Ok(ClusterId((u128::from(halves.0) << 64) | u128::from(halves.1)))
    }

    fn initialise<'a>(&'a self, set: &'a MemberSet) -> BoxFuture<'a, Result<(), StoreError>> {
        if let Err(what) = self.cluster.census().makes(self.node, set) {
            self.cluster.ledger().accuse(Violation::Rule(what));
        }
        Box::pin(self.store.initialise(podium_form::members(set)))
    }
}
