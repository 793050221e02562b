//! How this machine stands to clusters, on its disk: the set of first members that it has accepted, and the cluster that it is
//! a member or a worker of. See `podium_control::forming` for what the first must never do.
//!
//! Each is a small file, and survives a power cut whole or not at all: written under another name, synced, renamed, and the
//! folder synced.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use podium_control::bugs::{self, Bug};
use podium_control::forming::{ClusterId, Joined, MemberSet, Standing};
use podium_store::{Disk, Member};

use crate::FormError;

/// Bytes in front of an accepted set: the version of what follows.
const VERSION: u8 = 1;

const ACCEPTED: &str = "accepted";
const CLUSTER: &str = "cluster";
const JOINED: &str = "joined";

/// More than any of the files holds.
const MOST_BYTES: u64 = 1024 * 1024;

/// The files, in the folder of the identity.
#[derive(Clone, Debug)]
pub struct StandingFiles {
    disk: Arc<dyn Disk>,
}

impl StandingFiles {
    /// The files in this folder.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk }
    }

    /// Reads them. `has_store`: the store has been initialised.
    ///
    /// # Errors
    /// They cannot be read, or contradict each other or the store.
    pub async fn read(&self, has_store: bool) -> Result<Standing, FormError> {
        if let Some(joined) = self.read_joined().await? {
            return Ok(Standing::Worker(joined.cluster));
        }
        let (accepted, cluster) = (self.read_accepted().await?, self.read_cluster().await?);
        match (has_store, cluster, accepted) {
            (true, Some(cluster), _) => Ok(Standing::Member(cluster)),
            (true, None, Some(set)) => {
                // The power was cut between the two.
                self.join(set.cluster).await?;
                Ok(Standing::Member(set.cluster))
            }
            (true, None, None) => Err(FormError::Contradiction(format!(
                "STATE has a store and no cluster that it is of (no file {CLUSTER})"
            ))),
            (false, Some(cluster), _) => Err(FormError::Contradiction(format!(
                "STATE has lost the store of cluster {cluster}; remove this machine from the cluster and make the disk blank"
            ))),
            (false, None, accepted) => Ok(Standing::Blank { accepted }),
        }
    }

    /// Keeps a set. When it returns, the set is on the disk.
    ///
    /// # Errors
    /// It may be on the disk or not.
    pub async fn accept(&self, set: &MemberSet) -> Result<(), FormError> {
        let bytes = postcard::to_extend(set, vec![VERSION])
            .map_err(|error| unreadable(ACCEPTED, error.to_string()))?;
        self.replace(ACCEPTED, bytes).await
    }

    /// Forgets the accepted set. When it returns, it is gone from the disk.
    ///
    /// # Errors
    /// It may be gone or not.
    pub async fn release(&self) -> Result<(), FormError> {
        let failed = |source| FormError::Disk { what: "remove", file: ACCEPTED, source };
        self.disk.remove(ACCEPTED).await.map_err(failed)?;
        self.disk.sync_names().await.map_err(failed)
    }

    /// Keeps that the store is of this cluster.
    ///
    /// # Errors
    /// It may be on the disk or not.
    pub async fn join(&self, cluster: ClusterId) -> Result<(), FormError> {
        self.replace(CLUSTER, format!("{:032x}\n", cluster.0).into_bytes()).await
    }

    /// Keeps a worker's place.
    ///
    /// # Errors
    /// It may be on the disk or not.
    pub async fn keep_joined(&self, joined: &Joined) -> Result<(), FormError> {
        let bytes = serde_json::to_vec_pretty(joined)
            .map_err(|error| unreadable(JOINED, error.to_string()))?;
        self.replace(JOINED, bytes).await
    }

    /// A worker's place.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn read_joined(&self) -> Result<Option<Joined>, FormError> {
        let bytes = self.contents(JOINED).await?;
        let parse = |bytes: Bytes| serde_json::from_slice(&bytes);
        bytes.map(parse).transpose().map_err(|error| unreadable(JOINED, error.to_string()))
    }

    /// The first members of the cluster that this machine has formed with others, or is about to.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn first_members(&self) -> Result<Vec<Member>, FormError> {
        Ok(self.read_accepted().await?.as_ref().map(crate::members).unwrap_or_default())
    }

    async fn read_accepted(&self) -> Result<Option<MemberSet>, FormError> {
        let Some(bytes) = self.contents(ACCEPTED).await? else { return Ok(None) };
        match bytes.split_first() {
            Some((&VERSION, set)) => postcard::from_bytes(set)
                .map(Some)
                .map_err(|error| unreadable(ACCEPTED, error.to_string())),
            Some((version, _)) => {
                Err(unreadable(ACCEPTED, format!("version {version} is not known")))
            }
            None => Err(unreadable(ACCEPTED, "it is empty".to_owned())),
        }
    }

    async fn read_cluster(&self) -> Result<Option<ClusterId>, FormError> {
        let Some(bytes) = self.contents(CLUSTER).await? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        let number = u128::from_str_radix(text.trim(), 16)
            .map_err(|error| unreadable(CLUSTER, error.to_string()))?;
        Ok(Some(ClusterId(number)))
    }

    async fn contents(&self, file: &'static str) -> Result<Option<Bytes>, FormError> {
        let failed = |source| FormError::Disk { what: "read", file, source };
        let Some(open) = self.disk.open(file).await.map_err(failed)? else { return Ok(None) };
        let length = open.length().await.map_err(failed)?.min(MOST_BYTES);
        open.read(0, length as usize).await.map(Some).map_err(failed)
    }

    async fn replace(&self, file: &'static str, bytes: Vec<u8>) -> Result<(), FormError> {
        let failed = |source| FormError::Disk { what: "write", file, source };
        self.write(file, bytes.into()).await.map_err(failed)
    }

    async fn write(&self, file: &str, bytes: Bytes) -> io::Result<()> {
        let temporary = format!("{file}.new");
        let open = self.disk.create(&temporary).await?;
        open.write(0, bytes).await?;
        let synced = !bugs::active(Bug::AcceptUnsynced);
        if synced {
            open.sync().await?;
        }
        self.disk.rename(&temporary, file).await?;
        if synced {
            self.disk.sync_names().await?;
        }
        Ok(())
    }
}

fn unreadable(file: &'static str, reason: String) -> FormError {
    FormError::Unreadable { file, reason }
}

#[cfg(test)]
mod tests;
