//! How long a lost machine is missed: the default timings of node lifecycle, in virtual time.
//!
//! A cluster with a Deployment runs without any other fault. Either machines lose power, and the time is taken until every
//! pod they ran has a replacement that is bound to another node; or nodes are silent for a while on a network that loses
//! messages, and then nobody may be evicted.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use podium_api::User;
use podium_store::LogLimits;
use podium_types::kind::resources;
use serde_json::json;

use crate::access::{Access, Request};
use crate::cluster::{Cluster, FIRST_CLIENT, Load};
use crate::executor::{self, Executor};
use crate::ledger::Violation;
use crate::mistake::Mistakes;
use crate::network::Weather;
use crate::pulse::name_of;
use crate::rules::{is_deleting, is_over, text};
use crate::run::set_running;
use crate::runtime::Sleep;
use crate::users::Users;

/// What the default timings promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Pods of a dead machine are bound elsewhere within five seconds.
    Machine,
    /// Within eight if the leader has died, alone or with another.
    Leader,
    /// Silences of two seconds, and the loss of every fifth message, evict nobody within a minute.
    Silence,
}

impl Claim {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Machine, Self::Leader, Self::Silence];

    /// How long replacement may take; nobody is replaced where there is no limit.
    #[must_use]
    pub fn limit(self) -> Option<Duration> {
        match self {
            Self::Machine => Some(Duration::from_secs(5)),
            Self::Leader => Some(Duration::from_secs(8)),
            Self::Silence => None,
        }
    }

    /// The command that repeats the proof with one seed.
    #[must_use]
    pub fn repeat(self, seed: u64) -> String {
        format!("make loss CLAIM={self} SEED={seed}")
    }

    /// Puts the claim to the proof with one seed, and says how long the machines were missed.
    ///
    /// # Errors
    /// What went wrong.
    pub fn holds(self, seed: u64) -> Result<Missed, Violation> {
        let nodes = [3, 3, 5, 3, 3, 5, 3, 7][usize::try_from(seed % 8).unwrap_or(0)];
        set_running(Some(self.repeat(seed)));
        let missed = lose(seed, nodes, self);
        set_running(None);
        let missed = missed?;
        match self.limit().filter(|limit| missed.replaced > *limit) {
            None => Ok(missed),
            Some(limit) => Err(Violation::Rule(format!(
                "pods of {nodes} nodes were replaced after {:?}, later than {limit:?}",
                missed.replaced
            ))),
        }
    }
}

/// For how long machines were missed, in virtual time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    /// From the loss until the last replacement was bound; the length of the run where nobody is to be replaced.
    pub replaced: Duration,
    /// From the loss until something was committed again. If the leader was lost, nobody could write for so long; if not, it says
    /// only when there was something to commit.
    pub gap: Duration,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Machine => "machine",
            Self::Leader => "leader",
            Self::Silence => "silence",
        })
    }
}

/// How long a cluster may take to start, or to replace what was lost.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(10);
/// How long a node is silent at a time, and how long that goes on.
const SILENCE: Duration = Duration::from_secs(2);
const SILENCES: Duration = Duration::from_secs(60);

/// Runs one seed with so many machines.
fn lose(seed: u64, nodes: u16, claim: Claim) -> Result<Missed, Violation> {
    let executor = Executor::new(seed);
    let (cluster, result) = executor.block_on(async move {
        let limits = LogLimits::default();
        let cluster = Cluster::new(nodes, Load::Orchestrator, Mistakes::none(), limits);
        let result = story(&cluster, claim).await;
        (cluster, result)
    });
    let violation = cluster.ledger().violation().cloned();
    drop(executor);
    cluster.disband();
    violation.map_or(result, Err)
}

async fn story(cluster: &Cluster, claim: Claim) -> Result<Missed, Violation> {
    for node in cluster.numbers() {
        cluster.boot(node);
    }
    for host in cluster.hosts().values() {
        host.calm();
    }
    Users::new(cluster.clone()).prepare().await;
    let replicas = 2 * cluster.numbers().len();
    let access = Access::new(cluster.clone(), FIRST_CLIENT + 2, User::admin());
    let request =
        Request::Create { resource: resources::DEPLOYMENTS, object: deployment(replicas) };
    access.insist(request).await;
    let ready = |cluster: &Cluster| serving(cluster) == replicas;
    cluster.wait_until("all replicas are ready", PATIENCE, ready).await?;
    Sleep::after(executor::with(|core| {
        core.between(Duration::from_secs(5), Duration::from_secs(8))
    }))
    .await;
    match claim {
        Claim::Silence => endure(cluster).await,
        Claim::Machine | Claim::Leader => replace(cluster, victims(cluster, claim), replicas).await,
    }
}

/// A machine that does not lead; or the one that leads, and of five or more another one too.
fn victims(cluster: &Cluster, claim: Claim) -> BTreeSet<u16> {
    let leader = cluster.leader();
    let mut others = cluster.numbers();
    others.retain(|node| Some(*node) != leader);
    let count = others.len() as u64;
    let other = others[usize::try_from(executor::with(|core| core.below(count))).unwrap_or(0)];
    match claim {
        Claim::Leader if count < 4 => leader.into_iter().collect(),
        Claim::Leader => leader.into_iter().chain([other]).collect(),
        Claim::Machine | Claim::Silence => [other].into(),
    }
}

async fn replace(
    cluster: &Cluster,
    victims: BTreeSet<u16>,
    replicas: usize,
) -> Result<Missed, Violation> {
    let began = executor::with(|core| core.now());
    let committed = cluster.applied();
    let mut gap = None;
    let names: BTreeSet<String> = victims.iter().copied().map(name_of).collect();
    for node in victims {
        cluster.crash(node);
    }
    loop {
        if let Some(violation) = cluster.ledger().violation() {
            return Err(violation.clone());
        }
        let took = executor::with(|core| core.now()).saturating_sub(began);
        if gap.is_none() && cluster.applied() > committed {
            gap = Some(took);
        }
        if bound_elsewhere(cluster, &names) == replicas {
            return Ok(Missed { replaced: took, gap: gap.unwrap_or(took) });
        }
        if took > PATIENCE {
            let what = format!("pods of {names:?} are not replaced\n{}", cluster.describe());
            return Err(Violation::Stuck(what));
        }
        Sleep::after(LOOK).await;
    }
}

async fn endure(cluster: &Cluster) -> Result<Missed, Violation> {
    let began = executor::with(|core| core.now());
    let network = cluster.network().clone();
    network.set_weather(Weather { lose_one_in: 5, ..Weather::default() });
    loop {
        let took = executor::with(|core| core.now()).saturating_sub(began);
        if took >= SILENCES {
            return Ok(Missed { replaced: took, gap: Duration::ZERO });
        }
        let numbers = cluster.numbers();
        let (silent, frozen, pause) = executor::with(|core| {
            let silent = usize::try_from(core.below(numbers.len() as u64)).unwrap_or(0);
            let pause = core.between(Duration::from_secs(1), Duration::from_secs(9));
            (numbers[silent], core.one_in(3), pause)
        });
        if frozen {
            executor::with(|core| core.freeze(silent, SILENCE));
        } else {
            for other in numbers.into_iter().filter(|other| *other != silent) {
                network.cut(silent, other);
                network.cut(other, silent);
            }
        }
        Sleep::after(SILENCE).await;
        network.mend();
        Sleep::after(pause).await;
        nobody_was_evicted(cluster, silent)?;
    }
}

fn nobody_was_evicted(cluster: &Cluster, silent: u16) -> Result<(), Violation> {
    if let Some(violation) = cluster.ledger().violation() {
        return Err(violation.clone());
    }
    let rules = cluster.rules();
    let expelled = rules.of("nodes").find(|(_, node)| {
        let taints = node.pointer("/spec/taints").and_then(|taints| taints.as_array());
        taints.into_iter().flatten().any(|taint| taint["effect"] == "NoExecute")
    });
    let deleted = rules.of("pods").find(|(_, pod)| is_deleting(pod));
    match expelled.or(deleted) {
        Some((key, _)) => {
            Err(Violation::Rule(format!("{key} was given up; node {silent} was silent last")))
        }
        None => Ok(()),
    }
}

fn deployment(replicas: usize) -> serde_json::Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": "image:1"}]},
            },
        },
    })
}

fn serving(cluster: &Cluster) -> usize {
    let rules = cluster.rules();
    let ready = |pod: &serde_json::Value| {
        let conditions = pod.pointer("/status/conditions").and_then(|it| it.as_array());
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    rules.of("pods").filter(|(_, pod)| !is_deleting(pod) && !is_over(pod) && ready(pod)).count()
}

fn bound_elsewhere(cluster: &Cluster, lost: &BTreeSet<String>) -> usize {
    let rules = cluster.rules();
    let bound = |pod: &serde_json::Value| {
        let node = text(pod, "/spec/nodeName");
        !node.is_empty() && !lost.contains(node)
    };
    rules.of("pods").filter(|(_, pod)| !is_deleting(pod) && !is_over(pod) && bound(pod)).count()
}
