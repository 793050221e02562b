//! The tree that everything else stands on: a root that can be pivoted, and the kernel's file systems.

use std::ffi::CStr;
use std::fs;
use std::io;

use rustix::mount::{MountFlags, mount, mount_bind, mount_change, mount_move, mount_remount};

/// Why a mount is missing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    /// The root could not be made a mount of its own.
    #[error("making the root pivotable: {step}")]
    Root {
        /// Which step.
        step: &'static str,
        /// Why.
        #[source]
        source: rustix::io::Errno,
    },
    /// A file system could not be mounted.
    #[error("mounting {kind} on {target}")]
    Mount {
        /// Which file system.
        kind: &'static str,
        /// Where.
        target: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The root could not be made read-only.
    #[error("making the root read-only")]
    ReadOnly(#[source] rustix::io::Errno),
}

/// A kernel file system and where it belongs.
struct Mount {
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    options: &'static CStr,
}

/// Nothing on it is a program, a device, or may raise privileges.
const DATA: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// In order: later ones stand on earlier ones.
const MOUNTS: &[Mount] = &[
    Mount { kind: "proc", target: "/proc", flags: DATA, options: c"" },
    Mount { kind: "sysfs", target: "/sys", flags: DATA, options: c"" },
    Mount { kind: "devtmpfs", target: "/dev", flags: MountFlags::NOSUID, options: c"mode=0755" },
    Mount {
        kind: "devpts",
        target: "/dev/pts",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        options: c"gid=5,mode=0620,ptmxmode=0666",
    },
    Mount { kind: "tmpfs", target: "/dev/shm", flags: DATA, options: c"mode=1777" },
    Mount { kind: "mqueue", target: "/dev/mqueue", flags: DATA, options: c"" },
    Mount {
        kind: "tmpfs",
        target: "/run",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        options: c"mode=0755,size=20%",
    },
    Mount {
        kind: "tmpfs",
        target: "/tmp",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        options: c"mode=1777,size=20%",
    },
    Mount {
        kind: "cgroup2",
        target: "/sys/fs/cgroup",
        flags: DATA,
        options: c"nsdelegate,memory_recursiveprot",
    },
];

/// Controllers that pods are limited by; a kernel may lack some.
const CONTROLLERS: &[&str] = &["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "misc"];

/// Where the root is bound to, on the way to becoming a mount of its own.
const NEW_ROOT: &str = "/newroot";

/// Makes the initramfs a mount like any other. The kernel's first mount cannot be left (pivot_root fails with EINVAL),
/// and containers are entered by leaving the root behind.
pub(crate) fn pivotable_root() -> Result<(), MountError> {
    let at = |step| move |source| MountError::Root { step, source };
    mount_bind("/", NEW_ROOT).map_err(at("binding it"))?;
    rustix::process::chdir(NEW_ROOT).map_err(at("entering it"))?;
    mount_move(".", "/").map_err(at("moving it"))?;
    rustix::process::chroot(".").map_err(at("making it the root"))?;
    rustix::process::chdir("/").map_err(at("entering the root"))
}

/// Mounts everything that can be mounted; the first thing that cannot is the error, after all were tried.
pub(crate) fn kernel_file_systems() -> Result<usize, MountError> {
    let mut first = None;
    let mut mounted = 0;
    for entry in MOUNTS {
        let Mount { kind, target, flags, options } = entry;
        // devtmpfs has no folders of its own for what is mounted inside it.
        let _ = fs::create_dir_all(target);
        match mount(*kind, *target, *kind, *flags, Some(*options)) {
            Ok(()) => mounted += 1,
            Err(error) => {
                let source = error.into();
                first = first.or(Some(MountError::Mount { kind, target, source }));
            }
        }
    }
    // Containers decide about their own mounts; ours must reach them and theirs must not come back.
    let _ = mount_change(
        "/",
        rustix::mount::MountPropagationFlags::REC | rustix::mount::MountPropagationFlags::SHARED,
    );
    first.map_or(Ok(mounted), Err)
}

/// Hands the controllers down, so that pods may be limited. Says which the kernel has.
pub(crate) fn delegate_controllers() -> String {
    let mut delegated = Vec::new();
    for controller in CONTROLLERS {
        if fs::write("/sys/fs/cgroup/cgroup.subtree_control", format!("+{controller}")).is_ok() {
            delegated.push(*controller);
        }
    }
    delegated.join(" ")
}

/// Nothing in the root changes any more. Other mounts (`/dev`, `/run`, `/tmp`, `/var`) stay as they are.
pub(crate) fn read_only_root() -> Result<(), MountError> {
    mount_remount("/", MountFlags::BIND | MountFlags::RDONLY, c"").map_err(MountError::ReadOnly)
}
