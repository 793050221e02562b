//! Selectors: by labels, and by the few fields that each kind offers.

mod field;
mod label;
mod label_text;

pub use field::FieldSelector;
pub use label::{LabelSelector, Operator, Requirement};

/// A selector that cannot be understood; the text is for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub(crate) String);
