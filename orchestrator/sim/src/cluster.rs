//! The machines of one run: boot, crash and restart of nodes that each run the shipped store on a simulated disk.
//!
//! Job: keep track of which life of which node has which store, carry messages into it, and report to the ledger what a
//! member says of itself. What goes wrong and when is `nemesis`; what clients do is `workload`.

mod audit;
mod start;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use podium_store::{LogLimits, Member, MemberId, Status, Store, StoreHandle};

use crate::agent::host::{Host, Running};
use crate::disk::SimDisk;
use crate::executor::{self, Life, NodeClock};
use crate::fault::{Coverage, Fault};
use crate::follow::Followers;
use crate::forming::{self, Census, Meeting};
use crate::ledger::{Fact, Ledger, Violation};
use crate::mistake::Mistakes;
use crate::network::Network;
use crate::network::seam::{Serve, member_of, node_of};
use crate::pulse::Pulse;
use crate::rules::Rules;
use crate::runtime::{SimRuntime, Sleep};

/// The store as the simulator runs it.
pub type SimStore = Arc<Store<SimRuntime>>;

/// Clients live at addresses from here on: on the network, but no members.
pub const FIRST_CLIENT: u16 = 1_000;

/// A cluster and everything around it. Clones are the same cluster.
#[derive(Clone)]
pub struct Cluster {
    nodes: Arc<Mutex<BTreeMap<u16, Node>>>,
    network: Network,
    coverage: Coverage,
    ledger: Arc<Mutex<Ledger>>,
    rules: Arc<Mutex<Rules>>,
    census: Arc<Mutex<Census>>,
    followers: Arc<Mutex<Followers>>,
    mistakes: Mistakes,
    log_limits: LogLimits,
    load: Load,
}

/// What runs on the nodes beside the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Nothing: clients use the store itself.
    Store,
    /// The leader's controllers and scheduler, and an agent on each node: users use the API.
    Orchestrator,
    /// What makes a cluster of blank machines, and then as [`Load::Store`].
    Forming,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Store => "store",
            Self::Orchestrator => "orchestrator",
            Self::Forming => "forming",
        })
    }
}

struct Node {
    disk: SimDisk,
    /// The folder of the machine's identity, on the same drive.
    identity: SimDisk,
    /// How many new drives it has had.
    generation: u16,
    /// The sessions of this life.
    meeting: Option<Meeting>,
    host: Option<Host>,
    /// Whether this node leads and its driver has nothing to do.
    idle: bool,
    life: Option<Life>,
    store: Option<SimStore>,
    /// Where beats go that arrive in this life.
    pulse: Option<Pulse>,
    /// The highest revision and term that this life has shown.
    seen: Seen,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    applied: u64,
    term: u64,
}

impl Cluster {
    /// `count` nodes with empty disks, all off.
    #[must_use]
    pub fn new(count: u16, load: Load, mistakes: Mistakes, log_limits: LogLimits) -> Self {
        let coverage = Coverage::default();
        let cluster = Self {
            nodes: Arc::default(),
            network: Network::new(coverage.clone()),
            coverage,
            ledger: Arc::default(),
            rules: Arc::default(),
            census: Arc::default(),
            followers: Arc::default(),
            mistakes,
            log_limits,
            load,
        };
        let running = Running::default();
        for number in 1..=count {
            let disk = SimDisk::new(number, cluster.coverage.clone());
            let host = (load == Load::Orchestrator)
                .then(|| Host::new(number, running.clone(), cluster.clone()));
            let node = Node {
                disk,
                identity: SimDisk::new(number, cluster.coverage.clone()),
                generation: 0,
                meeting: None,
                host,
                idle: false,
                life: None,
                store: None,
                pulse: None,
                seen: Seen::default(),
            };
            cluster.lock().insert(number, node);
            if load == Load::Forming {
                cluster.identify(number, 0);
            }
        }
        cluster
    }

    /// The machine that a node's disk makes it.
    fn identify(&self, node: u16, generation: u16) {
        let machine = executor::with(|core| forming::machine(core, node, generation));
        self.census().install(node, machine);
    }

    /// Puts a new drive into a node that is off.
    pub(crate) fn replace_disk(&self, node: u16) {
        let generation = {
            let mut nodes = self.lock();
            let Some(slot) = nodes.get_mut(&node) else { return };
            slot.disk.wipe();
            slot.identity.wipe();
            slot.generation += 1;
            slot.generation
        };
        tracing::info!(node, generation, "a new disk");
        self.coverage.count(Fault::ReplacedDisk);
        self.identify(node, generation);
    }

    /// What machines have said of themselves while they form a cluster.
    pub(crate) fn census(&self) -> MutexGuard<'_, Census> {
        self.census.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The mirrors of those that follow the cluster.
    pub(crate) fn followers(&self) -> MutexGuard<'_, Followers> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of all nodes when the run is over. They hold the cluster that holds them, so it would stay in memory.
    pub fn disband(&self) {
        let nodes = std::mem::take(&mut *self.lock());
        drop(nodes);
    }

    /// What runs beside the store.
    #[must_use]
    pub fn load(&self) -> Load {
        self.load
    }

    /// The mistakes that the cluster makes.
    #[must_use]
    pub fn mistakes(&self) -> Mistakes {
        self.mistakes
    }

    /// The objects of the API as the established history has them.
    pub fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine under a node, if pods run there.
    pub(crate) fn host(&self, node: u16) -> Option<Host> {
        self.lock().get(&node)?.host.clone()
    }

    /// The machines under all nodes.
    pub(crate) fn hosts(&self) -> BTreeMap<u16, Host> {
        self.lock()
            .iter()
            .filter_map(|(number, node)| Some((*number, node.host.clone()?)))
            .collect()
    }

    /// Says whether the node leads and its driver is idle.
    pub(crate) fn set_idle(&self, node: u16, idle: bool) {
        if let Some(node) = self.lock().get_mut(&node) {
            node.idle = idle;
        }
    }

    /// Whether the leader's driver has nothing to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let leader = self.leader();
        leader.is_some_and(|leader| self.lock().get(&leader).is_some_and(|node| node.idle))
    }

    /// An auditor was told all of a revision.
    fn delivered(&self, who: &str, revision: u64, facts: Vec<Fact>) {
        tracing::trace!(who, revision, ?facts, "delivered");
        let mut ledger = self.ledger();
        let before = ledger.history().end();
        ledger.delivered(who, revision, facts);
        if ledger.history().end() == before {
            return;
        }
        let at = executor::with(|core| core.now());
        let mut rules = self.rules();
        let verdict = (before + 1..=ledger.history().end()).try_for_each(|revision| {
            rules.deliver(revision, ledger.history().changes(revision), at)
        });
        drop(rules);
        if let Err(violation) = verdict {
            ledger.accuse(violation);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u16, Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The judge.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The network between the nodes.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// What took effect so far.
    #[must_use]
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// The nodes' numbers, in order.
    #[must_use]
    pub fn numbers(&self) -> Vec<u16> {
        self.lock().keys().copied().collect()
    }

    /// A node's disk.
    #[must_use]
    pub fn disk(&self, node: u16) -> Option<SimDisk> {
        self.lock().get(&node).map(|node| node.disk.clone())
    }

    /// The folder of a node's identity.
    pub(crate) fn identity(&self, node: u16) -> Option<SimDisk> {
        self.lock().get(&node).map(|node| node.identity.clone())
    }

    /// The member id of a node as it is now.
    pub(crate) fn member(&self, node: u16) -> MemberId {
        member_of(node, self.lock().get(&node).map_or(0, |node| node.generation))
    }

    /// The running life of a node.
    #[must_use]
    pub fn life(&self, node: u16) -> Option<Life> {
        let life = self.lock().get(&node)?.life?;
        executor::with(|core| (!core.is_dead(life)).then_some(life))
    }

    /// The store that runs on a node.
    #[must_use]
    pub fn store(&self, node: u16) -> Option<SimStore> {
        self.life(node)?;
        self.lock().get(&node)?.store.clone()
    }

    /// The nodes that run.
    #[must_use]
    pub fn running(&self) -> Vec<u16> {
        self.numbers().into_iter().filter(|node| self.life(*node).is_some()).collect()
    }

    /// The members of the cluster as its founders know them.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.numbers()
            .into_iter()
            .map(|node| Member { id: self.member(node), public_key: Vec::new() })
            .collect()
    }

    /// Whether no member has ever led: only then may a blank member found the cluster.
    #[must_use]
    pub fn founding(&self) -> bool {
        self.ledger().terms_led() == 0
    }

    /// The node that leads, as far as the nodes themselves know.
    #[must_use]
    pub fn leader(&self) -> Option<u16> {
        let stores = self.numbers().into_iter().filter_map(|node| Some((node, self.store(node)?)));
        stores
            .map(|(node, store)| (node, store.standing()))
            .filter(|(_, standing)| standing.leads)
            .max_by_key(|(_, standing)| standing.term)
            .map(|(node, _)| node)
    }

    /// What every running member says of itself.
    #[must_use]
    pub fn statuses(&self) -> Vec<(u16, Status)> {
        self.numbers()
            .into_iter()
            .filter_map(|node| Some((node, self.store(node)?.status())))
            .collect()
    }

    /// Holds what a member says of itself against the ledger.
    pub fn observe(&self, node: u16) {
        let Some(store) = self.store(node) else { return };
        let (standing, applied) = (store.standing(), store.local().revision().0);
        if standing.leads {
            let member = self.member(node);
            self.ledger().leads(member, standing.term);
        }
        let seen = Seen { applied, term: standing.term };
        let back = {
            let mut nodes = self.lock();
            let Some(node) = nodes.get_mut(&node) else { return };
            let before = std::mem::replace(&mut node.seen, seen);
            seen.applied < before.applied || seen.term < before.term
        };
        if back {
            let what = format!("node {node} went back to revision {applied} or term {}", seen.term);
            self.ledger().accuse(Violation::Rule(what));
        }
    }

    /// The highest revision that any running member has applied.
    #[must_use]
    pub fn applied(&self) -> u64 {
        let highest = self.lock().values().map(|node| node.seen.applied).max().unwrap_or(0);
        let stores = self.numbers().into_iter().filter_map(|node| self.store(node));
        stores.map(|store| store.local().revision().0).fold(highest, u64::max)
    }

    /// Takes power from a node, and leaves on its disk what a cut leaves.
    pub fn crash(&self, node: u16) {
        if self.life(node).is_some() {
            tracing::info!(node, "crash");
            self.coverage.count(Fault::Crash);
            executor::with(|core| core.request_crash(node));
        }
    }

    /// Gives power to a node that is off; nothing happens to one that runs.
    pub fn boot(&self, node: u16) {
        if self.life(node).is_some() {
            return;
        }
        let life = {
            let mut nodes = self.lock();
            let Some(slot) = nodes.get_mut(&node) else { return };
            slot.store = None;
            slot.pulse = None;
            slot.meeting = None;
            slot.seen = Seen::default();
            slot.idle = false;
            let first = slot.life.is_none();
            let clock = self.draw_clock();
            let life = executor::with(|core| {
                if !first {
                    slot.disk.cut_power(core);
                    slot.identity.cut_power(core);
                    if let Some(host) = &slot.host {
                        host.lose_power();
                    }
                    self.coverage.count(Fault::Restart);
                }
                core.boot(node, clock)
            });
            slot.life = Some(life);
            life
        };
        tracing::info!(node, boot = life.boot, "boot");
        self.network.plug(life);
        start::start(self.clone(), life);
    }

    /// Most clocks are good. Some run up to 1 % off, ten times what cheap crystals do; some are years away.
    fn draw_clock(&self) -> NodeClock {
        executor::with(|core| {
            let drift = if core.one_in(4) {
                i32::try_from(core.below(20_001)).unwrap_or(0) - 10_000
            } else {
                0
            };
            if drift != 0 {
                self.coverage.count(Fault::ClockDrift);
            }
            let offset = if core.one_in(8) {
                -1_000 * i64::try_from(core.below(1_700_000_000)).unwrap_or(0)
            } else {
                0
            };
            NodeClock::new(core.now(), drift, offset)
        })
    }

    fn install(&self, life: Life, store: &SimStore) {
        if let Some(node) = self.lock().get_mut(&life.node)
            && node.life == Some(life)
        {
            node.store = Some(store.clone());
        }
    }

    /// From now on hellos for this node go here.
    pub(crate) fn meet_with(&self, node: u16, meeting: &Meeting) {
        if let Some(node) = self.lock().get_mut(&node) {
            node.meeting = Some(meeting.clone());
        }
    }

    /// What answers hellos on a node that runs.
    pub(crate) fn meeting(&self, node: u16) -> Option<Meeting> {
        self.life(node)?;
        self.lock().get(&node)?.meeting.clone()
    }

    /// From now on beats for this node go here.
    pub(crate) fn hear_with(&self, node: u16, pulse: &Pulse) {
        if let Some(node) = self.lock().get_mut(&node) {
            node.pulse = Some(pulse.clone());
        }
    }

    /// What hears beats on a node that runs.
    pub(crate) fn pulse(&self, node: u16) -> Option<Pulse> {
        self.life(node)?;
        self.lock().get(&node)?.pulse.clone()
    }

    /// How messages find the store of a member.
    fn serve(&self, member: MemberId) -> Option<Serve> {
        let node = node_of(member);
        let store = self.store(node).filter(|_| self.member(node) == member)?;
        let cluster = self.clone();
        Some(Arc::new(move |from: MemberId, message| {
            let (store, cluster) = (store.clone(), cluster.clone());
            Box::pin(async move {
                let reply = store.serve(from, message).await;
                cluster.observe(node);
                reply
            })
        }))
    }

    /// Waits until `done` holds, asking ten times a second.
    ///
    /// # Errors
    /// [`Violation::Stuck`] with `what` and the members' states after `limit`.
    pub async fn wait_until(
        &self,
        what: &str,
        limit: Duration,
        done: impl Fn(&Self) -> bool,
    ) -> Result<(), Violation> {
        let deadline = executor::with(|core| core.now()) + limit;
        while !done(self) {
            if let Some(violation) = self.ledger().violation() {
                return Err(violation.clone());
            }
            if executor::with(|core| core.now()) > deadline {
                return Err(Violation::Stuck(format!(
                    "{what} within {limit:?}\n{}",
                    self.describe()
                )));
            }
            Sleep::after(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// One line for each node.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut lines = Vec::new();
        for node in self.numbers() {
            let line = match self.store(node) {
                None if self.life(node).is_some() => "starting".to_owned(),
                None => "off".to_owned(),
                Some(store) => {
                    let status = store.status();
                    format!(
                        "{:?} term {} leader {:?} applied {} index {} last {} snapshot {} full {} {}",
                        status.role,
                        status.term,
                        status.leader.map(node_of),
                        status.applied,
                        status.applied_index,
                        status.last_index,
                        status.snapshot_index,
                        status.disk_full,
                        status.stopped.unwrap_or_default(),
                    )
                }
            };
            lines.push(format!("  node {node}: {line}"));
        }
        lines.join("\n")
    }
}
