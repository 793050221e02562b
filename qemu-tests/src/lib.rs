//! The QEMU rig, and the scenarios that boot the shipped image.
