//! A machine that is up: what it takes when idle, and how fast it starts pods.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use podium_qemu_tests::kubectl::Kubectl;
use podium_qemu_tests::process::Child;

use crate::Bench;
use crate::boot::{Bare, follow};
use crate::figures::{Table, judged, median, processor_seconds, quantile, spread};

const LIMIT: Duration = Duration::from_secs(120);
/// Registration, the first leases and the kernel's own late work are over by then.
const SETTLE: Duration = Duration::from_secs(15);
const IDLE_WINDOWS: usize = 6;
const IDLE_WINDOW: Duration = Duration::from_secs(10);
const MEMORY_SAMPLES: usize = 5;
const PODS: usize = 50;
const MEMORY_GOAL_MIB: f64 = 48.0;
/// The kubectl that starts the pods.
const KUBECTL: u32 = 37;

/// Sees every process of the machine, and the machine's memory.
const PROBE: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: probe}
spec:
  hostPID: true
  hostNetwork: true
  terminationGracePeriodSeconds: 0
  containers:
  - {name: probe, image: busybox, command: [sleep, "100000"], securityContext: {privileged: true}}
"#;

/// Proportional set sizes (proc(5), smaps_rollup) by process name, then three lines of meminfo, in KiB.
const LOOK: &str = r#"
for p in /proc/[0-9]*; do
  pss=$(awk '/^Pss:/ {print $2}' $p/smaps_rollup 2>/dev/null)
  [ -n "$pss" ] && echo "$(cat $p/comm) ${p#/proc/} $pss"
done
awk '/^(MemTotal|MemAvailable|Shmem):/ {sub(":", "", $1); print $1, 0, $2}' /proc/meminfo
"#;

pub(crate) fn measure(bench: &mut Bench) -> anyhow::Result<String> {
    let bare = idle_bare(bench)?;
    bench.cluster.power_on()?;
    bench.cluster.wait_ready(LIMIT, |_| {})?;
    let kubeconfig = bench.cluster.write_kubeconfig()?;
    let kubectl = Kubectl::new(&bench.cache, KUBECTL, &kubeconfig)?;
    std::thread::sleep(SETTLE);
    let process = bench.cluster.machine(0).process_id().context("the machine is off")?;
    let idle = idle_windows(process)?;
    kubectl.feed(&["apply", "-f", "-"], PROBE)?;
    kubectl.run(&["wait", "--for=condition=Ready", "pod/probe", "--timeout=120s"])?;
    std::thread::sleep(SETTLE);
    let memory = memory(&kubectl)?;
    kubectl.run(&["delete", "pod/probe", "--timeout=60s"])?;
    let pods = pods(&kubectl)?;
    bench.cluster.shut_down(LIMIT)?;
    Ok(memory + &idle_table(&bare, &idle) + &pods)
}

fn idle_bare(bench: &Bench) -> anyhow::Result<Vec<f64>> {
    let bare = Bare::start(bench, "bare.stay")?;
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

fn memory(kubectl: &Kubectl) -> anyhow::Result<String> {
    let mut all: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..MEMORY_SAMPLES {
        let text = kubectl.feed(&["exec", "-i", "probe", "--", "sh"], LOOK)?;
        let mut sample: BTreeMap<&str, f64> = BTreeMap::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (name, process) =
                (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let kibibytes: f64 = words.next().and_then(|it| it.parse().ok()).unwrap_or_default();
            let name = match (name, process) {
                ("init", "1") => "`init`",
                ("init", _) => "`init net`",
                ("node", _) => "`node`",
                // libcontainer runs from a sealed copy of the program, which the kernel names so.
                ("shim" | "exe", _) => "`shim`, of one pod",
                ("MemTotal", _) => "total",
                ("MemAvailable", _) => "available",
                ("Shmem", _) => "of it the root file system and other tmpfs",
                _ => continue,
            };
            *sample.entry(name).or_default() += kibibytes / 1024.0;
        }
        for (name, value) in sample {
            all.entry(name).or_default().push(value);
        }
    }
    let value = |name: &str| all.get(name).map_or(0.0, |values| median(values));
    let mut table = Table::new(
        "Memory, idle with one pod: MiB, medians of five; processes by proportional set size",
        &["what", "MiB", "goal"],
    );
    let together = value("`init`") + value("`init net`") + value("`node`");
    for name in ["`init`", "`init net`", "`node`"] {
        table.row(&[name.to_owned(), format!("{:.1}", value(name)), String::new()]);
    }
    table.row(&[
        "these together".to_owned(),
        format!("{together:.1}"),
        judged(together, MEMORY_GOAL_MIB, "MiB"),
    ]);
    let shim = "`shim`, of one pod";
    table.row(&[shim.to_owned(), format!("{:.1}", value(shim)), String::new()]);
    let used = value("total") - value("available");
    table.row(&["MemTotal − MemAvailable".to_owned(), format!("{used:.1}"), String::new()]);
    let files = "of it the root file system and other tmpfs";
    table.row(&[files.to_owned(), format!("{:.1}", value(files)), String::new()]);
    Ok(table.finish())
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
        "custom-columns=N:.metadata.name,P:.status.phase",
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
