//! The whole cluster in one process, from one seed.

pub mod disk;
pub mod executor;
pub mod fault;
pub mod network;
pub mod runtime;
