//! What goes wrong: one fault at a time is drawn from the seed, does its harm for a while, and ends.
//!
//! Faults overlap. The nemesis keeps only those rules without which no store could keep its promises: bits flip on one
//! disk at a time, not before the member whose disk it was has been filled again from the others, and never on more than
//! one copy of what a majority holds.

use std::time::Duration;

use podium_store::Role;

use crate::cluster::Cluster;
use crate::disk;
use crate::executor::{self, Core, Life};
use crate::fault::Fault;
use crate::network;
use crate::runtime::{Sleep, spawn_in};

/// The shortest and longest time that a fault lasts.
const LASTS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(20));

/// Draws faults for one cluster.
pub struct Nemesis {
    cluster: Cluster,
    /// The node whose disk had a bit flipped, until it is sound again.
    damaged: Option<u16>,
    last_flip: Duration,
}

impl Nemesis {
    /// A nemesis that has done nothing yet.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, damaged: None, last_flip: Duration::ZERO }
    }

    /// Does one thing.
    pub fn strike(&mut self) {
        let (kind, node, lasts) = executor::with(|core| {
            let numbers = self.cluster.numbers();
            let node = numbers[pick(core, numbers.len())];
            (core.below(12), node, core.between(LASTS.0, LASTS.1))
        });
        tracing::info!(kind, node, ?lasts, "fault");
        match kind {
            0 | 1 => self.crash(node, lasts),
            2 => self.crash_many(lasts),
            3 => self.partition(lasts),
            4 => self.cut_one_way(node, lasts),
            5 | 6 => self.trouble_network(lasts),
            7 | 8 => self.trouble_disk(node, lasts),
            9 => executor::with(|core| self.freeze(core, node, lasts / 4)),
            10 => self.jump_clock(node),
            _ => self.flip(node, lasts),
        }
    }

    fn crash(&self, node: u16, off: Duration) {
        self.cluster.crash(node);
        let cluster = self.cluster.clone();
        later(off, move || cluster.boot(node));
    }

    /// A power cut in the rack: several nodes at once, all of them now and then.
    fn crash_many(&self, off: Duration) {
        for node in self.cluster.numbers() {
            let (hit, off) = executor::with(|core| {
                (!core.one_in(3), core.between(Duration::from_millis(50), off))
            });
            if hit {
                self.crash(node, off);
            }
        }
    }

    fn partition(&self, lasts: Duration) {
        let numbers = self.cluster.numbers();
        let sides: Vec<bool> =
            executor::with(|core| numbers.iter().map(|_| core.one_in(2)).collect());
        for (from, left) in numbers.iter().zip(&sides) {
            for (to, right) in numbers.iter().zip(&sides) {
                if left != right {
                    self.cluster.network().cut(*from, *to);
                }
            }
        }
        self.mend_later(lasts);
    }

    fn cut_one_way(&self, node: u16, lasts: Duration) {
        let outwards = executor::with(|core| core.one_in(2));
        for other in self.cluster.numbers() {
            if other == node || executor::with(|core| core.one_in(4)) {
                continue;
            }
            let (from, to) = if outwards { (node, other) } else { (other, node) };
            self.cluster.network().cut(from, to);
        }
        self.mend_later(lasts);
    }

    fn mend_later(&self, lasts: Duration) {
        let network = self.cluster.network().clone();
        later(lasts, move || network.mend());
    }

    fn trouble_network(&self, lasts: Duration) {
        let weather = executor::with(|core| network::Weather {
            lose_one_in: 4 * core.below(6),
            duplicate_one_in: 4 * core.below(4),
            delay_one_in: 2 * core.below(6),
            late_by: core.between(Duration::from_millis(20), Duration::from_secs(3)),
        });
        let network = self.cluster.network().clone();
        network.set_weather(weather);
        later(lasts, move || network.set_weather(network::Weather::default()));
    }

    fn trouble_disk(&self, node: u16, lasts: Duration) {
        let Some(disk) = self.cluster.disk(node) else { return };
        disk.set_weather(executor::with(|core| disk::Weather::draw(core)));
        let cluster = self.cluster.clone();
        later(lasts, move || {
            disk.set_weather(disk::Weather::default());
            cluster.boot(node);
        });
    }

    fn freeze(&self, core: &Core, node: u16, lasts: Duration) {
        if self.cluster.life(node).is_some() {
            self.cluster.coverage().count(Fault::Freeze);
            core.freeze(node, lasts);
        }
    }

    fn jump_clock(&self, node: u16) {
        let (ahead, milliseconds) = executor::with(|core| {
            let magnitude = core.below(34);
            (core.one_in(2), i64::try_from(core.below(1 << (magnitude + 1))).unwrap_or(0))
        });
        let fault = if ahead { Fault::ClockJumpAhead } else { Fault::ClockJumpBack };
        self.cluster.coverage().count(fault);
        let milliseconds = if ahead { milliseconds } else { -milliseconds };
        executor::with(|core| core.clock(node, |clock| clock.jump(milliseconds)));
    }

    /// Flips a bit on a disk that is off and boots the node with it. See the module for when.
    fn flip(&mut self, node: u16, off: Duration) {
        if self.cluster.numbers().len() < 3 || !self.is_sound() {
            return;
        }
        self.cluster.crash(node);
        self.damaged = Some(node);
        self.last_flip = executor::with(|core| core.now());
        let cluster = self.cluster.clone();
        later(off.min(Duration::from_secs(3)), move || {
            if cluster.life(node).is_none()
                && let Some(disk) = cluster.disk(node)
            {
                executor::with(|core| {
                    disk.cut_power(core);
                    disk.flip_bit(core, |_| true)
                });
            }
            cluster.boot(node);
        });
    }

    /// Whether every member runs, votes, and holds what the others hold, so that one copy may be hurt.
    fn is_sound(&mut self) -> bool {
        let statuses = self.cluster.statuses();
        let rested = executor::with(|core| core.now()) > self.last_flip + Duration::from_secs(30);
        let highest = statuses.iter().map(|(_, status)| status.applied_index).max().unwrap_or(0);
        let sound = rested
            && statuses.len() == self.cluster.numbers().len()
            && statuses.iter().all(|(_, status)| {
                matches!(status.role, Role::Leader | Role::Follower)
                    && status.applied_index + 16 >= highest
            });
        if sound {
            self.damaged = None;
        }
        sound
    }
}

fn pick(core: &Core, count: usize) -> usize {
    usize::try_from(core.below(count as u64)).unwrap_or(0)
}

/// Does something on the harness's time.
fn later(after: Duration, act: impl FnOnce() + Send + 'static) {
    drop(spawn_in(Life::HARNESS, async move {
        Sleep::after(after).await;
        act();
    }));
}
