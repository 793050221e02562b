//! The kinds of the API as data: what they are called, what shape they have, what their fields default to, which
//! values are valid, and how they look in a table.
//!
//! Everything here is pure: no I/O, no clock, no randomness, no async. Objects travel through the API and the store as
//! [`serde_json::Value`]; [`object`] reads their metadata in place, and the typed views of [`k8s`] are for code that
//! decides something about a kind. Serving, storing and watching objects is the work of the crates above.

pub mod canonical;
pub mod defaults;
pub mod event;
pub mod int_or_string;
pub mod key;
pub mod kind;
pub mod machine;
pub mod names;
pub mod namespace;
pub mod object;
pub mod openapi;
pub mod quantity;
pub mod references;
pub mod schema;
pub mod selector;
pub mod strategy;
pub mod table;
pub mod time;
pub mod validation;

pub use k8s_openapi as k8s;

pub use key::{GroupResource, ObjectKey};
pub use kind::Kind;
pub use machine::Machine;
pub use object::{ViewError, from_value, to_value};
pub use quantity::Quantity;
pub use references::References;
pub use selector::{FieldSelector, LabelSelector};
pub use time::Now;
