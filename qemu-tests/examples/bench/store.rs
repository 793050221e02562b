//! Commits a second: the store's own example, and etcd as Debian has it, in turns on one disk.
//!
//! What is alike: 1 and 3 members on this machine, 1 and 64 clients that wait for each answer, values of 1 KiB, each commit on the
//! disk before it is acknowledged. What is not: the store's members and clients are one process and call each other; etcd's are
//! processes that speak gRPC over the loopback. The last column says what etcd's clients took of the processors.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use podium_qemu_tests::debian;
use podium_qemu_tests::process::Child;

use crate::Bench;
use crate::etcd::{self, Load};
use crate::figures::{Table, processor_seconds, spread};

const ROUNDS: usize = 5;
const SECONDS: u64 = 2;
const CLIENTS: [usize; 2] = [1, 64];
const MEMBERS: [usize; 2] = [1, 3];
/// Two ports for each member.
const FIRST_PORT: u16 = 22379;

/// By members and clients: commits a second, and the 99th percentile of one commit in milliseconds.
#[derive(Default)]
struct Rates {
    commits: Vec<f64>,
    p99: Vec<f64>,
    client_share: Vec<f64>,
}

type Results = BTreeMap<(usize, usize), Rates>;

pub(crate) fn measure(bench: &mut Bench) -> anyhow::Result<String> {
    let tree = debian::unpack(&bench.cache, "etcd-server", &["etcd-server"])?;
    let program = debian::resolve(&tree, "usr/bin/etcd")?;
    let folder = bench.folder.join("store");
    let (mut ours, mut theirs) = (Results::new(), Results::new());
    for _ in 0..ROUNDS {
        measure_ours(&bench.programs.join("examples/commit_rate"), &folder, &mut ours)?;
        for members in MEMBERS {
            measure_etcd(&program, &folder, members, &mut theirs)?;
        }
    }
    let _ = std::fs::remove_dir_all(&folder);
    let mut table = Table::new(
        "Store: commits a second, least / **median** / most of five rounds, and the median of each round's p99",
        &[
            "members",
            "clients",
            "Podium's store",
            "p99",
            "etcd 3.4",
            "p99",
            "etcd's clients' processor time",
        ],
    );
    for (key, rates) in &ours {
        let other = theirs.get(key).context("etcd was not measured")?;
        let milliseconds = |values: &[f64]| format!("{:.1} ms", crate::figures::median(values));
        table.row(&[
            key.0.to_string(),
            key.1.to_string(),
            spread(&rates.commits, 0),
            milliseconds(&rates.p99),
            spread(&other.commits, 0),
            milliseconds(&other.p99),
            format!("{:.0} % of one", crate::figures::median(&other.client_share) * 100.0),
        ]);
    }
    Ok(table.finish())
}

fn measure_ours(program: &Path, folder: &Path, results: &mut Results) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut command = Command::new(program);
    command.arg(folder).arg(SECONDS.to_string()).env("COMMIT_RATE_PLAIN", "1");
    let text = String::from_utf8(debian::run(command)?)?;
    for line in text.lines() {
        let numbers: Vec<f64> =
            line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let &[members, clients, rate, _, p99] = numbers.as_slice() else { continue };
        let rates = results.entry((members as usize, clients as usize)).or_default();
        rates.commits.push(rate);
        rates.p99.push(p99);
    }
    ensure!(results.len() == MEMBERS.len() * CLIENTS.len(), "commit_rate printed:\n{text}");
    Ok(())
}

fn measure_etcd(
    program: &Path,
    folder: &Path,
    members: usize,
    results: &mut Results,
) -> anyhow::Result<()> {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder)?;
    let port =
        |index: usize, kind: u16| FIRST_PORT + 2 * u16::try_from(index).unwrap_or_default() + kind;
    let peers: Vec<String> =
        (0..members).map(|index| format!("m{index}=http://127.0.0.1:{}", port(index, 1))).collect();
    let mut processes = Vec::new();
    for index in 0..members {
        let (client, peer) = (
            format!("http://127.0.0.1:{}", port(index, 0)),
            format!("http://127.0.0.1:{}", port(index, 1)),
        );
        let mut command = Command::new(program);
        command
            .args(["--name", &format!("m{index}"), "--data-dir"])
            .arg(folder.join(index.to_string()))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args([
                "--initial-cluster",
                &peers.join(","),
                "--log-level",
                "error",
                "--logger",
                "zap",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join(format!("{index}.log")))?);
        processes.push(Child::spawn(command)?);
    }
    let ports: Vec<u16> = (0..members).map(|index| port(index, 0)).collect();
    for clients in CLIENTS {
        let own = std::process::id();
        let before = processor_seconds(own)?;
        let load = Load { ports: ports.clone(), clients, span: Duration::from_secs(SECONDS) };
        let times = etcd::put(&load)?;
        let used = processor_seconds(own)? - before;
        let rates = results.entry((members, clients)).or_default();
        rates.commits.push(times.len() as f64 / SECONDS as f64);
        rates.p99.push(crate::figures::quantile(&times, 0.99));
        rates.client_share.push(used / SECONDS as f64);
    }
    Ok(())
}
