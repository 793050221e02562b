//! The agent as a whole: against shims that speak the real protocol over real sockets, and an API that only remembers.

#[path = "node/pods.rs"]
mod pods;
#[path = "node/shims.rs"]
mod shims;
#[path = "node/surroundings.rs"]
mod surroundings;
