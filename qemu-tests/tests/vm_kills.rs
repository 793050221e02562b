//! One machine whose programs are killed: containers, shims, and the node program itself.
//!
//! The killer is a privileged pod that sees the machine's processes. The scenarios run in order on one machine; each is a
//! function whose name is its claim.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use podium_qemu_tests::kubectl::Kubectl;
use podium_qemu_tests::scenario::{CLIENT, PATIENCE, POD_LIMIT, Rig, Scenario, blank};
use podium_qemu_tests::terminal::Terminal;
use serde_json::Value;

/// How often the node program is killed.
const NODE_KILLS: usize = 20;

const KILLER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: killer}
spec:
  hostPID: true
  terminationGracePeriodSeconds: 1
  containers:
  - name: shell
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sleep, '1000000']
    securityContext: {privileged: true}
";

/// Its containers are found by what their commands are called.
const VICTIM: &str = "
apiVersion: v1
kind: Pod
metadata: {name: victim}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: busybox, imagePullPolicy: IfNotPresent, command: [sleep, '1000001']}
  - {name: beside, image: busybox, imagePullPolicy: IfNotPresent, command: [sleep, '1000002']}
";

const FAMILY: &str = "
apiVersion: v1
kind: Pod
metadata: {name: family}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: one, image: busybox, imagePullPolicy: IfNotPresent, command: [sh, -c, 'sleep 2000001 & setsid sleep 2000002 & wait']}
  - {name: two, image: busybox, imagePullPolicy: IfNotPresent, command: [sh, -c, 'sleep 2000003 & wait']}
";

/// `lines` says its process and a number five times a second; `ender` ends with code 7 when it is told to.
const WRITER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: writer}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: lines
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'n=0; while :; do n=$((n+1)); echo "$$ $n"; sleep 0.2; done']
  - name: ender
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "trap 'exit 7' USR1; while :; do sleep 3000001 & wait; done", ender-mark]
"#;

/// Ends the ender while no node program lives longer than it takes to find and kill it, and says the times before and after.
const END_WITHOUT_NODE: &str = r#"
ender=$(ps -o pid,args | grep "ender-[m]ark" | while read pid rest; do echo $pid; done)
date -u +%Y-%m-%dT%H:%M:%SZ
kill -9 $(pidof node)
kill -USR1 $ender
while kill -0 $ender; do kill -9 $(pidof node); done 2>/dev/null
date -u +%Y-%m-%dT%H:%M:%SZ
echo told
"#;

/// What tells one start of a container from another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Start {
    pod_uid: String,
    container_id: String,
    restarts: i64,
}

/// All containers of the default namespace, by pod and name.
fn starts(rig: &Rig) -> anyhow::Result<BTreeMap<(String, String), Start>> {
    let pods: Value = serde_json::from_str(&rig.kubectl.run(&["get", "pods", "-o", "json"])?)?;
    let mut found = BTreeMap::new();
    for pod in pods["items"].as_array().context("no items")? {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for status in pod["status"]["containerStatuses"].as_array().into_iter().flatten() {
            let start = Start {
                pod_uid: text(&pod["metadata"]["uid"]),
                container_id: text(&status["containerID"]),
                restarts: status["restartCount"].as_i64().context("no restartCount")?,
            };
            found.insert((text(&pod["metadata"]["name"]), text(&status["name"])), start);
        }
    }
    Ok(found)
}

/// Waits until every one of these containers runs, having been restarted so often, and the pod is Ready again.
fn wait_restarted(rig: &mut Rig, pod: &str, containers: &[&str], count: i64) -> anyhow::Result<()> {
    rig.until(&format!("restarts of {pod}"), |rig| {
        let all = starts(rig)?;
        let restarted = |name: &&str| {
            let key = (pod.to_owned(), (*name).to_owned());
            all.get(&key).is_some_and(|start| start.restarts >= count)
        };
        Ok(containers.iter().all(restarted).then_some(()))
    })?;
    rig.kubectl.run(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), POD_LIMIT])?;
    Ok(())
}

fn kill(rig: &Rig, arguments: &[&str]) -> anyhow::Result<String> {
    rig.kubectl.run(&[&["exec", "killer", "--"], arguments].concat())
}

/// The machine's processes whose command lines hold all these words.
fn processes(rig: &Rig, words: &[&str]) -> anyhow::Result<BTreeSet<String>> {
    let listed = kill(rig, &["ps", "-o", "pid,args"])?;
    let lines = listed.lines().filter(|line| words.iter().all(|word| line.contains(word)));
    Ok(lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

fn pods_of_every_kind_come_to_run(rig: &mut Rig) -> anyhow::Result<()> {
    for pod in [CLIENT, KILLER, VICTIM, FAMILY] {
        rig.apply(pod)?;
    }
    for pod in ["client", "killer", "victim", "family"] {
        rig.kubectl.run(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), POD_LIMIT])?;
    }
    Ok(())
}

fn exec_gives_a_terminal(rig: &mut Rig) -> anyhow::Result<()> {
    let exec = rig.kubectl.command(&["exec", "-i", "-t", "client", "--", "sh"]);
    let mut terminal = Terminal::start(exec, 33, 77)?;
    terminal.read_until("# ", PATIENCE)?;
    terminal.type_text("tty\r")?;
    terminal.read_until("/dev/pts/", PATIENCE)?;
    terminal.read_until("# ", PATIENCE)?;
    terminal.type_text("stty size\r")?;
    terminal.read_until("33 77\r\n", PATIENCE)?;
    // A terminal turns Ctrl-C into a signal: the sleep ends, the shell does not.
    terminal.read_until("# ", PATIENCE)?;
    terminal.type_text("sleep 4000001\r")?;
    rig.until("the sleep", |rig| {
        Ok((!processes(rig, &["sleep 4000001"])?.is_empty()).then_some(()))
    })?;
    terminal.type_text("\u{3}")?;
    terminal.read_until("# ", PATIENCE)?;
    terminal.type_text("exit 7\r")?;
    let end = terminal.wait(PATIENCE)?;
    ensure!(end.code() == Some(7), "{end}");
    Ok(())
}

/// What the newest and the oldest supported kubectl must both be able to do.
fn use_the_cluster(kubectl: &Kubectl, namespace: &str) -> anyhow::Result<()> {
    let run = |arguments: &[&str]| kubectl.run(&[&["-n", namespace], arguments].concat());
    let manifest = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n");
    kubectl.feed(&["apply", "-f", "-"], &manifest)?;
    let deployment = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: counter}
spec:
  selector: {matchLabels: {app: counter}}
  template:
    metadata: {labels: {app: counter}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: shell, image: busybox, imagePullPolicy: IfNotPresent, command: [sh, -c, 'seq 1 5; sleep 1000000']}
";
    let applied = kubectl.feed(&["-n", namespace, "apply", "-f", "-"], deployment)?;
    ensure!(applied == "deployment.apps/counter created\n", "{applied}");
    run(&["rollout", "status", "deployment/counter", POD_LIMIT])?;
    let applied = kubectl.feed(&["-n", namespace, "apply", "-f", "-"], deployment)?;
    ensure!(applied == "deployment.apps/counter unchanged\n", "{applied}");
    let table = run(&["get", "deployments,replicasets,pods", "-o", "wide"])?;
    ensure!(table.contains("deployment.apps/counter   1/1"), "{table}");
    ensure!(table.contains("1/1     Running") && table.contains("busybox"), "{table}");
    // Of several objects at once, kubectl shows no events.
    let described = run(&["describe", "pods"])? + &run(&["describe", "deployments"])?;
    for word in ["Scheduled", "Pulled", "Created", "Started", "ScalingReplicaSet"] {
        ensure!(described.contains(word), "describe does not show {word}:\n{described}");
    }
    let output =
        kubectl.try_run(&["-n", namespace, "exec", "deployment/counter", "--", "false"], "")?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let echoed = kubectl
        .feed(&["-n", namespace, "exec", "-i", "deployment/counter", "--", "cat"], "through")?;
    ensure!(echoed == "through", "{echoed:?}");
    let follow = ["-n", namespace, "logs", "-f", "deployment/counter"];
    let mut follower = Terminal::start(kubectl.command(&follow), 24, 80)?;
    follower.read_until("1\r\n2\r\n3\r\n4\r\n5\r\n", PATIENCE)?;
    run(&["set", "env", "deployment/counter", "ROUND=two"])?;
    run(&["rollout", "status", "deployment/counter", POD_LIMIT])?;
    // The pod that was followed has ended, and so has what followed it.
    let end = follower.wait(PATIENCE)?;
    ensure!(end.success(), "logs -f: {end}");
    let history = run(&["rollout", "history", "deployment/counter"])?;
    ensure!(history.contains("\n2 "), "{history}");
    run(&["rollout", "undo", "deployment/counter"])?;
    run(&["rollout", "status", "deployment/counter", POD_LIMIT])?;
    let env = run(&["get", "deployment", "counter", "-o", "jsonpath={.spec.template..env}"])?;
    ensure!(env.is_empty(), "{env}");
    run(&["scale", "deployment/counter", "--replicas=0"])?;
    run(&["delete", "deployment", "counter"])?;
    kubectl.run(&["delete", "namespace", namespace, POD_LIMIT])?;
    Ok(())
}

fn the_newest_kubectl_uses_the_cluster(rig: &mut Rig) -> anyhow::Result<()> {
    use_the_cluster(&rig.kubectl, "newest")
}

fn kubectl_1_33_uses_the_cluster_as_well(rig: &mut Rig) -> anyhow::Result<()> {
    let layout = rig.cluster.layout();
    use_the_cluster(&Kubectl::new(&layout.cache(), 33, &layout.kubeconfig())?, "oldest")
}

fn a_killed_container_is_started_again_alone_and_without_a_registry(
    rig: &mut Rig,
) -> anyhow::Result<()> {
    rig.cluster.registry().context("no registry")?.switch_off();
    let before = starts(rig)?;
    let found = processes(rig, &["sleep 1000001"])?;
    ensure!(found.len() == 1, "{found:?}");
    for process in &found {
        kill(rig, &["kill", "-9", process])?;
    }
    wait_restarted(rig, "victim", &["main"], 1)?;
    let mut after = starts(rig)?;
    let key = ("victim".to_owned(), "main".to_owned());
    let (old, new) = (before.get(&key).context("before")?, after.get(&key).context("after")?);
    ensure!(new.restarts == 1 && new.pod_uid == old.pod_uid, "{old:?} {new:?}");
    ensure!(new.container_id != old.container_id, "{old:?} {new:?}");
    after.insert(key, old.clone());
    ensure!(before == after, "other containers were touched: {before:?} {after:?}");
    let now = processes(rig, &["sleep 1000001"])?;
    ensure!(now.len() == 1 && now != found, "{found:?} {now:?}");
    rig.cluster.registry().context("no registry")?.switch_on()
}

fn a_pod_without_its_shim_is_killed_whole_and_started_again(rig: &mut Rig) -> anyhow::Result<()> {
    let before = starts(rig)?;
    let uid = rig.kubectl.run(&["get", "pod", "family", "-o", "jsonpath={.metadata.uid}"])?;
    // Two shells and three sleeps.
    let members = processes(rig, &["sleep 200000"])?;
    ensure!(members.len() == 5, "{members:?}");
    let shim = processes(rig, &["--serve", &uid])?;
    ensure!(shim.len() == 1, "{shim:?}");
    for process in &shim {
        kill(rig, &["kill", "-9", process])?;
    }
    wait_restarted(rig, "family", &["one", "two"], 1)?;
    let after = starts(rig)?;
    for (key, old) in &before {
        let new = after.get(key).with_context(|| format!("{key:?} is gone"))?;
        if key.0 == "family" {
            ensure!(new.restarts == 1 && new.pod_uid == old.pod_uid, "{old:?} {new:?}");
            ensure!(new.container_id != old.container_id, "{old:?} {new:?}");
        } else {
            ensure!(new == old, "{key:?} was touched: {old:?} {new:?}");
        }
    }
    let now = rig.until("the new processes", |rig| {
        let now = processes(rig, &["sleep 200000"])?;
        Ok((now.len() >= 5).then_some(now))
    })?;
    ensure!(now.len() == 5 && now.is_disjoint(&members), "{members:?} {now:?}");
    Ok(())
}

fn containers_outlive_the_node_program(rig: &mut Rig) -> anyhow::Result<()> {
    rig.apply(WRITER)?;
    rig.kubectl.run(&["wait", "--for=condition=Ready", "pod/writer", POD_LIMIT])?;
    let before = starts(rig)?;
    let mut killed = BTreeSet::new();
    while killed.len() < NODE_KILLS {
        let node = rig.until("another node program", |rig| {
            ensure!(rig.cluster.api()?.get("/readyz")?.status == 200);
            let node = kill(rig, &["pidof", "node"])?.trim().to_owned();
            Ok((!killed.contains(&node)).then_some(node))
        })?;
        // The answer to this dies with the program that would give it.
        let _ = kill(rig, &["kill", "-9", &node]);
        killed.insert(node);
    }
    let after = rig.until("a node program that answers", |rig| starts(rig).map(Some))?;
    ensure!(before == after, "containers were touched: {before:?} {after:?}");
    let count = no_line_is_missing(rig)?;
    rig.until("more lines", |rig| Ok((no_line_is_missing(rig)? > count).then_some(())))?;
    println!("{count} lines through {NODE_KILLS} kills");
    Ok(())
}

/// How many lines the writer has written; all of them by one process, numbered from 1.
fn no_line_is_missing(rig: &Rig) -> anyhow::Result<usize> {
    let logs = rig.kubectl.run(&["logs", "writer", "-c", "lines"])?;
    let writer = logs.split(' ').next().context("no lines")?.to_owned();
    for (line, number) in logs.lines().zip(1..) {
        let expected = format!("{writer} {number}");
        ensure!(line == expected, "{line:?} stands where {expected:?} should");
    }
    Ok(logs.lines().count())
}

fn an_end_without_a_node_program_is_reported_exactly(rig: &mut Rig) -> anyhow::Result<()> {
    // It outlives the connection that starts it.
    let script = format!("setsid sh -c '{END_WITHOUT_NODE}' >/tmp/told 2>&1 </dev/null &");
    kill(rig, &["sh", "-c", &script])?;
    let told = rig.until("the ender's end", |rig| {
        let told = kill(rig, &["cat", "/tmp/told"])?;
        Ok(told.ends_with("told\n").then_some(told))
    })?;
    wait_restarted(rig, "writer", &["ender"], 1)?;
    let pod: Value =
        serde_json::from_str(&rig.kubectl.run(&["get", "pod", "writer", "-o", "json"])?)?;
    let statuses = pod["status"]["containerStatuses"].as_array().context("no statuses")?;
    let status = |name| statuses.iter().find(|status| status["name"] == name).context("no status");
    let ender = status("ender")?;
    let last = &ender["lastState"]["terminated"];
    ensure!(last["exitCode"] == 7 && last["reason"] == "Error", "{ender}");
    ensure!(ender["restartCount"] == 1, "{ender}");
    let mut times: Vec<&str> = told.lines().collect();
    times.pop();
    let [before, after] = times[..] else { anyhow::bail!("{told}") };
    let finished = last["finishedAt"].as_str().context("no finishedAt")?;
    let started = last["startedAt"].as_str().context("no startedAt")?;
    let again = ender["state"]["running"]["startedAt"].as_str().context("not running")?;
    ensure!(
        started <= before && before <= finished && finished <= after && after <= again,
        "killed between {before} and {after}: {ender}"
    );
    ensure!(status("lines")?["restartCount"] == 0, "{pod}");
    no_line_is_missing(rig)?;
    Ok(())
}

#[test]
fn what_is_killed_comes_back_and_the_rest_stays() -> anyhow::Result<()> {
    let scenarios: [Scenario; 8] = [
        ("pods of every kind come to run", pods_of_every_kind_come_to_run),
        ("exec gives a terminal", exec_gives_a_terminal),
        ("the newest kubectl uses the cluster", the_newest_kubectl_uses_the_cluster),
        ("kubectl 1.33 uses the cluster as well", kubectl_1_33_uses_the_cluster_as_well),
        (
            "a killed container is started again, alone and without a registry",
            a_killed_container_is_started_again_alone_and_without_a_registry,
        ),
        (
            "a pod without its shim is killed whole and started again",
            a_pod_without_its_shim_is_killed_whole_and_started_again,
        ),
        ("containers outlive the node program", containers_outlive_the_node_program),
        (
            "an end without a node program is reported exactly",
            an_end_without_a_node_program_is_reported_exactly,
        ),
    ];
    Rig::boot(&blank("vm-kills")?)?.run(&scenarios)
}
