//! Every decision of the orchestrator, as pure functions of state and time.
//!
//! # The pieces
//!
//! - [`World`] is what is known: every object of the API, typed and indexed, built from the store's watch stream alone.
//! - A [`Controller`] turns the part of the world that one key names into a [`Plan`]: a list of [`Step`]s, each one call
//!   of the API, and the time at which to look again if nothing happens before.
//! - [`driver::Driver`] is the generic loop around all controllers as a state machine: events and outcomes in, actions
//!   out. The node daemon and the simulator do what its actions say, and nothing else; so both run the same loop.
//!
//! Deliberately elsewhere: watching, calling the API, clocks, randomness, tasks, logging. Nothing in this crate reads a
//! clock, starts a thread, iterates in an order that is not a function of its input, or fails.
//!
//! # Invariants
//!
//! - A plan is a function of `(World, key, Now)`. Planning again after a plan has been applied gives an empty plan.
//! - No step can do harm if it is applied late: it creates an object under a name that tells the decision it came from,
//!   or it carries the uid, and where the decision was about contents the resourceVersion, of what it was decided on.
//! - A family of keys (see [`Controller::family`]) is never planned on a world that lacks one of the family's own writes.

pub mod bugs;
mod claim;
pub mod collector;
pub mod controller;
pub mod deployment;
pub mod driver;
pub mod endpoint_slice;
pub mod event;
pub mod event_collector;
pub mod forming;
pub mod health;
pub mod leader_lease;
pub mod name;
pub mod namespace;
pub mod node_lease;
pub mod node_lifecycle;
pub mod object;
pub mod plan;
pub mod pod;
pub mod pod_collector;
pub mod pods;
pub mod replica_set;
pub mod resources;
pub mod scheduler;
pub mod selector;
pub mod taint_eviction;
mod tally;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod world;

pub use controller::{Controller, Settings, controllers};
pub use object::{Bare, Object, Typed, View};
pub use plan::{EventKind, EventStep, Plan, Propagation, Regarding, Step};
pub use world::{Change, ObjectEvent, World};
