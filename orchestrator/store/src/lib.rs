//! The replicated store: Raft, log, snapshots, revisions, watch.
//!
//! The only source of state in a cluster. A few members keep the same log; what the log says is
//! applied by all of them alike to a map from keys to values with one revision for the whole
//! cluster. Others see it through [`StoreHandle`]: transactions with guards, linearizable reads,
//! views of the recent past, and watches without gaps.
//!
//! ```text
//!        StoreHandle                       Transport (TLS, or the simulator's network)
//!             │                                 │
//!   Store ────┴── transact/read ──► openraft ◄──┴── Store::serve
//!     │                              │     │
//!     │ views, watches     apply ────┘     └──── append, vote
//!     ▼                      ▼                      ▼
//!   Replica (state · history · watchers)      log · vote · snapshots ──► Disk (files, or the
//!                                                                         simulator's)
//! ```
//!
//! What is promised, and where it is kept:
//! - An acknowledged transaction is durable on a majority: [`disk`]'s rules, `log`.
//! - The same transaction id is decided once: `state::outcomes`.
//! - A read is never older than what was acknowledged before it: `store::read`.
//! - A watch has no gap, or says so: `replica`.
//! - Nothing that fails its checksum is served: `format`, `log::recover`, `snapshot`.
//! - No type of openraft is written to a disk or a wire: `format` owns frozen shapes, whose golden
//!   bytes are in `tests/golden`.
//!
//! The store has no clock, no randomness and no threads of its own: it runs on openraft's
//! `AsyncRuntime`, over the [`Disk`] and [`Transport`] it is given. [`TokioRuntime`] with
//! [`disk::os::OsDisk`] is the shipped pair; the simulator brings its own.

mod bugs;
mod config;
mod consensus;
pub mod disk;
mod ephemeral;
mod error;
mod format;
mod handle;
mod history;
mod log;
mod member;
mod message;
mod mirror;
mod record;
mod replica;
mod snapshot;
mod state;
mod store;
mod transport;
mod view;
mod watch;

pub use bugs::{Bug, Bugs, PLANTED_BUGS};
pub use config::{Config, LogLimits, Timings};
pub use disk::{Disk, DiskFile};
pub use ephemeral::EphemeralStore;
pub use error::{StoreError, WatchError};
pub use handle::{Role, Standing, Status, StoreHandle};
pub use history::HistoryLimits;
pub use member::{FeatureLevel, Member, MemberId, Membership};
pub use mirror::{Intake, Mirror, MirrorChange, MirrorNews, NewsError};
pub use openraft::AsyncRuntime;
pub use openraft::impls::TokioRuntime;
pub use record::{
    Guard, KEY_LIMIT_BYTES, OPERATION_LIMIT, Operation, Outcome, Record, Revision,
    TRANSACTION_LIMIT_BYTES, Transaction, TransactionId, VALUE_LIMIT_BYTES,
};
pub use store::Store;
pub use transport::{Alone, Message, MessageKind, Transport, TransportError};
pub use view::View;
pub use watch::{EventKind, Watch, WatchEvent};
