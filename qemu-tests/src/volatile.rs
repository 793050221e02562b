//! A disk whose write cache loses, at a power cut, what was not flushed.
//!
//! Killing QEMU loses nothing: what the machine has written is in the host's page cache, flushed or not. So QEMU keeps a log of
//! all writes and flushes (its `blklogwrites` driver; the format is the one of Linux' dm-log-writes), and after a cut the disk
//! is made anew from what it was at power-on: everything that was written before the last flush, and of what was written later a
//! random choice — nothing of a write, all of it, or its first sectors.
//!
//! What this does not show: a disk that lies about flushes, a sector half written, damage to sectors that nobody wrote.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use anyhow::ensure;

const SECTOR_BYTES: u64 = 512;
/// The first eight bytes of a log.
const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
/// The write was on the medium when it was answered.
const FORCED: u64 = 2;
const DISCARD: u64 = 4;

/// What a cut did to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Writes before the last flush; all are there.
    pub flushed: u64,
    /// Later writes that are there nevertheless.
    pub kept: u64,
    /// Later writes of which only the first sectors are there.
    pub torn: u64,
    /// Later writes of which nothing is there.
    pub lost: u64,
}

/// A repeatable source of numbers (SplitMix64).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The same numbers for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Writes per second of the disk: so few that a cut finds some that were not flushed, enough for a boot.
const WRITES_PER_SECOND: u32 = 150;

/// QEMU's `-drive` for `disk`, all of whose writes go into `log` too.
pub(crate) fn drive(disk: &Path, log: &Path) -> String {
    format!(
        "driver=blklogwrites,file.driver=file,file.filename={},log.driver=file,log.filename={},\
         throttling.iops-write={WRITES_PER_SECOND}",
        disk.display(),
        log.display()
    )
}

/// Brings `disk`, a copy of what it was at power-on, to what a cut at the end of `log` leaves.
pub(crate) fn replay(log: &Path, disk: &Path, chance: &mut Chance) -> anyhow::Result<Lost> {
    let mut magic = [0; 8];
    let opened = File::open(log)?.read_exact(&mut magic);
    if opened.is_err() || u64::from_le_bytes(magic) != MAGIC {
        // The cut came before QEMU had written the log's head, and that before any write.
        ensure!(std::fs::metadata(log)?.len() <= SECTOR_BYTES, "{} is no log", log.display());
        return Ok(Lost::default());
    }
    let mut last_flush = 0;
    for_each(log, |number, entry, _| {
        if entry.flags & FLUSH != 0 {
            last_flush = number;
        }
        Ok(())
    })?;
    let mut disk = File::options().write(true).open(disk)?;
    let mut lost = Lost::default();
    for_each(log, |number, entry, data| {
        if entry.sectors == 0 {
            return Ok(());
        }
        ensure!(entry.flags & DISCARD == 0, "a discard, which the machine was not offered");
        let fate = if entry.flags & FORCED == 0 { chance.below(4) } else { 2 };
        let sectors = match fate {
            _ if number < last_flush => {
                lost.flushed += 1;
                entry.sectors
            }
            2 => {
                lost.kept += 1;
                entry.sectors
            }
            3 if entry.sectors > 1 => {
                lost.torn += 1;
                1 + chance.below(entry.sectors - 1)
            }
            _ => {
                lost.lost += 1;
                return Ok(());
            }
        };
        disk.seek(SeekFrom::Start(entry.sector * SECTOR_BYTES))?;
        let length = usize::try_from(sectors * SECTOR_BYTES)?;
        Ok(disk.write_all(data.get(..length).unwrap_or(data))?)
    })?;
    Ok(lost)
}

/// An entry's head: which sectors it is about, and what happened to them.
struct Entry {
    sector: u64,
    sectors: u64,
    flags: u64,
}

/// Reads the log up to its end, or to the entry in whose midst the power was cut. (The number of entries in the log's head is
/// brought up to date only now and then.)
fn for_each(
    log: &Path,
    mut take: impl FnMut(u64, &Entry, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut log = BufReader::with_capacity(1 << 20, File::open(log)?);
    let mut sector = [0; SECTOR_BYTES as usize];
    log.read_exact(&mut sector)?;
    let mut data = Vec::new();
    for number in 0.. {
        if !whole(log.read_exact(&mut sector))? {
            break;
        }
        let mut words = sector.chunks_exact(8).map(|word| {
            word.iter().rev().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte))
        });
        let mut word = || words.next().unwrap_or_default();
        let entry = Entry { sector: word(), sectors: word(), flags: word() };
        if entry.sectors == 0 && entry.flags == 0 {
            break;
        }
        data.resize(usize::try_from(entry.sectors * SECTOR_BYTES)?, 0);
        if entry.flags & DISCARD == 0 && !whole(log.read_exact(&mut data))? {
            break;
        }
        take(number, &entry, &data)?;
    }
    Ok(())
}

fn whole(read: io::Result<()>) -> io::Result<bool> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        other => other.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(sector: u64, sectors: u64, flags: u64, byte: u8) -> Vec<u8> {
        let mut head: Vec<u8> =
            [sector, sectors, flags, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
        head.resize(512, 0);
        head.resize(512 + usize::try_from(sectors).expect("small") * 512, byte);
        head
    }

    fn after_a_cut(entries: &[Vec<u8>], seed: u64) -> (Lost, Vec<u8>) {
        let folder = tempfile::tempdir().expect("folder");
        let (log, disk) = (folder.path().join("log"), folder.path().join("disk"));
        let mut bytes = MAGIC.to_le_bytes().to_vec();
        bytes.resize(512, 0);
        bytes.extend(entries.concat());
        std::fs::write(&log, bytes).expect("log");
        std::fs::write(&disk, vec![0; 8 * 512]).expect("disk");
        let lost = replay(&log, &disk, &mut Chance::new(seed)).expect("replay");
        (lost, std::fs::read(&disk).expect("disk").into_iter().step_by(512).collect())
    }

    #[test]
    fn what_was_flushed_is_there_and_what_was_not_may_be_lost_kept_or_torn() {
        let log = [
            entry(0, 2, 0, 1),
            entry(0, 0, FLUSH, 0),
            entry(1, 1, 0, 2),
            entry(2, 2, 0, 3),
            entry(4, 1, FORCED, 4),
        ];
        let mut seen = Lost::default();
        for seed in 0..200 {
            let (lost, disk) = after_a_cut(&log, seed);
            assert_eq!((disk[0], disk[4], lost.flushed), (1, 4, 1), "seed {seed}");
            assert!(disk[1] == 1 || disk[1] == 2, "seed {seed}");
            assert!([[0, 0], [3, 0], [3, 3]].contains(&[disk[2], disk[3]]), "seed {seed}");
            seen.kept += lost.kept - 1;
            seen.torn += lost.torn;
            seen.lost += lost.lost;
        }
        assert!(seen.kept > 50 && seen.torn > 20 && seen.lost > 50, "{seen:?}");
    }

    #[test]
    fn an_entry_that_the_cut_tore_is_the_end() {
        let mut torn = entry(3, 2, 0, 9);
        torn.truncate(700);
        let (lost, disk) = after_a_cut(&[entry(0, 1, 0, 1), entry(0, 0, FLUSH, 0), torn], 1);
        assert_eq!((lost, disk[0], disk[3]), (Lost { flushed: 1, ..Lost::default() }, 1, 0));
    }
}
