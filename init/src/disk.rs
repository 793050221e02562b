//! Disks: what is on them, which partition becomes STATE, and how it is made, grown and mounted.
//!
//! [`decide`] is the safety rule, a pure function of what was read; [`gpt`] and [`ext4`] are the formats; [`scan`]
//! reads the disks and [`state`] carries the decision out. The EFI system partition is found here too.

pub(crate) mod decide;
pub(crate) mod ext4;
pub(crate) mod gpt;
mod ioctl;
pub(crate) mod scan;
pub(crate) mod state;
