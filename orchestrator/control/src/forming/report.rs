//! What the console says while machines look for each other.

use std::collections::{BTreeMap, BTreeSet};

use super::{ClusterId, Fingerprint, Hello, MemberSet, Situation, Standing};

/// A console's line holds so many names; more are counted.
const NAMES_MAX: usize = 8;

/// How a cluster stands that has been formed, as one of its members sees it.
#[derive(Clone, Debug)]
pub struct Quorum<'a> {
    /// Which cluster.
    pub cluster: ClusterId,
    /// This machine.
    pub me: Fingerprint,
    /// Its voters, by key.
    pub voters: &'a BTreeMap<Fingerprint, String>,
    /// Whom this machine hears.
    pub seen: &'a BTreeSet<Fingerprint>,
}

/// Why a formed cluster does not serve, in one line: who is missing.
#[must_use]
pub fn quorum(quorum: &Quorum<'_>) -> String {
    let missing = quorum
        .voters
        .iter()
        .filter(|(key, _)| **key != quorum.me && !quorum.seen.contains(key))
        .map(|(_, name)| name.as_str());
    let cluster = quorum.cluster;
    match list(missing) {
        None => format!("waiting for a leader of cluster {cluster}"),
        Some(missing) => format!("waiting for quorum of cluster {cluster}: {missing} missing"),
    }
}

/// The line for a situation.
pub(super) fn of(situation: &Situation<'_>, choice: Option<&BTreeSet<Fingerprint>>) -> String {
    match situation.standing {
        Standing::Blank { accepted: None } => blank(situation, choice),
        Standing::Blank { accepted: Some(set) } => accepted(situation, set),
        Standing::Member(cluster) => {
            conflict(situation).unwrap_or_else(|| format!("a member of cluster {cluster}"))
        }
        Standing::Worker(cluster) => {
            conflict(situation).unwrap_or_else(|| format!("a worker of cluster {cluster}"))
        }
    }
}

/// Two clusters with one token: nothing that machines could settle.
#[must_use]
pub fn conflict(situation: &Situation<'_>) -> Option<String> {
    let mine = situation.standing.cluster()?;
    let (key, hello) = situation
        .seen()
        .find(|(_, hello)| hello.standing.cluster().is_some_and(|it| it != mine))?;
    let (name, other) = (&hello.machine.name, hello.standing.cluster()?);
    Some(format!(
        "{name} (key {key}) belongs to another cluster with the same token: {other}, not {mine}"
    ))
}

fn blank(situation: &Situation<'_>, choice: Option<&BTreeSet<Fingerprint>>) -> String {
    let clusters = situation.clusters();
    let mut ids = clusters.keys();
    if let Some(first) = ids.next() {
        return match ids.next() {
            None => format!("cluster {first} is formed; joining it"),
            Some(second) => format!(
                "there are two clusters with this token, {first} and {second}; this machine joins neither"
            ),
        };
    }
    let me = situation.me.fingerprint();
    let count = situation.seen().count() + 1;
    let mut line = format!(
        "{} of {}: {}",
        count.min(situation.expected()),
        situation.expected(),
        who(situation)
    );
    if let Some(obstacle) = obstacle(situation, me) {
        line = format!("{line}; {obstacle}");
    } else if count < situation.expected() {
        line = format!("{line}; waiting for {} more", situation.expected() - count);
    } else if choice.is_some_and(|choice| choice.first() != Some(&me)) {
        line = format!("{line}; waiting for the proposal");
    } else if choice.is_none() {
        line = format!("{line}; waiting for others to form a cluster");
    }
    line
}

/// Everybody, this machine first.
fn who(situation: &Situation<'_>) -> String {
    let me = format!("{} (me)", situation.me.name);
    let others = situation.seen().map(|(_, hello)| hello.machine.name.clone());
    let all: Vec<String> = std::iter::once(me).chain(others).collect();
    list(all.iter().map(String::as_str)).unwrap_or_default()
}

/// The first thing that keeps a cluster from forming although machines are there.
fn obstacle(situation: &Situation<'_>, me: Fingerprint) -> Option<String> {
    another_config(situation)
        .or_else(|| one_name(situation))
        .or_else(|| stuck(situation, me))
        .or_else(|| cut(situation, me))
}

fn another_config(situation: &Situation<'_>) -> Option<String> {
    let expected = situation.expected();
    let named = |key: &Fingerprint| situation.only.is_none_or(|only| only.contains(key));
    let (_, other) =
        situation.seen().find(|(key, hello)| named(key) && hello.expect as usize != expected)?;
    let (name, theirs) = (&other.machine.name, other.expect);
    Some(format!("{name} expects {theirs} machines, not {expected}"))
}

fn one_name(situation: &Situation<'_>) -> Option<String> {
    let me = (situation.me.fingerprint(), situation.me.name.as_str());
    let mut names: BTreeMap<&str, Fingerprint> = BTreeMap::from([(me.1, me.0)]);
    for (key, hello) in situation.seen() {
        if let Some(other) = names.insert(&hello.machine.name, key) {
            let name = &hello.machine.name;
            return Some(format!("two machines are called {name} (keys {other} and {key})"));
        }
    }
    None
}

/// Somebody has accepted a set with this machine, or with machines that nobody hears.
fn stuck(situation: &Situation<'_>, me: Fingerprint) -> Option<String> {
    situation.seen().find_map(|(key, hello)| {
        let Standing::Blank { accepted: Some(set) } = &hello.standing else { return None };
        let name = &hello.machine.name;
        let unseen = |other: &&Fingerprint| {
            **other != me && **other != key && !hello.sees.contains_key(other)
        };
        let missing = set.machines.keys().find(unseen)?;
        let missing_name = &set.machines.get(missing)?.name;
        Some(format!(
            "{name} has accepted a cluster with {missing_name} (key {missing}), which it does not see"
        ))
    })
}

fn cut(situation: &Situation<'_>, me: Fingerprint) -> Option<String> {
    let seen: BTreeMap<Fingerprint, &Hello> = situation.seen().collect();
    for hello in seen.values() {
        let name = &hello.machine.name;
        let unseen = hello.sees.iter().find(|(key, _)| **key != me && !seen.contains_key(key));
        if let Some((_, other)) = unseen {
            return Some(format!("{name} sees {other}, {} does not", situation.me.name));
        }
        if !hello.sees.contains_key(&me) {
            return Some(format!("{name} does not see {}", situation.me.name));
        }
    }
    for (key, hello) in &seen {
        let unseen =
            seen.iter().find(|(other, _)| *other != key && !hello.sees.contains_key(other));
        if let Some((_, other)) = unseen {
            return Some(format!("{} does not see {}", hello.machine.name, other.machine.name));
        }
    }
    None
}

fn accepted(situation: &Situation<'_>, set: &MemberSet) -> String {
    let me = situation.me.fingerprint();
    let cluster = set.cluster;
    let waited = |key: &Fingerprint| match situation.fresh_of(key) {
        None => Some("is not seen"),
        Some(heard) => match &heard.hello.standing {
            Standing::Blank { accepted: None } => Some("has not accepted yet"),
            Standing::Blank { accepted: Some(other) } if other == set => None,
            Standing::Blank { accepted: Some(_) } => Some("has accepted another cluster"),
            Standing::Member(of) | Standing::Worker(of) if *of == cluster => None,
            Standing::Member(_) | Standing::Worker(_) => Some("belongs to another cluster"),
        },
    };
    let others = set.machines.iter().filter(|(key, _)| **key != me);
    let waits: Vec<String> = others
        .filter_map(|(key, machine)| waited(key).map(|why| (key, machine, why)))
        .map(|(key, machine, why)| format!("{} (key {key}) {why}", machine.name))
        .collect();
    let size = set.machines.len();
    match list(waits.iter().map(String::as_str)) {
        None => format!("all {size} have accepted cluster {cluster}; forming it"),
        Some(waits) => format!("forming cluster {cluster} of {size}: {waits}"),
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let all: Vec<&str> = names.collect();
    let shown = all.get(..NAMES_MAX.min(all.len()))?;
    match all.len() - shown.len() {
        _ if all.is_empty() => None,
        0 => Some(shown.join(", ")),
        more => Some(format!("{} and {more} more", shown.join(", "))),
    }
}
