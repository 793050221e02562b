//! The rig does to machines and links what it says. Two machines, each a cluster of its own, so that what one loses does not
//! hide what the other has.

use std::net::Ipv4Addr;

use anyhow::{Context as _, ensure};
use podium_qemu_tests::fault::Fault;
use podium_qemu_tests::links::{End, LinkFault, Path};
use podium_qemu_tests::scenario::{Rig, Scenario, blank};
use podium_qemu_tests::{Cluster, ClusterOptions};

/// Whether the machine's API answers a client on the host, through the switch.
fn answers(cluster: &Cluster, machine: u16) -> bool {
    cluster.authority_of(machine).is_ok()
}

fn wait_for_answers(rig: &mut Rig, machine: u16) -> anyhow::Result<()> {
    rig.until("an answer", |rig| Ok(answers(&rig.cluster, machine).then_some(())))
}

fn machines_get_the_addresses_of_their_leases(rig: &mut Rig) -> anyhow::Result<()> {
    for machine in 0..2 {
        let address = rig.cluster.address(machine).to_string();
        rig.wait_for_line(machine, &["address", &address])?;
        wait_for_answers(rig, machine)?;
    }
    Ok(())
}

fn a_cut_reaches_one_machine_alone_and_is_healed(rig: &mut Rig) -> anyhow::Result<()> {
    let path = Path { from: End::Machine(0), to: Some(End::Host), one_way: false };
    rig.cluster.change_links(&LinkFault::Cut(path))?;
    ensure!(!answers(&rig.cluster, 0), "a machine that is cut off answers");
    ensure!(answers(&rig.cluster, 1), "the other does not answer");
    rig.cluster.change_links(&LinkFault::Heal(None))?;
    wait_for_answers(rig, 0)
}

fn a_paused_machine_is_silent_until_it_goes_on(rig: &mut Rig) -> anyhow::Result<()> {
    rig.cluster.inject(&Fault::Pause(1))?;
    ensure!(!answers(&rig.cluster, 1), "a paused machine answers");
    ensure!(answers(&rig.cluster, 0), "the other does not answer");
    rig.cluster.inject(&Fault::Resume(1))?;
    wait_for_answers(rig, 1)
}

fn the_front_leads_to_whichever_machine_is_on(rig: &mut Rig) -> anyhow::Result<()> {
    rig.cluster.inject(&Fault::PowerOff(0))?;
    rig.cluster.forget_authority();
    let nodes = rig.list("/api/v1/nodes").context("ask the machine that is left")?;
    ensure!(nodes.len() == 1, "{nodes:?}");
    rig.cluster.forget_authority();
    rig.cluster.inject(&Fault::PowerOn(0))?;
    wait_for_answers(rig, 0)
}

fn a_capture_shows_frames_between_its_ends_only(rig: &mut Rig) -> anyhow::Result<()> {
    let ports = [End::Machine(1), End::Host].map(|end| rig.cluster.port(end));
    let capture = rig.cluster.switch().capture(ports)?;
    ensure!(answers(&rig.cluster, 0) && answers(&rig.cluster, 1), "both answer");
    let frames = capture.frames();
    ensure!(!frames.is_empty() && capture.missed() == 0, "{} frames", frames.len());
    let strange = frames.iter().find(|frame| frame.from == rig.cluster.port(End::Machine(0)));
    ensure!(strange.is_none(), "{strange:?}");
    Ok(())
}

fn wrong_clocks_and_new_addresses_come_with_the_next_boot(rig: &mut Rig) -> anyhow::Result<()> {
    rig.cluster.inject(&Fault::Clock(0, Some("1970-01-01".to_owned())))?;
    rig.cluster.inject(&Fault::Readdress)?;
    let first = Ipv4Addr::new(10, 77, 0, 10);
    ensure!(rig.cluster.address(0) != first, "the address is the old one");
    rig.cut_all_power()?;
    rig.cluster.power_on()?;
    rig.wait_for_line(0, &["clock", "build"])?;
    rig.wait_for_line(1, &["clock", "hardware"])?;
    machines_get_the_addresses_of_their_leases(rig)?;
    rig.cluster.inject(&Fault::Clock(0, None))?;
    rig.cluster.inject(&Fault::Readdress)?;
    ensure!(rig.cluster.address(0) == first, "there and back again");
    Ok(())
}

fn a_replaced_disk_is_blank(rig: &mut Rig) -> anyhow::Result<()> {
    ensure!(rig.cluster.inject(&Fault::ReplaceDisk(1)).is_err(), "a running machine's disk");
    rig.cluster.inject(&Fault::PowerOff(1))?;
    rig.cluster.inject(&Fault::ReplaceDisk(1))?;
    rig.cluster.inject(&Fault::PowerOn(1))?;
    rig.wait_for_line(1, &["state", "made on"])?;
    Ok(())
}

#[test]
fn the_rig_does_what_it_says() -> anyhow::Result<()> {
    let scenarios: [Scenario; 7] = [
        ("machines get the addresses of their leases", machines_get_the_addresses_of_their_leases),
        (
            "a cut reaches one machine alone and is healed",
            a_cut_reaches_one_machine_alone_and_is_healed,
        ),
        (
            "a paused machine is silent until it goes on",
            a_paused_machine_is_silent_until_it_goes_on,
        ),
        ("the front leads to whichever machine is on", the_front_leads_to_whichever_machine_is_on),
        (
            "a capture shows frames between its ends only",
            a_capture_shows_frames_between_its_ends_only,
        ),
        (
            "wrong clocks and new addresses come with the next boot",
            wrong_clocks_and_new_addresses_come_with_the_next_boot,
        ),
        ("a replaced disk is blank", a_replaced_disk_is_blank),
    ];
    let options =
        ClusterOptions { machines: 2, expect: Some(1), registry: false, ..blank("vm-rig")? };
    let mut rig = Rig::prepare(&options)?;
    rig.cluster.power_on()?;
    rig.run(&scenarios)
}
