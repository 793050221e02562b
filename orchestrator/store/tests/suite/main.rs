//! The store from outside: against a model, as a cluster, and on disks that fail.

mod cluster;
mod disks;
mod members;
mod model;
