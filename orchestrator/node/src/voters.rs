//! Who votes, by their keys: whoever may speak for the cluster.
//!
//! Voters see everything and may ask for everything; a node that was taken over must not become one by saying so. So nothing
//! that a node writes is proof, its Machine's `status.voter` least of all. On a machine with a replica the keys are those that
//! the store's membership pins. On one without they are those that came with its place in the cluster, and from then on
//! those that a voter among them told ([`crate::worker`]); they are kept on STATE, so that it trusts nobody else after a start.
//!
//! A machine that was away until none of the voters that it knew votes any more has to be made blank, and joins anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::executor::block_on;
use podium_control::forming::Joined;
use podium_form::StandingFiles;
use podium_store::Membership;
use tokio::sync::watch;

/// Public keys (SubjectPublicKeyInfo, DER).
pub(crate) type Keys = BTreeSet<Vec<u8>>;

/// The keys of all voters, as this machine knows them now.
#[derive(Clone, Debug)]
pub(crate) struct Voters(Arc<watch::Sender<Keys>>);

impl Voters {
    /// These, for now.
    pub(crate) fn new(keys: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let keys = keys.into_iter().filter(|key| !key.is_empty()).collect();
        Self(Arc::new(watch::Sender::new(keys)))
    }

    /// They are these from now on; gives whether that is news. There is no cluster without voters: nobody is no news.
    pub(crate) fn are(&self, keys: impl IntoIterator<Item = Vec<u8>>) -> bool {
        let keys: Keys = keys.into_iter().filter(|key| !key.is_empty()).collect();
        self.0.send_if_modified(|known| {
            let news = !keys.is_empty() && *known != keys;
            if news {
                *known = keys;
            }
            news
        })
    }

    /// Whether this is a voter's key.
    pub(crate) fn has(&self, key: &[u8]) -> bool {
        self.0.borrow().contains(key)
    }

    /// All of them.
    pub(crate) fn keys(&self) -> Keys {
        self.0.borrow().clone()
    }

    /// All of them, and every change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Keys> {
        self.0.subscribe()
    }
}

/// The keys that a membership pins for its voters.
pub(crate) fn pinned(membership: &Membership) -> impl Iterator<Item = Vec<u8>> {
    let members = membership.members.values();
    members.filter(|it| membership.is_voter(it.id)).map(|it| it.public_key.clone())
}

/// What a machine without a replica is told of them, kept on its disk.
pub(crate) struct Hearsay {
    voters: Voters,
    joined: Joined,
    files: StandingFiles,
}

impl Hearsay {
    /// Begins with what is on the disk.
    pub(crate) fn new(voters: Voters, joined: Joined, files: StandingFiles) -> Self {
        Self { voters, joined, files }
    }

    /// A voter has said that these are the voters.
    pub(crate) fn told(&mut self, keys: Vec<Vec<u8>>) {
        if !self.voters.are(keys) {
            return;
        }
        self.joined.voters = self.voters.keys().into_iter().collect();
        tracing::info!(voters = self.joined.voters.len(), "the voters have changed");
        // After a start it would trust those of before, of whom one tells again.
        // It takes as long as a small file takes to be synced, and is seldom.
        if let Err(error) = block_on(self.files.keep_joined(&self.joined)) {
            tracing::warn!("cannot keep who votes: {:#}", anyhow::Error::new(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podium_control::forming::ClusterId;
    use podium_store::disk::memory::MemoryDisk;
    use podium_store::{Member, MemberId};

    #[test]
    fn voters_are_those_whom_the_membership_lets_vote() {
        let member = |id: u64| Member { id: MemberId(id), public_key: vec![id as u8; 3] };
        let members = (1..=4).map(|id| (MemberId(id), member(id))).collect();
        let voting = |ids: &[u64]| ids.iter().copied().map(MemberId).collect();
        let membership = Membership { members, voters: vec![voting(&[1, 2]), voting(&[2, 3])] };
        let voters = Voters::new(pinned(&membership));
        for (key, votes) in [(1, true), (2, true), (3, true), (4, false), (5, false)] {
            assert_eq!(voters.has(&[key; 3]), votes, "{key}");
        }
        assert!(!voters.has(&[]));
    }

    #[test]
    fn nobody_is_no_news_and_an_empty_key_is_nobody() {
        let voters = Voters::new([vec![1], Vec::new()]);
        assert!(!voters.has(&[]));
        assert!(!voters.are([]) && !voters.are([Vec::new()]) && !voters.are([vec![1]]));
        assert!(voters.are([vec![2]]));
        assert_eq!(voters.keys(), Keys::from([vec![2]]));
    }

    #[test]
    fn what_was_told_outlives_a_start() {
        let files = StandingFiles::new(Arc::new(MemoryDisk::new()));
        let joined = Joined {
            cluster: ClusterId(1),
            authority_pem: "pem".to_owned(),
            pods: "10.244.3.0/24".to_owned(),
            voters: vec![vec![1]],
        };
        block_on(files.keep_joined(&joined)).expect("kept");
        let voters = Voters::new(joined.voters.clone());
        let mut hearsay = Hearsay::new(voters.clone(), joined.clone(), files.clone());
        hearsay.told(Vec::new());
        assert!(voters.has(&[1]));
        hearsay.told(vec![vec![3], vec![2]]);
        assert!(!voters.has(&[1]) && voters.has(&[2]) && voters.has(&[3]));
        let kept = block_on(files.read_joined()).expect("read").expect("joined");
        assert_eq!(kept, Joined { voters: vec![vec![2], vec![3]], ..joined });
    }
}
