//! Pods on different nodes reach each other, by name and by address, over an encrypted network with the right MTU.

use anyhow::{Context as _, ensure};
use podium_qemu_tests::links::{End, machine_name};
use podium_qemu_tests::registry::content;
use podium_qemu_tests::scenario::{POD_LIMIT, Rig, Scenario, project};

use crate::ALL;

pub(crate) const SCENARIOS: [Scenario; 6] = [
    ("the example runs on one node and its client on another", the_example_runs_beside_its_client),
    ("a pod finds a service on another node by name", a_pod_finds_a_service_by_name),
    ("a node reaches a pod of another node by the service", a_node_reaches_a_remote_pod),
    ("pods of every node reach those of every other", every_node_reaches_every_other),
    ("what fits the MTU passes whole and one byte more does not", the_mtu_is_right),
    ("nothing of the pods' traffic is seen in clear", nothing_is_seen_in_clear),
];

/// A pod with iputils' ping on a node.
fn pinger(machine: u16) -> String {
    let name = machine_name(machine);
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: ping-{name}}}
spec:
  nodeName: {name}
  terminationGracePeriodSeconds: 1
  containers:
  - {{name: shell, image: ping, imagePullPolicy: IfNotPresent, command: [sleep, '1000000']}}
"
    )
}

/// A pod with a shell on a node, and in its network if `host`.
fn shell(name: &str, machine: u16, host: bool) -> String {
    let node = machine_name(machine);
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeName: {node}
  hostNetwork: {host}
  terminationGracePeriodSeconds: 1
  containers:
  - {{name: shell, image: busybox, imagePullPolicy: IfNotPresent, command: [sleep, '1000000']}}
"
    )
}

/// The machine that runs Redis.
pub(crate) fn redis_machine(rig: &mut Rig) -> anyhow::Result<u16> {
    let name = rig.kubectl.run(&[
        "get",
        "pods",
        "-l",
        "app=redis",
        "--field-selector=status.phase=Running",
        "-o",
        "jsonpath={.items[0].metadata.name}",
    ])?;
    rig.machine_of(&name)
}

/// A machine that is none of `taken`.
pub(crate) fn other_than(taken: &[u16]) -> anyhow::Result<u16> {
    ALL.into_iter().find(|machine| !taken.contains(machine)).context("another machine")
}

fn the_example_runs_beside_its_client(rig: &mut Rig) -> anyhow::Result<()> {
    let example = project().join("examples/redis.yaml");
    rig.kubectl.run(&["apply", "-f", &example.display().to_string()])?;
    rig.kubectl.run(&["rollout", "status", "deployment/redis-master", POD_LIMIT])?;
    let server = redis_machine(rig)?;
    let client = other_than(&[server])?;
    rig.apply(&shell("client", client, false))?;
    rig.kubectl.run(&["wait", "--for=condition=Ready", "pod/client", POD_LIMIT])?;
    ensure!(rig.machine_of("client")? == client, "the client is where it was put");
    println!("Redis on {}, its client on {}", machine_name(server), machine_name(client));
    Ok(())
}

fn a_pod_finds_a_service_by_name(rig: &mut Rig) -> anyhow::Result<()> {
    let found = rig.exec(&["nslookup", "redis-master.default.svc.cluster.local"])?;
    ensure!(found.contains("10.96."), "{found}");
    ensure!(rig.redis("redis-master", "SET key value")? == "+OK");
    ensure!(rig.redis("redis-master", "GET key")? == "$5\nvalue");
    Ok(())
}

fn a_node_reaches_a_remote_pod(rig: &mut Rig) -> anyhow::Result<()> {
    let server = redis_machine(rig)?;
    let from = other_than(&[server])?;
    rig.apply(&shell("on-node", from, true))?;
    rig.kubectl.run(&["wait", "--for=condition=Ready", "pod/on-node", POD_LIMIT])?;
    let path = "jsonpath={.spec.clusterIP}";
    let address = rig.kubectl.run(&["get", "service", "redis-master", "-o", path])?;
    let script = format!("printf 'GET key\\r\\n' | nc -w 5 {address} 6379");
    let answer = rig.kubectl.run(&["exec", "on-node", "--", "sh", "-c", &script])?;
    ensure!(answer.replace('\r', "") == "$5\nvalue\n", "{answer:?}");
    rig.kubectl.run(&["delete", "pod", "on-node", "--wait=false"]).map(|_| ())
}

fn every_node_reaches_every_other(rig: &mut Rig) -> anyhow::Result<()> {
    let image = content::ping(&rig.cluster.layout().cache())?;
    rig.cluster.registry().context("the rig has a registry")?.push(&image)?;
    for machine in ALL {
        rig.apply(&pinger(machine))?;
    }
    for machine in ALL {
        let pod = format!("pod/ping-{}", machine_name(machine));
        rig.kubectl.run(&["wait", "--for=condition=Ready", &pod, POD_LIMIT])?;
    }
    for (from, to) in pairs() {
        let address = pod_address(rig, to)?;
        ping(rig, from, &["-c", "1", "-W", "10", &address])
            .with_context(|| format!("{} to {}", machine_name(from), machine_name(to)))?;
    }
    Ok(())
}

/// Ethernet's 1500 bytes, less WireGuard's 60 on IPv4; and of those 28 are the IPv4 and ICMP headers.
fn the_mtu_is_right(rig: &mut Rig) -> anyhow::Result<()> {
    let device = rig.exec(&["cat", "/sys/class/net/eth0/mtu"])?;
    let mtu: u32 = device.trim().parse().with_context(|| device.clone())?;
    ensure!(mtu == 1440, "the pods' MTU is {mtu}");
    let whole = (mtu - 28).to_string();
    let more = (mtu - 27).to_string();
    for (from, to) in pairs() {
        let address = pod_address(rig, to)?;
        let size = |size: &str| ["-c", "1", "-W", "10", "-M", "do", "-s", size].map(str::to_owned);
        let with = |size: [String; 8]| size.into_iter().chain([address.clone()]);
        let fits: Vec<String> = with(size(&whole)).collect();
        ping(rig, from, &fits.iter().map(String::as_str).collect::<Vec<_>>())?;
        let too_long: Vec<String> = with(size(&more)).collect();
        let refused = ping(rig, from, &too_long.iter().map(String::as_str).collect::<Vec<_>>());
        ensure!(refused.is_err(), "{more} bytes of data passed, with fragments forbidden");
    }
    Ok(())
}

fn nothing_is_seen_in_clear(rig: &mut Rig) -> anyhow::Result<()> {
    const MARKER: &str = "a-marker-that-nobody-else-sends";
    let machines = ALL.map(|machine| rig.cluster.port(End::Machine(machine)));
    let between = rig.cluster.switch().capture(machines)?;
    let all = machines.into_iter().chain([rig.cluster.switch().gateway_port()]);
    let everywhere = rig.cluster.switch().capture(all)?;
    for _ in 0..20 {
        ensure!(rig.redis("redis-master", &format!("SET marker {MARKER}"))? == "+OK");
    }
    ensure!(rig.redis("redis-master", "GET marker")?.contains(MARKER));
    ensure!(between.missed() == 0, "the capture is not whole");
    ensure!(!between.frames().is_empty(), "the pods' traffic did not cross the switch");
    let seen = between.with(MARKER.as_bytes());
    ensure!(seen.is_empty(), "{} frames show the marker: {:?}", seen.len(), seen.first());
    // And the capture would have seen it: what leaves the cluster leaves in clear.
    rig.exec(&["sh", "-c", &format!("nslookup {MARKER}.example.org 10.77.0.1 || true")])?;
    ensure!(!everywhere.with(MARKER.as_bytes()).is_empty(), "the capture sees nothing in clear");
    Ok(())
}

fn pairs() -> impl Iterator<Item = (u16, u16)> {
    let all = ALL.into_iter().flat_map(|from| ALL.map(move |to| (from, to)));
    all.filter(|(from, to)| from != to)
}

fn pod_address(rig: &Rig, machine: u16) -> anyhow::Result<String> {
    let pod = format!("ping-{}", machine_name(machine));
    rig.kubectl.run(&["get", "pod", &pod, "-o", "jsonpath={.status.podIP}"])
}

fn ping(rig: &Rig, from: u16, arguments: &[&str]) -> anyhow::Result<String> {
    let pod = format!("ping-{}", machine_name(from));
    rig.kubectl.run(&[&["exec", &pod, "--", "iputils-ping"], arguments].concat())
}
