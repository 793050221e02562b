//! `podium status`: a picture of the cluster. Machines and links as the rig sees them; roles, health and pods as the API tells
//! them; and where the API is not there, what each machine last said on its console.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::bail;
use podium_qemu_tests::cluster::api::is_ready;
use podium_qemu_tests::credentials::Credentials;
use podium_qemu_tests::layout::Layout;
use podium_qemu_tests::node_api::{Https, cluster_authority};
use serde_json::Value;

use crate::control::{Connection, Event, MachineStatus, Request, RigStatus};

/// Prints it.
pub(crate) fn run(dir: &Path, name: &str) -> anyhow::Result<()> {
    let layout = Layout::new(dir, name)?;
    let Some(mut connection) = Connection::open(&layout.cluster())? else {
        println!("cluster {name} is not up");
        return Ok(());
    };
    connection.send(&Request::Status)?;
    let Event::Status(rig) = connection.event()? else { bail!("the supervisor did not answer") };
    let credentials = Credentials::open(&layout.cluster())?;
    let cluster = api(&rig, &credentials).and_then(|api| Objects::read(&api));
    print!("{}", draw(name, &rig, cluster.as_ref().ok()));
    if let Err(error) = cluster {
        println!("\nthe API does not answer: {error:#}");
    }
    Ok(())
}

fn api(rig: &RigStatus, credentials: &Credentials) -> anyhow::Result<Https> {
    if !rig.machines.iter().any(|machine| machine.on) {
        bail!("every machine is off")
    }
    let authority = cluster_authority(rig.api, credentials.token())?;
    let (certificate, key) = (credentials.certificate_pem()?, credentials.key_pem()?);
    Https::with_client(rig.api, "127.0.0.1", &authority, &certificate, &key)
}

/// What the API tells, by name.
#[derive(Debug, Default)]
struct Objects {
    nodes: BTreeMap<String, Value>,
    machines: BTreeMap<String, Value>,
    pods: Vec<Value>,
    leader: Option<String>,
}

impl Objects {
    fn read(api: &Https) -> anyhow::Result<Self> {
        let list = |path: &str| -> anyhow::Result<Vec<Value>> {
            let mut answer = api.get(path)?.json()?;
            Ok(answer["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
        };
        let by_name = |items: Vec<Value>| {
            items.into_iter().map(|it| (text(&it, "/metadata/name").to_owned(), it)).collect()
        };
        let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/podium-leader";
        // There may be no leader, and then there is no lease.
        let lease = api.get(lease).and_then(|answer| answer.json()).ok();
        Ok(Self {
            nodes: by_name(list("/api/v1/nodes")?),
            machines: by_name(list("/apis/podium.dev/v1/machines")?),
            pods: list("/api/v1/pods")?,
            leader: lease.map(|lease| text(&lease, "/spec/holderIdentity").to_owned()),
        })
    }

    fn role(&self, name: &str) -> &'static str {
        let votes = self.machines.get(name).and_then(|it| it.pointer("/status/voter"));
        match votes.and_then(Value::as_bool) {
            _ if self.leader.as_deref() == Some(name) => "leader",
            Some(true) => "voter",
            Some(false) => "worker",
            None => "-",
        }
    }

    fn health(&self, name: &str) -> String {
        let Some(node) = self.nodes.get(name) else { return "no node".to_owned() };
        let ready = if is_ready(node) { "Ready" } else { "NotReady" };
        let cordoned = node.pointer("/spec/unschedulable") == Some(&Value::Bool(true));
        if cordoned { format!("{ready}, cordoned") } else { ready.to_owned() }
    }

    fn pods_on<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Value> {
        self.pods.iter().filter(move |pod| text(pod, "/spec/nodeName") == name)
    }
}

/// The whole picture, as lines.
fn draw(name: &str, rig: &RigStatus, objects: Option<&Objects>) -> String {
    let on = rig.machines.iter().filter(|machine| machine.on && !machine.paused).count();
    let mut head = format!("cluster {name}: {on} of {} machines on", rig.machines.len());
    if let Some(objects) = objects {
        let ready = objects.nodes.values().filter(|node| is_ready(node)).count();
        head += &format!(", {ready} of {} nodes Ready", objects.nodes.len());
        if let Some(leader) = &objects.leader {
            head += &format!(", {leader} leads");
        }
    }
    let mut out = vec![head];
    for machine in &rig.machines {
        out.push(String::new());
        out.extend(draw_machine(machine, objects));
    }
    let elsewhere = objects.map(|objects| strangers(rig, objects)).unwrap_or_default();
    for node in elsewhere {
        out.push(String::new());
        out.push(node);
    }
    if let Some(objects) = objects {
        let waiting: Vec<_> = objects.pods_on("").map(draw_pod).collect();
        if !waiting.is_empty() {
            out.extend([String::new(), "on no node".to_owned()]);
            out.extend(branches(&waiting));
        }
    }
    if !rig.links.is_empty() {
        out.extend([String::new(), "links that are not good".to_owned()]);
        out.extend(branches(&rig.links));
    }
    out.join("\n") + "\n"
}

fn draw_machine(machine: &MachineStatus, objects: Option<&Objects>) -> Vec<String> {
    let power = match (machine.on, machine.paused) {
        (false, _) => "off",
        (true, true) => "paused",
        (true, false) => "on",
    };
    let MachineStatus { name, address, .. } = machine;
    let mut head = format!("{name:5} {address:14} {power:7}");
    let mut under = Vec::new();
    if let Some(objects) = objects {
        head += &format!(" {:7} {}", objects.role(name), objects.health(name));
        under.extend(objects.pods_on(name).map(draw_pod));
    }
    if let Some(report) =
        machine.report.as_ref().filter(|it| machine.on && !it.starts_with("ready"))
    {
        under.insert(0, format!("says: {report}"));
    }
    [head.trim_end().to_owned()].into_iter().chain(branches(&under)).collect()
}

/// Nodes that are none of the rig's machines.
fn strangers(rig: &RigStatus, objects: &Objects) -> Vec<String> {
    let names = objects.nodes.keys();
    let strange = names.filter(|name| rig.machines.iter().all(|machine| machine.name != **name));
    let draw = |name: &String| format!("{name}  {} {}", objects.role(name), objects.health(name));
    strange.map(draw).collect()
}

fn draw_pod(pod: &Value) -> String {
    let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
    let statuses = statuses.map(Vec::as_slice).unwrap_or_default();
    let ready = statuses.iter().filter(|it| it["ready"] == true).count();
    let restarts: i64 = statuses.iter().filter_map(|it| it["restartCount"].as_i64()).sum();
    let ends = pod.pointer("/metadata/deletionTimestamp").is_some();
    let mut waiting = statuses.iter().map(|it| text(it, "/state/waiting/reason"));
    let waiting = waiting.rfind(|reason| !reason.is_empty());
    let phase = if ends { "Terminating" } else { waiting.unwrap_or(text(pod, "/status/phase")) };
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array).map_or(0, Vec::len);
    let mut line = format!(
        "{}/{}  {phase}  {ready}/{containers}  {}",
        text(pod, "/metadata/namespace"),
        text(pod, "/metadata/name"),
        text(pod, "/status/podIP"),
    );
    if restarts > 0 {
        line += &format!("  {restarts} restarts");
    }
    line.trim_end().to_owned()
}

/// Hangs lines under a head.
fn branches(lines: &[String]) -> impl Iterator<Item = String> {
    let last = lines.len().saturating_sub(1);
    lines.iter().enumerate().map(move |(index, line)| {
        let branch = if index == last { "└─" } else { "├─" };
        format!("  {branch} {line}")
    })
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn machine(index: u8, on: bool, report: &str) -> MachineStatus {
        MachineStatus {
            name: format!("n{index}"),
            on,
            paused: false,
            address: std::net::Ipv4Addr::new(10, 77, 0, 9 + index),
            api: ([127, 0, 0, 1], 6443).into(),
            process: None,
            report: Some(report.to_owned()),
        }
    }

    fn rig() -> RigStatus {
        RigStatus {
            machines: vec![machine(1, true, "ready"), machine(2, false, "waiting for 1 more")],
            links: vec!["n1 → n2: cut".to_owned()],
            api: ([127, 0, 0, 1], 6443).into(),
        }
    }

    #[test]
    fn without_the_api_the_consoles_speak() {
        let mut rig = rig();
        rig.machines[1].on = true;
        rig.links.clear();
        let expected = "\
cluster demo: 2 of 2 machines on

n1    10.77.0.10     on

n2    10.77.0.11     on
  └─ says: waiting for 1 more
";
        assert_eq!(draw("demo", &rig, None), expected);
    }

    #[test]
    fn the_picture_has_nodes_roles_pods_health_and_links() {
        let node = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
        let pod = json!({
            "metadata": { "namespace": "default", "name": "redis" },
            "spec": { "nodeName": "n1", "containers": [{}] },
            "status": {
                "phase": "Running", "podIP": "10.244.0.2",
                "containerStatuses": [{ "ready": true, "restartCount": 2 }],
            },
        });
        let pending = json!({
            "metadata": { "namespace": "default", "name": "late" },
            "spec": { "containers": [{}] },
            "status": { "phase": "Pending" },
        });
        let votes = json!({ "status": { "voter": true } });
        let objects = Objects {
            nodes: [("n1".to_owned(), node), ("n2".to_owned(), json!({}))].into(),
            machines: [("n1".to_owned(), votes.clone()), ("n2".to_owned(), votes)].into(),
            pods: vec![pod, pending],
            leader: Some("n1".to_owned()),
        };
        let expected = "\
cluster demo: 1 of 2 machines on, 1 of 2 nodes Ready, n1 leads

n1    10.77.0.10     on      leader  Ready
  └─ default/redis  Running  1/1  10.244.0.2  2 restarts

n2    10.77.0.11     off     voter   NotReady

on no node
  └─ default/late  Pending  0/1

links that are not good
  └─ n1 → n2: cut
";
        assert_eq!(draw("demo", &rig(), Some(&objects)), expected);
    }
}
