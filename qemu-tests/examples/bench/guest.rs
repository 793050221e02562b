//! A machine that is up: what it takes when idle, and how fast it starts pods.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use podium_qemu_tests::kubectl::Kubectl;
use podium_qemu_tests::process::Child;

use crate::Bench;
use crate::boot::{Bare, follow};
use crate::figures::{Table, judged, processor_seconds, quantile, spread};
use crate::memory::{self, Memory};

pub(crate) const LIMIT: Duration = Duration::from_secs(120);
/// Registration, the first leases and the kernel's own late work are over by then.
pub(crate) const SETTLE: Duration = Duration::from_secs(15);
const IDLE_WINDOWS: usize = 6;
const IDLE_WINDOW: Duration = Duration::from_secs(10);
const PODS: usize = 50;
const MEMORY_GOAL_MIB: f64 = 48.0;
/// The kubectl that starts the pods.
const KUBECTL: u32 = 37;

pub(crate) fn measure(bench: &mut Bench) -> anyhow::Result<String> {
    let bare = idle_bare(bench)?;
    bench.cluster.power_on()?;
    bench.cluster.wait_ready(LIMIT, |_| {})?;
    let kubeconfig = bench.cluster.write_kubeconfig()?;
    let kubectl = Kubectl::new(&bench.cache, KUBECTL, &kubeconfig)?;
    std::thread::sleep(SETTLE);
    let process = bench.cluster.machine(0).process_id().context("the machine is off")?;
    let idle = idle_windows(process)?;
    let node = kubectl.run(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"])?;
    let memory = memory_table(&memory::measure(&kubectl, &node)?);
    let pods = pods(&kubectl)?;
    bench.cluster.shut_down(LIMIT)?;
    Ok(memory + &idle_table(&bare, &idle) + &pods)
}

fn idle_bare(bench: &Bench) -> anyhow::Result<Vec<f64>> {
    let bare = Bare::start(bench, "bare", "bare.stay")?;
    follow(&bare.console, |line| line.contains("bare: stays"))?;
    std::thread::sleep(SETTLE);
    idle_windows(bare.process.id())
}

/// Percent of one processor of the host, by window.
fn idle_windows(process: u32) -> anyhow::Result<Vec<f64>> {
    let mut windows = Vec::new();
    for _ in 0..IDLE_WINDOWS {
        let (began, before) = (Instant::now(), processor_seconds(process)?);
        std::thread::sleep(IDLE_WINDOW);
        let used = processor_seconds(process)? - before;
        windows.push(used / began.elapsed().as_secs_f64() * 100.0);
    }
    Ok(windows)
}

fn idle_table(bare: &[f64], podium: &[f64]) -> String {
    let mut table = Table::new(
        "Idle: percent of one of the host's processors that QEMU takes, least / **median** / most of six times 10 s",
        &["same kernel, sleeping program", "Podium, Ready, no pods"],
    );
    table.row(&[spread(bare, 2), spread(podium, 2)]);
    table.finish()
}

fn memory_table(used: &Memory) -> String {
    let mut table = Table::new(
        "Memory, idle with one pod: MiB, medians of five; processes by proportional set size",
        &["what", "MiB", "goal"],
    );
    let mut row = |name: &str, value: f64, goal: String| {
        table.row(&[name.to_owned(), format!("{value:.1}"), goal]);
    };
    for name in memory::PROCESSES {
        row(name, used.of(name), String::new());
    }
    row("these together", used.together(), judged(used.together(), MEMORY_GOAL_MIB, "MiB"));
    row(memory::SHIM, used.of(memory::SHIM), String::new());
    row("MemTotal − MemAvailable", used.taken(), String::new());
    row(memory::FILES, used.of(memory::FILES), String::new());
    table.finish()
}

/// A pod at a time, from `kubectl apply` to the watch that says Running, and gone again before the next.
fn pods(kubectl: &Kubectl) -> anyhow::Result<String> {
    let (watch, events) = watch(kubectl)?;
    let (mut from_apply, mut from_creation) = (Vec::new(), Vec::new());
    for number in 0..PODS {
        let name = format!("bench-{number}");
        let manifest = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  \
             - {{name: main, image: busybox, imagePullPolicy: IfNotPresent, command: [sleep, \"100000\"]}}\n"
        );
        let began = Instant::now();
        kubectl.feed(&["apply", "-f", "-"], &manifest)?;
        let created = wait_for(&events, &name, "ADDED", "Pending")?;
        let running = wait_for(&events, &name, "MODIFIED", "Running")?;
        from_apply.push((running - began).as_secs_f64());
        from_creation.push((running - created).as_secs_f64());
        kubectl.run(&["delete", "pod", &name, "--grace-period=0", "--timeout=60s"])?;
    }
    drop(watch);
    let mut table = Table::new(
        &format!("Pods: seconds until Running, image present, one at a time, {PODS} pods"),
        &["from", "p50", "p99"],
    );
    for (name, values) in [
        ("the start of `kubectl apply`", &from_apply),
        ("the watch's first event of the pod", &from_creation),
    ] {
        let cell = |share| format!("{:.2}", quantile(values, share));
        table.row(&[name.to_owned(), cell(0.5), cell(0.99)]);
    }
    Ok(table.finish())
}

/// An event of a pod as kubectl prints it, and when it came.
type Event = (Instant, String);

fn watch(kubectl: &Kubectl) -> anyhow::Result<(Child, mpsc::Receiver<Event>)> {
    let mut command = kubectl.command(&[
        "get",
        "pods",
        "--watch",
        "--output-watch-events",
        "--no-headers",
        "-o",
        // The columns are those of the watch's event, not of the pod in it.
        "custom-columns=T:.type,N:.object.metadata.name,P:.object.status.phase",
    ]);
    command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped());
    let mut child = Child::spawn(command)?;
    let output = child.take_stdout().context("kubectl has no output")?;
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if send.send((Instant::now(), line)).is_err() {
                return;
            }
        }
    });
    Ok((child, receive))
}

fn wait_for(
    events: &mpsc::Receiver<Event>,
    name: &str,
    kind: &str,
    phase: &str,
) -> anyhow::Result<Instant> {
    loop {
        let (at, line) =
            events.recv_timeout(LIMIT).with_context(|| format!("{name} {kind} {phase}"))?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [a, b, c] if *a == kind && *b == name && *c == phase => return Ok(at),
            [_, b, "Failed"] if *b == name => bail!("{name} failed"),
            _ => {}
        }
    }
}
