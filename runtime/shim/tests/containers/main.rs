//! The shim with real containers: as root, with the machine's own kernel. Memory, processor and process limits need cgroup v2 controllers
//! that a machine may keep in v1, so their effect is shown on the shipped image instead; here only that a missing controller is
//! an error exactly when it is asked for.

mod life;
mod security;
mod streams;
mod support;
