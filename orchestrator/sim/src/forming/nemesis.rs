//! What goes wrong while machines form a cluster: much, and for a short time, because forming takes seconds.

use std::time::Duration;

use super::{disks_to_spare, later, pick};
use crate::cluster::Cluster;
use crate::disk;
use crate::executor;
use crate::fault::Fault;
use crate::network;

/// The shortest and longest time that a fault lasts.
const LASTS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(8));

pub(super) struct Nemesis {
    cluster: Cluster,
    spare: u16,
}

impl Nemesis {
    pub(super) fn new(cluster: Cluster) -> Self {
        let spare = disks_to_spare(u16::try_from(cluster.numbers().len()).unwrap_or(u16::MAX));
        Self { cluster, spare }
    }

    /// One that replaces no disks.
    pub(super) fn sparing(cluster: Cluster) -> Self {
        Self { cluster, spare: 0 }
    }

    /// When every fault has ended that has begun by now.
    pub(super) fn longest() -> Duration {
        LASTS.1
    }

    /// Does one thing.
    pub(super) fn strike(&mut self) {
        let numbers = self.cluster.numbers();
        let (one, other) = (numbers[pick(numbers.len())], numbers[pick(numbers.len())]);
        let (kind, lasts) = executor::with(|core| (core.below(12), core.between(LASTS.0, LASTS.1)));
        let network = self.cluster.network();
        match kind {
            0..=2 => self.crash(one, lasts),
            3 | 4 => self.cut(&[(one, other), (other, one)], lasts),
            5 => self.cut(&[(one, other)], lasts),
            6 => {
                let others = numbers.iter().filter(|it| **it != one);
                let cuts: Vec<_> = others.flat_map(|it| [(one, *it), (*it, one)]).collect();
                self.cut(&cuts, lasts);
            }
            7 => {
                network.set_weather(executor::with(|core| network::Weather {
                    lose_one_in: 2 + core.below(6),
                    duplicate_one_in: core.below(4),
                    delay_one_in: core.below(4),
                    late_by: core.between(Duration::from_millis(20), Duration::from_secs(6)),
                }));
                let network = network.clone();
                later(lasts, move || network.set_weather(network::Weather::default()));
            }
            8 | 9 => self.trouble_disks(one, lasts),
            10 => self.freeze(one, lasts),
            _ => self.replace_disk(one, lasts),
        }
    }

    fn crash(&self, node: u16, off: Duration) {
        self.cluster.crash(node);
        let cluster = self.cluster.clone();
        later(off, move || cluster.boot(node));
    }

    fn cut(&self, links: &[(u16, u16)], lasts: Duration) {
        for (from, to) in links {
            self.cluster.network().cut(*from, *to);
        }
        let network = self.cluster.network().clone();
        later(lasts, move || network.mend());
    }

    fn trouble_disks(&self, node: u16, lasts: Duration) {
        let mut weather = executor::with(|core| disk::Weather::draw(core));
        weather.cut_one_in = weather.cut_one_in.min(3);
        let disks: Vec<_> =
            self.cluster.disk(node).into_iter().chain(self.cluster.identity(node)).collect();
        for disk in &disks {
            disk.set_weather(weather);
        }
        let cluster = self.cluster.clone();
        later(lasts, move || {
            for disk in &disks {
                disk.set_weather(disk::Weather::default());
            }
            cluster.boot(node);
        });
    }

    fn freeze(&self, node: u16, lasts: Duration) {
        if self.cluster.life(node).is_some() {
            self.cluster.coverage().count(Fault::Freeze);
            executor::with(|core| core.freeze(node, lasts));
        }
    }

    fn replace_disk(&mut self, node: u16, off: Duration) {
        if self.spare == 0 {
            return;
        }
        self.spare -= 1;
        self.cluster.crash(node);
        let cluster = self.cluster.clone();
        // The crash is carried out before anything else runs, so the machine is off by then.
        later(off, move || {
            if cluster.life(node).is_none() {
                cluster.replace_disk(node);
            }
            cluster.boot(node);
        });
    }
}
