//! Snapshots: what goes in comes out, and nothing else does.

use std::sync::Arc;

use futures::executor::block_on;

use super::Snapshots;
use crate::bugs::Bugs;
use crate::disk::memory::MemoryDisk;
use crate::error::StoreError;
use crate::member::{FeatureLevel, Member, MemberId, Membership};
use crate::record::{Guard, Operation, Revision, Transaction, TransactionId};
use crate::state::{Command, Position, State};

const MEMBER: MemberId = MemberId(7);

fn transact(id: u64, guards: Vec<Guard>, operations: Vec<Operation>) -> Command {
    let transaction = Transaction { id: TransactionId(u128::from(id)), guards, operations };
    Command::Transact { transaction, basis: 0 }
}

/// A state with everything in it that a state can have.
fn state(keys: u64, value_bytes: usize) -> State {
    let mut state = State::new();
    let mut index = 0;
    let mut apply = |state: &mut State, command: Command| {
        index += 1;
        state.apply(index, &command, Bugs::NONE);
        state.applied = Some(Position { term: 3, index });
    };
    for key in 0..keys {
        let value = vec![key as u8; value_bytes + key as usize % 7];
        let put = Operation::Put { key: format!("/k/{key:06}").into(), value: value.into() };
        apply(&mut state, transact(key, Vec::new(), vec![put]));
    }
    let refused = vec![Guard::Absent("/k/000000".into())];
    apply(&mut state, transact(keys, refused, Vec::new()));
    let delete = vec![Operation::Delete { key: "/k/000001".into() }];
    apply(&mut state, transact(keys + 1, vec![Guard::Exists("/k/000001".into())], delete));
    apply(&mut state, Command::Compact { before: Revision(keys / 2) });
    apply(&mut state, Command::Announce { member: MEMBER, knows: FeatureLevel(3) });
    let member = Member { id: MEMBER, public_key: vec![1, 2, 3] };
    state.membership =
        Arc::new(Membership { members: [(MEMBER, member)].into(), voters: vec![[MEMBER].into()] });
    state.membership_position = Some(Position { term: 0, index: 0 });
    apply(&mut state, Command::Raise { to: FeatureLevel(2) });
    state
}

fn open(disk: &MemoryDisk) -> Result<(Snapshots, Option<State>), StoreError> {
    block_on(Snapshots::open(Arc::new(disk.clone()), MEMBER, Bugs::NONE))
}

fn assert_same(one: &State, other: &State) {
    assert_eq!(one.view.revision(), other.view.revision());
    assert!(one.view.range("").eq(other.view.range("")));
    let outcomes = |state: &State| {
        state.outcomes.iter().map(|(index, id, kept)| (index, id, kept.clone())).collect::<Vec<_>>()
    };
    assert_eq!(outcomes(one), outcomes(other));
    assert_eq!(one.outcomes.forgotten(), other.outcomes.forgotten());
    assert_eq!((one.compacted, one.level, one.bytes), (other.compacted, other.level, other.bytes));
    assert_eq!((&one.announced, one.applied), (&other.announced, other.applied));
    assert_eq!(one.membership_position, other.membership_position);
    assert_eq!(one.membership, other.membership);
}

#[test]
fn state_comes_back_whole_after_a_power_cut() {
    for (keys, value_bytes) in [(2, 0), (50, 10), (3000, 300), (20, 200_000), (9000, 1)] {
        let disk = MemoryDisk::new();
        let (snapshots, none) = open(&disk).unwrap();
        assert!(none.is_none());
        let written = state(keys, value_bytes);
        block_on(snapshots.write(&written)).unwrap();
        let (again, read) = open(&disk.after_power_cut()).unwrap();
        assert_same(&written, &read.unwrap());
        assert_eq!(again.current().unwrap().applied, written.applied);
        assert_eq!(again.current().unwrap().bytes, disk.contents("snapshot").unwrap().len() as u64);
    }
}

#[test]
fn snapshot_with_any_byte_flipped_or_cut_off_is_not_taken() {
    let disk = MemoryDisk::new();
    block_on(open(&disk).unwrap().0.write(&state(30, 5))).unwrap();
    let sound = disk.contents("snapshot").unwrap();
    for at in 0..sound.len() {
        let mut flipped = sound.clone();
        flipped[at] ^= 0x40;
        disk.set_contents("snapshot", flipped);
        assert!(matches!(open(&disk), Err(StoreError::Damaged { .. })), "byte {at}");
        disk.set_contents("snapshot", sound[..at].to_vec());
        assert!(matches!(open(&disk), Err(StoreError::Damaged { .. })), "cut at {at}");
    }
}

#[test]
fn snapshot_without_one_of_its_blocks_is_not_taken() {
    let disk = MemoryDisk::new();
    block_on(open(&disk).unwrap().0.write(&state(3000, 300))).unwrap();
    let sound = disk.contents("snapshot").unwrap();
    let mut bounds = vec![0];
    while let Ok(frame) = crate::format::Frame::read(&sound[*bounds.last().unwrap()..]) {
        bounds.push(bounds.last().unwrap() + frame.length);
    }
    assert!(bounds.len() > 6);
    for block in bounds.windows(2) {
        let mut without = sound.clone();
        without.drain(block[0]..block[1]);
        disk.set_contents("snapshot", without);
        assert!(matches!(open(&disk), Err(StoreError::Damaged { .. })), "block at {}", block[0]);
    }
}

#[test]
fn older_state_never_replaces_a_newer_snapshot() {
    let disk = MemoryDisk::new();
    let (snapshots, _) = open(&disk).unwrap();
    let newer = state(50, 5);
    block_on(snapshots.write(&newer)).unwrap();
    block_on(snapshots.write(&state(20, 5))).unwrap();
    assert_same(&newer, &open(&disk).unwrap().1.unwrap());
}

#[test]
fn full_disk_leaves_the_snapshot_that_is_there() {
    let disk = MemoryDisk::new();
    let (snapshots, _) = open(&disk).unwrap();
    let older = state(20, 5);
    block_on(snapshots.write(&older)).unwrap();
    disk.set_capacity(Some(disk.contents("snapshot").unwrap().len() + 100));
    assert!(block_on(snapshots.write(&state(50, 5))).is_err());
    assert_same(&older, &open(&disk.after_power_cut()).unwrap().1.unwrap());
    disk.set_capacity(None);
    block_on(snapshots.write(&state(50, 5))).unwrap();
    assert_same(&state(50, 5), &open(&disk.after_power_cut()).unwrap().1.unwrap());
}

#[test]
fn distrusted_snapshot_is_written_again_from_memory() {
    let disk = MemoryDisk::new();
    let (snapshots, _) = open(&disk).unwrap();
    let written = state(20, 5);
    block_on(snapshots.write(&written)).unwrap();
    disk.set_contents("snapshot", vec![1, 2, 3]);
    snapshots.distrust();
    block_on(snapshots.write(&written)).unwrap();
    assert!(!snapshots.is_distrusted());
    assert_same(&written, &open(&disk.after_power_cut()).unwrap().1.unwrap());
}
