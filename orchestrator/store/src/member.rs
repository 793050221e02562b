//! Who keeps the store: ids, pinned keys, voters and learners, and what all of them understand.

use std::collections::BTreeMap;
use std::fmt;

/// A member's name in the consensus. Drawn at random when its disk is made, kept on that disk,
/// never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MemberId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

/// A member and the key that proves it. Addresses are not here: they come from discovery.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Member {
    /// Its name.
    pub id: MemberId,
    /// Its public identity key (SubjectPublicKeyInfo, DER). The transport accepts nobody else
    /// under this id.
    pub public_key: Vec<u8>,
}

/// The members at one point of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Membership {
    /// Everybody who receives the log, voters included.
    pub members: BTreeMap<MemberId, Member>,
    /// Who votes: one set, or two while a change is under way, each of which must agree.
    pub voters: Vec<std::collections::BTreeSet<MemberId>>,
}

impl Membership {
    /// Whether this member votes in any of the sets.
    #[must_use]
    pub fn is_voter(&self, id: MemberId) -> bool {
        self.voters.iter().any(|set| set.contains(&id))
    }

    /// Whether this member alone is the cluster, so that nobody could repair it.
    #[must_use]
    pub fn is_alone(&self, id: MemberId) -> bool {
        !self.voters.is_empty() && self.voters.iter().all(|set| set.iter().eq([&id]))
    }
}

/// What a program understands: record versions and commands. The cluster's level is part of the
/// replicated state and rises only when every member has announced that it knows the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FeatureLevel(pub u32);

impl FeatureLevel {
    /// What the first release writes.
    pub const FIRST: Self = Self(1);
    /// What this program understands.
    pub const SUPPORTED: Self = Self(1);
}

impl fmt::Display for FeatureLevel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
