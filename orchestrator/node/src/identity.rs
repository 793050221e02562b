//! What makes this machine itself: its id in the store, and the key by which others know it.
//!
//! Both are on STATE, made once, never used again for another. What cluster the machine belongs to is in
//! `podium_form::StandingFiles`; the cluster's authority is in the store ([`crate::authority`]).

use std::path::Path;

use anyhow::Context as _;
use podium_peer::NodeKey;
use podium_store::MemberId;

use crate::files;

/// What is on the disk.
pub(crate) struct Identity {
    /// This machine in the store, if it keeps one.
    pub(crate) member: MemberId,
    /// By which others know it.
    pub(crate) key: NodeKey,
}

impl Identity {
    /// Reads the identity in `folder`, or makes one.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let member = open_member(&folder.join("member"))?;
        let key = open_key(&folder.join("node.key"))?;
        Ok(Self { member, key })
    }
}

fn open_member(path: &Path) -> anyhow::Result<MemberId> {
    if let Some(bytes) = files::read(path).with_context(|| path.display().to_string())? {
        let text = String::from_utf8_lossy(&bytes);
        let number = u64::from_str_radix(text.trim(), 16);
        return Ok(MemberId(
            number.with_context(|| format!("{} holds no member's id", path.display()))?,
        ));
    }
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)?;
    let member = MemberId(u64::from_le_bytes(bytes));
    files::replace(path, format!("{member}\n").as_bytes())
        .with_context(|| path.display().to_string())?;
    Ok(member)
}

fn open_key(path: &Path) -> anyhow::Result<NodeKey> {
    let context = || path.display().to_string();
    let pkcs8 = match files::read(path).with_context(context)? {
        Some(pkcs8) => pkcs8,
        None => {
            let made = NodeKey::generate()?;
            files::replace(path, &made).with_context(context)?;
            made
        }
    };
    NodeKey::from_pkcs8(&pkcs8).with_context(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_made_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let made = Identity::open(folder.path()).expect("made");
        let read = Identity::open(folder.path()).expect("read");
        assert_eq!(made.member, read.member);
        assert_eq!(made.key.public(), read.key.public());
    }

    #[test]
    fn a_damaged_identity_is_refused_by_name() {
        for file in ["member", "node.key"] {
            let folder = tempfile::tempdir().expect("a folder");
            Identity::open(folder.path()).expect("made");
            std::fs::write(folder.path().join(file), "nonsense").expect("write");
            let error = Identity::open(folder.path()).err().expect("no identity");
            assert!(error.to_string().contains(file), "{error:#}");
        }
    }
}
