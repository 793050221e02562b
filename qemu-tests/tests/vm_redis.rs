//! One machine from a blank disk: the example runs on it with stock kubectl, and survives what machines survive.
//!
//! The scenarios run in order on one machine; each is a function whose name is its claim.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use podium_qemu_tests::scenario::{BOOT_LIMIT, CLIENT, POD_LIMIT, Rig, Scenario, blank, project};

fn the_example_comes_to_run(rig: &mut Rig) -> anyhow::Result<()> {
    let example = project().join("examples/redis.yaml");
    rig.kubectl.run(&["apply", "-f", &example.display().to_string()])?;
    rig.apply(CLIENT)?;
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
    rig.apply(writer)?;
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
    rig.apply(eater)?;
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
    rig.until("Redis answers again", |rig| {
        let answer = rig.exec(&["sh", "-c", r"printf 'PING\r\n' | nc -w 10 redis-master 6379"])?;
        Ok((answer == "+PONG\r\n").then_some(()))
    })
}

fn the_power_button_ends_the_machine_in_order(rig: &mut Rig) -> anyhow::Result<()> {
    let limit = rig.cluster.patient(Duration::from_secs(30));
    ensure!(rig.cluster.machine(0).shut_down(limit)?, "the machine still runs after {limit:?}");
    ensure!(rig.cluster.consoles().contains("powering off"), "the console does not say so");
    Ok(())
}

#[test]
fn the_example_runs_on_one_machine() -> anyhow::Result<()> {
    let scenarios: [Scenario; 8] = [
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
    Rig::boot(&blank("vm-redis")?)?.run(&scenarios)
}
