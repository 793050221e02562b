//! Nodes without a replica that follow the cluster: the shipped `Feed` of a voter and `Intake` and `Mirror` of the node, over a
//! simulated connection.
//!
//! ```text
//!   voter's life              the wire            worker's life
//!   store ── Feed ── serve ── line ──► session ── Intake ── Mirror ── watcher
//!                                                    │                   │
//!                                                    └──► judge ◄────────┘
//! ```
//!
//! As the node program does it, a worker asks one voter after the other, and a voter that is not heard for too long is left. A
//! worker that loses power has an empty mirror when it comes back.

mod judge;
mod line;
mod watcher;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use openraft::rt::AsyncRuntime;
use podium_api::share::{Feed, PATIENCE, REMINDER, RETRY};
use podium_control::forming::Standing;
use podium_store::{HistoryLimits, Intake, Mirror, MirrorNews, Revision, StoreHandle, View};

use crate::access;
use crate::cluster::Cluster;
use crate::executor;
use crate::fault::Fault;
use crate::ledger::Violation;
use crate::network::Work;
use crate::pulse::name_of;
use crate::runtime::{SimRuntime, Sleep, spawn};
use crate::workload::Clients;
use judge::Verdict;
use line::{Listener, Talker};

/// How long a voter may take to answer at all.
const DIAL: Duration = Duration::from_secs(5);

/// How long mirrors may take to have everything when all is well.
const LIMIT: Duration = Duration::from_secs(120);

/// The mirrors of all workers that run.
pub(crate) type Followers = BTreeMap<u16, Follower>;

/// What is known of one node's mirrors.
#[derive(Default)]
pub(crate) struct Follower {
    /// That of its life.
    mirror: Option<Mirror>,
    /// What they held, until the history is known as far.
    held: VecDeque<Held>,
    /// What the history did not explain when it was known as far.
    doubtful: Vec<Held>,
}

struct Held {
    view: View,
    /// Whoever told it had applied no more than this.
    judged_at: u64,
}

/// Follows for as long as the life lasts.
pub(crate) async fn follow(cluster: Cluster, node: u16) {
    let events = 4 << executor::with(|core| core.below(6));
    let limits = HistoryLimits { events, ..HistoryLimits::default() };
    let mirror = Mirror::new(cluster.member(node), limits);
    cluster.followers().entry(node).or_default().mirror = Some(mirror.clone());
    drop(spawn(watcher::watch(cluster.clone(), node, mirror.clone())));
    let mut turn = 0;
    loop {
        if let Some(listener) = dial(&cluster, node, turn).await {
            session(&cluster, node, &mirror, listener).await;
        }
        turn += 1;
        Sleep::after(RETRY).await;
    }
}

/// Opens a session with a voter, beginning with the one whose turn it is.
async fn dial(cluster: &Cluster, node: u16, turn: usize) -> Option<Listener<MirrorNews>> {
    let voters = voters(cluster);
    for voter in voters.iter().cycle().skip(turn % voters.len().max(1)).take(voters.len()) {
        let (here, voter) = (cluster.clone(), *voter);
        let work: Work<Option<Listener<MirrorNews>>> = Arc::new(move || {
            let there = here.store(voter).is_some().then(|| {
                let (talker, listener) = line::open(here.network(), voter, node);
                drop(spawn(serve(here.clone(), voter, node, talker)));
                listener
            });
            Box::pin(async move { there })
        });
        let exchange = cluster.network().exchange_once(node, voter, work);
        if let Ok(Ok(Some(listener))) = SimRuntime::timeout(DIAL, exchange).await {
            return Some(listener);
        }
    }
    None
}

fn voters(cluster: &Cluster) -> Vec<u16> {
    let census = cluster.census();
    let votes = |node: &u16| matches!(census.standing(*node), Some(Standing::Member(_)));
    cluster.numbers().into_iter().filter(votes).collect()
}

/// The voter's side of a session.
async fn serve(cluster: Cluster, voter: u16, node: u16, mut talker: Talker<MirrorNews>) {
    let Some(store) = cluster.store(voter) else { return };
    let pipeline = access::pipeline(&cluster, voter, store);
    let Ok(mut feed) = Feed::open(&pipeline, &name_of(node)).await else { return };
    while let Ok(news) = feed.next(Sleep::after(REMINDER)).await {
        let said = SimRuntime::timeout(PATIENCE, talker.say(news)).await;
        if !matches!(said, Ok(true)) {
            return;
        }
    }
}

/// The node's side of a session.
async fn session(
    cluster: &Cluster,
    node: u16,
    mirror: &Mirror,
    mut listener: Listener<MirrorNews>,
) {
    let mut intake = Intake::new(mirror.clone());
    while let Ok(Some(news)) = SimRuntime::timeout(PATIENCE, listener.hear()).await {
        let before = mirror.local().revision();
        let taken = intake.take(news);
        took(cluster, node, mirror, before);
        if let Err(error) = taken {
            tracing::info!(node, %error, "a session is ended");
            break;
        }
    }
    if mirror.local().revision() > Revision::ZERO {
        cluster.coverage().count(Fault::BrokenStream);
    }
}

/// Notes what a mirror holds, to be judged when the history is known as far.
fn took(cluster: &Cluster, node: u16, mirror: &Mirror, before: Revision) {
    let view = mirror.local();
    if view.revision() < before {
        accuse(cluster, node, &format!("went back from {before} to {}", view.revision()));
    }
    if view.revision() == before {
        return;
    }
    let newest = view.range("").map(|record| record.mod_revision.0).max().unwrap_or(0);
    let judged_at = cluster.applied().max(newest).max(view.revision().0);
    if let Some(follower) = cluster.followers().get_mut(&node) {
        follower.held.push_back(Held { view, judged_at });
    }
}

fn accuse(cluster: &Cluster, node: u16, what: &str) {
    let what = format!("the mirror of node {node} {what}");
    cluster.ledger().accuse(Violation::Rule(what));
}

/// Holds what mirrors have held against the history.
pub(crate) fn check(cluster: &Cluster) {
    let mut followers = cluster.followers();
    for (node, follower) in &mut *followers {
        let ledger = cluster.ledger();
        let end = ledger.history().end();
        let mut broken = None;
        while let Some(held) = follower.held.pop_front_if(|held| held.judged_at <= end) {
            match judge::judge(&held.view, &name_of(*node), ledger.history()) {
                Verdict::Sound => {}
                Verdict::Unexplained(_) => follower.doubtful.push(held),
                Verdict::Broken(what) => broken = broken.or(Some(what)),
            }
        }
        drop(ledger);
        if let Some(what) = broken {
            accuse(cluster, *node, &what);
        }
    }
}

/// Nobody writes any more, and workers reach members that have a quorum: every mirror comes to hold what the members hold.
pub(crate) async fn settle(cluster: &Cluster) -> Result<(), Violation> {
    let even = |cluster: &Cluster| {
        let end = cluster.applied();
        let census = cluster.census();
        let works = |node: &u16| matches!(census.standing(*node), Some(Standing::Worker(_)));
        let followers = cluster.followers();
        let revision =
            |node: &u16| Some(followers.get(node)?.mirror.as_ref()?.local().revision().0);
        cluster.numbers().iter().filter(|node| works(node)).all(|it| revision(it) == Some(end))
    };
    cluster.wait_until("every worker has followed", LIMIT, even).await?;
    check(cluster);
    for (node, follower) in &mut *cluster.followers() {
        let now = follower.mirror.as_ref().map(StoreHandle::local);
        let late = follower.held.drain(..).chain(follower.doubtful.drain(..)).map(|held| held.view);
        for view in late.chain(now) {
            let verdict = judge::judge(&view, &name_of(*node), cluster.ledger().history());
            match verdict {
                Verdict::Sound => {}
                Verdict::Unexplained(what) | Verdict::Broken(what) => accuse(cluster, *node, &what),
            }
        }
    }
    Ok(())
}

/// A voter is cut off from the others, and not from the workers, which it cannot tell what happens: they leave it.
///
/// Only where the others have a quorum without it.
pub(crate) async fn leave_lost_voter(cluster: &Cluster) -> Result<(), Violation> {
    let voters = voters(cluster);
    let (lost, others) = {
        let index = executor::with(|core| core.below(voters.len() as u64));
        let lost = voters.get(usize::try_from(index).unwrap_or(0)).copied().unwrap_or_default();
        (lost, voters.into_iter().filter(|voter| *voter != lost).collect::<Vec<_>>())
    };
    let quorum = cluster.census().cluster().map_or(0, |set| set.machines.len() / 2 + 1);
    if others.len() < quorum {
        return Ok(());
    }
    for other in &others {
        cluster.network().cut(lost, *other);
        cluster.network().cut(*other, lost);
    }
    let clients = Clients::new(cluster.clone());
    let prove = async {
        for voter in others {
            while !clients.prove(voter).await {
                Sleep::after(RETRY).await;
            }
        }
    };
    let what = || Violation::Stuck("not every member that is left takes writes".to_owned());
    SimRuntime::timeout(LIMIT, prove).await.map_err(|_| what())?;
    settle(cluster).await?;
    cluster.network().heal();
    Ok(())
}
