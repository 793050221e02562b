//! The log against power cuts, flipped bits and full disks.

use std::sync::Arc;

use futures::channel::oneshot::Canceled;
use openraft::async_runtime::Oneshot;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{AsyncRuntime, EntryPayload, RaftLogReader};

use super::recover::{Recovered, recover};
use super::vote::VoteFile;
use super::writer::Writer;
use super::{Job, Log};
use crate::TokioRuntime;
use crate::bugs::Bugs;
use crate::consensus::{Entry, log_id, position};
use crate::disk::Disk;
use crate::disk::memory::MemoryDisk;
use crate::error::StoreError;
use crate::member::MemberId;
use crate::record::{Operation, Transaction, TransactionId};
use crate::state::{Command, Position};

const MEMBER: MemberId = MemberId(7);
const SEGMENT_BYTES: u64 = 1024;

type TestLog = Log<TokioRuntime>;

async fn recovered(disk: &MemoryDisk) -> Result<Recovered, StoreError> {
    recover(disk, MEMBER, Bugs::NONE).await
}

async fn open(disk: &MemoryDisk) -> TestLog {
    let (vote, _) = VoteFile::open(disk, MEMBER, Bugs::NONE).await.unwrap();
    let mut recovered = recovered(disk).await.unwrap();
    assert_eq!(recovered.damage, None);
    let (log, queue) = TestLog::new(std::mem::take(&mut recovered.memory), vote);
    let shared = (log.shared.clone(), queue);
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let writer =
        Writer::<TokioRuntime>::new(disk, MEMBER, SEGMENT_BYTES, shared, recovered, Bugs::NONE);
    drop(TokioRuntime::spawn(writer.run()));
    log
}

fn entry(term: u64, index: u64) -> Entry {
    let operation = Operation::Put {
        key: format!("/key/{index}").into(),
        value: format!("value {index} of term {term}").into(),
    };
    let transaction = Transaction {
        id: TransactionId(u128::from(index)),
        guards: Vec::new(),
        operations: vec![operation],
    };
    let command = Command::Transact { transaction, basis: index };
    Entry {
        log_id: log_id(Position { term, index }),
        payload: EntryPayload::Normal(Arc::new(command)),
    }
}

fn entries(term: u64, indexes: std::ops::Range<u64>) -> Vec<Entry> {
    indexes.map(|index| entry(term, index)).collect()
}

type Flushed = <<TokioRuntime as AsyncRuntime>::Oneshot as Oneshot>::Receiver<std::io::Result<()>>;

/// Starts an append; the receiver tells when it is durable.
async fn begin(log: &mut TestLog, entries: Vec<Entry>) -> Flushed {
    let (sender, receiver) = <TokioRuntime as AsyncRuntime>::Oneshot::channel();
    log.append(entries, IOFlushed::signal(sender)).await.unwrap();
    receiver
}

async fn append(log: &mut TestLog, entries: Vec<Entry>) {
    begin(log, entries).await.await.unwrap().unwrap();
}

/// Three acknowledged writes in one file, of two entries each, from 0 on.
async fn written() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let mut log = open(&disk).await;
    for write in 0..3 {
        append(&mut log, entries(1, write * 2..write * 2 + 2)).await;
    }
    log.close().await;
    disk.after_power_cut()
}

fn positions(recovered: &Recovered) -> Vec<Position> {
    recovered.memory.entries.iter().map(|entry| position(&entry.log_id)).collect()
}

fn term_one(count: u64) -> Vec<Position> {
    (0..count).map(|index| Position { term: 1, index }).collect()
}

const FIRST: &str = "log-0000000000000001";

/// The length of a file without the zeros at its end.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

#[tokio::test]
async fn acknowledged_entries_are_there_after_a_power_cut() {
    let disk = written().await;
    let recovered = recovered(&disk).await.unwrap();
    assert_eq!(positions(&recovered), term_one(6));
    assert_eq!(recovered.memory.entries[3], entry(1, 3));
    let mut log = open(&disk).await;
    append(&mut log, entries(2, 6..8)).await;
    let again = super::tests::recovered(&disk.after_power_cut()).await.unwrap();
    assert_eq!(again.memory.last(), Some(Position { term: 2, index: 7 }));
}

#[tokio::test]
async fn write_torn_at_any_byte_leaves_everything_before_it() {
    let disk = written().await;
    let before = disk.contents(FIRST).unwrap();
    let mut log = open(&disk).await;
    append(&mut log, entries(1, 6..9)).await;
    log.close().await;
    let after = disk.contents(FIRST).unwrap();
    let (begin, end) = (used(&before), used(&after));
    for cut in begin..end {
        for filler in [0, 0xa5] {
            let mut torn = after.clone();
            torn[cut..end].fill(filler);
            let disk = disk.after_power_cut();
            disk.set_contents(FIRST, torn);
            let recovered = recovered(&disk).await.unwrap();
            assert_eq!(recovered.damage, None, "cut at {cut}");
            let found = positions(&recovered);
            assert!(
                found.starts_with(&term_one(6)) && term_one(9).starts_with(&found),
                "cut at {cut}"
            );
            let mut log = open(&disk).await;
            let next = found.len() as u64;
            append(&mut log, entries(2, next..next + 2)).await;
            log.close().await;
            let again = super::tests::recovered(&disk.after_power_cut()).await.unwrap();
            assert_eq!(
                again.memory.last(),
                Some(Position { term: 2, index: next + 1 }),
                "cut at {cut}"
            );
        }
    }
}

#[tokio::test]
async fn flipped_byte_is_damage_or_a_torn_end_and_never_another_entry() {
    let disk = written().await;
    let sound = disk.contents(FIRST).unwrap();
    let mut log = open(&disk).await;
    append(&mut log, entries(1, 6..8)).await;
    log.close().await;
    let longer = disk.contents(FIRST).unwrap();
    for at in 0..used(&longer) {
        let mut flipped = longer.clone();
        flipped[at] ^= 0x04;
        disk.set_contents(FIRST, flipped);
        let Ok(recovered) = recovered(&disk).await else { panic!("byte {at}") };
        let found = positions(&recovered);
        assert!(term_one(8).starts_with(&found), "byte {at}");
        for (index, kept) in (0..).zip(&recovered.memory.entries) {
            assert_eq!(*kept, entry(1, index), "byte {at}");
        }
        if at < used(&sound) {
            let damage = recovered.damage.unwrap_or_else(|| panic!("byte {at} was acknowledged"));
            assert_eq!(damage.from, found.len() as u64, "byte {at}");
        } else {
            assert!(found.len() >= 6, "byte {at}");
        }
    }
}

#[tokio::test]
async fn note_of_what_is_committed_witnesses_the_last_write() {
    let disk = written().await;
    let mut log = open(&disk).await;
    let committed = Some(log_id(Position { term: 1, index: 5 }));
    log.save_committed(committed).await.unwrap();
    log.close().await;
    let bytes = disk.contents(FIRST).unwrap();
    let recovered_sound = recovered(&disk).await.unwrap();
    assert_eq!(recovered_sound.memory.committed, Some(Position { term: 1, index: 5 }));
    let mut flipped = bytes.clone();
    // In the value of entry 5, the last one.
    let at = bytes.windows(7).rposition(|window| window == b"value 5").unwrap();
    flipped[at] ^= 1;
    disk.set_contents(FIRST, flipped);
    let recovered = recovered(&disk).await.unwrap();
    assert_eq!(recovered.damage.map(|damage| damage.from), Some(5));
    assert_eq!(positions(&recovered), term_one(5));
}

#[tokio::test]
async fn damage_in_an_older_file_is_found_and_cut_there() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk).await;
    for index in 0..60 {
        append(&mut log, entries(1, index..index + 1)).await;
    }
    log.close().await;
    let second = "log-0000000000000002";
    let mut bytes = disk.contents(second).expect("60 entries take more than one file");
    let at = bytes.windows(5).position(|window| window == b"value").unwrap();
    bytes[at] ^= 1;
    disk.set_contents(second, bytes);
    let damaged = recovered(&disk).await.unwrap();
    let from = damaged.damage.unwrap().from;
    assert!((10..40).contains(&from), "{from}");
    assert_eq!(positions(&damaged), term_one(from));
    super::recover::mark(&disk, from).await.unwrap();
    super::recover::cut(&disk, &damaged).await.unwrap();
    let disk = disk.after_power_cut();
    assert!(super::recover::is_marked(&disk).await.unwrap());
    let mut log = open(&disk).await;
    assert_eq!(log.try_get_log_entries(..).await.unwrap().len() as u64, from);
    append(&mut log, entries(3, from..from + 30)).await;
    log.close().await;
    let refilled = recovered(&disk.after_power_cut()).await.unwrap();
    assert_eq!(
        (refilled.damage, refilled.memory.last()),
        (None, Some(Position { term: 3, index: from + 29 }))
    );
}

#[tokio::test]
async fn missing_file_is_damage() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk).await;
    append(&mut log, entries(1, 0..60)).await;
    log.close().await;
    disk.remove("log-0000000000000002").await.unwrap();
    let recovered = recovered(&disk).await.unwrap();
    assert!(recovered.damage.is_some());
    assert!(term_one(60).starts_with(&positions(&recovered)));
}

#[tokio::test]
async fn overruled_entries_do_not_come_back() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk).await;
    append(&mut log, entries(1, 0..10)).await;
    log.truncate_after(Some(log_id(Position { term: 1, index: 3 }))).await.unwrap();
    append(&mut log, entries(2, 4..6)).await;
    log.close().await;
    let disk = disk.after_power_cut();
    let recovered = recovered(&disk).await.unwrap();
    let mut expected = term_one(4);
    expected.extend([4, 5].map(|index| Position { term: 2, index }));
    assert_eq!(positions(&recovered), expected);
}

#[tokio::test]
async fn purged_files_go_and_the_rest_stays_readable() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk).await;
    for index in 0..100 {
        append(&mut log, entries(1, index..index + 1)).await;
    }
    let files = disk.list().await.unwrap().len();
    log.purge(log_id(Position { term: 1, index: 80 })).await.unwrap();
    assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 19);
    log.close().await;
    let disk = disk.after_power_cut();
    assert!(disk.list().await.unwrap().len() <= files - 3);
    let recovered = recovered(&disk).await.unwrap();
    assert_eq!(recovered.damage, None);
    assert_eq!(recovered.memory.last(), Some(Position { term: 1, index: 99 }));
    assert!(recovered.memory.previous.is_some_and(|previous| previous.index <= 80));
}

#[tokio::test]
async fn log_goes_on_behind_a_snapshot_that_is_ahead_of_it() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk).await;
    append(&mut log, entries(1, 0..30)).await;
    log.purge(log_id(Position { term: 4, index: 500 })).await.unwrap();
    append(&mut log, entries(4, 501..504)).await;
    log.close().await;
    let recovered = recovered(&disk.after_power_cut()).await.unwrap();
    assert_eq!(recovered.memory.previous, Some(Position { term: 4, index: 500 }));
    assert_eq!(positions(&recovered), [501, 502, 503].map(|index| Position { term: 4, index }));
}

#[tokio::test]
async fn appends_that_wait_for_a_sync_share_the_next_one() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk).await;
    append(&mut log, entries(1, 0..1)).await;
    let before = disk.syncs();
    let mut waiting = Vec::new();
    for index in 1..9 {
        waiting.push(begin(&mut log, entries(1, index..index + 1)).await);
    }
    for flushed in waiting {
        flushed.await.unwrap().unwrap();
    }
    assert_eq!(disk.syncs() - before, 1);
}

#[tokio::test(start_paused = true)]
async fn full_disk_is_told_and_waited_out_and_loses_nothing() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk).await;
    append(&mut log, entries(1, 0..3)).await;
    disk.set_capacity(Some(8192 + SEGMENT_BYTES as usize));
    let waiting = begin(&mut log, entries(1, 3..40)).await;
    log.shared.room.until_full().await;
    let survivors = recovered(&disk.after_power_cut()).await.unwrap();
    assert!(positions(&survivors).starts_with(&term_one(3)) && survivors.damage.is_none());
    disk.set_capacity(None);
    waiting.await.unwrap().unwrap();
    assert!(!log.shared.room.is_full());
    assert_eq!(positions(&recovered(&disk.after_power_cut()).await.unwrap()), term_one(40));
}

#[tokio::test(start_paused = true)]
async fn purge_makes_room_on_a_full_disk() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk).await;
    for index in 0..60 {
        append(&mut log, entries(1, index..index + 1)).await;
    }
    let used: usize =
        disk.list().await.unwrap().iter().map(|name| disk.contents(name).unwrap().len()).sum();
    disk.set_capacity(Some(used));
    let waiting = begin(&mut log, entries(1, 60..90)).await;
    log.shared.room.until_full().await;
    log.purge(log_id(Position { term: 1, index: 50 })).await.unwrap();
    waiting.await.unwrap().unwrap();
    let recovered = recovered(&disk.after_power_cut()).await.unwrap();
    assert_eq!(recovered.memory.last(), Some(Position { term: 1, index: 89 }));
}

#[tokio::test]
async fn closed_writer_takes_no_more() {
    let disk = MemoryDisk::new();
    let log = open(&disk).await;
    log.close().await;
    let (done, closed) = futures::channel::oneshot::channel();
    if log.send(Job::Close { done }).is_ok() {
        assert_eq!(closed.await, Err(Canceled));
    }
}

#[tokio::test]
async fn file_that_was_made_and_never_written_leaves_no_gap() {
    let disk = written().await;
    let blank = disk.create("log-0000000000000002").await.unwrap();
    blank.reserve(SEGMENT_BYTES).await.unwrap();
    blank.sync().await.unwrap();
    disk.sync_names().await.unwrap();
    let mut log = open(&disk).await;
    append(&mut log, entries(1, 6..40)).await;
    log.close().await;
    let recovered = recovered(&disk.after_power_cut()).await.unwrap();
    assert_eq!(
        (recovered.damage, recovered.memory.last()),
        (None, Some(Position { term: 1, index: 39 }))
    );
}

#[tokio::test]
async fn file_is_left_only_when_its_last_note_is_durable() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk).await;
    for index in 0..60 {
        append(&mut log, entries(1, index..index + 1)).await;
        log.save_committed(Some(log_id(Position { term: 1, index }))).await.unwrap();
        // The writer notes it before it takes the next entry.
        tokio::task::yield_now().await;
        let recovered = recovered(&disk.after_power_cut()).await.unwrap();
        assert_eq!((recovered.damage, positions(&recovered)), (None, term_one(index + 1)));
    }
}
