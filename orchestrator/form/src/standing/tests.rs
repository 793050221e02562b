//! What is known after writes, and after power cuts.

use futures::executor::block_on;
use podium_control::forming::Machine;
use podium_store::disk::memory::MemoryDisk;

use super::*;

fn set() -> MemberSet {
    let machine = |number: u8| Machine {
        member: u64::from(number),
        name: format!("n{number}"),
        public_key: vec![number; 4],
    };
    MemberSet::new(ClusterId(7), [machine(1), machine(2)])
}

fn files() -> (MemoryDisk, StandingFiles) {
    let disk = MemoryDisk::default();
    (disk.clone(), StandingFiles::new(Arc::new(disk)))
}

fn accepted(set: Option<MemberSet>) -> Standing {
    Standing::Blank { accepted: set }
}

#[test]
fn what_was_accepted_is_known_after_a_power_cut_until_it_is_released() {
    let (disk, files) = files();
    let read = || {
        let after = StandingFiles::new(Arc::new(disk.after_power_cut()));
        block_on(after.read(false)).expect("a standing")
    };
    assert_eq!(read(), accepted(None));
    block_on(files.accept(&set())).expect("accepted");
    assert_eq!(read(), accepted(Some(set())));
    block_on(files.release()).expect("released");
    block_on(files.release()).expect("released already");
    assert_eq!(read(), accepted(None));
}

#[test]
fn a_member_stays_one_wherever_the_power_was_cut() {
    let (_, files) = files();
    block_on(files.accept(&set())).expect("accepted");
    for _ in 0..2 {
        let standing = block_on(files.read(true)).expect("a standing");
        assert_eq!(standing, Standing::Member(ClusterId(7)));
    }
    let lost = block_on(files.read(false)).expect_err("the store is gone");
    assert!(lost.to_string().contains("STATE has lost the store"), "{lost}");
}

#[test]
fn a_worker_keeps_its_place() {
    let (_, files) = files();
    let joined = Joined {
        cluster: ClusterId(u128::MAX),
        authority_pem: "pem".to_owned(),
        pods: "10.244.3.0/24".to_owned(),
        voters: vec![vec![1, 2]],
    };
    block_on(files.keep_joined(&joined)).expect("kept");
    let standing = block_on(files.read(false)).expect("a standing");
    assert_eq!(standing, Standing::Worker(joined.cluster));
    assert_eq!(block_on(files.read_joined()).expect("read"), Some(joined));
}

#[test]
fn an_accepted_set_of_the_first_version_is_read_for_ever() {
    let (disk, files) = files();
    block_on(files.accept(&set())).expect("accepted");
    let bytes = block_on(files.contents(ACCEPTED)).expect("read").expect("the file");
    let mut golden = vec![VERSION, 7, 2];
    for machine in set().machines {
        golden.extend(machine.0.0);
        golden.extend([machine.1.member as u8, 2, b'n', b'0' + machine.1.member as u8, 4]);
        golden.extend(machine.1.public_key);
    }
    assert_eq!(bytes, golden);
    let other = block_on(disk.create(ACCEPTED)).expect("a file");
    block_on(other.write(0, Bytes::from_static(&[9]))).expect("written");
    assert!(block_on(files.read(false)).is_err());
}
