//! The links between a rig's machines, and what is wrong with them.
//!
//! Pure: a fault in, the conditions that it changes out; [`crate::Cluster::inject`] hands them to the switch. Faults add up:
//! a link that is slow stays slow while a partition cuts it, until somebody heals it.
//!
//! A link is one direction between two ends. The host is an end as well: the API's forwards, the registry and DHCP are there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use podium_switch::LinkCondition;
use serde::{Deserialize, Serialize};

/// One end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum End {
    /// A machine, from 0.
    Machine(u16),
    /// The host, as the machines see it: their gateway.
    Host,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine(index) => f.write_str(&machine_name(*index)),
            Self::Host => f.write_str("host"),
        }
    }
}

impl FromStr for End {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if text == "host" { Ok(Self::Host) } else { parse_machine(text).map(Self::Machine) }
    }
}

/// The name of the machine `index`, which its DHCP lease carries: `n1` for 0.
#[must_use]
pub fn machine_name(index: u16) -> String {
    format!("n{}", u32::from(index) + 1)
}

/// The index of the machine `name`.
///
/// # Errors
/// It is no machine's name.
pub fn parse_machine(name: &str) -> anyhow::Result<u16> {
    let number = name.strip_prefix('n').and_then(|digits| digits.parse::<u16>().ok());
    let index = number.and_then(|number| number.checked_sub(1));
    index.with_context(|| format!("{name:?} is no machine: machines are called n1, n2, n3…"))
}

/// Which links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Path {
    /// One end.
    pub from: End,
    /// The other; all machines if left out.
    pub to: Option<End>,
    /// Only what goes from the one to the other.
    pub one_way: bool,
}

/// A change of links.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LinkFault {
    /// Nothing passes.
    Cut(Path),
    /// Frames are late, by `delay` and up to `jitter` more.
    Delay {
        /// Which links.
        path: Path,
        /// Every frame.
        delay: Duration,
        /// Each frame by an amount of its own.
        jitter: Duration,
    },
    /// Frames are lost, so many of a thousand.
    Loss(Path, u16),
    /// Frames come twice, so many of a thousand.
    Duplicate(Path, u16),
    /// Frames are held back until others have overtaken them, so many of a thousand.
    Reorder(Path, u16),
    /// Machines of different groups do not reach each other. Those that no group names are a group of their own, and all reach
    /// the host if no group names it. Another partition before is over.
    Partition(Vec<Vec<End>>),
    /// The machine reaches nobody: neither machines nor the host.
    Isolate(u16),
    /// The links are good again; all links without a path.
    Heal(Option<Path>),
}

/// All links of a rig.
#[derive(Clone, Debug)]
pub struct Links {
    machines: u16,
    conditions: BTreeMap<(End, End), LinkCondition>,
}

impl Links {
    /// Good links between `machines` machines and the host.
    #[must_use]
    pub fn new(machines: u16) -> Self {
        Self { machines, conditions: BTreeMap::new() }
    }

    /// The links that are not good, with what is wrong.
    pub fn bad(&self) -> impl Iterator<Item = (End, End, LinkCondition)> + '_ {
        self.conditions.iter().map(|((from, to), condition)| (*from, *to, *condition))
    }

    /// Changes links, and tells the new condition of each that has changed.
    ///
    /// # Errors
    /// The rig has no such machine, a link has one end, or a rate is above 1000. Then nothing has changed.
    pub fn apply(&mut self, fault: &LinkFault) -> anyhow::Result<Vec<(End, End, LinkCondition)>> {
        let mut changes = Vec::new();
        match fault {
            LinkFault::Cut(path) => self.change(path, |link| link.cut = true, &mut changes)?,
            LinkFault::Delay { path, delay, jitter } => {
                let set = |link: &mut LinkCondition| {
                    (link.delay, link.jitter) = (*delay, *jitter);
                };
                self.change(path, set, &mut changes)?;
            }
            LinkFault::Loss(path, rate) => {
                let rate = per_mille(*rate)?;
                self.change(path, |link| link.loss_per_mille = rate, &mut changes)?;
            }
            LinkFault::Duplicate(path, rate) => {
                let rate = per_mille(*rate)?;
                self.change(path, |link| link.duplicate_per_mille = rate, &mut changes)?;
            }
            LinkFault::Reorder(path, rate) => {
                let rate = per_mille(*rate)?;
                self.change(path, |link| link.reorder_per_mille = rate, &mut changes)?;
            }
            LinkFault::Partition(groups) => self.partition(groups, &mut changes)?,
            LinkFault::Isolate(index) => {
                let from = End::Machine(*index);
                self.check(from)?;
                for to in self.ends().into_iter().filter(|to| *to != from) {
                    for (a, b) in [(from, to), (to, from)] {
                        self.set(a, b, |link| link.cut = true, &mut changes);
                    }
                }
            }
            LinkFault::Heal(Some(path)) => {
                self.change(path, |link| *link = LinkCondition::default(), &mut changes)?;
            }
            LinkFault::Heal(None) => {
                for (from, to) in std::mem::take(&mut self.conditions).into_keys() {
                    changes.push((from, to, LinkCondition::default()));
                }
            }
        }
        Ok(changes)
    }

    fn partition(
        &mut self,
        groups: &[Vec<End>],
        changes: &mut Vec<(End, End, LinkCondition)>,
    ) -> anyhow::Result<()> {
        let mut group_of = BTreeMap::new();
        for (number, group) in groups.iter().enumerate() {
            for end in group {
                self.check(*end)?;
                ensure!(group_of.insert(*end, number).is_none(), "{end} is in two groups");
            }
        }
        let all = self.ends();
        for (from, to) in all.iter().flat_map(|from| all.iter().map(move |to| (*from, *to))) {
            let host_is_free = !group_of.contains_key(&End::Host);
            let with_host = from == End::Host || to == End::Host;
            if from != to && !(with_host && host_is_free) {
                let cut = group_of.get(&from) != group_of.get(&to);
                self.set(from, to, |link| link.cut = cut, changes);
            }
        }
        Ok(())
    }

    fn change(
        &mut self,
        path: &Path,
        change: impl Fn(&mut LinkCondition),
        changes: &mut Vec<(End, End, LinkCondition)>,
    ) -> anyhow::Result<()> {
        self.check(path.from)?;
        let others: Vec<End> = match path.to {
            Some(to) => {
                self.check(to)?;
                ensure!(to != path.from, "a link has two ends, not {to} twice");
                vec![to]
            }
            None => (0..self.machines).map(End::Machine).filter(|to| *to != path.from).collect(),
        };
        for to in others {
            self.set(path.from, to, &change, changes);
            if !path.one_way {
                self.set(to, path.from, &change, changes);
            }
        }
        Ok(())
    }

    fn set(
        &mut self,
        from: End,
        to: End,
        change: impl Fn(&mut LinkCondition),
        changes: &mut Vec<(End, End, LinkCondition)>,
    ) {
        let before = self.conditions.get(&(from, to)).copied().unwrap_or_default();
        let mut condition = before;
        change(&mut condition);
        if condition == LinkCondition::default() {
            self.conditions.remove(&(from, to));
        } else {
            self.conditions.insert((from, to), condition);
        }
        if condition != before {
            changes.push((from, to, condition));
        }
    }

    fn ends(&self) -> BTreeSet<End> {
        (0..self.machines).map(End::Machine).chain([End::Host]).collect()
    }

    fn check(&self, end: End) -> anyhow::Result<()> {
        match end {
            End::Machine(index) if index >= self.machines => {
                bail!("there is no {end}: this cluster has {} machines", self.machines)
            }
            _ => Ok(()),
        }
    }
}

fn per_mille(rate: u16) -> anyhow::Result<u16> {
    ensure!(rate <= 1000, "at most 1000 of a thousand frames, not {rate}");
    Ok(rate)
}

/// A condition in an operator's words: `cut`, `100ms late`, `10% lost`.
#[must_use]
pub fn describe(condition: &LinkCondition) -> String {
    let rate = |per_mille: u16, what: &str| {
        (per_mille > 0).then(|| format!("{}% {what}", f64::from(per_mille) / 10.0))
    };
    let late = match (condition.delay, condition.jitter) {
        (Duration::ZERO, Duration::ZERO) => None,
        (delay, Duration::ZERO) => Some(format!("{delay:?} late")),
        (delay, jitter) => Some(format!("{delay:?} to {:?} late", delay + jitter)),
    };
    let words = [
        condition.cut.then(|| "cut".to_owned()),
        late,
        rate(condition.loss_per_mille, "lost"),
        rate(condition.duplicate_per_mille, "doubled"),
        rate(condition.reorder_per_mille, "out of order"),
    ];
    let words: Vec<String> = words.into_iter().flatten().collect();
    if words.is_empty() { "good".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N1: End = End::Machine(0);
    const N2: End = End::Machine(1);
    const N3: End = End::Machine(2);

    fn between(from: End, to: End) -> Path {
        Path { from, to: Some(to), one_way: false }
    }

    fn cut(links: &Links) -> BTreeSet<(End, End)> {
        links.bad().filter(|(_, _, it)| it.cut).map(|(from, to, _)| (from, to)).collect()
    }

    #[test]
    fn names_lead_to_machines_and_back() {
        assert_eq!("n3".parse::<End>().expect("a machine"), N3);
        assert_eq!("host".parse::<End>().expect("the host"), End::Host);
        assert_eq!(N3.to_string(), "n3");
        for wrong in ["n0", "n", "3", "", "m1", "n-1", "n99999"] {
            assert!(wrong.parse::<End>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_cut_goes_both_ways_unless_it_is_said_to_go_one() {
        let mut links = Links::new(3);
        links.apply(&LinkFault::Cut(between(N1, N2))).expect("a cut");
        assert_eq!(cut(&links), [(N1, N2), (N2, N1)].into());
        let one_way = Path { one_way: true, ..between(N2, N3) };
        let changes = links.apply(&LinkFault::Cut(one_way)).expect("a cut");
        assert_eq!(changes.len(), 1);
        assert!(cut(&links).contains(&(N2, N3)) && !cut(&links).contains(&(N3, N2)));
    }

    #[test]
    fn a_partition_parts_groups_and_leaves_the_host_to_all() {
        let mut links = Links::new(3);
        links.apply(&LinkFault::Partition(vec![vec![N1]])).expect("a partition");
        assert_eq!(cut(&links), [(N1, N2), (N2, N1), (N1, N3), (N3, N1)].into());
        links.apply(&LinkFault::Partition(vec![vec![N1, N2], vec![N3]])).expect("another");
        assert_eq!(cut(&links), [(N1, N3), (N3, N1), (N2, N3), (N3, N2)].into());
        let with_host = vec![vec![N1], vec![N2, N3, End::Host]];
        links.apply(&LinkFault::Partition(with_host)).expect("a third");
        assert!(cut(&links).contains(&(N1, End::Host)) && !cut(&links).contains(&(N2, End::Host)));
    }

    #[test]
    fn an_isolated_machine_reaches_nobody_and_the_others_do() {
        let mut links = Links::new(3);
        links.apply(&LinkFault::Isolate(2)).expect("isolated");
        for other in [N1, N2, End::Host] {
            assert!(cut(&links).contains(&(N3, other)) && cut(&links).contains(&(other, N3)));
        }
        assert_eq!(cut(&links).len(), 6);
    }

    #[test]
    fn faults_add_up_and_healing_ends_all_of_them() {
        let mut links = Links::new(3);
        let delay = Duration::from_millis(100);
        let slow = LinkFault::Delay { path: between(N1, N2), delay, jitter: Duration::ZERO };
        links.apply(&slow).expect("slow");
        links.apply(&LinkFault::Partition(vec![vec![N1]])).expect("a partition");
        links.apply(&LinkFault::Partition(Vec::new())).expect("none");
        let left: Vec<_> = links.bad().collect();
        let condition = LinkCondition { delay, ..LinkCondition::default() };
        assert_eq!(left, [(N1, N2, condition), (N2, N1, condition)]);
        let changes = links.apply(&LinkFault::Heal(None)).expect("healed");
        assert_eq!(changes.len(), 2);
        assert_eq!(links.bad().count(), 0);
    }

    #[test]
    fn a_path_without_an_end_leads_to_all_machines() {
        let mut links = Links::new(4);
        let path = Path { from: N1, to: None, one_way: true };
        let changes = links.apply(&LinkFault::Loss(path, 100)).expect("a loss");
        let ends: Vec<_> = changes.iter().map(|(from, to, _)| (*from, *to)).collect();
        assert_eq!(ends, [(N1, N2), (N1, N3), (N1, End::Machine(3))]);
    }

    #[test]
    fn what_cannot_be_is_refused_and_changes_nothing() {
        let mut links = Links::new(2);
        for wrong in [
            LinkFault::Cut(between(N1, N3)),
            LinkFault::Cut(between(N1, N1)),
            LinkFault::Isolate(2),
            LinkFault::Loss(between(N1, N2), 1001),
            LinkFault::Partition(vec![vec![N1], vec![N1, N2]]),
        ] {
            assert!(links.apply(&wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(links.bad().count(), 0);
    }

    #[test]
    fn conditions_are_told_in_words() {
        let condition = LinkCondition {
            delay: Duration::from_millis(100),
            jitter: Duration::from_millis(50),
            loss_per_mille: 25,
            ..LinkCondition::default()
        };
        assert_eq!(describe(&condition), "100ms to 150ms late, 2.5% lost");
        assert_eq!(describe(&LinkCondition { cut: true, ..LinkCondition::default() }), "cut");
    }
}
