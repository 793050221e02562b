//! The few ioctls that no safe interface offers.
//!
//! Why unsafe: the kernel reads and writes memory that we point to, with a layout that only its headers know.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

mod raw {
    #![allow(missing_docs, clippy::undocumented_unsafe_blocks)]

    /// `struct fsuuid` of linux/ext4.h with room for the sixteen bytes.
    #[repr(C)]
    #[derive(Default)]
    pub(super) struct FsUuid {
        pub(super) length: u32,
        pub(super) flags: u32,
        pub(super) uuid: [u8; 16],
    }

    nix::ioctl_none!(reread_partitions, 0x12, 95);
    nix::ioctl_write_ptr!(ext4_resize, b'f', 16, u64);
    // The kernel's number is made from the eight bytes in front of the flexible array.
    nix::ioctl_write_ptr_bad!(ext4_set_uuid, nix::request_code_write!(b'f', 44, 8), FsUuid);
}

/// Lets the kernel read a disk's partition table again (BLKRRPART). Fails while a partition is in use.
pub(super) fn reread_partitions(disk: &File) -> io::Result<()> {
    // SAFETY: the request takes no argument; the descriptor is open for the call's duration.
    unsafe { raw::reread_partitions(disk.as_raw_fd()) }?;
    Ok(())
}

/// Grows the mounted ext4 file system that `folder` is in (EXT4_IOC_RESIZE_FS).
pub(super) fn ext4_resize(folder: &File, blocks: u64) -> io::Result<()> {
    // SAFETY: the kernel reads one u64 from the pointer, which lives for the call.
    unsafe { raw::ext4_resize(folder.as_raw_fd(), &raw const blocks) }?;
    Ok(())
}

/// Gives the mounted ext4 file system that `folder` is in another UUID (EXT4_IOC_SETFSUUID).
pub(super) fn ext4_set_uuid(folder: &File, uuid: [u8; 16]) -> io::Result<()> {
    let argument = raw::FsUuid { length: 16, flags: 0, uuid };
    // SAFETY: the kernel reads the eight bytes of lengths and then `length` bytes, all inside `argument`.
    unsafe { raw::ext4_set_uuid(folder.as_raw_fd(), &raw const argument) }?;
    Ok(())
}
