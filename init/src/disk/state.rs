//! Carries out the decision about STATE: writes tables, makes the file system, mounts and grows it.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use podium_init::protocol::StateStatus;
use rustix::mount::{MountFlags, mount};

use super::decide::{Contents, Decision, Disk, Wish, decide};
use super::ext4::{self, Found, TemplateError};
use super::gpt::{Guid, Partition, Region, SECTOR, STATE_NAME, STATE_TYPE, Table};
use super::{ioctl, scan};

/// Where STATE is mounted.
pub(crate) const MOUNT_POINT: &str = "/var";
/// The template in the initramfs.
const TEMPLATE: &str = "/lib/podium/state.template";
/// What ext4 does with a fault and with a shortage.
///
/// - `errors=remount-ro`: better a node that says so than one that makes it worse.
/// - `resuid`: the reserved blocks are root's otherwise, and so every container's. Nobody has this user id, so they are left to
///   processes with CAP_SYS_RESOURCE, the node's own: whatever volumes hold, the log and the records have room, and a pod can
///   be deleted.
const OPTIONS: &std::ffi::CStr = c"errors=remount-ro,resuid=4294967294";
/// Folders that programs expect.
const FOLDERS: &[&str] = &[
    "lib",
    "lib/podium",
    "lib/podium/raft",
    "lib/podium/identity",
    "lib/podium/images",
    "lib/podium/pods",
    "lib/podium/machine",
    "log",
    "log/pods",
    "tmp",
];

/// Why STATE could not be mounted although it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// The partition table could not be written.
    #[error("writing the partition table of {disk}")]
    Table {
        /// Which disk.
        disk: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The partition could not be read.
    #[error("reading {device}")]
    Look {
        /// Which partition.
        device: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The partition holds something that is not ours.
    #[error("{0} has the type of STATE but holds no ext4 file system; it is left alone")]
    Foreign(PathBuf),
    /// The file system could not be made.
    #[error("making the file system on {device}")]
    Make {
        /// Which partition.
        device: PathBuf,
        /// Why.
        #[source]
        source: TemplateError,
    },
    /// The file system could not be mounted.
    #[error("mounting {device} on /var")]
    Mount {
        /// Which partition.
        device: PathBuf,
        /// Why.
        #[source]
        source: rustix::io::Errno,
    },
}

/// Finds or makes STATE by the safety rule, and mounts it.
///
/// # Errors
/// [`StateError`]; a refusal by the rule is no error but [`StateStatus::Refused`].
pub(crate) fn mount_state(disks: &[Disk], wish: Wish<'_>) -> Result<StateStatus, StateError> {
    let (disk, number) = match decide(disks, wish) {
        Decision::Refuse { reason } => return Ok(StateStatus::Refused { reason }),
        Decision::Use { disk, partition, grow_to, repair } => {
            if grow_to.is_some() || repair {
                rewrite_table(disks, &disk, partition, grow_to)?;
            }
            (disk, partition)
        }
        Decision::Make { disk } => {
            make_partition(disks, &disk)?;
            (disk, 1)
        }
    };
    let device = scan::partition_device(&disk, number);
    let made = match ext4::look(&device)
        .map_err(|source| StateError::Look { device: device.clone(), source })?
    {
        Found::Ext4 => false,
        Found::Foreign => return Err(StateError::Foreign(device)),
        Found::Empty => {
            let template = Path::new(TEMPLATE);
            ext4::make(template, &device)
                .map_err(|source| StateError::Make { device: device.clone(), source })?;
            true
        }
    };
    mount_ext4(&device, made)
}

fn mount_ext4(device: &Path, made: bool) -> Result<StateStatus, StateError> {
    let flags = MountFlags::NOATIME | MountFlags::NODEV;
    mount(device, MOUNT_POINT, "ext4", flags, Some(OPTIONS))
        .map_err(|source| StateError::Mount { device: device.to_owned(), source })?;
    let size_bytes = partition_bytes(device);
    let folder = Path::new(MOUNT_POINT);
    if let Err(error) = ext4::grow(folder, size_bytes) {
        crate::console::warn(&format!("STATE could not be grown to its partition: {error}"));
    }
    if made && let Err(error) = ext4::new_uuid(folder) {
        crate::console::warn(&format!("STATE keeps the template's UUID: {error}"));
    }
    for name in FOLDERS {
        // A full disk must not stop the machine; whoever needs the folder will say so.
        let _ = fs::create_dir_all(folder.join(name));
    }
    // The template has done its work; it is memory.
    let _ = fs::remove_file(TEMPLATE);
    Ok(StateStatus::Mounted { device: device.display().to_string(), size_bytes, made })
}

fn partition_bytes(device: &Path) -> u64 {
    let name =
        device.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let text = fs::read_to_string(format!("/sys/class/block/{name}/size")).unwrap_or_default();
    text.trim().parse::<u64>().unwrap_or_default() * SECTOR
}

fn make_partition(disks: &[Disk], path: &str) -> Result<(), StateError> {
    let sectors = disks.iter().find(|disk| disk.path == path).map_or(0, |disk| disk.sectors);
    let mut table = Table { disk: random_guid(), partitions: Vec::new() };
    let (first, last) = table.free_end(sectors);
    table.partitions.push(Partition {
        number: 1,
        kind: STATE_TYPE,
        id: random_guid(),
        first,
        last,
        attributes: 0,
        name: STATE_NAME.encode_utf16().collect(),
    });
    write_table(path, &table, sectors)
}

/// Writes both copies of a disk's table, with STATE ending at `last` if it is to grow.
fn rewrite_table(
    disks: &[Disk],
    path: &str,
    number: u32,
    last: Option<u64>,
) -> Result<(), StateError> {
    let Some(disk) = disks.iter().find(|disk| disk.path == path) else { return Ok(()) };
    let Contents::Partitioned(table, _) = &disk.contents else { return Ok(()) };
    let mut table = table.clone();
    for partition in &mut table.partitions {
        if partition.number == number {
            partition.last = last.unwrap_or(partition.last);
        }
    }
    write_table(path, &table, disk.sectors)
}

fn write_table(path: &str, table: &Table, sectors: u64) -> Result<(), StateError> {
    let failed = |source| StateError::Table { disk: path.to_owned(), source };
    let disk = fs::File::options().read(true).write(true).open(path).map_err(failed)?;
    for region in table.regions(sectors) {
        match region {
            Region::Write { sector, bytes } => {
                disk.write_all_at(&bytes, sector * SECTOR).map_err(failed)?;
            }
            Region::Sync => disk.sync_all().map_err(failed)?,
        }
    }
    ioctl::reread_partitions(&disk).map_err(failed)
}

/// A version-4 GUID.
fn random_guid() -> Guid {
    let mut bytes = [0u8; 16];
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    let [_, _, _, _, _, _, _, version, variant, ..] = &mut bytes;
    *version = *version & 0x0f | 0x40;
    *variant = *variant & 0x3f | 0x80;
    Guid(bytes)
}
