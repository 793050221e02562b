//! How machines that know nothing but a token become one cluster, decided by each for itself.
//!
//! ```text
//!            chosen by all of them, and this one has the lowest key: Accept
//!   Blank ───────────────────────────────────────────────────────────────► Accepted(set)
//!     │ ◄──────── Release: the set can never be complete ─────────────────────│  │
//!     │           a proposal from the lowest of its set: Accept ──────────────┘  │ all of the set have accepted
//!     ▼ a formed cluster is heard: Join                                          ▼ it: Initialise
//!   Worker                                                                     Member
//! ```
//!
//! A machine says [`Hello`] to everybody with whom it has a proven session: who it is, how it stands, whom it hears, and
//! which set it would form. [`decide`] looks at what it heard and says what to do. Elsewhere: the sessions and the proof of
//! the token, the disk, the store.
//!
//! # Why there are never two
//!
//! - A machine holds at most one accepted set, durably, and says so in its hellos only once it is on its disk.
//! - A store is initialised only when every machine of the set has been heard to have accepted that very set, or one of
//!   them has been heard to be a member of its cluster, which is the same one step later.
//! - An acceptance is released only when a machine of its set has been heard to be a member or a worker of another cluster.
//!   Such a machine never accepts again, and the first of a set to become one cannot have accepted the set before: to let go
//!   of it, it would have had to hear of an earlier one. So that set was not, and will not be, accepted by all, and nobody
//!   can have initialised it. What was heard about acceptances therefore stays true however old it is.
//!
//! Two disjoint groups, each as large as expected, that cannot hear each other form two clusters; nobody could tell.
//! When they hear each other later, both say so.

mod hearing;
mod report;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::bugs::{Bug, active};

pub use hearing::{Hearing, Order};
pub use report::{Quorum, conflict, quorum};

/// SHA-256 of a machine's public identity key (SubjectPublicKeyInfo, DER): its name among machines.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Of a key in DER.
    #[must_use]
    pub fn of(public_key: &[u8]) -> Self {
        Self(Sha256::digest(public_key).into())
    }
}

impl fmt::Display for Fingerprint {
    /// Its first bytes: enough to tell machines apart on a console.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A cluster's name among clusters: random, made with the set of its first members.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:08x}", self.0 >> 96)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A machine, as it introduces itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its id in the store, should it become a member.
    pub member: u64,
    /// Its host name.
    pub name: String,
    /// Its identity key's public half: SubjectPublicKeyInfo in DER.
    pub public_key: Vec<u8>,
}

impl Machine {
    /// The name of its key.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.public_key)
    }
}

/// The first members of a cluster. What a machine accepts is one of these, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberSet {
    /// Whose members they would be.
    pub cluster: ClusterId,
    /// All of them, by their keys.
    pub machines: BTreeMap<Fingerprint, Machine>,
}

impl MemberSet {
    /// A set of these machines.
    #[must_use]
    pub fn new(cluster: ClusterId, machines: impl IntoIterator<Item = Machine>) -> Self {
        let machines = machines.into_iter().map(|machine| (machine.fingerprint(), machine));
        Self { cluster, machines: machines.collect() }
    }

    /// Who proposes it: the lowest key.
    #[must_use]
    pub fn proposer(&self) -> Option<Fingerprint> {
        self.machines.keys().next().copied()
    }
}

/// How a machine stands to clusters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// In none yet.
    Blank {
        /// What it has accepted, durably.
        accepted: Option<MemberSet>,
    },
    /// It keeps the store of a cluster.
    Member(ClusterId),
    /// It belongs to a cluster and keeps no store.
    Worker(ClusterId),
}

impl Standing {
    /// The cluster it belongs to.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        match self {
            Self::Blank { .. } => None,
            Self::Member(cluster) | Self::Worker(cluster) => Some(*cluster),
        }
    }

    fn is_free(&self) -> bool {
        matches!(self, Self::Blank { accepted: None })
    }
}

/// What a machine says to the others, again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Who speaks.
    pub machine: Machine,
    /// How many machines its config expects.
    pub expect: u32,
    /// How it stands.
    pub standing: Standing,
    /// Whom it hears, by key, with their names.
    pub sees: BTreeMap<Fingerprint, String>,
    /// The set that it would form, if it may form one.
    pub choice: Option<BTreeSet<Fingerprint>>,
}

/// What a machine is told that has got a place in a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Which cluster.
    pub cluster: ClusterId,
    /// The certificate of the cluster's authority, in PEM.
    pub authority_pem: String,
    /// The machine's part of the pod addresses, as `10.244.3.0/24`.
    pub pods: String,
    /// The public keys of voters, to ask for everything else.
    pub voters: Vec<Vec<u8>>,
}

/// The last hello of another machine.
#[derive(Clone, Debug)]
pub struct Heard {
    /// What it said.
    pub hello: Hello,
    /// When, on this machine's monotonic clock.
    pub at: Duration,
}

/// Everything that a decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// This machine.
    pub me: &'a Machine,
    /// How many machines are expected.
    pub expect: u32,
    /// Exactly these instead, this machine among them, if an operator said so: see [`narrow`].
    pub only: Option<&'a BTreeSet<Fingerprint>>,
    /// How this machine stands, as its disk has it.
    pub standing: &'a Standing,
    /// The last hello of everybody heard since this program started, by the keys that the sessions have proven.
    pub heard: &'a BTreeMap<Fingerprint, Heard>,
    /// The monotonic clock.
    pub now: Duration,
    /// A machine that has been silent for longer is not seen any more.
    pub patience: Duration,
    /// The name of the cluster, should this decision make one: random.
    pub fresh: ClusterId,
}

/// What a machine is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Write this set to the disk as accepted; only then say so.
    Accept(MemberSet),
    /// Forget the accepted set, durably: it can never be complete.
    Release,
    /// Ask this machine to accept the accepted set.
    Propose(Fingerprint),
    /// Make the store, with exactly the accepted set.
    Initialise,
    /// Ask one of these for a place in the cluster.
    Join {
        /// Which.
        cluster: ClusterId,
        /// Machines that can give one, in the order of their keys.
        through: Vec<Fingerprint>,
    },
}

/// The outcome of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to do, in order. Doing it again does no harm.
    pub intents: Vec<Intent>,
    /// For the hello: whom this machine hears.
    pub sees: BTreeMap<Fingerprint, String>,
    /// For the hello: the set that it would form.
    pub choice: Option<BTreeSet<Fingerprint>>,
    /// One line for the console: who is there, who is missing, what is waited for.
    pub report: String,
}

/// Why a proposal is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// This machine is in a cluster.
    #[error("this machine belongs to cluster {0}")]
    Belongs(ClusterId),
    /// It has accepted another set.
    #[error("this machine has accepted the first members of cluster {0}")]
    Accepted(ClusterId),
    /// It is not in the set.
    #[error("this machine is not in the set")]
    NotInSet,
    /// The set has another size than the config says.
    #[error("this machine expects {expected} machines, the set has {proposed}")]
    Size {
        /// By this machine's config.
        expected: u32,
        /// In the set.
        proposed: usize,
    },
    /// An operator has named others.
    #[error("this machine was told to form a cluster with other machines")]
    NotNamed,
    /// There is a cluster to join.
    #[error("cluster {0} is formed, and this machine joins it")]
    Formed(ClusterId),
    /// Only the lowest key of a set proposes it.
    #[error("a set is proposed by the lowest key in it")]
    NotLowest,
    /// It does not hear everybody in the set.
    #[error("this machine does not see {0}")]
    Unseen(String),
    /// The set says of a machine what the machine does not say of itself.
    #[error("the set describes {0} wrongly")]
    Described(String),
}

/// Decides what to do now. Call it on every hello, and as time passes.
#[must_use]
pub fn decide(situation: &Situation<'_>) -> Decision {
    let choice = situation.choice();
    let intents = match situation.standing {
        Standing::Blank { accepted: None } => situation.free(choice.as_ref()),
        Standing::Blank { accepted: Some(set) } => situation.accepted(set),
        Standing::Member(_) | Standing::Worker(_) => Vec::new(),
    };
    let report = report::of(situation, choice.as_ref());
    Decision { intents, sees: situation.sees(), choice, report }
}

/// Decides about another machine's proposal. `Ok`: write it to the disk, then answer yes; if it is there already, just answer.
///
/// # Errors
/// A sentence for the machine that proposed.
pub fn consider(
    situation: &Situation<'_>,
    from: Fingerprint,
    proposed: &MemberSet,
) -> Result<(), Refusal> {
    match situation.standing {
        Standing::Blank { accepted: Some(accepted) } if accepted == proposed => return Ok(()),
        Standing::Blank { accepted: Some(accepted) } => {
            return Err(Refusal::Accepted(accepted.cluster));
        }
        Standing::Member(cluster) | Standing::Worker(cluster) => {
            return Err(Refusal::Belongs(*cluster));
        }
        Standing::Blank { accepted: None } => {}
    }
    let me = situation.me.fingerprint();
    match situation.only {
        Some(only) if !only.iter().eq(proposed.machines.keys()) => return Err(Refusal::NotNamed),
        None if proposed.machines.len() != situation.expect as usize => {
            let (expected, proposed) = (situation.expect, proposed.machines.len());
            return Err(Refusal::Size { expected, proposed });
        }
        Some(_) | None => {}
    }
    if proposed.proposer() != Some(from) || from == me {
        return Err(Refusal::NotLowest);
    }
    if proposed.machines.get(&me) != Some(situation.me) {
        return Err(Refusal::NotInSet);
    }
    for (key, machine) in proposed.machines.iter().filter(|(key, _)| **key != me) {
        let Some(heard) = situation.fresh_of(key) else {
            return Err(Refusal::Unseen(machine.name.clone()));
        };
        if heard.hello.machine != *machine || machine.fingerprint() != *key {
            return Err(Refusal::Described(machine.name.clone()));
        }
    }
    Ok(())
}

/// Decides about an operator's word that exactly these machines shall form a cluster, fewer than the config expects. `Ok`: they
/// are [`Situation::only`] from now on. Nothing is accepted by it, so it is not kept on the disk, and said again it may differ;
/// the cluster forms by the same rules, once all of them were told.
///
/// # Errors
/// A sentence for the operator.
pub fn narrow(situation: &Situation<'_>, only: &BTreeSet<Fingerprint>) -> Result<(), Refusal> {
    match situation.standing {
        Standing::Member(cluster) | Standing::Worker(cluster) => Err(Refusal::Belongs(*cluster)),
        Standing::Blank { accepted: Some(set) } => Err(Refusal::Accepted(set.cluster)),
        Standing::Blank { accepted: None } if only.len() > situation.expect as usize => {
            Err(Refusal::Size { expected: situation.expect, proposed: only.len() })
        }
        Standing::Blank { accepted: None } if !only.contains(&situation.me.fingerprint()) => {
            Err(Refusal::NotInSet)
        }
        Standing::Blank { accepted: None } => match situation.clusters().keys().next() {
            Some(cluster) => Err(Refusal::Formed(*cluster)),
            None => Ok(()),
        },
    }
}

impl<'a> Situation<'a> {
    /// How many machines form the cluster.
    fn expected(&self) -> usize {
        self.only.map_or(self.expect as usize, BTreeSet::len)
    }

    fn is_fresh(&self, heard: &Heard) -> bool {
        self.now.saturating_sub(heard.at) <= self.patience
    }

    fn fresh_of(&self, key: &Fingerprint) -> Option<&'a Heard> {
        self.heard.get(key).filter(|heard| self.is_fresh(heard))
    }

    /// Those that are heard now.
    fn seen(&self) -> impl Iterator<Item = (Fingerprint, &'a Hello)> {
        let fresh = self.heard.iter().filter(|(_, heard)| self.is_fresh(heard));
        fresh.map(|(key, heard)| (*key, &heard.hello))
    }

    fn sees(&self) -> BTreeMap<Fingerprint, String> {
        self.seen().map(|(key, hello)| (key, hello.machine.name.clone())).collect()
    }

    /// The clusters whose machines are heard.
    fn clusters(&self) -> BTreeMap<ClusterId, Vec<Fingerprint>> {
        let mut clusters: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (key, hello) in self.seen() {
            if let Some(cluster) = hello.standing.cluster() {
                clusters.entry(cluster).or_default().push(key);
            }
        }
        clusters
    }

    /// Of these, those that keep the store and so can give places; all, if no such is heard.
    fn hosts(&self, through: Vec<Fingerprint>) -> Vec<Fingerprint> {
        let keeps = |key: &Fingerprint| {
            let heard = self.heard.get(key);
            heard.is_some_and(|it| matches!(it.hello.standing, Standing::Member(_)))
        };
        let hosts: Vec<_> = through.iter().copied().filter(keeps).collect();
        if hosts.is_empty() { through } else { hosts }
    }

    /// The lowest free keys, this machine's among them, if it may form a cluster now: it is free, hears of no cluster and
    /// of none that is being made with it, and there are enough. Machines of one name cannot be in one cluster.
    fn choice(&self) -> Option<BTreeSet<Fingerprint>> {
        let me = self.me.fingerprint();
        let formed = self.seen().any(|(_, hello)| hello.standing.cluster().is_some());
        let forming = self.seen().any(|(_, hello)| {
            matches!(&hello.standing, Standing::Blank { accepted: Some(set) } if set.machines.contains_key(&me))
        });
        if !self.standing.is_free() || formed || forming {
            return None;
        }
        let named = |key: &Fingerprint| self.only.is_none_or(|only| only.contains(key));
        let free = self.seen().filter(|(key, hello)| hello.standing.is_free() && named(key));
        let mut names: BTreeMap<Fingerprint, &str> =
            free.map(|(key, hello)| (key, hello.machine.name.as_str())).collect();
        names.insert(me, &self.me.name);
        let expect = self.expected();
        let lowest: BTreeMap<_, _> = names.into_iter().take(expect).collect();
        let distinct = lowest.values().collect::<BTreeSet<_>>().len();
        (lowest.contains_key(&me) && lowest.len() == expect && distinct == expect)
            .then(|| lowest.into_keys().collect())
    }

    fn free(&self, choice: Option<&BTreeSet<Fingerprint>>) -> Vec<Intent> {
        let mut clusters = self.clusters().into_iter();
        if let Some((cluster, through)) = clusters.next() {
            // Which of two would be a guess; the report says that there are two.
            let one = clusters.next().is_none();
            let through = self.hosts(through);
            return one.then_some(Intent::Join { cluster, through }).into_iter().collect();
        }
        let me = self.me.fingerprint();
        let Some(choice) = choice.filter(|choice| choice.first() == Some(&me)) else {
            return Vec::new();
        };
        let others = choice.iter().filter(|key| **key != me);
        let mut machines = vec![self.me.clone()];
        for key in others {
            match self.fresh_of(key) {
                Some(heard)
                    if heard.hello.choice.as_ref() == Some(choice)
                        || active(Bug::ProposeUnchosen) =>
                {
                    machines.push(heard.hello.machine.clone());
                }
                Some(_) | None => return Vec::new(),
            }
        }
        vec![Intent::Accept(MemberSet::new(self.fresh, machines))]
    }

    fn accepted(&self, set: &MemberSet) -> Vec<Intent> {
        let me = self.me.fingerprint();
        let others = || set.machines.keys().filter(|key| **key != me);
        let standing = |key| self.heard.get(key).map(|heard: &Heard| &heard.hello.standing);
        let elsewhere = |key| {
            standing(key).and_then(Standing::cluster).is_some_and(|cluster| cluster != set.cluster)
        };
        let is_member =
            |key| matches!(standing(key), Some(Standing::Member(of)) if *of == set.cluster);
        let has_accepted = |key| matches!(standing(key), Some(Standing::Blank { accepted: Some(other) }) if other == set);
        if others().any(is_member) || others().all(has_accepted) {
            return vec![Intent::Initialise];
        }
        let unseen = |key| active(Bug::ReleaseUnseen) && self.fresh_of(key).is_none();
        if others().any(elsewhere) || others().any(unseen) {
            return vec![Intent::Release];
        }
        if set.proposer() != Some(me) {
            return Vec::new();
        }
        let free = |key: &&Fingerprint| {
            self.fresh_of(key).is_some_and(|heard| heard.hello.standing.is_free())
        };
        others().filter(free).map(|key| Intent::Propose(*key)).collect()
    }
}
