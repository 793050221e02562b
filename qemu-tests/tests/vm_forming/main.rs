//! Machines with one image and one config become one cluster, and never two.
//!
//! Every test boots blank disks of its own: forming is what only blank machines do.

mod worker;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use podium_qemu_tests::ClusterOptions;
use podium_qemu_tests::cluster::machine_address;
use podium_qemu_tests::fault::Fault;
use podium_qemu_tests::links::{End, LinkFault, Path, machine_name};
use podium_qemu_tests::scenario::{Rig, Scenario, blank};

/// Long enough for machines that could form a cluster, wrongly, to have done so: a right one takes them a few seconds.
const LONG: Duration = Duration::from_secs(15);

const ALL: [u16; 3] = [0, 1, 2];

/// A machine whose config has another token.
const STRANGER: u16 = 3;

fn names(machines: &[u16]) -> BTreeSet<String> {
    machines.iter().copied().map(machine_name).collect()
}

fn between(from: u16, to: u16) -> Path {
    Path { from: End::Machine(from), to: Some(End::Machine(to)), one_way: false }
}

/// No machine serves an API, for a while: there is no cluster.
fn nobody_serves(rig: &mut Rig, machines: &[u16]) -> anyhow::Result<()> {
    rig.throughout(LONG, |rig| {
        for machine in machines {
            ensure!(
                rig.cluster.authority_of(*machine).is_err(),
                "{} serves a cluster",
                machine_name(*machine)
            );
        }
        Ok(())
    })
}

/// All machines prove the same authority, so they are of one cluster.
fn all_are_of_one_cluster(rig: &mut Rig, machines: &[u16]) -> anyhow::Result<()> {
    let mut authorities = BTreeSet::new();
    for machine in machines {
        let what = format!("{} to prove its cluster's authority", machine_name(*machine));
        let authority = rig.until(&what, |rig| rig.cluster.authority_of(*machine).map(Some))?;
        authorities.insert(authority);
    }
    ensure!(authorities.len() == 1, "{} authorities", authorities.len());
    Ok(())
}

fn formed_with(rig: &mut Rig, voters: &[u16]) -> anyhow::Result<()> {
    rig.wait_ready()?;
    let voting = rig.until("the voters", |rig| {
        let voting = rig.voters()?;
        Ok((voting == names(voters)).then_some(voting))
    })?;
    println!("voters: {voting:?}");
    let on = rig.cluster.on();
    all_are_of_one_cluster(rig, &on)
}

fn who_is_missing_stands_on_the_console(rig: &mut Rig) -> anyhow::Result<()> {
    rig.cluster.machine(0).power_on()?;
    rig.wait_for_line(0, &["1 of 3", "n1 (me)", "waiting for 2 more"])?;
    rig.cluster.machine(1).power_on()?;
    rig.wait_for_line(0, &["2 of 3", "n1 (me)", "n2", "waiting for 1 more"])?;
    rig.wait_for_line(1, &["2 of 3", "n2 (me)", "n1", "waiting for 1 more"])?;
    Ok(())
}

fn two_of_three_form_nothing(rig: &mut Rig) -> anyhow::Result<()> {
    nobody_serves(rig, &[0, 1])
}

fn the_third_makes_it_a_cluster_of_three_voters(rig: &mut Rig) -> anyhow::Result<()> {
    rig.cluster.machine(2).power_on()?;
    formed_with(rig, &ALL)
}

fn a_fourth_joins_as_a_worker(rig: &mut Rig) -> anyhow::Result<()> {
    rig.cluster.machine(3).power_on()?;
    formed_with(rig, &ALL)?;
    let machines = rig.list("/apis/podium.dev/v1/machines")?;
    ensure!(machines.len() == 4, "{} machines", machines.len());
    // A worker answers on its own port, too.
    let nodes = rig.kubectl_of(3)?.run(&["get", "nodes", "-o", "name"])?;
    ensure!(nodes.lines().count() == 4, "{nodes}");
    Ok(())
}

/// What a set of blank disks without their fellow does when the fellow is a member of a cluster that it cannot serve alone.
fn replaced_disks_do_not_form_beside_a_survivor(rig: &mut Rig) -> anyhow::Result<()> {
    rig.cut_all_power()?;
    rig.cluster.forget_authority();
    for machine in [0, 1] {
        rig.cluster.inject(&Fault::ReplaceDisk(machine))?;
        rig.cluster.machine(machine).power_on()?;
    }
    rig.wait_for_line(0, &["2 of 3"])?;
    nobody_serves(rig, &[0, 1])?;
    rig.cluster.machine(2).power_on()?;
    rig.wait_for_line(2, &["waiting for quorum", "n1", "n2", "missing"])?;
    rig.wait_for_line(0, &["formed", "joining"])?;
    // The survivor knows its cluster's authority, and may prove it; the blank ones have none.
    nobody_serves(rig, &[0, 1])
}

#[test]
fn three_blank_machines_form_and_a_fourth_joins() -> anyhow::Result<()> {
    let scenarios: [Scenario; 6] = [
        ("who is missing stands on the console", who_is_missing_stands_on_the_console),
        ("two of three form nothing", two_of_three_form_nothing),
        (
            "the third makes it a cluster of three voters",
            the_third_makes_it_a_cluster_of_three_voters,
        ),
        ("a fourth joins as a worker", a_fourth_joins_as_a_worker),
        (
            "a worker's certificate is good for what is its own",
            worker::a_workers_certificate_is_good_for_what_is_its_own,
        ),
        (
            "replaced disks do not form beside a survivor",
            replaced_disks_do_not_form_beside_a_survivor,
        ),
    ];
    let options = ClusterOptions { machines: 4, ..blank("vm-forming")? };
    Rig::prepare(&options)?.run(&scenarios)
}

fn a_chain_forms_nothing_and_says_why(rig: &mut Rig) -> anyhow::Result<()> {
    rig.cluster.change_links(&LinkFault::Cut(between(0, 2)))?;
    rig.cluster.power_on()?;
    rig.wait_for_line(1, &["3 of 3", "does not see"])?;
    rig.wait_for_line(0, &["2 of 3", "n2 sees n3"])?;
    nobody_serves(rig, &ALL)
}

fn another_token_is_refused_and_named_on_both_sides(rig: &mut Rig) -> anyhow::Result<()> {
    // The stranger's config names n1, so these two meet; the others only hear what it announces.
    let (first, stranger) = (machine_address(0).to_string(), machine_address(STRANGER).to_string());
    for (machine, words) in [
        (STRANGER, [first.as_str(), "n1", "proves another token"]),
        (0, [stranger.as_str(), "n4", "proves another token"]),
        (1, [stranger.as_str(), "announces itself", "with another token"]),
        (2, [stranger.as_str(), "announces itself", "with another token"]),
    ] {
        println!("{}", rig.wait_for_line(machine, &words)?);
    }
    // It looks for others for as long as it is on, and finds none.
    rig.wait_for_line(STRANGER, &["1 of 3", "waiting for 2 more"])?;
    rig.cluster.inject(&Fault::PowerOff(STRANGER))
}

fn a_split_forms_nothing(rig: &mut Rig) -> anyhow::Result<()> {
    let alone = vec![vec![End::Machine(2)]];
    rig.cluster.change_links(&LinkFault::Partition(alone))?;
    rig.wait_for_line(0, &["2 of 3", "waiting for 1 more"])?;
    nobody_serves(rig, &ALL)
}

/// The machine that proposes loses its power when the others have accepted, or are about to; it and they finish later.
fn a_proposer_that_dies_half_way_finishes_when_it_is_back(rig: &mut Rig) -> anyhow::Result<()> {
    // Slow links make half of the way long enough to be hit.
    for (from, to) in [(0, 1), (0, 2), (1, 2)] {
        let delay = Duration::from_millis(700);
        let slow = LinkFault::Delay { path: between(from, to), delay, jitter: Duration::ZERO };
        rig.cluster.change_links(&LinkFault::Heal(Some(between(from, to))))?;
        rig.cluster.change_links(&slow)?;
    }
    let proposer = rig.until("a proposal", |rig| {
        let proposed =
            |rig: &mut Rig, machine| rig.console(machine).contains("proposing a cluster");
        Ok(ALL.into_iter().find(|machine| proposed(rig, *machine)))
    })?;
    rig.cluster.inject(&Fault::PowerOff(proposer))?;
    println!("{} proposed and died", machine_name(proposer));
    rig.cluster.change_links(&LinkFault::Heal(None))?;
    rig.cluster.inject(&Fault::PowerOn(proposer))?;
    formed_with(rig, &ALL)
}

fn a_split_that_heals_leaves_one_cluster(rig: &mut Rig) -> anyhow::Result<()> {
    let before = rig.cluster.authority_of(0)?;
    let halves = vec![vec![End::Machine(0)], vec![End::Machine(1), End::Machine(2)]];
    rig.cluster.change_links(&LinkFault::Partition(halves))?;
    rig.wait_for_line(0, &["waiting for quorum", "missing"])?;
    rig.cluster.change_links(&LinkFault::Heal(None))?;
    formed_with(rig, &ALL)?;
    ensure!(rig.cluster.authority_of(0)? == before, "it is another cluster");
    Ok(())
}

#[test]
fn cut_links_and_dying_proposers_never_make_two() -> anyhow::Result<()> {
    let scenarios: [Scenario; 5] = [
        ("a chain forms nothing and says why", a_chain_forms_nothing_and_says_why),
        (
            "another token is refused and named on both sides",
            another_token_is_refused_and_named_on_both_sides,
        ),
        ("a split forms nothing", a_split_forms_nothing),
        (
            "a proposer that dies half-way finishes when it is back",
            a_proposer_that_dies_half_way_finishes_when_it_is_back,
        ),
        ("a split that heals leaves one cluster", a_split_that_heals_leaves_one_cluster),
    ];
    let options = ClusterOptions {
        machines: 4,
        registry: false,
        adjust_one: |machine, config| {
            if machine == STRANGER {
                config.cluster.token = "A".repeat(43);
                config.cluster.peers = vec![machine_address(0).to_string()];
            }
        },
        ..blank("vm-forming-cuts")?
    };
    Rig::prepare(&options)?.run(&scenarios)
}
