//! Who belongs to the store: the keys that the membership pins.

use std::collections::BTreeMap;

use podium_control::forming::ClusterId;
use podium_store::MemberId;

/// The members of one cluster, and their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pinned {
    /// Whose members they are; none before there is a cluster.
    pub cluster: Option<ClusterId>,
    /// Public keys (SubjectPublicKeyInfo, DER) by member.
    pub keys: BTreeMap<MemberId, Vec<u8>>,
}

impl Pinned {
    pub(crate) fn member_of(&self, key: &[u8]) -> Option<MemberId> {
        self.keys.iter().find(|(_, pinned)| pinned.as_slice() == key).map(|(member, _)| *member)
    }
}
