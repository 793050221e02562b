//! What clients are told stays true while leaders die.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use podium_qemu_tests::clients::{Clients, Load, read_what_was_written};
use podium_qemu_tests::fault::Fault;
use podium_qemu_tests::history;
use podium_qemu_tests::links::{LinkFault, machine_name};
use podium_qemu_tests::scenario::{PATIENCE, Rig, Scenario};

use crate::ALL;

pub(crate) const SCENARIOS: [Scenario; 2] = [
    ("five leaders die and the history is linearizable", five_leaders_die),
    ("what one node wrote the others read at once", what_one_wrote_the_others_read),
];

const LOAD: Load = Load { writers: 1, readers: 1, registers: 3 };
/// Enough for clients to be in the middle of writes when the leader dies.
const WRITES_BEFORE: u64 = 30;
const KILLS: usize = 5;
const ROUNDS: u64 = 1000;

fn five_leaders_die(rig: &mut Rig) -> anyhow::Result<()> {
    rig.wait_for_answers(&ALL)?;
    let clients = Clients::start(&mut rig.cluster, &ALL, LOAD)?;
    for kill in 0..KILLS {
        clients.wait_for_writes(WRITES_BEFORE, PATIENCE)?;
        let leader = rig.leader()?;
        // In turn: its power goes between two instants of whatever it does; it stands still and comes back believing that it
        // leads; it is cut off, and both halves have clients.
        let (fault, back) = match kill % 3 {
            0 => (Fault::PowerOff(leader), Fault::PowerOn(leader)),
            1 => (Fault::Pause(leader), Fault::Resume(leader)),
            _ => (Fault::Link(LinkFault::Isolate(leader)), Fault::Link(LinkFault::Heal(None))),
        };
        println!("{}: {fault:?}", machine_name(leader));
        rig.cluster.inject(&fault)?;
        clients.wait_for_writes(WRITES_BEFORE, PATIENCE).context("nobody leads")?;
        rig.until("another leader", |rig| Ok((rig.leader()? != leader).then_some(())))?;
        rig.cluster.inject(&back)?;
        rig.wait_for_answers(&ALL)?;
    }
    let done = clients.stop()?;
    let unknown = done.iter().filter(|operation| operation.answered.is_none()).count();
    println!(
        "{} operations, {unknown} without an answer, longest gap between writes {:.1}s",
        done.len(),
        history::longest_gap(&done).as_secs_f64()
    );
    ensure!(done.len() as u64 > WRITES_BEFORE * KILLS as u64, "hardly anything was done");
    Ok(history::check(&done)?)
}

fn what_one_wrote_the_others_read(rig: &mut Rig) -> anyhow::Result<()> {
    // Leaders change on the way: each time by a pause that is longer than an election.
    let rounds = ROUNDS / 4;
    for part in 0..4 {
        if part > 0 {
            let leader = rig.leader()?;
            rig.cluster.inject(&Fault::Pause(leader))?;
            let rest: Vec<u16> = ALL.into_iter().filter(|it| *it != leader).collect();
            read_what_was_written(&mut rig.cluster, &rest, 5, Duration::from_secs(120))?;
            rig.cluster.inject(&Fault::Resume(leader))?;
        }
        read_what_was_written(&mut rig.cluster, &ALL, rounds, Duration::from_secs(120))?;
    }
    Ok(())
}
