//! Three blank machines of one config, from QEMU's start until all are Ready, next to three that do nothing.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use podium_qemu_tests::{Cluster, ClusterOptions};

use crate::Bench;
use crate::boot::{Bare, follow};
use crate::figures::{Table, spread};
use crate::guest::LIMIT;

const ROUNDS: usize = 5;
/// The least that they have to work with.
const MEMORY_MEBIBYTES: u32 = 256;

pub(crate) fn measure(bench: &mut Bench) -> anyhow::Result<String> {
    let options = bench.options("bench-forming", 3)?;
    let options = ClusterOptions { memory_mebibytes: MEMORY_MEBIBYTES, ..options };
    let mut cluster = Cluster::prepare(&options)?;
    let (mut bare, mut first, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        eprintln!("forming: round {round} of {ROUNDS}");
        bare.push(boot_bare(bench)?);
        for vm in cluster.machines() {
            vm.blank_disk()?;
        }
        let mut ready = form(&mut cluster).with_context(|| cluster.consoles())?;
        cluster.shut_down(LIMIT)?;
        ready.sort_by(f64::total_cmp);
        eprintln!("forming: Ready after {ready:.1?} s");
        first.extend(ready.first());
        all.extend(ready.last());
    }
    let mut table = Table::new(
        "Three blank machines of 256 MiB, one config: seconds from QEMU's start, least / **median** / most of five",
        &["same kernel, static program: all three at process 1", "first Ready", "all three Ready"],
    );
    table.row(&[spread(&bare, 1), spread(&first, 1), spread(&all, 1)]);
    Ok(table.finish())
}

/// Seconds until each machine was Ready.
fn form(cluster: &mut Cluster) -> anyhow::Result<Vec<f64>> {
    let started = Instant::now();
    cluster.power_on()?;
    let consoles: Vec<_> =
        cluster.machines().iter().map(podium_qemu_tests::vm::Vm::console).collect();
    std::thread::scope(|scope| {
        let watch = |console: &PathBuf| {
            let console = console.clone();
            scope.spawn(move || {
                follow(&console, |line| line.contains(" is ready: "))?;
                anyhow::Ok(started.elapsed().as_secs_f64())
            })
        };
        let watches: Vec<_> = consoles.iter().map(watch).collect();
        let done = watches.into_iter().map(std::thread::ScopedJoinHandle::join);
        done.map(|it| it.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

/// Seconds until the last of three was process 1.
fn boot_bare(bench: &Bench) -> anyhow::Result<f64> {
    let started = Instant::now();
    let names = ["bare-1", "bare-2", "bare-3"];
    let mut machines = names
        .iter()
        .map(|name| Bare::start(bench, name, ""))
        .collect::<anyhow::Result<Vec<_>>>()?;
    for machine in &machines {
        machine.process_1()?;
    }
    let at = started.elapsed().as_secs_f64();
    machines.iter_mut().try_for_each(Bare::wait_off)?;
    Ok(at)
}
