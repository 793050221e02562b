//! Machines are switched on one after the other, much goes wrong, all is mended, and then there is one cluster or a reason.

use std::time::Duration;

use super::end;
use super::nemesis::Nemesis;
use crate::cluster::Cluster;
use crate::executor;
use crate::fault::Fault;
use crate::ledger::Violation;
use crate::run::check;
use crate::runtime::Sleep;

/// Steps while machines form.
const STEPS: u64 = 150;
/// The mean time between two of them.
const STEP: Duration = Duration::from_millis(200);
/// One step in this many is a fault.
const FAULT_ONE_IN: u64 = 4;
/// A machine is switched on within so long after the first.
const LATE: Duration = Duration::from_secs(20);

/// Runs the story. Says whether all nodes are members in the end, so that the store's load can go on.
pub(crate) async fn form(cluster: &Cluster) -> Result<bool, Violation> {
    let began = executor::with(|core| core.now());
    let mut off: Vec<(Duration, u16)> = cluster
        .numbers()
        .into_iter()
        .map(|node| {
            let late = executor::with(|core| match core.below(3) {
                0 => Duration::ZERO,
                1 => core.between(Duration::ZERO, Duration::from_secs(3)),
                _ => core.between(Duration::ZERO, LATE),
            });
            (began + late, node)
        })
        .collect();
    let mut nemesis = Nemesis::new(cluster.clone());
    for _ in 0..STEPS {
        switch_on(cluster, &mut off);
        Sleep::after(executor::with(|core| core.between(Duration::ZERO, STEP * 2))).await;
        if executor::with(|core| core.one_in(FAULT_ONE_IN)) {
            nemesis.strike();
        }
        let half = cluster.census().newly_half_accepted(&cluster.running());
        for _ in 0..half {
            cluster.coverage().count(Fault::HalfAccepted);
        }
        check(cluster)?;
    }
    mend(cluster).await;
    end::wait(cluster).await?;
    check(cluster)?;
    Ok(end::all_are_members(cluster))
}

fn switch_on(cluster: &Cluster, off: &mut Vec<(Duration, u16)>) {
    let now = executor::with(|core| core.now());
    off.retain(|(at, node)| {
        let due = *at <= now;
        if due && cluster.life(*node).is_none() {
            if cluster.running().iter().any(|other| other != node) {
                cluster.coverage().count(Fault::LateBoot);
            }
            cluster.boot(*node);
        }
        !due
    });
}

/// Ends all faults, and waits for those under way.
pub(super) async fn mend(cluster: &Cluster) {
    Sleep::after(Nemesis::longest() + Duration::from_secs(1)).await;
    cluster.network().heal();
    for node in cluster.numbers() {
        for disk in cluster.disk(node).into_iter().chain(cluster.identity(node)) {
            disk.set_weather(crate::disk::Weather::default());
        }
        cluster.boot(node);
    }
}
