//! The machine that runs Redis is lost: its power, or its links. Redis is somewhere else soon, and never twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use podium_qemu_tests::cluster::api::is_ready;
use podium_qemu_tests::fault::Fault;
use podium_qemu_tests::links::{LinkFault, machine_name};
use podium_qemu_tests::node_api::Https;
use podium_qemu_tests::scenario::{PATIENCE, POD_LIMIT, Rig, Scenario};

use crate::ALL;
use crate::network::{other_than, redis_machine};

pub(crate) const SCENARIOS: [Scenario; 3] = [
    ("Redis answers again when its machine has no power", redis_survives_a_power_cut),
    ("Redis answers again when its machine is cut off", redis_survives_a_cut_link),
    ("a drain moves Redis under a reader", a_drain_moves_redis),
];

/// The issue's bound, for emulated machines.
const AWAY_MAX: Duration = Duration::from_secs(60);

/// Redis's list of pods.
const PODS: &str = "/api/v1/namespaces/default/pods?labelSelector=app%3Dredis";

/// 50 requests a second, by the clock, until there is `/tmp/stop`; then how many were answered, and how many were sent. Each
/// connection is for a hundred of them. Who does not hear that the server is gone gives up after five seconds, as programs do.
const READER: &str = r#"
cd /tmp
: > sent
now() { read up rest < /proc/uptime; up=${up%.*}${up#*.}; }
now; began=$up
while [ ! -e stop ]; do
  total=$(wc -c < sent); last=$((total + 100))
  while [ $total -lt $last ]; do
    now; due=$(((up - began) / 2)); pings=; dots=
    while [ $total -lt $due ]; do total=$((total + 1)); dots=$dots.; pings="${pings}PING
"; done
    echo -n "$pings" || break
    echo -n $dots >> sent; usleep 50000
  done | timeout 5 nc -w 2 redis-master 6379
done | grep -c PONG
wc -c < sent
"#;

/// Looks all the time how many replicas of Redis are Ready.
struct Watch {
    stop: Arc<AtomicBool>,
    most: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<()>,
}

impl Watch {
    fn start(api: Https) -> Self {
        let (stop, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, seen) = (Arc::clone(&stop), Arc::clone(&most));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // While machines come and go, some questions are not answered.
                if let Ok(list) = api.get(PODS).and_then(|answer| answer.json()) {
                    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
                    let ready = items.iter().filter(|pod| is_ready(pod)).count();
                    seen.fetch_max(ready, Ordering::Relaxed);
                }
                std::thread::park_timeout(Duration::from_millis(100));
            }
        });
        Self { stop, most, thread }
    }

    /// The most replicas that were Ready at once.
    fn end(self) -> anyhow::Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            bail!("the watcher has panicked");
        }
        Ok(self.most.load(Ordering::Relaxed))
    }
}

/// Puts the client on a machine that is not about to be lost, and returns the one that is.
fn prepare(rig: &mut Rig) -> anyhow::Result<u16> {
    rig.wait_for_answers(&ALL)?;
    let lost = redis_machine(rig)?;
    if rig.machine_of("client").ok() != Some(lost) {
        return Ok(lost);
    }
    rig.kubectl.run(&["delete", "pod", "client", "--now", POD_LIMIT])?;
    let manifest = podium_qemu_tests::scenario::CLIENT;
    let node = format!("spec:\n  nodeName: {}", machine_name(other_than(&[lost])?));
    rig.apply(&manifest.replace("spec:", &node))?;
    rig.kubectl.run(&["wait", "--for=condition=Ready", "pod/client", POD_LIMIT])?;
    Ok(lost)
}

fn loses(rig: &mut Rig, lose: &Fault, back: &Fault, lost: u16) -> anyhow::Result<()> {
    let watch = Watch::start(rig.cluster.api()?);
    rig.cluster.inject(lose)?;
    let away = Instant::now();
    // Before the cluster knows, the old replica is still the Service's; an answer can only come from a new one.
    let survivor = rig.wait_for_redis("redis-master", AWAY_MAX);
    println!(
        "{} lost; Redis answers after {:.1}s",
        machine_name(lost),
        away.elapsed().as_secs_f64()
    );
    survivor.context("Redis is gone")?;
    ensure!(redis_machine_but(rig, lost)? != lost, "it answers from the lost machine");
    rig.cluster.inject(back)?;
    rig.wait_for_answers(&ALL)?;
    rig.until("the old replica to be gone", |rig| Ok((rig.list(PODS)?.len() == 1).then_some(())))?;
    let most = watch.end()?;
    ensure!(most == 1, "{most} replicas were Ready at once");
    Ok(())
}

/// Where a replica is that is not on `lost`.
fn redis_machine_but(rig: &mut Rig, lost: u16) -> anyhow::Result<u16> {
    for pod in rig.list(PODS)? {
        let name = pod.pointer("/metadata/name").and_then(|it| it.as_str()).unwrap_or_default();
        let machine = rig.machine_of(name)?;
        if machine != lost && is_ready(&pod) {
            return Ok(machine);
        }
    }
    bail!("no replica is Ready elsewhere")
}

fn redis_survives_a_power_cut(rig: &mut Rig) -> anyhow::Result<()> {
    let lost = prepare(rig)?;
    loses(rig, &Fault::PowerOff(lost), &Fault::PowerOn(lost), lost)
}

fn redis_survives_a_cut_link(rig: &mut Rig) -> anyhow::Result<()> {
    let lost = prepare(rig)?;
    let (cut, heal) = (LinkFault::Isolate(lost), LinkFault::Heal(None));
    loses(rig, &Fault::Link(cut), &Fault::Link(heal), lost)
}

/// The example's one replica is away while it moves; what is shown is that it moves, and how many requests that costs.
fn a_drain_moves_redis(rig: &mut Rig) -> anyhow::Result<()> {
    let drained = prepare(rig)?;
    rig.exec(&["rm", "-f", "/tmp/sent", "/tmp/stop"])?;
    let kubectl = rig.kubectl.clone();
    let started = Instant::now();
    let reading =
        std::thread::spawn(move || kubectl.run(&["exec", "client", "--", "sh", "-c", READER]));
    rig.until("the reader's first requests", |rig| {
        Ok(rig.exec(&["cat", "/tmp/sent"])?.contains('.').then_some(()))
    })?;
    let node = machine_name(drained);
    rig.kubectl.run(&["drain", &node, "--ignore-daemonsets", "--force", "--timeout=300s"])?;
    rig.kubectl.run(&["rollout", "status", "deployment/redis-master", POD_LIMIT])?;
    rig.wait_for_redis("redis-master", PATIENCE)?;
    ensure!(redis_machine_but(rig, drained)? != drained, "Redis is still there");
    rig.exec(&["touch", "/tmp/stop"])?;
    let Ok(told) = reading.join() else { bail!("the reader has panicked") };
    let told = told?;
    let mut counts = told.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(answered)), Some(Ok(sent))) = (counts.next(), counts.next()) else {
        bail!("the reader says {told:?}")
    };
    println!(
        "drain under {:.0} requests a second: {} of {sent} failed",
        sent as f64 / started.elapsed().as_secs_f64(),
        sent.saturating_sub(answered)
    );
    ensure!(answered > 0 && answered <= sent, "{answered} answers to {sent} requests");
    rig.kubectl.run(&["uncordon", &node]).map(|_| ())
}
