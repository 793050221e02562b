//! Reads what is on the machine's disks.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::decide::{Contents, Disk};
use super::gpt::{ESP_TYPE, Ends, SECTOR, Table};

/// How much of each end is looked at: partition tables, boot sectors, and the superblocks of LVM, MD, LUKS, ZFS and
/// of the common file systems lie inside.
const END_BYTES: u64 = 1 << 20;
const BLOCK: &str = "/sys/class/block";

/// All whole, writable, fixed disks, by name.
pub(crate) fn disks() -> Vec<Disk> {
    let mut names: Vec<String> = fs::read_dir(BLOCK)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_disk(&Path::new(BLOCK).join(name)))
        .collect();
    names.sort();
    names.into_iter().filter_map(|name| disk(&name)).collect()
}

/// A disk has hardware behind it and is no partition; what can be taken out or not written to is no place for STATE.
fn is_disk(folder: &Path) -> bool {
    let zero =
        |file: &str| fs::read_to_string(folder.join(file)).is_ok_and(|text| text.trim() == "0");
    folder.join("device").exists()
        && !folder.join("partition").exists()
        && zero("removable")
        && zero("ro")
}

fn disk(name: &str) -> Option<Disk> {
    let sectors: u64 =
        fs::read_to_string(Path::new(BLOCK).join(name).join("size")).ok()?.trim().parse().ok()?;
    if sectors == 0 {
        return None;
    }
    let path = format!("/dev/{name}");
    let contents = if sector_bytes(name) == Some(SECTOR) {
        contents(&path, sectors)
            .unwrap_or_else(|error| Contents::Foreign(format!("it cannot be read: {error}")))
    } else {
        Contents::Foreign("its sectors are not of 512 bytes".to_owned())
    };
    Some(Disk { path, sectors, contents })
}

fn sector_bytes(name: &str) -> Option<u64> {
    fs::read_to_string(Path::new(BLOCK).join(name).join("queue/logical_block_size"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn contents(path: &str, sectors: u64) -> io::Result<Contents> {
    let file = fs::File::open(path)?;
    let bytes = sectors * SECTOR;
    let length = END_BYTES.min(bytes);
    let read = |at: u64| -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; usize::try_from(length).unwrap_or_default()];
        file.read_exact_at(&mut buffer, at)?;
        Ok(buffer)
    };
    let (head, tail) = (read(0)?, read(bytes - length)?);
    Ok(judge(&head, &tail))
}

/// What the ends of a disk say.
fn judge(head: &[u8], tail: &[u8]) -> Contents {
    if let Some((table, copy)) = Table::read(Ends { head, tail }) {
        return Contents::Partitioned(table, copy);
    }
    let zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    if zero(head) && zero(tail) {
        return Contents::Blank;
    }
    let what = match head.get(510..512) {
        Some([0x55, 0xAA]) => "a boot sector or another kind of partition table",
        Some(_) | None if !zero(head) => "its first megabyte is not empty",
        Some(_) | None => "its last megabyte is not empty",
    };
    Contents::Foreign(what.to_owned())
}

/// The device of a disk's partition: `/dev/vda2`, `/dev/nvme0n1p2`.
pub(crate) fn partition_device(disk: &str, number: u32) -> PathBuf {
    let separator = if disk.ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" };
    PathBuf::from(format!("{disk}{separator}{number}"))
}

/// The devices of all EFI system partitions.
pub(crate) fn efi_partitions(disks: &[Disk]) -> Vec<PathBuf> {
    let mut devices = Vec::new();
    for disk in disks {
        let Contents::Partitioned(table, _) = &disk.contents else { continue };
        let esps = table.partitions.iter().filter(|partition| partition.kind == ESP_TYPE);
        devices.extend(esps.map(|partition| partition_device(&disk.path, partition.number)));
    }
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_numbered_disks_have_a_letter_between() {
        assert_eq!(partition_device("/dev/vda", 2), Path::new("/dev/vda2"));
        assert_eq!(partition_device("/dev/nvme0n1", 2), Path::new("/dev/nvme0n1p2"));
    }

    #[test]
    fn one_byte_at_either_end_makes_a_disk_foreign() {
        let zero = vec![0u8; 1 << 20];
        assert_eq!(judge(&zero, &zero), Contents::Blank);
        let mut marked = zero.clone();
        marked[4096] = 1;
        assert_eq!(
            judge(&marked, &zero),
            Contents::Foreign("its first megabyte is not empty".to_owned())
        );
        assert_eq!(
            judge(&zero, &marked),
            Contents::Foreign("its last megabyte is not empty".to_owned())
        );
    }
}
