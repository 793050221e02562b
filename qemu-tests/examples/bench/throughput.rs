//! From a pod on one machine to a pod on another, by each way of the pod network, next to the same machines without one.

use anyhow::Context as _;
use podium_init::config::document::Document;
use podium_qemu_tests::ClusterOptions;
use podium_qemu_tests::links::machine_name;
use podium_qemu_tests::registry::content;
use podium_qemu_tests::scenario::{POD_LIMIT, Rig};
use serde_json::Value;

use crate::Bench;
use crate::figures::{Table, median, spread};
use crate::guest::LIMIT;

const ROUNDS: usize = 5;
const SECONDS: &str = "3";

/// A server on the first machine and a client on the second, in the pod network and in the machines' own.
const PODS: [(&str, u16, bool); 4] = [
    ("server", 0, false),
    ("client", 1, false),
    ("host-server", 0, true),
    ("host-client", 1, true),
];

/// A way of the pod network, and what sets it.
type Overlay = (&'static str, fn(&mut Document));

pub(crate) fn measure(bench: &mut Bench) -> anyhow::Result<String> {
    let overlays: [Overlay; 3] = [
        ("WireGuard", |config| config.cluster.overlay = Some("wireguard".to_owned())),
        ("VXLAN", |config| config.cluster.overlay = Some("vxlan".to_owned())),
        ("routes", |config| config.cluster.overlay = Some("routes".to_owned())),
    ];
    let mut table = Table::new(
        "Pod to pod between two machines, TCP, one stream: Mbit/s, least / **median** / most of five",
        &["", "pod network", "machines' own network, same machines", "ratio of the medians"],
    );
    for (name, adjust) in overlays {
        let options = ClusterOptions {
            adjust,
            ..bench.options(&format!("bench-{}", name.to_lowercase()), 2)?
        };
        let mut rig = Rig::boot(&options)?;
        let (mut pods, mut hosts) = (Vec::new(), Vec::new());
        prepare(&mut rig)?;
        for round in 1..=ROUNDS {
            pods.push(transfer(&rig, "client", "server")?);
            hosts.push(transfer(&rig, "host-client", "host-server")?);
            eprintln!(
                "throughput: {name}, round {round} of {ROUNDS}: {:.0} and {:.0} Mbit/s",
                median(&pods),
                median(&hosts)
            );
        }
        rig.cluster.shut_down(LIMIT)?;
        let ratio = format!("{:.2}", median(&pods) / median(&hosts));
        table.row(&[name.to_owned(), spread(&pods, 0), spread(&hosts, 0), ratio]);
    }
    Ok(table.finish())
}

fn prepare(rig: &mut Rig) -> anyhow::Result<()> {
    let image = content::iperf(&rig.cluster.layout().cache())?;
    rig.cluster.registry().context("the rig has a registry")?.push(&image)?;
    for (name, machine, host) in PODS {
        // On the machines' network the other server has its port already, if it is on this machine.
        let port = if host { 5202 } else { 5201 };
        rig.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  nodeName: {}\n  hostNetwork: {host}\n  \
             terminationGracePeriodSeconds: 0\n  containers:\n  - {{name: main, image: iperf3, command: [iperf3, -s, -p, '{port}']}}\n",
            machine_name(machine)
        ))?;
    }
    for (name, ..) in PODS {
        let pod = format!("pod/{name}");
        rig.kubectl.run(&["wait", "--for=condition=Ready", &pod, POD_LIMIT])?;
    }
    Ok(())
}

/// Mbit/s that the server got.
fn transfer(rig: &Rig, client: &str, server: &str) -> anyhow::Result<f64> {
    let address = rig.kubectl.run(&["get", "pod", server, "-o", "jsonpath={.status.podIP}"])?;
    let port = if server.starts_with("host") { "5202" } else { "5201" };
    let command = ["iperf3", "-J", "-t", SECONDS, "-c", address.trim(), "-p", port];
    let report = rig.kubectl.run(&[&["exec", client, "--"], command.as_slice()].concat())?;
    let report: Value = serde_json::from_str(&report).context("iperf3's report")?;
    let bits = report.pointer("/end/sum_received/bits_per_second").and_then(Value::as_f64);
    Ok(bits.context("iperf3 reports no throughput")? / 1e6)
}
