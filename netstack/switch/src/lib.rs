//! The QEMU rig's userspace Ethernet switch and gateway.
