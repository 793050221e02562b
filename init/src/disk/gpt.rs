//! The GUID Partition Table (UEFI 2.10, chapter 5): bytes to partitions and back, without I/O.
//!
//! Both copies of a table are the same entries with a header that says where it is. [`Table::read`] takes whichever
//! copy is whole; [`Table::regions`] says what to write where, in an order in which power may fail after any write:
//! the header that makes a copy valid comes last, and the backup is whole before the primary is touched.

/// Only this size is handled; disks with 4096-byte sectors say so and are refused.
pub(crate) const SECTOR: u64 = 512;
/// Partition entries in a table, as everybody makes them: 32 sectors.
const ENTRIES: usize = 128;
const ENTRY_BYTES: usize = 128;
const ENTRY_SECTORS: u64 = 32;
const HEADER_BYTES: usize = 92;
/// Partitions begin and end on whole megabytes.
const ALIGN: u64 = 2048;

/// The EFI system partition's type.
pub(crate) const ESP_TYPE: Guid =
    Guid::new(0xC12A_7328, 0xF81F, 0x11D2, [0xBA, 0x4B, 0x00, 0xA0, 0xC9, 0x3E, 0xC9, 0x3B]);
/// The type of Podium's STATE partition; the image crate writes the same.
pub(crate) const STATE_TYPE: Guid =
    Guid::new(0x706F_6469, 0x756D, 0x4E5F, [0x83, 0x74, 0x61, 0x74, 0x65, 0x00, 0x00, 0x00]);
/// The partition's name, for people.
pub(crate) const STATE_NAME: &str = "PODIUM-STATE";

/// A GUID as it stands on disk: the first three fields are little endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Guid(pub(crate) [u8; 16]);

impl Guid {
    const fn new(a: u32, b: u16, c: u16, d: [u8; 8]) -> Self {
        let ([a0, a1, a2, a3], [b0, b1], [c0, c1]) =
            (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
        let [d0, d1, d2, d3, d4, d5, d6, d7] = d;
        Self([a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, d4, d5, d6, d7])
    }
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    /// From 1, as in `vda2`.
    pub(crate) number: u32,
    /// What it is for.
    pub(crate) kind: Guid,
    /// Its own identity.
    pub(crate) id: Guid,
    /// First sector.
    pub(crate) first: u64,
    /// Last sector, included.
    pub(crate) last: u64,
    /// Attribute bits.
    pub(crate) attributes: u64,
    /// The name in UTF-16, as on disk.
    pub(crate) name: Vec<u16>,
}

/// A whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// The disk's identity.
    pub(crate) disk: Guid,
    /// In order of their numbers.
    pub(crate) partitions: Vec<Partition>,
}

/// Which copy of a table was whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copy {
    /// The one at the disk's beginning.
    Primary,
    /// Only the one at its end: the other is to be written again.
    Backup,
}

/// The ends of a disk, as far as a table may reach.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends<'a> {
    /// From the first sector on; at least 34 sectors.
    pub(crate) head: &'a [u8],
    /// Up to the last sector; at least 33 sectors.
    pub(crate) tail: &'a [u8],
}

impl Table {
    /// Reads the table of a disk: the primary copy, or else the backup at the very end. The kernel looks at the
    /// primary only, so it matters which one was whole.
    pub(crate) fn read(ends: Ends<'_>) -> Option<(Self, Copy)> {
        let head = |lba: u64, length: usize| slice(ends.head, offset(lba), length);
        let primary = parse(head(1, offset(1))?, head, 1);
        if let Some(table) = primary {
            return Some((table, Copy::Primary));
        }
        let header_at = ends.tail.len().checked_sub(offset(1))?;
        let header = slice(ends.tail, header_at, offset(1))?;
        let own = number(header, 24)?;
        let entries = |lba: u64, length: usize| {
            let back = own.checked_sub(lba)?;
            slice(ends.tail, header_at.checked_sub(offset(back))?, length)
        };
        parse(header, entries, own).map(|table| (table, Copy::Backup))
    }

    /// Where a new partition may go, or STATE may grow to: the first free sector after all partitions, and the last
    /// usable one, both aligned.
    pub(crate) fn free_end(&self, disk_sectors: u64) -> (u64, u64) {
        let used = self.partitions.iter().map(|partition| partition.last).max().unwrap_or(0);
        let first = (used + 1).max(ALIGN).next_multiple_of(ALIGN);
        let last = disk_sectors.saturating_sub(ENTRY_SECTORS + 1) / ALIGN * ALIGN;
        (first, last.saturating_sub(1))
    }

    /// The bytes to write, each at its sector, in order; the disk is to be synced between the two halves that
    /// [`Region::Sync`] separates.
    pub(crate) fn regions(&self, disk_sectors: u64) -> Vec<Region> {
        let entries = self.entries();
        let last = disk_sectors.saturating_sub(1);
        let backup_entries = last.saturating_sub(ENTRY_SECTORS);
        let mut backup = entries.clone();
        backup.extend_from_slice(&self.header(&entries, last, 1, backup_entries, disk_sectors));
        vec![
            Region::Write { sector: backup_entries, bytes: backup },
            Region::Sync,
            Region::Write { sector: 0, bytes: protective_mbr(disk_sectors) },
            Region::Write { sector: 2, bytes: entries.clone() },
            Region::Sync,
            Region::Write { sector: 1, bytes: self.header(&entries, 1, last, 2, disk_sectors) },
            Region::Sync,
        ]
    }

    fn entries(&self) -> Vec<u8> {
        let mut bytes = vec![0u8; ENTRIES * ENTRY_BYTES];
        for partition in &self.partitions {
            let at = usize::try_from(partition.number.saturating_sub(1)).unwrap_or(usize::MAX);
            let Some(entry) = bytes.chunks_exact_mut(ENTRY_BYTES).nth(at) else { continue };
            put(entry, 0, &partition.kind.0);
            put(entry, 16, &partition.id.0);
            put(entry, 32, &partition.first.to_le_bytes());
            put(entry, 40, &partition.last.to_le_bytes());
            put(entry, 48, &partition.attributes.to_le_bytes());
            for (index, unit) in partition.name.iter().take(36).enumerate() {
                put(entry, 56 + index * 2, &unit.to_le_bytes());
            }
        }
        bytes
    }

    fn header(
        &self,
        entries: &[u8],
        own: u64,
        other: u64,
        entries_at: u64,
        disk_sectors: u64,
    ) -> Vec<u8> {
        let mut header = vec![0u8; offset(1)];
        put(&mut header, 0, b"EFI PART");
        put(&mut header, 8, &[0, 0, 1, 0]);
        put(&mut header, 12, &u32::try_from(HEADER_BYTES).unwrap_or_default().to_le_bytes());
        put(&mut header, 24, &own.to_le_bytes());
        put(&mut header, 32, &other.to_le_bytes());
        put(&mut header, 40, &(ENTRY_SECTORS + 2).to_le_bytes());
        put(&mut header, 48, &disk_sectors.saturating_sub(ENTRY_SECTORS + 2).to_le_bytes());
        put(&mut header, 56, &self.disk.0);
        put(&mut header, 72, &entries_at.to_le_bytes());
        put(&mut header, 80, &u32::try_from(ENTRIES).unwrap_or_default().to_le_bytes());
        put(&mut header, 84, &u32::try_from(ENTRY_BYTES).unwrap_or_default().to_le_bytes());
        put(&mut header, 88, &crc32(entries).to_le_bytes());
        let sum = crc32(header.get(..HEADER_BYTES).unwrap_or_default());
        put(&mut header, 16, &sum.to_le_bytes());
        header
    }
}

/// One step of writing a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Region {
    /// Write these bytes from that sector on.
    Write {
        /// From the disk's start.
        sector: u64,
        /// Whole sectors.
        bytes: Vec<u8>,
    },
    /// Everything before must be on the disk before anything after.
    Sync,
}

/// A header and the entries that it names, if both checksums hold.
fn parse<'a>(
    header: &[u8],
    entries: impl Fn(u64, usize) -> Option<&'a [u8]>,
    own: u64,
) -> Option<Table> {
    if !header.starts_with(b"EFI PART") || number(header, 24)? != own {
        return None;
    }
    let size = usize::try_from(short(header, 12)?).ok()?;
    let mut summed = slice(header, 0, size.clamp(HEADER_BYTES, offset(1)))?.to_vec();
    put(&mut summed, 16, &[0; 4]);
    if crc32(&summed) != short(header, 16)? {
        return None;
    }
    let (count, entry_bytes) =
        (usize::try_from(short(header, 80)?).ok()?, usize::try_from(short(header, 84)?).ok()?);
    if entry_bytes < ENTRY_BYTES || count.checked_mul(entry_bytes)? > ENTRIES * ENTRY_BYTES {
        return None;
    }
    let bytes = entries(number(header, 72)?, count * entry_bytes)?;
    if crc32(bytes) != short(header, 88)? {
        return None;
    }
    let disk = Guid(slice(header, 56, 16)?.try_into().ok()?);
    let mut partitions = Vec::new();
    for (index, entry) in bytes.chunks_exact(entry_bytes).enumerate() {
        let kind = Guid(slice(entry, 0, 16)?.try_into().ok()?);
        if kind != Guid::default() {
            partitions.push(Partition {
                number: u32::try_from(index + 1).ok()?,
                kind,
                id: Guid(slice(entry, 16, 16)?.try_into().ok()?),
                first: number(entry, 32)?,
                last: number(entry, 40)?,
                attributes: number(entry, 48)?,
                name: slice(entry, 56, 72)?
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .map(|unit| u16::from_le_bytes(*unit))
                    .collect(),
            });
        }
    }
    Some(Table { disk, partitions })
}

/// A partition that covers the whole disk, so that old programs keep off.
fn protective_mbr(disk_sectors: u64) -> Vec<u8> {
    let mut sector = vec![0u8; offset(1)];
    let length = u32::try_from(disk_sectors.saturating_sub(1)).unwrap_or(u32::MAX);
    put(&mut sector, 446, &[0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0]);
    put(&mut sector, 458, &length.to_le_bytes());
    put(&mut sector, 510, &[0x55, 0xAA]);
    sector
}

fn offset(sectors: u64) -> usize {
    usize::try_from(sectors.saturating_mul(SECTOR)).unwrap_or(usize::MAX)
}

fn slice(bytes: &[u8], at: usize, length: usize) -> Option<&[u8]> {
    bytes.get(at..at.checked_add(length)?)
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    slice(bytes, at, 8)?.try_into().ok().map(u64::from_le_bytes)
}

fn short(bytes: &[u8], at: usize) -> Option<u32> {
    slice(bytes, at, 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes.iter_mut().skip(at).zip(value).for_each(|(to, from)| *to = *from);
}

/// CRC-32 of IEEE 802.3, bit by bit: 16 kB twice per boot need no table.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xEDB8_8320 & 0u32.wrapping_sub(sum & 1))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTORS: u64 = 1 << 21;

    fn table() -> Table {
        let partition = |number, kind, first, last| Partition {
            number,
            kind,
            id: Guid([u8::try_from(number).expect("small"); 16]),
            first,
            last,
            attributes: 0,
            name: {
                let mut name: Vec<u16> = "PODIUM".encode_utf16().collect();
                name.resize(36, 0);
                name
            },
        };
        Table {
            disk: Guid([9; 16]),
            partitions: vec![
                partition(1, ESP_TYPE, 2048, 264_191),
                partition(2, STATE_TYPE, 264_192, 1_312_767),
            ],
        }
    }

    /// The disk after the first `steps` writes, as its two ends of one megabyte.
    fn written(table: &Table, steps: usize) -> (Vec<u8>, Vec<u8>) {
        let mut head = vec![0u8; 1 << 20];
        let mut tail = vec![0u8; 1 << 20];
        let tail_at = SECTORS - 2048;
        for region in table.regions(SECTORS).into_iter().take(steps) {
            if let Region::Write { sector, bytes } = region {
                if sector < 2048 {
                    put(&mut head, offset(sector), &bytes);
                } else {
                    put(&mut tail, offset(sector - tail_at), &bytes);
                }
            }
        }
        (head, tail)
    }

    #[test]
    fn a_written_table_reads_back() {
        let (head, tail) = written(&table(), usize::MAX);
        assert_eq!(Table::read(Ends { head: &head, tail: &tail }), Some((table(), Copy::Primary)));
    }

    #[test]
    fn a_broken_primary_is_replaced_by_the_backup() {
        let (mut head, tail) = written(&table(), usize::MAX);
        put(&mut head, 512 + 20, &[1]);
        put(&mut head, 1024, &[1]);
        assert_eq!(Table::read(Ends { head: &head, tail: &tail }), Some((table(), Copy::Backup)));
    }

    #[test]
    fn power_may_fail_between_any_two_writes() {
        let whole = table().regions(SECTORS).len();
        for steps in 1..=whole {
            let (head, tail) = written(&table(), steps);
            let found = Table::read(Ends { head: &head, tail: &tail }).map(|(table, _)| table);
            assert_eq!(found, Some(table()), "after {steps} steps");
        }
    }

    #[test]
    fn a_blank_disk_has_no_table() {
        let zero = vec![0u8; 1 << 20];
        assert_eq!(Table::read(Ends { head: &zero, tail: &zero }), None);
    }

    #[test]
    fn sfdisk_understands_what_we_write() {
        use std::os::unix::fs::FileExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk.raw");
        let file = std::fs::File::create(&path).expect("made");
        file.set_len(SECTORS * SECTOR).expect("sized");
        for region in table().regions(SECTORS) {
            if let Region::Write { sector, bytes } = region {
                file.write_all_at(&bytes, sector * SECTOR).expect("written");
            }
        }
        let output = std::process::Command::new("sfdisk")
            .arg("--verify")
            .arg(&path)
            .output()
            .expect("sfdisk runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("No errors detected"), "{said}");
    }

    #[test]
    fn free_room_is_aligned_and_leaves_the_backup_alone() {
        let (first, last) = table().free_end(SECTORS);
        assert_eq!((first, (last + 1) % ALIGN), (1_312_768, 0));
        assert!(last < SECTORS - 33);
        let empty = Table { disk: Guid::default(), partitions: Vec::new() };
        assert_eq!(empty.free_end(SECTORS).0, 2048);
    }

    #[test]
    fn the_checksum_is_the_known_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }
}
