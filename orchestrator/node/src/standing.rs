//! How this machine stands to clusters, on STATE: the set of first members that it has accepted, and the cluster that it is
//! a member of. See `podium_control::forming` for what the first must never do.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use podium_control::forming::{ClusterId, MemberSet, Standing};
use podium_peer::Joined;

use crate::files;

/// Bytes in front of an accepted set: the version of what follows.
const VERSION: u8 = 1;

/// The files, in the folder of the identity.
#[derive(Clone, Debug)]
pub(crate) struct StandingFiles {
    accepted: PathBuf,
    cluster: PathBuf,
    joined: PathBuf,
}

impl StandingFiles {
    pub(crate) fn new(identity: &Path) -> Self {
        Self {
            accepted: identity.join("accepted"),
            cluster: identity.join("cluster"),
            joined: identity.join("joined"),
        }
    }

    /// Reads them. `has_store`: the store has been initialised.
    pub(crate) fn read(&self, has_store: bool) -> anyhow::Result<Standing> {
        if let Some(joined) = self.read_joined()? {
            return Ok(Standing::Worker(joined.cluster));
        }
        let (accepted, cluster) = (self.read_accepted()?, self.read_cluster()?);
        match (has_store, cluster, accepted) {
            (true, Some(cluster), _) => Ok(Standing::Member(cluster)),
            (true, None, Some(set)) => {
                // The power was cut between the two.
                self.join(set.cluster)?;
                Ok(Standing::Member(set.cluster))
            }
            (true, None, None) => {
                bail!("STATE has a store and no cluster that it is of ({})", self.cluster.display())
            }
            (false, Some(cluster), _) => bail!(
                "STATE has lost the store of cluster {cluster}; remove this machine from the cluster and make the disk blank"
            ),
            (false, None, accepted) => Ok(Standing::Blank { accepted }),
        }
    }

    /// Keeps a set. When it returns, the set is on the disk.
    pub(crate) fn accept(&self, set: &MemberSet) -> anyhow::Result<()> {
        let bytes = postcard::to_extend(set, vec![VERSION])?;
        files::replace(&self.accepted, &bytes).with_context(|| self.accepted.display().to_string())
    }

    /// Forgets the accepted set.
    pub(crate) fn release(&self) -> anyhow::Result<()> {
        files::remove(&self.accepted).with_context(|| self.accepted.display().to_string())
    }

    /// Keeps that the store is of this cluster.
    pub(crate) fn join(&self, cluster: ClusterId) -> anyhow::Result<()> {
        files::replace(&self.cluster, format!("{:032x}\n", cluster.0).as_bytes())
            .with_context(|| self.cluster.display().to_string())
    }

    /// Keeps a worker's place.
    pub(crate) fn keep_joined(&self, joined: &Joined) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec_pretty(joined)?;
        files::replace(&self.joined, &bytes).with_context(|| self.joined.display().to_string())
    }

    /// A worker's place.
    pub(crate) fn read_joined(&self) -> anyhow::Result<Option<Joined>> {
        let context = || self.joined.display().to_string();
        let bytes = files::read(&self.joined).with_context(context)?;
        bytes.map(|bytes| serde_json::from_slice(&bytes).with_context(context)).transpose()
    }

    fn read_accepted(&self) -> anyhow::Result<Option<MemberSet>> {
        let context = || self.accepted.display().to_string();
        let Some(bytes) = files::read(&self.accepted).with_context(context)? else {
            return Ok(None);
        };
        match bytes.split_first() {
            Some((&VERSION, set)) => Ok(Some(postcard::from_bytes(set).with_context(context)?)),
            Some((version, _)) => bail!("{}: version {version} is not known", context()),
            None => bail!("{} is empty", context()),
        }
    }

    fn read_cluster(&self) -> anyhow::Result<Option<ClusterId>> {
        let context = || self.cluster.display().to_string();
        let Some(bytes) = files::read(&self.cluster).with_context(context)? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&bytes);
        let number = u128::from_str_radix(text.trim(), 16).with_context(context)?;
        Ok(Some(ClusterId(number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podium_control::forming::Machine;

    fn set() -> MemberSet {
        let machine = |number: u8| Machine {
            member: u64::from(number),
            name: format!("n{number}"),
            public_key: vec![number; 4],
        };
        MemberSet::new(ClusterId(7), [machine(1), machine(2)])
    }

    #[test]
    fn what_was_accepted_is_known_until_it_is_released() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = StandingFiles::new(folder.path());
        let read = || files.read(false).expect("a standing");
        assert_eq!(read(), Standing::Blank { accepted: None });
        files.accept(&set()).expect("accepted");
        assert_eq!(read(), Standing::Blank { accepted: Some(set()) });
        files.release().expect("released");
        files.release().expect("released already");
        assert_eq!(read(), Standing::Blank { accepted: None });
    }

    #[test]
    fn a_member_stays_one_wherever_the_power_was_cut() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = StandingFiles::new(folder.path());
        files.accept(&set()).expect("accepted");
        assert_eq!(files.read(true).expect("a standing"), Standing::Member(ClusterId(7)));
        assert_eq!(files.read(true).expect("a standing"), Standing::Member(ClusterId(7)));
        let lost = files.read(false).expect_err("the store is gone");
        assert!(lost.to_string().contains("STATE has lost the store"), "{lost}");
    }

    #[test]
    fn a_worker_keeps_its_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = StandingFiles::new(folder.path());
        let joined = Joined {
            cluster: ClusterId(u128::MAX),
            authority_pem: "pem".to_owned(),
            pods: "10.244.3.0/24".to_owned(),
            voters: vec![vec![1, 2]],
        };
        files.keep_joined(&joined).expect("kept");
        assert_eq!(files.read(false).expect("a standing"), Standing::Worker(joined.cluster));
        assert_eq!(files.read_joined().expect("read"), Some(joined));
    }

    #[test]
    fn an_accepted_set_of_the_first_version_is_read_for_ever() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = StandingFiles::new(folder.path());
        files.accept(&set()).expect("accepted");
        let bytes = std::fs::read(folder.path().join("accepted")).expect("the file");
        let mut golden = vec![VERSION, 7, 2];
        for machine in set().machines {
            golden.extend(machine.0.0);
            golden.extend([machine.1.member as u8, 2, b'n', b'0' + machine.1.member as u8, 4]);
            golden.extend(machine.1.public_key);
        }
        assert_eq!(bytes, golden);
        std::fs::write(folder.path().join("accepted"), [9]).expect("write");
        assert!(files.read(false).is_err());
    }
}
