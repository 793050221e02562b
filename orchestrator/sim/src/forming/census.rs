//! The rules of forming, and what they are judged by: everything that any machine has ever said or made.
//!
//! - There are never two clusters: see `disks_to_spare`.
//! - A machine accepts one set, and lets go of it only after somebody of that set has come to belong to another cluster.
//! - Whoever proposes a set was told by all others of it that they would form it.
//! - A store is made with a set only after all of the set have said that they accepted it.
//! - What belongs to a cluster belongs to it for ever.

use std::collections::{BTreeMap, BTreeSet};

use podium_control::forming::{ClusterId, Fingerprint, Hello, Machine, MemberSet, Standing};

/// One disk that is or was in use.
struct Known {
    machine: Machine,
    node: u16,
    /// As it was said last.
    standing: Standing,
    /// All sets that it has said it would form.
    choices: BTreeSet<BTreeSet<Fingerprint>>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Census {
    machines: BTreeMap<Fingerprint, Known>,
    /// Which disk is in a node now.
    nodes: BTreeMap<u16, Fingerprint>,
    made: BTreeMap<ClusterId, MemberSet>,
    consoles: BTreeMap<u16, String>,
    half_accepted: BTreeSet<ClusterId>,
}

impl Census {
    /// A disk was put into a node.
    pub(crate) fn install(&mut self, node: u16, machine: Machine) {
        let key = machine.fingerprint();
        let standing = Standing::Blank { accepted: None };
        let known = Known { machine, node, standing, choices: BTreeSet::new() };
        self.machines.insert(key, known);
        self.nodes.insert(node, key);
    }

    /// The machine that a node is now.
    pub(crate) fn machine(&self, node: u16) -> Option<&Machine> {
        self.machines.get(self.nodes.get(&node)?).map(|known| &known.machine)
    }

    /// Where a machine is, if its disk is still in use.
    pub(crate) fn node_of(&self, key: &Fingerprint) -> Option<u16> {
        let node = self.machines.get(key)?.node;
        (self.nodes.get(&node) == Some(key)).then_some(node)
    }

    /// How a node stands, as it said last.
    pub(crate) fn standing(&self, node: u16) -> Option<&Standing> {
        self.machines.get(self.nodes.get(&node)?).map(|known| &known.standing)
    }

    /// The cluster that was made.
    pub(crate) fn cluster(&self) -> Option<&MemberSet> {
        self.made.values().next()
    }

    /// Whether a node's disk may be replaced now that a cluster is formed: enough members stay for a quorum, and too few
    /// machines are without a cluster to form another.
    pub(crate) fn may_lose(&self, node: u16) -> bool {
        let Some(set) = self.cluster() else { return false };
        let homeless =
            |key| self.machines.get(key).is_none_or(|it| it.standing.cluster().is_none());
        let apart = self.nodes.iter().filter(|(other, key)| **other != node && homeless(key));
        let is_member = |key| self.standing_of(key) == Some(&Standing::Member(set.cluster));
        let others = set.machines.keys().filter(|key| is_member(key));
        let left = others.filter(|key| self.node_of(key).is_some_and(|it| it != node)).count();
        left * 2 > set.machines.len() && apart.count() + 1 < set.machines.len()
    }

    fn standing_of(&self, key: &Fingerprint) -> Option<&Standing> {
        self.machines.get(key).map(|known| &known.standing)
    }

    /// The last line on a node's console; empty when all is well.
    pub(crate) fn console(&self, node: u16) -> &str {
        self.consoles.get(&node).map_or("", String::as_str)
    }

    /// A console's line. Says whether it is another than before.
    pub(crate) fn tell(&mut self, node: u16, line: Option<String>) -> bool {
        let line = line.unwrap_or_default();
        self.consoles.insert(node, line.clone()) != Some(line)
    }

    /// A machine says hello.
    pub(crate) fn said(&mut self, hello: &Hello) -> Result<(), String> {
        let key = hello.machine.fingerprint();
        let Some(known) = self.machines.get(&key) else { return Ok(()) };
        if known.standing != hello.standing {
            self.may_follow(key, known, &hello.standing)?;
        }
        if let Some(known) = self.machines.get_mut(&key) {
            known.standing.clone_from(&hello.standing);
            known.choices.extend(hello.choice.clone());
        }
        Ok(())
    }

    fn may_follow(&self, key: Fingerprint, known: &Known, next: &Standing) -> Result<(), String> {
        let name = &known.machine.name;
        match &known.standing {
            Standing::Member(cluster) | Standing::Worker(cluster) => {
                return Err(format!("{name} belonged to cluster {cluster} and is {next:?} now"));
            }
            Standing::Blank { accepted: Some(set) } => {
                let fulfilled = *next == Standing::Member(set.cluster);
                if !fulfilled && !self.is_void(set) {
                    return Err(format!("{name} had accepted {set:?} and is {next:?} now"));
                }
            }
            Standing::Blank { accepted: None } => {}
        }
        match next {
            Standing::Blank { accepted: Some(set) } if set.proposer() == Some(key) => {
                self.is_chosen(set)
            }
            Standing::Blank { .. } => Ok(()),
            Standing::Member(cluster) | Standing::Worker(cluster) => {
                let member =
                    self.made.get(cluster).is_some_and(|it| it.machines.contains_key(&key));
                let says_member = matches!(next, Standing::Member(_));
                match member == says_member {
                    true => Ok(()),
                    false => Err(format!("{name} is {next:?}, whose first members are others")),
                }
            }
        }
    }

    /// Whether somebody of the set belongs to another cluster.
    fn is_void(&self, set: &MemberSet) -> bool {
        let elsewhere = |key| {
            let cluster = self.machines.get(key).and_then(|known| known.standing.cluster());
            cluster.is_some_and(|cluster| cluster != set.cluster)
        };
        set.machines.keys().any(elsewhere)
    }

    fn is_chosen(&self, set: &MemberSet) -> Result<(), String> {
        let chosen: BTreeSet<Fingerprint> = set.machines.keys().copied().collect();
        let others = set.machines.iter().filter(|(key, _)| Some(**key) != set.proposer());
        for (key, machine) in others {
            if !self.machines.get(key).is_some_and(|known| known.choices.contains(&chosen)) {
                let name = &machine.name;
                return Err(format!("{set:?} is proposed, and {name} never said it would form it"));
            }
        }
        Ok(())
    }

    /// A machine makes its store with a set.
    pub(crate) fn makes(&mut self, node: u16, set: &MemberSet) -> Result<(), String> {
        let me = self.nodes.get(&node);
        for (key, machine) in set.machines.iter().filter(|(key, _)| Some(*key) != me) {
            let agrees = self.machines.get(key).is_some_and(|known| match &known.standing {
                Standing::Blank { accepted } => accepted.as_ref() == Some(set),
                Standing::Member(cluster) => *cluster == set.cluster,
                Standing::Worker(_) => false,
            });
            if !agrees {
                let name = &machine.name;
                return Err(format!(
                    "{set:?} is made, and {name} has not said that it accepted it"
                ));
            }
        }
        self.made.insert(set.cluster, set.clone());
        match self.made.len() {
            1 => Ok(()),
            _ => Err(format!("there are two clusters: {:?}", self.made)),
        }
    }

    /// The clusters of which somebody who runs has accepted the set and somebody has not, while the proposer is off; each is
    /// told once.
    pub(crate) fn newly_half_accepted(&mut self, running: &[u16]) -> usize {
        let accepted = |known: &Known| match &known.standing {
            Standing::Blank { accepted: Some(set) } => Some(set.clone()),
            _ => None,
        };
        let on = self.nodes.iter().filter(|(node, _)| running.contains(node));
        let sets = on.filter_map(|(_, key)| accepted(self.machines.get(key)?));
        let is_half = |set: &MemberSet| {
            let proposer = set.proposer().and_then(|key| self.node_of(&key));
            let off = proposer.is_none_or(|node| !running.contains(&node));
            let free = |key| {
                self.machines
                    .get(key)
                    .is_some_and(|known| known.standing == Standing::Blank { accepted: None })
            };
            off && set.machines.keys().any(free)
        };
        let found: Vec<ClusterId> = sets.filter(is_half).map(|set| set.cluster).collect();
        found.into_iter().filter(|cluster| self.half_accepted.insert(*cluster)).count()
    }

    /// Nodes whose accepted set can never be complete by what machines may do: a disk of it is gone, or a machine of it has
    /// accepted another.
    pub(crate) fn stuck(&self) -> BTreeSet<u16> {
        let stuck = |key: &Fingerprint| {
            let Some(Standing::Blank { accepted: Some(set) }) =
                self.machines.get(key).map(|known| &known.standing)
            else {
                return false;
            };
            set.machines.keys().any(|other| {
                let gone = self.node_of(other).is_none();
                let known = self.machines.get(other).map(|known| &known.standing);
                let another = matches!(known, Some(Standing::Blank { accepted: Some(theirs) }) if theirs != set);
                gone || another
            })
        };
        self.nodes.iter().filter(|(_, key)| stuck(key)).map(|(node, _)| *node).collect()
    }
}
