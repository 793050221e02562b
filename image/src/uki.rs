//! The unified kernel image: systemd's EFI stub with the kernel, its command line and the initramfs as PE sections
//! (the UAPI group's "Unified Kernel Image" specification).

use crate::pe::{self, PeError};

/// The command line that every boot of the image uses.
///
/// - `console=`: the last one is `/dev/console`; servers and virtual machines have a serial port, people a screen.
/// - `quiet`: PID 1 speaks for itself; warnings still show.
/// - `cryptomgr.notests=1`: half a second of self-tests under emulation, of algorithms that Debian tested.
/// - `no_timer_check`: the kernel's search for timers that are wired wrongly, as before 2005, gives up on an emulated machine
///   whose host is busy, and then does not boot.
/// - `panic=10`: a kernel that panics tries again, after it could be read.
pub const CMDLINE: &str = "console=tty0 console=ttyS0,115200 quiet cryptomgr.notests=1 no_timer_check panic=10 rdinit=/init";

/// The parts of a UKI.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// systemd's `linuxx64.efi.stub`.
    pub stub: &'a [u8],
    /// Text of os-release(5), which names the menu entry.
    pub os_release: &'a str,
    /// The kernel's release.
    pub uname: &'a str,
    /// The kernel.
    pub kernel: &'a [u8],
    /// The compressed initramfs.
    pub initramfs: &'a [u8],
}

/// The EFI file.
///
/// # Errors
/// [`PeError`].
pub fn assemble(parts: &Parts<'_>) -> Result<Vec<u8>, PeError> {
    pe::append(
        parts.stub,
        &[
            (".osrel", parts.os_release.as_bytes()),
            (".cmdline", CMDLINE.as_bytes()),
            (".uname", parts.uname.as_bytes()),
            (".initrd", parts.initramfs),
            // Last: the kernel may unpack itself over what follows it.
            (".linux", parts.kernel),
        ],
    )
}
