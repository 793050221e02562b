//! Three machines as one cluster: what runs on them survives what machines and networks do.
//!
//! The scenarios share the booted machines and run in order; each is a function whose name is its claim.

use podium_qemu_tests::ClusterOptions;
use podium_qemu_tests::scenario::{Rig, Scenario, blank};

mod disks;
mod history;
mod loss;
mod network;
mod power;

/// The machines.
const ALL: [u16; 3] = [0, 1, 2];

#[test]
fn three_machines_are_one_cluster() -> anyhow::Result<()> {
    let options = ClusterOptions { machines: 3, ..blank("vm-three")? };
    let mut rig = Rig::boot(&options)?;
    let parts: [&[Scenario]; 5] = [
        &network::SCENARIOS,
        &loss::SCENARIOS,
        &history::SCENARIOS,
        &power::SCENARIOS,
        &disks::SCENARIOS,
    ];
    parts.into_iter().try_for_each(|scenarios| rig.run(scenarios))
}
