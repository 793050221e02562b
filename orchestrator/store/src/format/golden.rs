//! The bytes of every record and message of every version, as they were when it was frozen.
//!
//! They must decode for ever, and what is written today must be the newest of them. A missing file
//! is written when `PODIUM_WRITE_GOLDEN` is set, for a version that is new; an existing one is
//! never changed.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::{Frame, Frozen, to_vec, v1};

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden", &format!("{name}.hex")].iter().collect()
}

fn to_hex(bytes: &[u8]) -> String {
    let lines = bytes
        .chunks(32)
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn check<T: Frozen + PartialEq + Debug>(name: &str, value: &T) {
    let (path, bytes) = (path(name), to_vec(value));
    if !path.exists() && std::env::var_os("PODIUM_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, to_hex(&bytes)).unwrap();
    }
    let golden = from_hex(
        &std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("{} is missing", path.display())),
    );
    let frame = Frame::read(&golden).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(frame.length, golden.len(), "{name}");
    assert_eq!(&frame.decode::<T>().unwrap(), value, "{name} decodes to something else");
    assert_eq!(golden, bytes, "{name} is written differently");
}

fn position(term: u64, index: u64) -> v1::Position {
    v1::Position { term, index }
}

fn membership() -> v1::Membership {
    let member =
        |id: u64, key: &'static [u8]| v1::Member { id, public_key: Bytes::from_static(key) };
    v1::Membership {
        members: vec![member(1, b"first"), member(2, b""), member(u64::MAX, b"\x00\xff")],
        voters: vec![vec![1, 2], vec![2, u64::MAX]],
    }
}

fn record() -> v1::Record {
    v1::Record {
        key: Arc::from("/registry/core/configmaps/default/grün"),
        value: Bytes::from_static(b"{\"kind\":\"ConfigMap\"}"),
        create_revision: 5,
        mod_revision: 1_000_000,
        version: 300,
    }
}

fn transact() -> v1::Command {
    let key = || Arc::from("/registry/core/pods/default/a");
    v1::Command::Transact {
        id: 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef,
        basis: 77,
        guards: vec![v1::Guard::Absent(key()), v1::Guard::At(key(), 12), v1::Guard::Exists(key())],
        operations: vec![
            v1::Operation::Put(key(), Bytes::from_static(b"{}")),
            v1::Operation::Delete(key()),
        ],
    }
}

fn ballot() -> v1::Ballot {
    v1::Ballot { term: 9, voted_for: 3, committed: true }
}

#[test]
fn log_records_of_version_1_decode() {
    let previous = Some(position(3, 40));
    check("segment-1", &v1::Segment { durable: 0, member: 7, sequence: 12, previous });
    let entry = |payload| v1::Entry { durable: 1234, position: position(4, 41), payload };
    check("entry-1-blank", &entry(v1::Payload::Blank));
    check("entry-1-transact", &entry(v1::Payload::Command(transact())));
    check("entry-1-compact", &entry(v1::Payload::Command(v1::Command::Compact { before: 99 })));
    check(
        "entry-1-announce",
        &entry(v1::Payload::Command(v1::Command::Announce { member: 2, knows: 1 })),
    );
    check("entry-1-raise", &entry(v1::Payload::Command(v1::Command::Raise { to: 2 })));
    check("entry-1-membership", &entry(v1::Payload::Membership(membership())));
    check("truncate-1", &v1::Truncate { durable: 5000, from: 41 });
    check("reset-1", &v1::Reset { durable: 5001, to: position(6, 500) });
    check("committed-1", &v1::Committed { durable: 5002, position: position(6, 501) });
    check("vote-1", &v1::Vote { member: 7, sequence: 3, term: 6, voted_for: 2, committed: false });
    check("damage-1", &v1::Damage { from: 17 });
}

#[test]
fn snapshot_blocks_of_version_1_decode() {
    check(
        "snapshot-head-1",
        &v1::SnapshotHead {
            member: 7,
            applied: Some(position(6, 501)),
            membership_position: Some(position(1, 0)),
            membership: membership(),
            revision: 480,
            compacted: 100,
            level: 1,
            announced: vec![(1, 1), (2, 2)],
            forgotten: 12,
            records: 1,
            outcomes: 2,
        },
    );
    check("snapshot-records-1", &v1::SnapshotRecords { records: vec![record()] });
    let refused = |current| v1::Outcome::Refused { guard: 2, current };
    let outcomes = vec![
        (7, 1, v1::Outcome::Committed(480)),
        (8, 2, refused(Some(record()))),
        (9, u128::MAX, refused(None)),
    ];
    check("snapshot-outcomes-1", &v1::SnapshotOutcomes { outcomes });
    check("snapshot-end-1", &v1::SnapshotEnd { checksum: 0xdead_beef });
}

#[test]
fn requests_of_version_1_decode() {
    let entries = vec![
        (position(9, 1), v1::Payload::Blank),
        (position(9, 2), v1::Payload::Command(transact())),
        (position(9, 3), v1::Payload::Membership(membership())),
    ];
    let previous = Some(position(8, 0));
    check(
        "append-request-1",
        &v1::AppendRequest { vote: ballot(), previous, entries, commit: None },
    );
    let last = Some(position(8, 70));
    check("vote-request-1", &v1::VoteRequest { vote: ballot(), last, pre: true, transfer: false });
    check(
        "snapshot-part-1",
        &v1::SnapshotPart {
            vote: ballot(),
            applied: last,
            membership_position: None,
            membership: membership(),
            total: 100_000,
            offset: 65_536,
            bytes: Bytes::from_static(b"part"),
        },
    );
    check("read-index-request-1", &v1::ReadIndexRequest {});
    check("forward-request-1", &v1::ForwardRequest { command: transact() });
    check("transfer-request-1", &v1::TransferRequest { from: ballot(), to: 4, last });
}

#[test]
fn replies_of_version_1_decode() {
    use v1::Reply;
    let last = Some(position(8, 70));
    check("reply-1-failed", &Reply::Failed("stopped".into()));
    check("reply-1-not-leader", &Reply::NotLeader(Some(3)));
    check("reply-1-appended", &Reply::Appended);
    check("reply-1-appended-up-to", &Reply::AppendedUpTo(last));
    check("reply-1-conflict", &Reply::Conflict);
    check("reply-1-higher-vote", &Reply::HigherVote(ballot()));
    check("reply-1-vote", &Reply::Vote { vote: ballot(), granted: true, last });
    check("reply-1-snapshot-next", &Reply::SnapshotNext(65_536));
    check("reply-1-snapshot-installed", &Reply::SnapshotInstalled(ballot()));
    check("reply-1-snapshot-corrupt", &Reply::SnapshotCorrupt);
    check("reply-1-read-index", &Reply::ReadIndex { index: 70, last });
    check("reply-1-outcome", &Reply::Outcome(v1::Outcome::Committed(480)));
    check("reply-1-expired", &Reply::Expired);
    check("reply-1-not-known-by", &Reply::NotKnownBy(2));
    check("reply-1-done", &Reply::Done);
    check("reply-1-transfer-accepted", &Reply::TransferAccepted);
    check("reply-1-disk-full", &Reply::DiskFull { outcome_unknown: true });
    check("reply-1-unknown", &Reply::Unknown);
}
