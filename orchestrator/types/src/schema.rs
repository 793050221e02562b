//! What fields each kind has, and the decoding of requests by it.
//!
//! [`decode`] reads raw JSON against a kind and returns the object as the API keeps it: fields that the kind does not have
//! are gone (and reported), nulls are gone, quantities and times are in canonical form. A wrong type is an error that names
//! the field in the words of Kubernetes. [`Cursor`] walks the same tree for those who merge patches.
//!
//! The tree is derived from k8s-openapi at build time (`build/main.rs`), and unpacked when it is first used.

mod cursor;
mod decode;
mod merge;
mod tree;

pub use cursor::{Cursor, Strategy};
pub use decode::{DecodeError, Decoded, FieldValidation, check, decode};

pub(crate) use merge::merge_of;
pub(crate) use tree::definition_name;

#[cfg(test)]
mod agreement;
