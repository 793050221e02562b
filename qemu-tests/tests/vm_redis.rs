//! One machine from a blank disk: the example runs on it with stock kubectl, and survives what machines survive.
//!
//! The scenarios share one booted machine, because booting an emulated one is what takes the time. They run in order; each is a
//! function whose name is its claim.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use podium_qemu_tests::kubectl::Kubectl;
use podium_qemu_tests::layout::Layout;
use podium_qemu_tests::{Cluster, ClusterOptions};

const BOOT_LIMIT: Duration = Duration::from_secs(300);
const POD_LIMIT: &str = "--timeout=300s";

const CLIENT: &str = "
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: shell, image: busybox, imagePullPolicy: IfNotPresent, command: [sleep, '1000000']}
";

/// One claim.
type Scenario = fn(&mut Rig) -> anyhow::Result<()>;

struct Rig {
    cluster: Cluster,
    kubectl: Kubectl,
}

fn main_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl Rig {
    fn boot() -> anyhow::Result<Self> {
        let image = std::env::var_os("PODIUM_IMAGE")
            .context("PODIUM_IMAGE names the image's folder (make vm sets it)")?;
        let layout = Layout::new(&main_folder().join(".podium"), "vm-redis")?;
        // A blank disk, whatever an earlier run has left.
        let _ = std::fs::remove_dir_all(layout.cluster());
        let mut cluster = Cluster::prepare(&ClusterOptions::new(layout, image.into()))?;
        let started = Instant::now();
        cluster.power_on()?;
        cluster.wait_ready(BOOT_LIMIT, |_| {})?;
        println!("blank disk to Ready: {:.1}s", started.elapsed().as_secs_f64());
        let kubeconfig = cluster.write_kubeconfig()?;
        let kubectl = Kubectl::new(&cluster.layout().cache(), 37, &kubeconfig)?;
        Ok(Self { cluster, kubectl })
    }

    fn exec(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.kubectl.run(&[&["exec", "client", "--"], arguments].concat())
    }

    /// Runs one scenario and says how long it took.
    fn scenario(&mut self, name: &str, run: Scenario) -> anyhow::Result<()> {
        let started = Instant::now();
        run(self).with_context(|| format!("{name}\n{}", self.cluster.consoles()))?;
        println!("{name}: {:.1}s", started.elapsed().as_secs_f64());
        Ok(())
    }
}

fn the_example_comes_to_run(rig: &mut Rig) -> anyhow::Result<()> {
    let example = main_folder().join("examples/redis.yaml");
    rig.kubectl.run(&["apply", "-f", &example.display().to_string()])?;
    rig.kubectl.feed(&["apply", "-f", "-"], CLIENT)?;
    rig.kubectl.run(&["rollout", "status", "deployment/redis-master", POD_LIMIT])?;
    rig.kubectl.run(&["wait", "--for=condition=Ready", "pod/client", POD_LIMIT])?;
    let described = rig.kubectl.run(&["describe", "pods", "-l", "app=redis"])?;
    for reason in ["Scheduled", "Pulled", "Created", "Started"] {
        ensure!(described.contains(reason), "describe does not show {reason}:\n{described}");
    }
    Ok(())
}

fn a_pod_finds_the_service_by_name_and_uses_it(rig: &mut Rig) -> anyhow::Result<()> {
    let found = rig.exec(&["nslookup", "redis-master.default.svc.cluster.local"])?;
    ensure!(found.contains("10.96."), "{found}");
    let answer = rig.exec(&[
        "sh",
        "-c",
        r"printf 'SET key value\r\nGET key\r\n' | nc -w 10 redis-master 6379",
    ])?;
    ensure!(answer.replace('\r', "") == "+OK\n$5\nvalue\n", "{answer:?}");
    Ok(())
}

fn exec_has_exit_codes_and_input(rig: &mut Rig) -> anyhow::Result<()> {
    let failed = rig.kubectl.try_run(&["exec", "client", "--", "sh", "-c", "exit 7"], "")?;
    ensure!(failed.status.code() == Some(7), "{failed:?}");
    let echoed = rig.kubectl.feed(&["exec", "-i", "client", "--", "cat"], "through the pod")?;
    ensure!(echoed == "through the pod", "{echoed:?}");
    Ok(())
}

fn logs_are_what_was_written(rig: &mut Rig) -> anyhow::Result<()> {
    let writer = "
apiVersion: v1
kind: Pod
metadata: {name: writer}
spec:
  restartPolicy: Never
  containers:
  - {name: shell, image: busybox, imagePullPolicy: IfNotPresent, command: [sh, -c, 'seq 1 2000; printf end']}
";
    rig.kubectl.feed(&["apply", "-f", "-"], writer)?;
    rig.kubectl.run(&[
        "wait",
        "--for=jsonpath={.status.phase}=Succeeded",
        "pod/writer",
        POD_LIMIT,
    ])?;
    let expected: String =
        (1..=2000).map(|line| format!("{line}\n")).chain(["end".to_owned()]).collect();
    let logs = rig.kubectl.run(&["logs", "writer"])?;
    ensure!(logs == expected, "{} bytes of log, not {}", logs.len(), expected.len());
    Ok(())
}

fn a_pod_over_its_memory_limit_is_killed_alone(rig: &mut Rig) -> anyhow::Result<()> {
    let eater = "
apiVersion: v1
kind: Pod
metadata: {name: eater}
spec:
  restartPolicy: Never
  containers:
  - name: shell
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'tail -c 1000000000 /dev/zero']
    resources: {limits: {memory: 32Mi}}
";
    rig.kubectl.feed(&["apply", "-f", "-"], eater)?;
    rig.kubectl.run(&["wait", "--for=jsonpath={.status.phase}=Failed", "pod/eater", POD_LIMIT])?;
    let path = "jsonpath={.status.containerStatuses[0].state.terminated.reason}";
    let reason = rig.kubectl.run(&["get", "pod", "eater", "-o", path])?;
    ensure!(reason == "OOMKilled", "{reason}");
    rig.exec(&["true"]).context("the other pod still runs")?;
    Ok(())
}

fn undo_brings_the_former_template_back(rig: &mut Rig) -> anyhow::Result<()> {
    let revision = |rig: &Rig| {
        rig.kubectl.run(&[
            "get",
            "deployment",
            "redis-master",
            "-o",
            "jsonpath={.spec.template.metadata.labels.round}",
        ])
    };
    let patch = r#"{"spec":{"template":{"metadata":{"labels":{"round":"two"}}}}}"#;
    rig.kubectl.run(&["patch", "deployment", "redis-master", "-p", patch])?;
    rig.kubectl.run(&["rollout", "status", "deployment/redis-master", POD_LIMIT])?;
    ensure!(revision(rig)? == "two");
    rig.kubectl.run(&["rollout", "undo", "deployment/redis-master"])?;
    rig.kubectl.run(&["rollout", "status", "deployment/redis-master", POD_LIMIT])?;
    ensure!(revision(rig)?.is_empty());
    Ok(())
}

fn a_power_cut_loses_nothing_that_was_acknowledged(rig: &mut Rig) -> anyhow::Result<()> {
    let object = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept}\ndata: {key: value}\n";
    rig.kubectl.feed(&["create", "-f", "-"], object)?;
    let read = |rig: &Rig| {
        rig.kubectl.run(&["get", "configmap", "kept", "-o", "jsonpath={.metadata.uid} {.data.key}"])
    };
    let before = read(rig)?;
    rig.cluster.machine(0).cut_power()?;
    rig.cluster.power_on()?;
    rig.cluster.wait_ready(BOOT_LIMIT, |_| {})?;
    ensure!(read(rig)? == before, "the object is not what it was: {}", read(rig)?);
    rig.kubectl.run(&["rollout", "status", "deployment/redis-master", POD_LIMIT])?;
    Ok(())
}

fn the_power_button_ends_the_machine_in_order(rig: &mut Rig) -> anyhow::Result<()> {
    let limit = rig.cluster.patient(Duration::from_secs(30));
    ensure!(rig.cluster.machine(0).shut_down(limit)?, "the machine still runs after {limit:?}");
    ensure!(rig.cluster.consoles().contains("powering off"), "the console does not say so");
    Ok(())
}

#[test]
fn the_example_runs_on_one_machine() -> anyhow::Result<()> {
    let mut rig = Rig::boot()?;
    let scenarios: [(&str, Scenario); 8] = [
        ("the example comes to run", the_example_comes_to_run),
        (
            "a pod finds the service by name and uses it",
            a_pod_finds_the_service_by_name_and_uses_it,
        ),
        ("exec has exit codes and input", exec_has_exit_codes_and_input),
        ("logs are what was written", logs_are_what_was_written),
        (
            "a pod over its memory limit is killed alone",
            a_pod_over_its_memory_limit_is_killed_alone,
        ),
        ("undo brings the former template back", undo_brings_the_former_template_back),
        (
            "a power cut loses nothing that was acknowledged",
            a_power_cut_loses_nothing_that_was_acknowledged,
        ),
        ("the power button ends the machine in order", the_power_button_ends_the_machine_in_order),
    ];
    for (name, run) in scenarios {
        rig.scenario(name, run)?;
    }
    Ok(())
}
