//! What a member does while it leads: it makes the objects that every cluster has, and runs the controllers.
//!
//! ```text
//!   store ── watch ──► term ── events ──► podium_control::driver
//!     ▲                 ▲  ◄── actions ──────┘
//!     │                 │
//!   TermStore ◄── pipeline ◄── calls: one future for each run, all in the task of the term
//! ```
//!
//! Job: keep the promises that [`podium_control::driver`] asks of its surroundings. The node and the simulator run the same
//! code; what they differ in, time and where the API is served, is [`Surroundings`]. No runtime, no clock, no randomness.
//!
//! # Invariants
//!
//! - All that a leader writes is proposed in its term or not at all: the store compares the term where it appends.
//! - A driver is made of a state behind a write of its own term, so everything that was proposed before, by a driver of the
//!   same term that was given up too, is decided and seen.
//! - What is under way when a term ends is dropped with it: it is all in one future.
//! - Nothing is polled: a leader is woken by its standing, the watch, an answer, or the time that the driver named.

pub mod calls;
mod term;
mod term_store;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use podium_api::Pipeline;
use podium_control::Settings;
use podium_control::driver::{Driver, Input};
use podium_store::StoreHandle;
use podium_types::{Now, ObjectKey};

use term::Term;

/// How long a leader waits that could not begin, or whose watch ended. A read or a write that fails does so after seconds by
/// itself, so this only keeps a refusal at once from becoming a loop.
const AGAIN: Duration = Duration::from_millis(100);

/// What leading needs.
#[derive(Clone)]
pub struct Leading {
    /// This member's store.
    pub store: Arc<dyn StoreHandle>,
    /// The verbs, with their clock and ids. The store under them is replaced by one that writes in the term only.
    pub pipeline: Pipeline,
    /// For the controllers.
    pub settings: Settings,
    /// The port at which the API is served.
    pub port: u16,
}

/// What the node and the simulator do each in their way.
pub trait Surroundings: Send + Sync {
    /// Done after so much of the monotonic clock.
    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()>;

    /// The addresses at which the API is served.
    fn servers(&self) -> Vec<IpAddr>;

    /// Done when [`Surroundings::servers`] is no longer this.
    fn servers_other_than(&self, known: Vec<IpAddr>) -> BoxFuture<'static, ()>;

    /// A term's driver before its first step, with what else it judges by.
    fn prepare(&self, driver: Driver, _now: Now) -> Driver {
        driver
    }

    /// What else the driver of a term is told, beside the store's events. Its end lets the term begin anew.
    fn told(&self) -> BoxStream<'static, Input> {
        futures::stream::pending().boxed()
    }

    /// An object does not fit its kind, and controllers do not see it.
    fn unreadable(&self, key: &ObjectKey, reason: &str);

    /// Whether this member leads and its controllers have nothing to do. Told after every step.
    fn at_rest(&self, at_rest: bool);
}

/// Leads whenever the store does; never returns.
pub async fn run(leading: Leading, surroundings: Arc<dyn Surroundings>) -> ! {
    loop {
        let standing = leading.store.standing();
        if !standing.leads {
            leading.store.standing_other_than(standing).await;
            continue;
        }
        tracing::info!(term = standing.term, "leading");
        match Term::begin(&leading, &surroundings, standing).await {
            Ok(mut term) => term.run().await,
            Err(status) => tracing::warn!(message = status.message, "cannot lead yet"),
        }
        surroundings.at_rest(false);
        if leading.store.standing() == standing {
            surroundings.sleep(AGAIN).await;
        }
    }
}
