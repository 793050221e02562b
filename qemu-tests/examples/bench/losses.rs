//! Three voters and a worker of 256 MiB: what they hold in memory, and what the loss of a machine costs.
//!
//! A machine is lost by cutting its power. Writers at the others tell how long no write was acknowledged; a Deployment with a
//! pod on every machine tells when the lost one was replaced. Emulated machines run with longer timings (the rig's factor).

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use podium_qemu_tests::clients::{Clients, Load};
use podium_qemu_tests::history::longest_gap;
use podium_qemu_tests::links::{machine_name, parse_machine};
use podium_qemu_tests::scenario::{POD_LIMIT, Rig};
use podium_qemu_tests::{ClusterOptions, debian};
use serde_json::Value;

use crate::Bench;
use crate::figures::{Table, judged, spread};
use crate::guest::LIMIT;
use crate::memory;

const ROUNDS: usize = 5;
/// Of the simulator.
const SEEDS: &str = "1000";
const VOTERS: u16 = 3;
const MACHINES: u16 = VOTERS + 1;
const MEMORY_MEBIBYTES: u32 = 256;
const VOTER_GOAL_MIB: f64 = 64.0;
const WORKER_GOAL_MIB: f64 = 32.0;

/// A pod on every machine, as the scheduler spreads them.
const SPREAD: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: spread}
spec:
  replicas: 4
  selector: {matchLabels: {app: spread}}
  template:
    metadata: {labels: {app: spread}}
    spec:
      terminationGracePeriodSeconds: 0
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: spread}}}
      containers:
      - {name: main, image: busybox, imagePullPolicy: IfNotPresent, command: [sleep, '100000']}
";
const PODS: &str = "/api/v1/namespaces/default/pods?labelSelector=app%3Dspread";

/// Seconds of one loss.
struct Loss {
    gap: f64,
    bound: f64,
    running: f64,
}

pub(crate) fn measure(bench: &mut Bench) -> anyhow::Result<String> {
    let options = bench.options("bench-losses", MACHINES)?;
    let options = ClusterOptions {
        memory_mebibytes: MEMORY_MEBIBYTES,
        expect: Some(VOTERS.into()),
        ..options
    };
    let mut rig = Rig::boot(&options)?;
    let memory = memory_table(&mut rig)?;
    rig.apply(SPREAD)?;
    rig.kubectl.run(&["rollout", "status", "deployment/spread", POD_LIMIT])?;
    let (mut leaders, mut others) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        eprintln!("losses: round {round} of {ROUNDS}");
        let leader = rig.leader()?;
        leaders.push(lose(&mut rig, leader)?);
        let leader = machine_name(rig.leader()?);
        let voter = rig.voters()?.into_iter().find(|name| *name != leader);
        let voter = parse_machine(&voter.context("there is one voter")?)?;
        others.push(lose(&mut rig, voter)?);
    }
    rig.cluster.shut_down(LIMIT)?;
    let factor = bench.accelerator.timings_factor();
    let title = format!(
        "A machine's power is cut: seconds, least / **median** / most of {ROUNDS}; all timings are {factor} times the defaults"
    );
    let mut table = Table::new(
        &title,
        &["which", "longest gap between acknowledged writes", "replacement bound", "and Running"],
    );
    for (name, losses) in [("the leader", &leaders), ("another voter", &others)] {
        let column =
            |value: fn(&Loss) -> f64| spread(&losses.iter().map(value).collect::<Vec<_>>(), 1);
        let [gap, bound, running] =
            [column(|it| it.gap), column(|it| it.bound), column(|it| it.running)];
        table.row(&[name.to_owned(), gap, bound, running]);
    }
    Ok(memory + &table.finish() + &simulated(bench)?)
}

/// The same losses with the timings that real machines have, in the simulator's virtual time: its own words.
fn simulated(bench: &Bench) -> anyhow::Result<String> {
    let mut text = "\nWith the default timings, in virtual time, three to seven voters (`podium-sim loss`):\n\n".to_owned();
    for claim in ["machine", "leader"] {
        let mut command = Command::new(bench.programs.join("podium-sim"));
        command.args(["loss", "--claim", claim, "--seeds", SEEDS]);
        text += &format!("- {}", String::from_utf8(debian::run(command)?)?);
    }
    Ok(text)
}

fn memory_table(rig: &mut Rig) -> anyhow::Result<String> {
    let mut table = Table::new(
        "Memory of 256 MiB machines in a cluster of three voters and a worker, idle with one pod: MiB, medians of five",
        &["", "`node`", "`init` + `init net` + `node`", "goal", "MemTotal − MemAvailable"],
    );
    // A Machine tells what it is in the cluster only a moment after its Node is Ready.
    let voters = rig.until("three voters", |rig| {
        let voters = rig.voters()?;
        Ok((voters.len() == usize::from(VOTERS)).then_some(voters))
    })?;
    let worker = rig.ready_nodes()?.into_iter().find(|name| !voters.contains(name));
    let leader = machine_name(rig.leader()?);
    let follower = voters.iter().find(|name| **name != leader).cloned();
    let machines = [
        ("voter that leads", Some(leader), VOTER_GOAL_MIB),
        ("voter", follower, VOTER_GOAL_MIB),
        ("worker", worker, WORKER_GOAL_MIB),
    ];
    for (what, name, goal) in machines {
        let used = memory::measure(&rig.kubectl, &name.context(what)?)?;
        let (node, together) = (used.of("`node`"), used.together());
        let number = |value: f64| format!("{value:.1}");
        let goal = judged(together, goal, "MiB");
        table.row(&[what.to_owned(), number(node), number(together), goal, number(used.taken())]);
    }
    Ok(table.finish())
}

/// Cuts a machine's power, waits until its pod runs elsewhere, and makes the cluster whole again.
fn lose(rig: &mut Rig, victim: u16) -> anyhow::Result<Loss> {
    let before: BTreeSet<String> = pods(rig)?.iter().filter_map(uid).collect();
    let living: Vec<u16> = (0..MACHINES).filter(|index| *index != victim).collect();
    let clients =
        Clients::start(&mut rig.cluster, &living, Load { writers: 1, readers: 0, registers: 3 })?;
    clients.wait_for_writes(20, LIMIT)?;
    let started = Instant::now();
    rig.cluster.machine(victim).cut_power()?;
    let is_new = |pod: &Value| uid(pod).is_some_and(|uid| !before.contains(&uid));
    let bound = until(rig, started, |pod| is_new(pod) && pod.pointer("/spec/nodeName").is_some())?;
    let running = until(rig, started, |pod| is_new(pod) && pod["status"]["phase"] == "Running")?;
    clients.wait_for_writes(20, LIMIT)?;
    let gap = longest_gap(&clients.stop()?).as_secs_f64();
    rig.cluster.power_on()?;
    rig.wait_for_ready(&(0..MACHINES).collect::<Vec<_>>())?;
    rig.until("no taint", |rig| {
        let nodes = rig.list("/api/v1/nodes")?;
        Ok(nodes.iter().all(|node| node.pointer("/spec/taints").is_none()).then_some(()))
    })?;
    // All anew, so that every machine has one again: a pod that still ends counts where it is.
    rig.kubectl.run(&["scale", "--replicas=0", "deployment/spread"])?;
    rig.until("no pod", |rig| Ok(pods(rig)?.is_empty().then_some(())))?;
    rig.kubectl.run(&["scale", &format!("--replicas={MACHINES}"), "deployment/spread"])?;
    rig.kubectl.run(&["rollout", "status", "deployment/spread", POD_LIMIT])?;
    rig.until("a pod on every machine", |rig| {
        let nodes: BTreeSet<_> =
            pods(rig)?.iter().map(|pod| pod["spec"]["nodeName"].to_string()).collect();
        Ok((nodes.len() == usize::from(MACHINES)).then_some(()))
    })?;
    eprintln!("losses: gap {gap:.1} s, bound after {bound:.1} s, Running after {running:.1} s");
    Ok(Loss { gap, bound, running })
}

/// Seconds from `started` until a pod is so.
fn until(rig: &mut Rig, started: Instant, is: impl Fn(&Value) -> bool) -> anyhow::Result<f64> {
    loop {
        // Nobody may be able to answer for a while.
        if pods(rig).is_ok_and(|pods| pods.iter().any(&is)) {
            return Ok(started.elapsed().as_secs_f64());
        }
        ensure!(started.elapsed() < LIMIT * 3, "the lost pod is not replaced");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

fn pods(rig: &mut Rig) -> anyhow::Result<Vec<Value>> {
    rig.list(PODS)
}

fn uid(pod: &Value) -> Option<String> {
    pod.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned)
}
