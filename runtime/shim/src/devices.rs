//! Which devices a container may use: a filter on its control group (eBPF, since cgroup v2 has no files for it), and the nodes that a
//! privileged container finds in `/dev`.
//!
//! libcontainer would apply the rules itself, but only together with a raised memlock limit, which a kernel since 5.11 does not need
//! and a shim without CAP_SYS_RESOURCE may not set; it also lets every container open `/dev/net/tun`, which containerd does not.

use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use libcgroups::v2::devices::{bpf, program};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType};
use thiserror::Error;

/// Why the device filter could not be set.
#[derive(Debug, Error)]
pub(crate) enum DeviceError {
    /// A rule makes no sense; a bug.
    #[error("cannot build the device filter")]
    Program(#[from] program::ProgramError),
    /// The kernel refused it.
    #[error("the kernel does not take the device filter")]
    Kernel(#[from] bpf::BpfError),
    /// The control group cannot be opened.
    #[error("cannot open the control group for the device filter")]
    Group(#[from] io::Error),
    /// The rule cannot be expressed; a bug.
    #[error("cannot express a device rule")]
    Rule(#[from] oci_spec::OciSpecError),
}

/// Character devices that every container may use, by major and minor number: null, zero, full, random, urandom, tty, console, ptmx,
/// and all of its terminals.
const USUAL: [(i64, Option<i64>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// Lets the processes of a control group use the usual devices only. A privileged container has no filter.
pub(crate) fn restrict(group: &Path) -> Result<(), DeviceError> {
    // The kernel reads the licence up to its NUL, which the binding does not add.
    const LICENSE: &str = "Apache-2.0\0";
    let program = program::Program::from_rules(&rules()?, false)?;
    let group = fs::File::open(group)?;
    let filter = bpf::prog::load(LICENSE, program.bytecodes())?;
    let attached = bpf::prog::attach(filter, group.as_raw_fd());
    // The control group keeps the program; closing our descriptor cannot fail in a way that matters.
    let _ = nix::unistd::close(filter);
    Ok(attached?)
}

fn rules() -> Result<Vec<LinuxDeviceCgroup>, oci_spec::OciSpecError> {
    // Making a node is harmless where using it is not allowed, and images' install scripts do it.
    let mut rules = vec![
        rule(LinuxDeviceType::C, None, None, "m")?,
        rule(LinuxDeviceType::B, None, None, "m")?,
    ];
    for (major, minor) in USUAL {
        rules.push(rule(LinuxDeviceType::C, Some(major), minor, "rwm")?);
    }
    Ok(rules)
}

fn rule(
    kind: LinuxDeviceType,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> Result<LinuxDeviceCgroup, oci_spec::OciSpecError> {
    let mut builder = LinuxDeviceCgroupBuilder::default().allow(true).typ(kind).access(access);
    if let Some(major) = major {
        builder = builder.major(major);
    }
    if let Some(minor) = minor {
        builder = builder.minor(minor);
    }
    builder.build()
}

/// A device node of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) path: PathBuf,
    /// `b` or `c`.
    pub(crate) kind: char,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Every device node below `/dev` but those that a container makes for itself. A node that disappears meanwhile is left out.
pub(crate) fn machine_nodes() -> Vec<Node> {
    let mut nodes = Vec::new();
    collect(Path::new("/dev"), &mut nodes);
    nodes.sort_by(|left, right| left.path.cmp(&right.path));
    nodes
}

fn collect(folder: &Path, nodes: &mut Vec<Node>) {
    const OWN: [&str; 6] =
        ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/console", "/dev/ptmx"];
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if OWN.iter().any(|own| path == Path::new(own)) {
            continue;
        }
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let kind = metadata.file_type();
        if kind.is_dir() {
            collect(&path, nodes);
        } else if kind.is_block_device() || kind.is_char_device() {
            nodes.push(Node {
                kind: if kind.is_block_device() { 'b' } else { 'c' },
                major: rustix::fs::major(metadata.rdev()),
                minor: rustix::fs::minor(metadata.rdev()),
                mode: metadata.mode() & 0o7777,
                uid: metadata.uid(),
                gid: metadata.gid(),
                path,
            });
        }
    }
}
