//! The lifecycle of a pod: against a node in miniature, in virtual time.

#[path = "pod/adoption.rs"]
mod adoption;
#[path = "pod/denial.rs"]
mod denial;
#[path = "pod/lifecycle.rs"]
mod lifecycle;
#[path = "pod/runtime.rs"]
mod runtime;
#[path = "pod/stories.rs"]
mod stories;
