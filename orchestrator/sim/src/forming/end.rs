//! What must be true when all is mended: there is one cluster of which everybody is a part, or consoles say why not.
//!
//! The reasons are those that `podium_control::forming` names:
//! - a set was accepted by some, and a disk of it was replaced before all had accepted it;
//! - with more machines than expected, two sets were accepted by some each, and overlap;
//! - a cluster has lost the disks of most of its members, and cannot take anybody in;
//! - a new disk has the name of a machine that the cluster knows.

use std::time::Duration;

use openraft::rt::AsyncRuntime;
use podium_control::forming::{MemberSet, Standing};
use podium_store::MemberId;

use super::census::Census;
use crate::cluster::Cluster;
use crate::executor;
use crate::ledger::Violation;
use crate::network::seam::generation_of;
use crate::run::check;
use crate::runtime::{SimRuntime, Sleep};
use crate::workload::Clients;

/// How long machines may take to become what they become.
const LIMIT: Duration = Duration::from_secs(120);

/// Waits until everybody has become what they can, and proves that the cluster works, if there is one.
pub(super) async fn wait(cluster: &Cluster) -> Result<(), Violation> {
    let deadline = executor::with(|core| core.now()) + LIMIT;
    loop {
        check(cluster)?;
        let Some(unrest) = unrest(&cluster.census(), &cluster.numbers()) else { break };
        if executor::with(|core| core.now()) > deadline {
            return Err(Violation::Stuck(format!("{unrest}\n{}", describe(cluster))));
        }
        Sleep::after(Duration::from_millis(500)).await;
    }
    prove(cluster).await
}

/// Whether all nodes are members of one cluster.
pub(super) fn all_are_members(cluster: &Cluster) -> bool {
    let census = cluster.census();
    let member = |node: &u16| matches!(census.standing(*node), Some(Standing::Member(_)));
    cluster.numbers().iter().all(member)
}

/// Whether there is a cluster that can take anybody in.
pub(super) fn has_cluster(cluster: &Cluster) -> bool {
    let census = cluster.census();
    census.cluster().is_some_and(|set| has_quorum(set, &members(&census, set)))
}

/// The members that are left of a cluster.
fn members(census: &Census, set: &MemberSet) -> Vec<u16> {
    let nodes = set.machines.keys().filter_map(|key| census.node_of(key));
    nodes.filter(|node| census.standing(*node) == Some(&Standing::Member(set.cluster))).collect()
}

fn has_quorum(set: &MemberSet, members: &[u16]) -> bool {
    members.len() * 2 > set.machines.len()
}

/// The first thing that has not come to its end.
fn unrest(census: &Census, numbers: &[u16]) -> Option<String> {
    let made = census.cluster().map(|set| (set, members(census, set)));
    match made.filter(|(_, members)| !members.is_empty()) {
        None => unformed(census, numbers),
        Some((set, members)) => {
            let quorum = has_quorum(set, &members);
            numbers.iter().find_map(|node| apart(census, set, *node, quorum))
        }
    }
}

/// Nobody is a member: then some have accepted what can never be complete, and say so.
fn unformed(census: &Census, numbers: &[u16]) -> Option<String> {
    let stuck = census.stuck();
    if stuck.is_empty() {
        return Some("there is no cluster, and nothing stands in the way".to_owned());
    }
    let silent = stuck.iter().find(|node| {
        let line = census.console(**node);
        !line.contains(" is not seen") && !line.contains(" has accepted another cluster")
    });
    let waiting = || {
        let mute = |node: &&u16| !stuck.contains(*node) && census.console(**node).is_empty();
        numbers.iter().find(mute)
    };
    silent.or_else(waiting).map(|node| {
        format!("node {node} does not say why it is in no cluster: {}", census.console(*node))
    })
}

/// What keeps a node from being a part of the cluster, unless that is a reason and its console says so.
fn apart(census: &Census, set: &MemberSet, node: u16, quorum: bool) -> Option<String> {
    let machine = census.machine(node)?;
    let line = census.console(node);
    let first = set.machines.contains_key(&machine.fingerprint());
    let joining = line.starts_with(&format!("cluster {} is formed; joining it", set.cluster));
    let taken = line.contains("belongs to another machine of this cluster");
    let new_disk = generation_of(MemberId(machine.member)) > 0;
    let fine = match census.standing(node) {
        Some(Standing::Member(cluster)) => first && *cluster == set.cluster,
        Some(Standing::Worker(cluster)) => !first && *cluster == set.cluster,
        Some(Standing::Blank { accepted: None }) if !quorum => joining,
        Some(Standing::Blank { accepted: None }) => joining && taken && new_disk,
        Some(Standing::Blank { accepted: Some(other) }) => {
            let nobody = |key| {
                let node = census.node_of(key);
                node.and_then(|node| census.standing(node)?.cluster()).is_none()
            };
            census.stuck().contains(&node)
                && line.contains(" is not seen")
                && other.machines.keys().all(nobody)
        }
        None => false,
    };
    (!fine).then(|| format!("node {node} is no part of the cluster: {line}"))
}

/// Every member takes writes and reads.
async fn prove(cluster: &Cluster) -> Result<(), Violation> {
    let members = {
        let census = cluster.census();
        let Some(set) = census.cluster() else { return Ok(()) };
        let members = members(&census, set);
        if !has_quorum(set, &members) {
            return Ok(());
        }
        members
    };
    let clients = Clients::new(cluster.clone());
    let prove = async {
        for node in members {
            while !clients.prove(node).await {
                Sleep::after(Duration::from_millis(500)).await;
            }
        }
    };
    let what = || format!("not every member takes writes and reads\n{}", describe(cluster));
    SimRuntime::timeout(LIMIT, prove).await.map_err(|_| Violation::Stuck(what()))?;
    let target = cluster.applied();
    let told = |cluster: &Cluster| cluster.ledger().history().end() >= target;
    cluster.wait_until("the whole history is told", LIMIT, told).await
}

/// One line for each node.
fn describe(cluster: &Cluster) -> String {
    let line = |node: u16| {
        let census = cluster.census();
        format!("  node {node}: {:?}: {}", census.standing(node), census.console(node))
    };
    let lines: Vec<String> = cluster.numbers().into_iter().map(line).collect();
    format!("{}\n{}", lines.join("\n"), cluster.describe())
}
