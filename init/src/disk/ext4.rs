//! The STATE file system: made from the image's template, recognised by its superblock, grown to its partition.
//!
//! There is no mkfs and no fsck here: the template is a finished empty file system (see the image crate's
//! `template`), and after a power cut the journal does what it is for.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// ext4's block in the template.
pub(crate) const BLOCK_BYTES: u64 = 4096;
const MAGIC: &[u8; 8] = b"PODEXT4\x01";
const SUPERBLOCK_AT: usize = 1024;

/// What a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing: its beginning is zero.
    Empty,
    /// An ext4 file system.
    Ext4,
    /// Something else.
    Foreign,
}

/// Looks at the beginning of a partition.
///
/// # Errors
/// The device's.
pub(crate) fn look(device: &Path) -> io::Result<Found> {
    let mut start = vec![0u8; 64 * 1024];
    fs::File::open(device)?.read_exact_at(&mut start, 0)?;
    Ok(judge(&start))
}

fn judge(start: &[u8]) -> Found {
    if start.get(SUPERBLOCK_AT + 56..SUPERBLOCK_AT + 58) == Some(&[0x53, 0xEF]) {
        return Found::Ext4;
    }
    // Only the first block counts: the template's is written last, so a file system whose making was cut short is
    // empty here whatever follows, and is made again.
    let first = start.get(..usize::try_from(BLOCK_BYTES).unwrap_or_default()).unwrap_or_default();
    if first.iter().all(|byte| *byte == 0) { Found::Empty } else { Found::Foreign }
}

/// A template that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TemplateError {
    /// The file is not there or not readable.
    #[error("reading the file-system template")]
    Read(#[source] io::Error),
    /// The file is damaged.
    #[error("the file-system template is damaged")]
    Damaged,
    /// The partition did not take it.
    #[error("writing the file system")]
    Write(#[source] io::Error),
}

/// Writes the template to a partition: all blocks but the first, then the first, which makes it a file system.
///
/// # Errors
/// [`TemplateError`].
pub(crate) fn make(template: &Path, device: &Path) -> Result<(), TemplateError> {
    let template = fs::read(template).map_err(TemplateError::Read)?;
    let blocks = unpack(&template).ok_or(TemplateError::Damaged)?;
    let partition = fs::File::options().write(true).open(device).map_err(TemplateError::Write)?;
    let (first, rest): (Vec<_>, Vec<_>) = blocks.into_iter().partition(|(number, _)| *number == 0);
    for part in [rest, first] {
        for (number, block) in part {
            partition
                .write_all_at(block, u64::from(number) * BLOCK_BYTES)
                .map_err(TemplateError::Write)?;
        }
        partition.sync_all().map_err(TemplateError::Write)?;
    }
    Ok(())
}

/// The blocks of a template by number.
fn unpack(template: &[u8]) -> Option<Vec<(u32, &[u8])>> {
    let rest = template.strip_prefix(MAGIC)?;
    let (_blocks, rest) = take_number(rest)?;
    let (count, mut rest) = take_number(rest)?;
    let mut blocks = Vec::new();
    for _ in 0..count {
        let (number, after) = take_number(rest)?;
        let (block, after) = after.split_at_checked(usize::try_from(BLOCK_BYTES).ok()?)?;
        blocks.push((number, block));
        rest = after;
    }
    rest.is_empty().then_some(blocks)
}

fn take_number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*number), rest))
}

/// Grows the mounted file system to the partition's size, if it is smaller.
///
/// # Errors
/// The kernel's.
pub(crate) fn grow(mount_point: &Path, partition_bytes: u64) -> io::Result<bool> {
    let wanted = partition_bytes / BLOCK_BYTES;
    let statistics = rustix::fs::statvfs(mount_point)?;
    let present = statistics.f_blocks * statistics.f_frsize / BLOCK_BYTES;
    // What statvfs counts lacks the file system's own tables, so the kernel is asked when in doubt: it knows.
    if present + present / 16 >= wanted {
        return Ok(false);
    }
    super::ioctl::ext4_resize(&fs::File::open(mount_point)?, wanted)?;
    Ok(true)
}

/// Gives the file system a UUID of its own: the template's is the same on every machine.
///
/// # Errors
/// The kernel's.
pub(crate) fn new_uuid(mount_point: &Path) -> io::Result<()> {
    let mut uuid = [0u8; 16];
    rustix::rand::getrandom(&mut uuid, rustix::rand::GetRandomFlags::empty())?;
    super::ioctl::ext4_set_uuid(&fs::File::open(mount_point)?, uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(blocks: &[(u32, u8)]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(1024u32.to_le_bytes());
        bytes.extend(u32::try_from(blocks.len()).expect("few").to_le_bytes());
        for (number, fill) in blocks {
            bytes.extend(number.to_le_bytes());
            bytes.extend(vec![*fill; 4096]);
        }
        bytes
    }

    #[test]
    fn a_template_lands_on_its_blocks() {
        let folder = tempfile::tempdir().expect("a folder");
        let (source, device) = (folder.path().join("template"), folder.path().join("device"));
        fs::write(&source, template(&[(0, 7), (3, 9)])).expect("written");
        fs::File::create(&device).expect("made").set_len(16 * 4096).expect("sized");
        assert_eq!(look(&device).expect("read"), Found::Empty);
        make(&source, &device).expect("written");
        let bytes = fs::read(&device).expect("read");
        let fills: Vec<u8> = bytes.chunks(4096).map(|block| block[0]).collect();
        assert_eq!(fills, [7, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(look(&device).expect("read"), Found::Foreign);
    }

    #[test]
    fn a_cut_template_is_damaged_and_nothing_is_written() {
        let bytes = template(&[(0, 7)]);
        assert!(unpack(&bytes).is_some());
        assert!(unpack(&bytes[..bytes.len() - 1]).is_none());
        assert!(unpack(b"PODEXT4\x02").is_none());
    }

    #[test]
    fn ext4_is_known_by_its_superblock() {
        let mut start = vec![0u8; 64 * 1024];
        start[SUPERBLOCK_AT + 56] = 0x53;
        start[SUPERBLOCK_AT + 57] = 0xEF;
        assert_eq!(judge(&start), Found::Ext4);
        assert_eq!(judge(&[]), Found::Empty);
    }
}
