//! How long a lost machine is missed: the default timings of node lifecycle, in virtual time.
//!
//! A cluster with a Deployment runs without any other fault. Either machines lose power, and the time is taken until every
//! pod they ran has a replacement that is bound to another node; or nodes are silent for a while on a network that loses
//! messages, and then nobody may be evicted.

use std::collections::BTreeSet;
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
use crate::runtime::Sleep;
use crate::users::Users;

/// What is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The power of one machine that does not lead.
    Machine,
    /// The power of the machine that leads; with five machines or more, that of another one too.
    Leader,
    /// One message in five, and every node now and then for so long, for so long in all.
    Messages {
        /// A silence.
        silence: Duration,
        /// The whole run.
        run: Duration,
    },
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// From the loss until the last replacement was bound; the length of the run where nobody was to be replaced.
    pub took: Duration,
    /// What went wrong.
    pub violation: Option<Violation>,
}

/// How long a cluster may take to start, or to replace what was lost.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(10);

/// Runs one seed with so many machines.
#[must_use]
pub fn lose(seed: u64, nodes: u16, loss: Loss) -> Outcome {
    let executor = Executor::new(seed);
    let result = executor.block_on(async move {
        let limits = LogLimits::default();
        let cluster = Cluster::new(nodes, Load::Orchestrator, Mistakes::none(), limits);
        let result = story(&cluster, loss).await;
        let violation = cluster.ledger().violation().cloned();
        violation.map_or(result, Err)
    });
    match result {
        Ok(took) => Outcome { took, violation: None },
        Err(violation) => Outcome { took: Duration::ZERO, violation: Some(violation) },
    }
}

async fn story(cluster: &Cluster, loss: Loss) -> Result<Duration, Violation> {
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
    match loss {
        Loss::Messages { silence, run } => endure(cluster, silence, run).await,
        Loss::Machine | Loss::Leader => replace(cluster, victims(cluster, loss), replicas).await,
    }
}

/// A machine that runs pods, or the one that leads.
fn victims(cluster: &Cluster, loss: Loss) -> BTreeSet<u16> {
    let leader = cluster.leader();
    let mut others = cluster.numbers();
    others.retain(|node| Some(*node) != leader);
    let count = others.len() as u64;
    let other = others[usize::try_from(executor::with(|core| core.below(count))).unwrap_or(0)];
    match loss {
        Loss::Leader if count < 4 => leader.into_iter().collect(),
        Loss::Leader => leader.into_iter().chain([other]).collect(),
        Loss::Machine | Loss::Messages { .. } => [other].into(),
    }
}

async fn replace(
    cluster: &Cluster,
    victims: BTreeSet<u16>,
    replicas: usize,
) -> Result<Duration, Violation> {
    let began = executor::with(|core| core.now());
    let names: BTreeSet<String> = victims.iter().copied().map(name_of).collect();
    for node in victims {
        cluster.crash(node);
    }
    loop {
        if let Some(violation) = cluster.ledger().violation() {
            return Err(violation.clone());
        }
        let took = executor::with(|core| core.now()).saturating_sub(began);
        if bound_elsewhere(cluster, &names) == replicas {
            return Ok(took);
        }
        if took > PATIENCE {
            let what = format!("pods of {names:?} are not replaced\n{}", cluster.describe());
            return Err(Violation::Stuck(what));
        }
        Sleep::after(LOOK).await;
    }
}

async fn endure(
    cluster: &Cluster,
    silence: Duration,
    run: Duration,
) -> Result<Duration, Violation> {
    let began = executor::with(|core| core.now());
    let network = cluster.network().clone();
    network.set_weather(Weather { lose_one_in: 5, ..Weather::default() });
    loop {
        let took = executor::with(|core| core.now()).saturating_sub(began);
        if took >= run {
            return Ok(took);
        }
        let numbers = cluster.numbers();
        let (silent, frozen, pause) = executor::with(|core| {
            let silent = usize::try_from(core.below(numbers.len() as u64)).unwrap_or(0);
            let pause = core.between(Duration::from_secs(1), Duration::from_secs(9));
            (numbers[silent], core.one_in(3), pause)
        });
        if frozen {
            executor::with(|core| core.freeze(silent, silence));
        } else {
            for other in numbers.into_iter().filter(|other| *other != silent) {
                network.cut(silent, other);
                network.cut(other, silent);
            }
        }
        Sleep::after(silence).await;
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
