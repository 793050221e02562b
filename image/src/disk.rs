//! The disk image: GPT with an EFI system partition (FAT32) and an empty STATE partition.
//!
//! The partitions' types and names are how `init` finds them: the EFI system partition by its standard type, STATE by
//! [`STATE_TYPE`]. STATE is left zero; `init` makes its file system, and grows it to the end of the real disk. All
//! GUIDs come from a hash of the UKI, so that equal inputs give equal images and different versions differ.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

/// The EFI system partition's type (UEFI 2.10, table 5.7).
pub const ESP_TYPE: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
/// The type of Podium's STATE partition; `init` looks for it.
pub const STATE_TYPE: &str = "706F6469-756D-4E5F-8374-617465000000";
/// The name of STATE, for people.
pub const STATE_NAME: &str = "PODIUM-STATE";

const SECTOR_BYTES: u64 = 512;
const MIB: u64 = 1 << 20;
/// Two UKIs during an upgrade, the boot manager, and the machine config.
const ESP_BYTES: u64 = 128 * MIB;
/// What the template needs; a real disk is larger, and STATE is grown to its end.
const STATE_BYTES: u64 = 512 * MIB;
/// Partitions begin and end on whole megabytes, the first one after the table.
const FIRST: u64 = MIB;

/// Why there is no disk image.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file could not be written.
    #[error("writing the disk image")]
    Io(#[from] io::Error),
    /// The partition table could not be made.
    #[error("writing the partition table")]
    Gpt(#[source] gpt::GptError),
    /// A name is no GUID: a mistake in this file.
    #[error("{0:?} is no GUID")]
    Guid(String),
}

/// Files of the ESP by path; folders are made as needed.
pub type EspFiles<'a> = BTreeMap<String, &'a [u8]>;

/// The files of an ESP that boots `uki` as `podium-VERSION.efi` through systemd-boot.
pub fn esp_files<'a>(version: &str, uki: &'a [u8], boot_manager: &'a [u8]) -> EspFiles<'a> {
    BTreeMap::from([
        ("EFI/BOOT/BOOTX64.EFI".to_owned(), boot_manager),
        (format!("EFI/Linux/podium-{version}.efi"), uki),
        // No menu, no editor: the newest entry boots at once.
        ("loader/loader.conf".to_owned(), b"timeout 0\neditor no\n".as_slice()),
    ])
}

/// Writes the disk image to `path`, sparse.
///
/// # Errors
/// [`DiskError`].
pub fn write(path: &Path, files: &EspFiles<'_>) -> Result<(), DiskError> {
    let mut seed = Sha256::new();
    for (name, bytes) in files {
        seed.update(name);
        seed.update(bytes);
    }
    let seed: [u8; 32] = seed.finalize().into();
    let total = FIRST + ESP_BYTES + STATE_BYTES + MIB;
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    file.set_len(total)?;
    write_table(&mut file, &seed, total)?;
    let esp = esp(files, &seed)?;
    write_sparse(&mut file, FIRST, &esp)?;
    file.sync_all()?;
    Ok(())
}

fn write_table(file: &mut File, seed: &[u8; 32], total: u64) -> Result<(), DiskError> {
    let sectors = u32::try_from(total / SECTOR_BYTES - 1).unwrap_or(u32::MAX);
    gpt::mbr::ProtectiveMBR::with_lb_size(sectors)
        .overwrite_lba0(file)
        .map_err(|error| DiskError::Io(io::Error::other(error)))?;
    let mut disk = gpt::GptConfig::new()
        .writable(true)
        .logical_block_size(gpt::disk::LogicalBlockSize::Lb512)
        .create_from_device(&mut *file, Some(guid(seed, "disk")))
        .map_err(DiskError::Gpt)?;
    let sector = |bytes: u64| bytes / SECTOR_BYTES;
    let partitions = BTreeMap::from([
        (
            1,
            partition(ESP_TYPE, guid(seed, "esp"), "PODIUM-ESP", sector(FIRST), sector(ESP_BYTES))?,
        ),
        (
            2,
            partition(
                STATE_TYPE,
                guid(seed, "state"),
                STATE_NAME,
                sector(FIRST + ESP_BYTES),
                sector(STATE_BYTES),
            )?,
        ),
    ]);
    disk.update_partitions(partitions).map_err(DiskError::Gpt)?;
    disk.write().map_err(DiskError::Gpt)?;
    Ok(())
}

fn partition(
    type_guid: &str,
    part_guid: uuid::Uuid,
    name: &str,
    first_lba: u64,
    sectors: u64,
) -> Result<gpt::partition::Partition, DiskError> {
    let guid =
        uuid::Uuid::parse_str(type_guid).map_err(|_| DiskError::Guid(type_guid.to_owned()))?;
    let part_type_guid =
        gpt::partition_types::Type { guid, os: gpt::partition_types::OperatingSystem::None };
    Ok(gpt::partition::Partition {
        part_type_guid,
        part_guid,
        first_lba,
        last_lba: first_lba + sectors - 1,
        flags: 0,
        name: name.to_owned(),
    })
}

/// A version-8 (custom) UUID from the seed and a word.
fn guid(seed: &[u8; 32], word: &str) -> uuid::Uuid {
    let digest: [u8; 32] = Sha256::new().chain_update(seed).chain_update(word).finalize().into();
    let mut bytes = [0u8; 16];
    bytes.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// A FAT32 file system; its driver is built without a clock, so all times are FAT's epoch.
fn esp(files: &EspFiles<'_>, seed: &[u8; 32]) -> io::Result<Vec<u8>> {
    let mut disk = Cursor::new(vec![0u8; usize::try_from(ESP_BYTES).unwrap_or_default()]);
    let [a, b, c, d, ..] = *seed;
    let options = fatfs::FormatVolumeOptions::new()
        .fat_type(fatfs::FatType::Fat32)
        .bytes_per_cluster(512)
        .volume_id(u32::from_le_bytes([a, b, c, d]))
        .volume_label(*b"PODIUM-ESP ");
    fatfs::format_volume(&mut disk, options)?;
    let volume = fatfs::FileSystem::new(&mut disk, fatfs::FsOptions::new())?;
    for (path, bytes) in files {
        let mut folder = volume.root_dir();
        let mut parts: Vec<&str> = path.split('/').collect();
        let name = parts.pop().unwrap_or_default();
        for part in parts {
            folder = folder.create_dir(part)?;
        }
        folder.create_file(name)?.write_all(bytes)?;
    }
    volume.unmount()?;
    Ok(disk.into_inner())
}

/// Writes only what is not zero, so that the file takes no more room than its contents.
fn write_sparse(file: &mut File, at: u64, bytes: &[u8]) -> io::Result<()> {
    const CHUNK: usize = 64 * 1024;
    let mut at = at;
    for chunk in bytes.chunks(CHUNK) {
        if chunk.iter().any(|byte| *byte != 0) {
            file.seek(SeekFrom::Start(at))?;
            file.write_all(chunk)?;
        }
        at += u64::try_from(chunk.len()).unwrap_or_default();
    }
    Ok(())
}

/// Puts a machine config on the ESP of a finished disk image, where `init` looks for it (`/podium/config.yaml`).
///
/// # Errors
/// [`DiskError::Io`].
pub fn put_config(path: &Path, yaml: &str) -> Result<(), DiskError> {
    let file = File::options().read(true).write(true).open(path)?;
    let part = fscommon::StreamSlice::new(file, FIRST, FIRST + ESP_BYTES)?;
    let volume = fatfs::FileSystem::new(fscommon::BufStream::new(part), fatfs::FsOptions::new())?;
    {
        let folder = volume.root_dir().create_dir("podium")?;
        let mut config = folder.create_file("config.yaml")?;
        config.truncate()?;
        config.write_all(yaml.as_bytes())?;
        config.flush()?;
    }
    volume.unmount()?;
    Ok(())
}

/// Reads a file of the ESP of a disk image.
///
/// # Errors
/// [`DiskError::Io`], also when there is no such file.
pub fn read_esp_file(path: &Path, name: &str) -> Result<Vec<u8>, DiskError> {
    let part = fscommon::StreamSlice::new(File::open(path)?, FIRST, FIRST + ESP_BYTES)?;
    let volume = fatfs::FileSystem::new(
        ReadOnly(part),
        fatfs::FsOptions::new().update_accessed_date(false),
    )?;
    let mut bytes = Vec::new();
    volume.root_dir().open_file(name)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The FAT driver wants to write its dirty flag even when it only reads; nothing reaches the file.
struct ReadOnly<T>(T);

impl<T: Read> Read for ReadOnly<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<T: Seek> Seek for ReadOnly<T> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

impl<T> Write for ReadOnly<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_files_give_equal_disks_that_sfdisk_understands() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = esp_files("1.2.3", b"a kernel", b"a boot manager");
        let (one, two) = (folder.path().join("one.raw"), folder.path().join("two.raw"));
        write(&one, &files).expect("written");
        write(&two, &files).expect("written");
        assert_eq!(std::fs::read(&one).expect("read"), std::fs::read(&two).expect("read"));
        let output = std::process::Command::new("sfdisk")
            .arg("--dump")
            .arg(&one)
            .output()
            .expect("sfdisk runs");
        let dump = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(dump.contains("start=        2048, size=      262144"), "{dump}");
        assert!(dump.contains(STATE_TYPE) && dump.contains(ESP_TYPE), "{dump}");
    }

    #[test]
    fn a_config_can_be_put_on_the_esp_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk.raw");
        write(&path, &esp_files("1.2.3", b"a kernel", b"a boot manager")).expect("written");
        put_config(&path, "kind: a long first version\n").expect("put");
        put_config(&path, "kind: second\n").expect("put");
        assert_eq!(read_esp_file(&path, "podium/config.yaml").expect("read"), b"kind: second\n");
        assert_eq!(read_esp_file(&path, "EFI/Linux/podium-1.2.3.efi").expect("read"), b"a kernel");
    }
}
