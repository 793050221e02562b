//! How a machine becomes part of a cluster: does what [`podium_control::forming`] decides.
//!
//! ```text
//!   Ears ── hellos ──► Former ── hello, proposals, join ──► Company
//!                       │  ▲
//!        StandingFiles ◄┘  └── proposals of others
//! ```
//!
//! Job: one [`Former`] per machine, by which what it decides on, what is on its disk and what it says are the same. The node and
//! the simulator run the same code; what they differ in (time, sessions, the store's runtime) is [`Ground`], [`Ears`] and
//! [`Company`]. No runtime, no clock, no randomness. A machine's name and pod addresses in the cluster are [`Applicant`]'s.
//!
//! # Invariants
//!
//! - What is accepted is durable before it is said or answered: [`StandingFiles`].
//! - A standing changes under one lock, which is held from the decision until the disk has it. So a future of this crate is
//!   run to its end or dies with its program: one that is dropped half-way leaves a disk that its program does not know.

pub mod client;
mod former;
mod place;
mod standing;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use futures::future::BoxFuture;
use podium_control::forming::{ClusterId, Fingerprint, Heard, Hello, Joined, Machine, MemberSet};
use podium_store::StoreError;

pub use former::{Former, Founding, Look, alone, members};
pub use place::{Applicant, NoPlace};
pub use standing::StandingFiles;

/// Hellos by the keys of their machines.
pub type Hellos = BTreeMap<Fingerprint, Heard>;

/// What a machine stands on.
pub trait Ground: Send + Sync {
    /// The monotonic clock.
    fn now(&self) -> Duration;

    /// Done after so much of it.
    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()>;

    /// A random name for a cluster that may be made.
    ///
    /// # Errors
    /// There is no randomness.
    fn fresh(&self) -> io::Result<ClusterId>;

    /// Makes the store, with exactly the [`members`] of this set.
    fn initialise<'a>(&'a self, set: &'a MemberSet) -> BoxFuture<'a, Result<(), StoreError>>;
}

/// What a machine hears.
pub trait Ears: Send + Sync {
    /// The last hello of each machine to which there was a session.
    fn heard(&self) -> Hellos;

    /// Done at the first news after this call.
    fn news(&self) -> BoxFuture<'static, ()>;
}

/// The other machines.
pub trait Company: Send + Sync {
    /// Says this from now on.
    fn say(&self, hello: Hello);

    /// Asks a machine to accept a set.
    fn propose(&self, to: Fingerprint, set: MemberSet) -> BoxFuture<'_, Result<(), String>>;

    /// Asks a machine for a place in its cluster.
    fn join(&self, to: Fingerprint, me: Machine) -> BoxFuture<'_, Result<Joined, String>>;

    /// What went wrong last with another machine, if it still does.
    fn complaint(&self) -> Option<String>;

    /// For the console: one line on what is not well; none when all is.
    fn tell(&self, line: Option<String>);
}

/// Why a machine cannot go on forming. A new start of the program reads the disk again.
#[derive(Debug, thiserror::Error)]
pub enum FormError {
    /// The disk failed.
    #[error("{what} the file {file}")]
    Disk {
        /// What was being done.
        what: &'static str,
        /// To which file.
        file: &'static str,
        /// What the disk said.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what was written.
    #[error("the file {file}: {reason}")]
    Unreadable {
        /// Which.
        file: &'static str,
        /// In what way.
        reason: String,
    },
    /// The files contradict each other.
    #[error("{0}")]
    Contradiction(String),
    /// The store was not made.
    #[error("form the cluster")]
    Store(#[from] StoreError),
    /// No name for a cluster.
    #[error("get a random number")]
    Random(#[source] io::Error),
}
