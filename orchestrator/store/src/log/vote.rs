//! The vote, in a file with two places.
//!
//! A vote that was given out must never be forgotten, nor a flipped bit turn it into an earlier
//! one. So it is written to the first place, synced, then to the second, synced, and only then
//! does it count. Whatever tears or flips in one place, the other holds a vote that is at least as
//! new as every vote that was given out; both places gone means that a vote was lost, and with it
//! the right to be this member.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::bugs::{Bug, Bugs};
use crate::consensus::{Vote, ballot};
use crate::disk::{Disk, DiskFile};
use crate::error::StoreError;
use crate::format::{self, FormatError, Frame, v1};
use crate::member::MemberId;

const NAME: &str = "vote";
/// One place per block of the device, so that a torn write hurts one only.
const PLACE_BYTES: u64 = 4096;

/// See the module.
#[derive(Debug)]
pub(crate) struct VoteFile {
    file: Arc<dyn DiskFile>,
    member: MemberId,
    sequence: u64,
    bugs: Bugs,
}

/// One place, read.
enum Place {
    Blank,
    Bad,
    Good(v1::Vote),
}

impl VoteFile {
    /// Opens or makes the file. The vote is the newest that was ever given out, if any was.
    pub(crate) async fn open(
        disk: &dyn Disk,
        member: MemberId,
        bugs: Bugs,
    ) -> Result<(Self, Option<Vote>), StoreError> {
        let failed = |error| StoreError::disk("opening the vote file", error);
        let file = match disk.open(NAME).await.map_err(failed)? {
            Some(file) => file,
            None => disk.create(NAME).await.map_err(failed)?,
        };
        file.reserve(2 * PLACE_BYTES).await.map_err(failed)?;
        file.sync().await.map_err(failed)?;
        disk.sync_names().await.map_err(failed)?;
        let bytes = file.read(0, 2 * PLACE_BYTES as usize).await.map_err(failed)?;
        let (first, second) = bytes.split_at(bytes.len().min(PLACE_BYTES as usize));
        let newest = match (read_place(first)?, read_place(second)?) {
            (Place::Good(one), Place::Good(two)) => {
                Some(if one.sequence >= two.sequence { one } else { two })
            }
            (Place::Good(one), _) => Some(one),
            (_, Place::Good(two)) => Some(two),
            // The first vote of all was torn, so it was not given out.
            (Place::Bad | Place::Blank, Place::Blank) => None,
            (Place::Bad | Place::Blank, Place::Bad) => return Err(lost()),
        };
        if newest.as_ref().is_some_and(|vote| vote.member != member.0) {
            let what = "the disk belongs to another member".into();
            return Err(StoreError::Damaged { what });
        }
        let mut opened = Self { file, member, sequence: 0, bugs };
        let Some(newest) = newest else { return Ok((opened, None)) };
        opened.sequence = newest.sequence;
        let vote = crate::consensus::vote(v1::Ballot {
            term: newest.term,
            voted_for: newest.voted_for,
            committed: newest.committed,
        });
        opened
            .save(&vote)
            .await
            .map_err(|error| StoreError::disk("mending the vote file", error))?;
        Ok((opened, Some(vote)))
    }

    /// Returns when the vote is durable.
    pub(crate) async fn save(&mut self, vote: &Vote) -> io::Result<()> {
        self.sequence += 1;
        let v1::Ballot { term, voted_for, committed } = ballot(vote);
        let (member, sequence) = (self.member.0, self.sequence);
        let bytes = format::to_vec(&v1::Vote { member, sequence, term, voted_for, committed });
        let bytes = Bytes::from(bytes);
        if self.bugs.has(Bug::VoteNotSynced) {
            self.file.write(0, bytes.clone()).await?;
            return self.file.write(PLACE_BYTES, bytes).await;
        }
        self.file.write_synced(0, bytes.clone()).await?;
        self.file.write_synced(PLACE_BYTES, bytes).await
    }
}

fn read_place(bytes: &[u8]) -> Result<Place, StoreError> {
    let decoded = Frame::read(bytes).and_then(|frame| frame.decode::<v1::Vote>());
    match decoded {
        Ok(vote) => Ok(Place::Good(vote)),
        Err(FormatError::Blank) if bytes.iter().all(|byte| *byte == 0) => Ok(Place::Blank),
        Err(FormatError::Blank | FormatError::Short | FormatError::Corrupt) => Ok(Place::Bad),
        Err(error @ (FormatError::Unknown { .. } | FormatError::Malformed { .. })) => {
            Err(StoreError::Damaged { what: format!("the vote: {error}") })
        }
    }
}

fn lost() -> StoreError {
    let what = "both copies of the vote fail their checksums; this member must be removed from the \
                cluster and its disk made blank";
    StoreError::Damaged { what: what.into() }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::VoteFile;
    use crate::bugs::Bugs;
    use crate::consensus::{LeaderId, Vote};
    use crate::disk::memory::MemoryDisk;
    use crate::error::StoreError;
    use crate::member::MemberId;

    fn vote(term: u64) -> Vote {
        Vote { leader_id: LeaderId { term, voted_for: MemberId(3) }, committed: false }
    }

    fn open(disk: &MemoryDisk) -> Result<(VoteFile, Option<Vote>), StoreError> {
        block_on(VoteFile::open(disk, MemberId(1), Bugs::NONE))
    }

    fn voted() -> MemoryDisk {
        let disk = MemoryDisk::new();
        let (mut file, before) = open(&disk).unwrap();
        assert_eq!(before, None);
        block_on(file.save(&vote(4))).unwrap();
        block_on(file.save(&vote(5))).unwrap();
        disk.after_power_cut()
    }

    #[test]
    fn vote_survives_a_power_cut() {
        assert_eq!(open(&voted()).unwrap().1, Some(vote(5)));
    }

    #[test]
    fn flipped_byte_never_brings_an_older_vote_back() {
        let disk = voted();
        let sound = disk.contents("vote").unwrap();
        for at in (0..64).chain(4096..4160) {
            let mut flipped = sound.clone();
            flipped[at] ^= 0x10;
            disk.set_contents("vote", flipped);
            assert_eq!(open(&disk).unwrap().1, Some(vote(5)), "byte {at}");
        }
    }

    #[test]
    fn torn_vote_leaves_the_one_before() {
        let disk = voted();
        let mut torn = disk.contents("vote").unwrap();
        torn[5..4096].fill(0xee);
        disk.set_contents("vote", torn);
        assert_eq!(open(&disk).unwrap().1, Some(vote(5)));
        assert_eq!(open(&disk).unwrap().1, Some(vote(5)), "and it was mended");
    }

    #[test]
    fn lost_vote_is_refused() {
        let disk = voted();
        let mut flipped = disk.contents("vote").unwrap();
        flipped[12] ^= 1;
        flipped[4096 + 12] ^= 1;
        disk.set_contents("vote", flipped);
        assert!(matches!(open(&disk), Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn disk_of_another_member_is_refused() {
        let disk = voted();
        let opened = block_on(VoteFile::open(&disk, MemberId(2), Bugs::NONE));
        assert!(matches!(opened, Err(StoreError::Damaged { .. })));
    }
}
