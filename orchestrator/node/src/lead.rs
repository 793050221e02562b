//! What leading needs of this machine: its clock, where the API is, and who is heard.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, pending};
use futures::stream::{self, BoxStream, StreamExt as _};
use podium_control::driver::{Driver, Input};
use podium_control::health::Health;
use podium_lead::Surroundings;
use podium_types::{Now, ObjectKey};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use crate::heartbeat::Board;

/// This machine, as a leader sees it.
pub(crate) struct Here {
    /// Where the cluster's API is served.
    pub(crate) servers: watch::Receiver<Vec<IpAddr>>,
    /// The nodes' beats.
    pub(crate) board: Arc<Board>,
}

impl Surroundings for Here {
    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(span).boxed()
    }

    fn servers(&self) -> Vec<IpAddr> {
        self.servers.borrow().clone()
    }

    fn servers_other_than(&self, known: Vec<IpAddr>) -> BoxFuture<'static, ()> {
        let mut servers = self.servers.clone();
        async move {
            if servers.wait_for(|now| *now != known).await.is_err() {
                // Nobody is left to change them.
                pending::<()>().await;
            }
        }
        .boxed()
    }

    fn prepare(&self, driver: Driver, now: Now) -> Driver {
        let health = Health::new(self.board.timings(), self.board.name(), now.monotonic);
        driver.judging(health, now)
    }

    fn told(&self) -> BoxStream<'static, Input> {
        let beats = self.board.subscribe();
        stream::unfold(beats, |mut beats| async move {
            loop {
                match beats.recv().await {
                    Ok(beat) => return Some((Input::Heard(beat), beats)),
                    // Those that come next say the same.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        })
        .boxed()
    }

    fn unreadable(&self, key: &ObjectKey, reason: &str) {
        tracing::error!(resource = %key.resource, name = %key.name, reason, "an object does not fit its kind");
    }

    fn at_rest(&self, _: bool) {}
}
