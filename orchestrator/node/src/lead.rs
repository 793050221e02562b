//! What leading needs of this machine: its clock, and where its API is.

use std::net::IpAddr;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, pending};
use podium_lead::Surroundings;
use podium_types::ObjectKey;
use tokio::sync::watch;

/// This machine, with the addresses that it has.
pub(crate) struct Here(pub(crate) watch::Receiver<Vec<IpAddr>>);

impl Surroundings for Here {
    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(span).boxed()
    }

    fn servers(&self) -> Vec<IpAddr> {
        self.0.borrow().clone()
    }

    fn servers_other_than(&self, known: Vec<IpAddr>) -> BoxFuture<'static, ()> {
        let mut addresses = self.0.clone();
        async move {
            if addresses.wait_for(|now| *now != known).await.is_err() {
                // Nobody is left to change them.
                pending::<()>().await;
            }
        }
        .boxed()
    }

    fn unreadable(&self, key: &ObjectKey, reason: &str) {
        tracing::error!(resource = %key.resource, name = %key.name, reason, "an object does not fit its kind");
    }

    fn at_rest(&self, _: bool) {}
}
