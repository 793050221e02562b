//! PID 1's library: what other programs need to know about the machine they run on.
//!
//! - [`config`]: the machine config, one YAML document, decoded strictly.
//! - [`protocol`]: the control socket by which `node` asks PID 1 for status, config, reboot and power-off.
//!
//! The program itself (boot phases, disks, supervision) is in the binary, next to this library.

pub mod authority;
pub mod config;
pub mod protocol;
