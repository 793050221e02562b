//! All machines lose their power in one instant, and what they knew is there when they are back, whatever their clocks and
//! addresses are then.

use anyhow::{Context as _, ensure};
use podium_qemu_tests::fault::Fault;
use podium_qemu_tests::scenario::{CLIENT, POD_LIMIT, Rig, Scenario};
use serde_json::Value;

use crate::ALL;

pub(crate) const SCENARIOS: [Scenario; 3] = [
    ("all machines lose their power and nothing is lost", nothing_is_lost),
    ("clocks that are wrong keep nobody apart", clocks_may_be_wrong),
    ("machines with other addresses find each other", addresses_may_change),
];

/// What must be the same afterwards.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    service: Value,
    deployment: Value,
    nodes: Vec<Value>,
}

impl Kept {
    fn read(rig: &mut Rig) -> anyhow::Result<Self> {
        let mut get = |path: &str| rig.cluster.api()?.get(path)?.json();
        let service = get("/api/v1/namespaces/default/services/redis-master")?;
        let deployment = get("/apis/apps/v1/namespaces/default/deployments/redis-master")?;
        let identity = |it: &Value| {
            serde_json::json!([it["metadata"]["name"], it["metadata"]["uid"], it["spec"]])
        };
        let nodes = rig.list("/api/v1/nodes")?;
        Ok(Self {
            service: identity(&service),
            deployment: identity(&deployment),
            nodes: nodes
                .iter()
                .map(|it| serde_json::json!([it["metadata"]["uid"], it["spec"]["podCIDR"]]))
                .collect(),
        })
    }
}

/// Cuts all power under a writer, does `change`, and switches everything on again.
fn off_and_on(
    rig: &mut Rig,
    change: impl FnOnce(&mut Rig) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    rig.wait_for_answers(&ALL)?;
    // It has no controller: a machine that was taken for dead has taken it along.
    if rig.machine_of("client").is_err() {
        rig.apply(CLIENT)?;
    }
    rig.kubectl.run(&["wait", "--for=condition=Ready", "pod/client", POD_LIMIT])?;
    let before = Kept::read(rig)?;
    let acknowledged = write(rig)?;
    rig.cut_all_power()?;
    change(rig)?;
    rig.cluster.power_on()?;
    rig.wait_ready()?;
    rig.wait_for_answers(&ALL)?;
    let revision = revision(rig)?;
    ensure!(revision >= acknowledged, "revision {revision} after {acknowledged}");
    ensure!(Kept::read(rig)? == before, "{:?} is not {before:?}", Kept::read(rig)?);
    rig.kubectl.run(&["rollout", "status", "deployment/redis-master", POD_LIMIT])?;
    rig.kubectl.run(&["wait", "--for=condition=Ready", "pod/client", POD_LIMIT])?;
    rig.wait_for_redis("redis-master", podium_qemu_tests::scenario::PATIENCE)?;
    Ok(())
}

/// The revision of a write that was acknowledged just now.
fn write(rig: &mut Rig) -> anyhow::Result<u64> {
    let object = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: last}\ndata: {key: value}\n";
    rig.kubectl.run(&["delete", "configmap", "last", "--ignore-not-found"])?;
    rig.kubectl.feed(&["create", "-f", "-"], object)?;
    revision(rig)
}

fn revision(rig: &mut Rig) -> anyhow::Result<u64> {
    let last = rig.cluster.api()?.get("/api/v1/namespaces/default/configmaps/last")?.json()?;
    let list = rig.cluster.api()?.get("/api/v1/namespaces/default/configmaps")?.json()?;
    ensure!(last["data"]["key"] == "value", "{last}");
    let revision = list.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    Ok(revision.context("a list has a revision")?.parse()?)
}

fn nothing_is_lost(rig: &mut Rig) -> anyhow::Result<()> {
    off_and_on(rig, |_| Ok(()))
}

fn clocks_may_be_wrong(rig: &mut Rig) -> anyhow::Result<()> {
    let ahead = in_thirty_days()?;
    off_and_on(rig, |rig| {
        for machine in ALL {
            rig.cluster.inject(&Fault::Clock(machine, Some(ahead.clone())))?;
        }
        rig.cluster.inject(&Fault::Clock(1, Some("1970-01-01".to_owned())))
    })?;
    rig.wait_for_line(1, &["clock", "build"]).map(|_| ())
}

/// And the clocks are right again, which is as much of a jump.
fn addresses_may_change(rig: &mut Rig) -> anyhow::Result<()> {
    off_and_on(rig, |rig| {
        rig.cluster.inject(&Fault::Readdress)?;
        ALL.into_iter().try_for_each(|machine| rig.cluster.inject(&Fault::Clock(machine, None)))
    })?;
    let address = rig.cluster.address(0).to_string();
    ensure!(address.starts_with("10.77.0.1") && address != "10.77.0.10", "{address}");
    Ok(())
}

/// As QEMU's `-rtc base=` takes it.
fn in_thirty_days() -> anyhow::Result<String> {
    let mut date = std::process::Command::new("date");
    date.args(["--utc", "--date=30 days", "+%Y-%m-%dT%H:%M:%S"]);
    Ok(String::from_utf8(podium_qemu_tests::debian::run(date)?)?.trim().to_owned())
}
