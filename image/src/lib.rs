//! Builds the OS image: one UKI, its kernel and initramfs apart, and a disk image that boots it.
//!
//! ```text
//! Debian packages ──lock──► fetch ──► deb ──► kernel, modules, stub, boot manager, certificates
//! init, node, shim (static programs) ──► initramfs ──► uki ──► disk (ESP with systemd-boot and the UKI, STATE)
//! ```
//!
//! [`build`] is a function of its inputs: the same programs, the same locked packages and the same version give the
//! same bytes, in any folder, at any time, by any user. It needs no root and no loop device. Nothing here boots
//! anything: that is the rig's job.
//!
//! The on-disk facts that other programs rely on (file names in the initramfs, partition names and types, the format
//! of the module index and of the ext4 template) are documented where they are written.

pub mod bytes;
pub mod deb;
pub mod disk;
pub mod elf;
pub mod fetch;
pub mod initramfs;
pub mod lock;
pub mod modules;
pub mod newc;
pub mod pe;
pub mod template;
pub mod uki;

mod assemble;

pub use assemble::{Artifacts, BuildOptions, build, checksum, pin};
pub use fetch::FetchError;
