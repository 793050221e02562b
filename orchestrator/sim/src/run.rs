//! One run: found a cluster, let clients and faults loose on it for some steps, heal it, and prove that it works again.

use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

use openraft::rt::AsyncRuntime;
use podium_store::{LogLimits, Role, StoreHandle};

use crate::cluster::{Cluster, Load};
use crate::executor::{self, Executor};
use crate::fault::Coverage;
use crate::forming;
use crate::ledger::Violation;
use crate::mistake::Mistakes;
use crate::nemesis::Nemesis;
use crate::rest;
use crate::runtime::{SimRuntime, Sleep};
use crate::users::Users;
use crate::workload::Clients;

/// How many steps make a run of more than ten virtual minutes.
pub const USUAL_STEPS: u64 = 3_000;

/// What a run of [`USUAL_STEPS`] lasts at least, in virtual time.
pub const USUAL_TIME: Duration = Duration::from_secs(600);

/// The mean time between two steps.
const STEP: Duration = Duration::from_millis(220);

/// One step in this many is a fault.
const FAULT_ONE_IN: u64 = 60;

/// How long a healed cluster may take to agree and to take a write.
const RECOVERY: Duration = Duration::from_secs(120);

/// How long what users asked for may take to come about. The longest back-off of a container is five minutes.
const REST: Duration = Duration::from_secs(900);

/// How often tasks may have kept each other busy for a whole instant.
const MOST_SPINS: u64 = 3;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Everything follows from this.
    pub seed: u64,
    /// Actions of clients and faults.
    pub steps: u64,
    /// How many nodes; `None` lets the seed choose 3 to 7, of machines that form a cluster 3 to 5.
    pub nodes: Option<u16>,
    /// Mistakes to make.
    pub mistakes: Mistakes,
    /// What runs; `None` lets the seed choose.
    pub load: Option<Load>,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was run.
    pub options: Options,
    /// The hash of all that happened. The same options give the same.
    pub trace_hash: u64,
    /// How much virtual time passed.
    pub virtual_time: Duration,
    /// Polls of tasks.
    pub polls: u64,
    /// Claims that were held against the history.
    pub checks: u64,
    /// Transactions that the store committed.
    pub revisions: u64,
    /// Terms in which somebody led.
    pub terms: usize,
    /// Which faults took effect how often.
    pub coverage: Coverage,
    /// What went wrong.
    pub violation: Option<Violation>,
}

impl Report {
    /// Whether the run proves less than it is taken for.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.violation.is_none()
            && self.options.steps >= USUAL_STEPS
            && self.virtual_time < USUAL_TIME
    }
}

thread_local! {
    static RUNNING: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// How to repeat what this thread is running, for a panic's report.
#[must_use]
pub fn running() -> Option<String> {
    RUNNING.with(|running| running.borrow().clone())
}

/// Says how to repeat what this thread runs from now on.
pub(crate) fn set_running(repeat: Option<String>) {
    RUNNING.with(|running| *running.borrow_mut() = repeat);
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "make sim SEED={} STEPS={}", self.seed, self.steps)?;
        if let Some(nodes) = self.nodes {
            write!(f, " NODES={nodes}")?;
        }
        if let Some(load) = self.load {
            write!(f, " LOAD={load}")?;
        }
        if let Some(bug) = self.mistakes.name() {
            write!(f, " BUG={bug}")?;
        }
        Ok(())
    }
}

/// Runs one seed to its end, or to the first violation.
#[must_use]
pub fn run(options: Options) -> Report {
    set_running(Some(options.to_string()));
    let executor = Executor::new(options.seed);
    let (cluster, result) = executor.block_on(async move {
        let cluster = found(options);
        let result = story(&cluster, options).await;
        (cluster, result)
    });
    let core = executor.core();
    let ledger = cluster.ledger();
    let report = Report {
        options,
        trace_hash: core.trace_hash(),
        virtual_time: core.now(),
        polls: core.polls(),
        checks: ledger.checks(),
        revisions: ledger.history().end(),
        terms: ledger.terms_led(),
        coverage: cluster.coverage().clone(),
        violation: ledger.violation().cloned().or(result.err()),
    };
    drop(ledger);
    drop(executor);
    cluster.disband();
    set_running(None);
    report
}

fn found(options: Options) -> Cluster {
    let (nodes, load, limits) = executor::with(|core| {
        let (size, other) = (core.below(8), core.below(3));
        // A run with an orchestrator costs six times as much as one without.
        let load = options.load.unwrap_or(match core.below(12) {
            0 => Load::Orchestrator,
            1 | 2 => Load::Forming,
            _ => Load::Store,
        });
        let other = usize::try_from(other).unwrap_or(0);
        let nodes = options.nodes.unwrap_or(match (load, size) {
            (_, 0..5) => 3,
            (Load::Forming, 5) => 4,
            (_, 5 | 6) | (Load::Forming, _) => 5,
            _ => [4, 6, 7][other],
        });
        let nodes = if load == Load::Forming { nodes.min(forming::MOST_NODES) } else { nodes };
        (nodes, load, draw_limits(core, load))
    });
    Cluster::new(nodes, load, options.mistakes, limits)
}

/// A run commits a thousand records or two: with the shipped limits there would be no snapshot and no second segment. With
/// an orchestrator it commits four times as many and larger ones, and its limits are that much higher.
fn draw_limits(core: &executor::Core, load: Load) -> LogLimits {
    let scale = if load == Load::Orchestrator { 4 } else { 1 };
    LogLimits {
        segment_bytes: (scale * 16 * 1024) << core.below(4),
        snapshot_bytes: (scale * 64 * 1024) << core.below(5),
        snapshot_records: scale * (50 + core.below(500)),
        keep_records: core.below(100),
    }
}

async fn story(cluster: &Cluster, options: Options) -> Result<(), Violation> {
    options.mistakes.plant();
    if cluster.load() == Load::Forming && !forming::form(cluster).await? {
        forming::live(cluster, options.steps).await?;
        cluster.ledger().close();
        return check(cluster);
    }
    for node in cluster.numbers() {
        cluster.boot(node);
    }
    let mut nemesis = Nemesis::new(cluster.clone());
    let clients = Clients::new(cluster.clone());
    let users = Users::new(cluster.clone());
    if cluster.load() == Load::Orchestrator {
        users.prepare().await;
    }
    for _ in 0..options.steps {
        Sleep::after(executor::with(|core| core.between(Duration::ZERO, STEP * 2))).await;
        if executor::with(|core| core.one_in(FAULT_ONE_IN)) {
            nemesis.strike();
        } else {
            match cluster.load() {
                Load::Store | Load::Forming => clients.act(),
                Load::Orchestrator if executor::with(|core| core.one_in(6)) => users.act(),
                Load::Orchestrator => {}
            }
        }
        check(cluster)?;
    }
    heal(cluster).await?;
    if cluster.load() == Load::Orchestrator {
        come_to_rest(cluster, &users).await?;
    }
    check(cluster)?;
    cluster.ledger().close();
    check(cluster)
}

/// What must hold after every step.
pub(crate) fn check(cluster: &Cluster) -> Result<(), Violation> {
    for node in cluster.numbers() {
        cluster.observe(node);
    }
    if executor::with(|core| core.spins()) > MOST_SPINS {
        return Err(Violation::Stuck("tasks wake each other without end".to_owned()));
    }
    match cluster.ledger().violation() {
        Some(violation) => Err(violation.clone()),
        None => Ok(()),
    }
}

/// Ends all faults, waits for those under way, and proves that members agree and take writes.
async fn heal(cluster: &Cluster) -> Result<(), Violation> {
    // The longest fault that the nemesis may have begun ends by itself within this.
    Sleep::after(Duration::from_secs(25)).await;
    cluster.network().heal();
    for node in cluster.numbers() {
        if let Some(disk) = cluster.disk(node) {
            disk.set_weather(crate::disk::Weather::default());
        }
        cluster.boot(node);
        executor::with(|core| core.clock(node, executor::NodeClock::correct));
    }
    let everyone = cluster.numbers().len();
    let settled = |cluster: &Cluster| {
        let statuses = cluster.statuses();
        let voting = |role| matches!(role, Role::Leader | Role::Follower);
        statuses.len() == everyone
            && statuses.iter().all(|(_, status)| voting(status.role))
            && cluster.leader().is_some()
    };
    cluster.wait_until("all members follow one leader", RECOVERY, settled).await?;
    prove_progress(cluster).await
}

/// Nobody asks for anything any more, and nothing fails: what was asked for must come about, and stay.
async fn come_to_rest(cluster: &Cluster, users: &Users) -> Result<(), Violation> {
    for host in cluster.hosts().values() {
        host.calm();
    }
    if SimRuntime::timeout(RECOVERY, users.uncordon_all()).await.is_err() {
        return Err(Violation::Stuck("nodes cannot be uncordoned".to_owned()));
    }
    let deadline = executor::with(|core| core.now()) + REST;
    loop {
        check(cluster)?;
        let unrest = rest::unrest(&cluster.rules(), &cluster.hosts());
        let Some(unrest) =
            unrest.or_else(|| (!cluster.is_idle()).then(|| "the driver has work".to_owned()))
        else {
            return Ok(());
        };
        if executor::with(|core| core.now()) > deadline {
            return Err(Violation::Stuck(format!("{unrest}\n{}", cluster.describe())));
        }
        Sleep::after(Duration::from_secs(2)).await;
    }
}

async fn prove_progress(cluster: &Cluster) -> Result<(), Violation> {
    let clients = Clients::new(cluster.clone());
    let prove = async {
        for node in cluster.numbers() {
            while !clients.prove(node).await {
                Sleep::after(Duration::from_millis(500)).await;
            }
        }
    };
    if SimRuntime::timeout(RECOVERY, prove).await.is_err() {
        let what = format!("not every member takes writes and reads\n{}", cluster.describe());
        return Err(Violation::Stuck(what));
    }
    let target = cluster.applied();
    let agree = |cluster: &Cluster| {
        cluster.statuses().iter().all(|(_, status)| status.applied.0 >= target)
            && cluster.ledger().history().end() >= target
    };
    cluster.wait_until("all members apply the same history", RECOVERY, agree).await?;
    for node in cluster.numbers() {
        if let Some(store) = cluster.store(node) {
            cluster.ledger().viewed(&format!("node {node} in the end"), &store.local());
        }
    }
    Ok(())
}
