//! What scenarios of several machines ask: which node does what, and what a machine says.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::Rig;
use crate::cluster::api::is_ready;
use crate::console::tail;
use crate::kubectl::Kubectl;
use crate::links::{machine_name, parse_machine};

/// More of a console than any scenario prints.
const CONSOLE_LINES: usize = 100_000;

impl Rig {
    /// A kubectl that asks one machine.
    ///
    /// # Errors
    /// The machine does not prove that it belongs to the cluster.
    pub fn kubectl_of(&mut self, machine: u16) -> anyhow::Result<Kubectl> {
        let kubeconfig = self.cluster.write_kubeconfig_of(machine)?;
        Kubectl::new(&self.cluster.layout().cache(), 37, &kubeconfig)
    }

    /// The items of a list that the API serves at `path`.
    ///
    /// # Errors
    /// The API does not answer, or with something else.
    pub fn list(&mut self, path: &str) -> anyhow::Result<Vec<Value>> {
        let mut answer = self.cluster.api()?.get(path)?.json()?;
        let items = answer["items"].as_array_mut().context("a list without items")?;
        Ok(std::mem::take(items))
    }

    /// The names of the nodes that are Ready.
    ///
    /// # Errors
    /// The API does not answer.
    pub fn ready_nodes(&mut self) -> anyhow::Result<BTreeSet<String>> {
        let nodes = self.list("/api/v1/nodes")?;
        Ok(nodes.iter().filter(|node| is_ready(node)).map(name).collect())
    }

    /// Waits until exactly these machines are Ready.
    ///
    /// # Errors
    /// [`super::PATIENCE`] has passed.
    pub fn wait_for_ready(&mut self, machines: &[u16]) -> anyhow::Result<()> {
        let wanted: BTreeSet<String> = machines.iter().copied().map(machine_name).collect();
        self.until(&format!("exactly {wanted:?} to be Ready"), |rig| {
            Ok((rig.ready_nodes()? == wanted).then_some(()))
        })
    }

    /// Waits until each of these machines answers from its own replica, and all of them are Ready. A Node stays Ready for a
    /// while after its machine is gone, so it alone does not tell that the machine is back.
    ///
    /// # Errors
    /// [`super::PATIENCE`] has passed.
    pub fn wait_for_answers(&mut self, machines: &[u16]) -> anyhow::Result<()> {
        for machine in machines {
            self.until(&format!("{} to answer", machine_name(*machine)), |rig| {
                let api = rig.cluster.api_of(*machine)?;
                api.get("/api/v1/namespaces/default")?.json().map(Some)
            })?;
        }
        self.wait_for_ready(machines)
    }

    /// The names of the machines that vote.
    ///
    /// # Errors
    /// The API does not answer.
    pub fn voters(&mut self) -> anyhow::Result<BTreeSet<String>> {
        let machines = self.list("/apis/podium.dev/v1/machines")?;
        let votes = |it: &&Value| it.pointer("/status/voter") == Some(&Value::Bool(true));
        Ok(machines.iter().filter(votes).map(name).collect())
    }

    /// The machine that leads.
    ///
    /// # Errors
    /// Nobody does within [`super::PATIENCE`].
    pub fn leader(&mut self) -> anyhow::Result<u16> {
        self.until("a leader", |rig| {
            let path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/podium-leader";
            let lease = rig.cluster.api()?.get(path)?.json()?;
            let holder = lease.pointer("/spec/holderIdentity").and_then(Value::as_str);
            holder.map(parse_machine).transpose()
        })
    }

    /// The machine on which a pod is.
    ///
    /// # Errors
    /// There is no such pod, or it is bound to no node.
    pub fn machine_of(&mut self, pod: &str) -> anyhow::Result<u16> {
        let path = format!("/api/v1/namespaces/default/pods/{pod}");
        let pod = self.cluster.api()?.get(&path)?.json()?;
        let node = pod.pointer("/spec/nodeName").and_then(Value::as_str);
        parse_machine(node.context("the pod is on no node")?)
    }

    /// All that a machine has printed since it was last switched on.
    pub fn console(&mut self, machine: u16) -> String {
        tail(&self.cluster.machine(machine).console(), CONSOLE_LINES)
    }

    /// Waits until a machine prints a line that holds all of `words`, and returns it.
    ///
    /// # Errors
    /// [`super::PATIENCE`] has passed.
    pub fn wait_for_line(&mut self, machine: u16, words: &[&str]) -> anyhow::Result<String> {
        let what = format!("{} to print a line with {words:?}", machine_name(machine));
        self.until(&what, |rig| {
            let console = rig.console(machine);
            let line = console.lines().rev().find(|line| words.iter().all(|it| line.contains(it)));
            Ok(line.map(str::to_owned))
        })
    }

    /// Shows that something stays as it is for `time`.
    ///
    /// # Errors
    /// `holds` says that it does not.
    pub fn throughout(
        &mut self,
        time: Duration,
        mut holds: impl FnMut(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            holds(self)?;
            std::thread::park_timeout(Duration::from_millis(500));
        }
        Ok(())
    }

    /// Cuts the power of all machines at once, as nearly as a host can.
    ///
    /// # Errors
    /// A QEMU cannot be killed.
    pub fn cut_all_power(&mut self) -> anyhow::Result<()> {
        // What is paused writes nothing more, so that no machine lives to see another die.
        let on = self.cluster.on();
        for index in &on {
            self.cluster.machine(*index).pause()?;
        }
        for index in on {
            self.cluster.machine(index).cut_power()?;
        }
        Ok(())
    }

    /// Asks a Redis behind `host` from within the pod `client`: a line of its protocol in, its answer out.
    ///
    /// # Errors
    /// The pod cannot be reached, or Redis does not answer.
    pub fn redis(&self, host: &str, command: &str) -> anyhow::Result<String> {
        let script = format!("printf '{command}\\r\\n' | nc -w 3 {host} 6379");
        let answer = self.exec(&["sh", "-c", &script])?.replace('\r', "");
        ensure!(!answer.is_empty(), "no answer to {command}");
        Ok(answer.trim_end().to_owned())
    }

    /// Waits until Redis answers, and tells how long it took.
    ///
    /// # Errors
    /// `limit` has passed.
    pub fn wait_for_redis(&self, host: &str, limit: Duration) -> anyhow::Result<Duration> {
        let started = Instant::now();
        loop {
            match self.redis(host, "PING") {
                Ok(answer) if answer == "+PONG" => return Ok(started.elapsed()),
                other if started.elapsed() > limit => {
                    bail!("Redis does not answer after {limit:?}: {other:?}");
                }
                _ => std::thread::park_timeout(Duration::from_millis(200)),
            }
        }
    }
}

/// The name in an object's metadata.
fn name(object: &Value) -> String {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned()
}
