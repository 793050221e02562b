//! The QEMU rig: a Podium cluster in virtual machines on one Linux host, for people and for tests.
//!
//! [`Cluster`] owns everything it starts (the switch, the registry, one QEMU per machine) and takes all of it down when it
//! is dropped or when its process dies, however it dies. It needs no root, no bridge and no KVM: [`accelerator`] finds out
//! by itself what works. The scenarios in `tests/` boot the image that ships.
//!
//! Deliberately elsewhere: how the image is made (`podium-image`), frames (`podium-switch`), and the operator's commands
//! (`podium`), which run this same code.
//!
//! Invariant: a host port that the rig opens is on 127.0.0.1.

pub mod accelerator;
pub mod boot;
pub mod clients;
pub mod cluster;
pub mod console;
pub mod credentials;
pub mod debian;
pub mod fault;
pub mod history;
pub mod kubectl;
pub mod layout;
pub mod links;
pub mod node_api;
pub mod process;
pub mod qmp;
pub mod registry;
pub mod scenario;
pub mod terminal;
pub mod vm;
pub mod volatile;

pub use cluster::{Cluster, ClusterOptions};
pub use podium_switch::Capture;
