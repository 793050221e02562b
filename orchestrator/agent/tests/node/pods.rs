//! Pods from binding to deletion, through deaths of agent and shim.

use std::time::Duration;

use futures::StreamExt as _;
use podium_agent::{Agent, Change, ExecOptions, LogError, LogOptions, StreamError};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::surroundings::Machine;

fn redis() -> serde_json::Value {
    json!({
        "containers": [{"name": "redis", "image": "redis:1", "imagePullPolicy": "IfNotPresent",
            "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "volumeMounts": [{"name": "data", "mountPath": "/data", "subPath": "db"}]}],
        "volumes": [{"name": "data", "emptyDir": {}}]
    })
}

#[tokio::test]
async fn pod_runs_from_its_binding_to_its_deletion() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    agent.take(Change::Pod(machine.create("u", redis()))).await;
    machine.wait_running("u", "redis", 0).await;
    machine.known(|known| {
        assert_eq!(
            known.events,
            [
                "Pulling: Pulling image \"redis:1\"",
                known.events.get(1).map_or("", String::as_str),
                "Created: Container created",
                "Started: Container started",
            ]
        );
        let status = known.status("u").expect("a status");
        assert_eq!(
            (status.phase.as_deref(), status.pod_ip.as_deref()),
            (Some("Running"), Some("10.244.0.7"))
        );
    });
    let config = machine.shims.config(&machine.shim_dir("u"), "redis.0");
    assert_eq!(config.args, ["/run"]);
    assert!(config.env.contains(&("IP".to_owned(), "10.244.0.7".to_owned())));
    assert!(
        config
            .mounts
            .iter()
            .any(|mount| mount.destination == "/data" && mount.source.ends_with("volumes/data/db"))
    );
    let hosts =
        std::fs::read_to_string(machine.shim_dir("u").join("etc/hosts")).expect("a hosts file");
    assert!(hosts.contains("10.244.0.7\tu\n"), "{hosts}");

    agent.take(Change::Pod(machine.delete("u"))).await;
    machine.wait("the deletion", |known| known.deleted.contains("u")).await;
    assert_eq!(
        machine.shims.signals(&machine.shim_dir("u")),
        [("redis.0".to_owned(), 3)],
        "the image's stop signal"
    );
    agent.take(Change::PodRemoved { uid: "u".to_owned() }).await;
    let gone = || {
        !machine.path("state").join("u").exists() && !machine.path("logs").join("ns_u_u").exists()
    };
    machine.wait("the end", |known| !known.attached.contains("u") && gone()).await;
    assert!(!machine.shim_dir("u").exists());
}

#[tokio::test]
async fn ended_container_runs_again_without_its_registry() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    agent.take(Change::Pod(machine.create("u", redis()))).await;
    machine.wait_running("u", "redis", 0).await;
    machine.known(|known| known.pull_error = Some("registry is off".to_owned()));
    machine.shims.exit(&machine.shim_dir("u"), "redis.0", 137);
    machine.wait_running("u", "redis", 1).await;
    let status = machine.known(|known| known.container("u", "redis")).expect("a status");
    let last = status.last_state.and_then(|state| state.terminated).expect("an end");
    assert_eq!(last.exit_code, 137);
    assert!(
        !machine.path("state/u/containers/redis.0").exists(),
        "what the first instance wrote is left"
    );
}

/// Runs an agent on a runtime of its own, so that it can be killed with everything it has begun.
fn killable(machine: &Machine, pod: Option<&str>) -> (tokio::runtime::Runtime, Agent) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let agent = runtime.block_on(async {
        let agent = machine.agent().await;
        if let Some(uid) = pod {
            agent.take(Change::Pod(machine.create(uid, redis()))).await;
            machine.wait_running(uid, "redis", 0).await;
        }
        agent
    });
    (runtime, agent)
}

#[test]
fn killed_agent_finds_its_pods_and_ends_in_between_are_exact() {
    let machine = Machine::new();
    killable(&machine, Some("u")).0.shutdown_background();
    let (second, agent) = killable(&machine, None);
    second.block_on(async {
        let command = vec!["true".to_owned()];
        let session = agent
            .exec("ns", "u", "redis", command, ExecOptions::default())
            .await
            .expect("a session");
        assert_eq!(session.exit.await.expect("an end").code, 0);
    });
    assert_eq!(machine.shims.launches(), 1, "the shim was started again");
    assert_eq!(
        machine.known(|known| known.container("u", "redis")).expect("a status").restart_count,
        0
    );
    second.shutdown_background();

    machine.shims.exit(&machine.shim_dir("u"), "redis.0", 42);
    let (third, _agent) = killable(&machine, None);
    third.block_on(machine.wait_running("u", "redis", 1));
    let status = machine.known(|known| known.container("u", "redis")).expect("a status");
    assert_eq!(status.last_state.and_then(|state| state.terminated).expect("an end").exit_code, 42);
    third.shutdown_background();
}

#[test]
fn shim_that_died_with_the_agent_away_costs_its_pod_one_restart() {
    let machine = Machine::new();
    killable(&machine, Some("u")).0.shutdown_background();
    machine.shims.kill(&machine.shim_dir("u"));
    let (second, _agent) = killable(&machine, None);
    second.block_on(machine.wait_running("u", "redis", 1));
    assert_eq!(machine.shims.launches(), 2);
    second.shutdown_background();
}

#[test]
fn pod_that_was_deleted_while_the_agent_was_away_is_cleared_away() {
    let machine = Machine::new();
    killable(&machine, Some("u")).0.shutdown_background();
    machine.known(|known| known.pods.clear());
    let (second, _agent) = killable(&machine, None);
    let gone = || !machine.path("state").join("u").exists() && !machine.shim_dir("u").exists();
    second.block_on(machine.wait("the end", |known| known.attached.is_empty() && gone()));
    second.shutdown_background();
}

#[tokio::test]
async fn dead_shim_is_replaced_and_its_pod_restarted() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    agent.take(Change::Pod(machine.create("u", redis()))).await;
    machine.wait_running("u", "redis", 0).await;
    machine.shims.kill(&machine.shim_dir("u"));
    machine.wait_running("u", "redis", 1).await;
    assert_eq!(machine.shims.launches(), 2);
    assert!(
        machine.known(|known| known.events.iter().any(|event| event.starts_with("SandboxChanged")))
    );
}

#[tokio::test]
async fn missing_config_map_is_waited_for_and_its_files_follow_it() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    let spec = json!({
        "containers": [{"name": "c", "image": "i:1", "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            "env": [{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "env", "key": "k"}}}]}],
        "volumes": [{"name": "v", "configMap": {"name": "files"}}]
    });
    agent.take(Change::Pod(machine.create("u", spec))).await;
    let mount =
        "FailedMount: MountVolume.SetUp failed for volume \"v\" : configmap \"files\" not found";
    machine
        .wait("the missing volume", |known| known.events.iter().any(|event| event == mount))
        .await;
    let change =
        |name: &str| Change::ConfigMap { namespace: "ns".to_owned(), name: name.to_owned() };
    machine.known(|known| known.config_maps.insert("files".to_owned(), json!({"a": "1"})));
    agent.take(change("files")).await;
    machine
        .wait("the missing variable", |known| {
            known.waiting_reason("u", "c").as_deref() == Some("CreateContainerConfigError")
        })
        .await;
    assert!(machine.known(|known| {
        known.events.contains(&"Failed: Error: configmap \"env\" not found".to_owned())
    }));
    machine.known(|known| known.config_maps.insert("env".to_owned(), json!({"k": "x"})));
    agent.take(change("env")).await;
    machine.wait_running("u", "c", 0).await;

    machine.known(|known| known.config_maps.insert("files".to_owned(), json!({"a": "2"})));
    agent.take(change("files")).await;
    let file = machine.path("state/u/volumes/v/a");
    machine
        .wait("the new content", |_| std::fs::read_to_string(&file).is_ok_and(|text| text == "2"))
        .await;
}

#[tokio::test]
async fn exec_passes_streams_and_returns_the_exit_code() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    agent.take(Change::Pod(machine.create("u", redis()))).await;
    machine.wait_running("u", "redis", 0).await;
    let command = ["sh", "-c", "cat; echo bad >&2; exit 7"].map(str::to_owned).to_vec();
    let options = ExecOptions { stdin: true, stdout: true, stderr: true, tty: false };
    let mut session = agent.exec("ns", "u", "redis", command, options).await.expect("a session");
    let mut stdin = session.stdin.take().expect("an input");
    stdin.write_all(b"through").await.expect("a write");
    drop(stdin);
    let (mut out, mut error) = (String::new(), String::new());
    session.stdout.take().expect("an output").read_to_string(&mut out).await.expect("text");
    session.stderr.take().expect("an output").read_to_string(&mut error).await.expect("text");
    assert_eq!((out.as_str(), error.as_str()), ("through", "bad\n"));
    assert_eq!(session.exit.await.expect("an end").code, 7);

    let command = vec!["/nonexistent/program".to_owned()];
    let refused = agent
        .exec("ns", "u", "redis", command, ExecOptions::default())
        .await
        .err()
        .expect("a refusal");
    assert!(matches!(refused, StreamError::CannotExecute { code: 127, .. }), "{refused}");
    let refused = agent
        .exec("ns", "u", "none", Vec::new(), ExecOptions::default())
        .await
        .err()
        .expect("a refusal");
    assert_eq!(refused.to_string(), "container none is not valid for pod u");
}

#[tokio::test]
async fn logs_are_those_of_the_instance_that_is_asked_for() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    agent.take(Change::Pod(machine.create("u", redis()))).await;
    machine.wait_running("u", "redis", 0).await;
    let read = async |options: LogOptions| -> Result<String, LogError> {
        let stream = agent.logs("ns", "u", "redis", options).await?;
        let parts: Vec<_> = stream.map(|part| part.expect("a part").to_vec()).collect().await;
        Ok(String::from_utf8(parts.concat()).expect("text"))
    };
    assert_eq!(read(LogOptions::default()).await.expect("a log"), "hello from redis.0\n");
    let previous = LogOptions { previous: true, ..LogOptions::default() };
    let missing = read(previous.clone()).await.expect_err("nothing before");
    assert_eq!(
        missing.to_string(),
        "previous terminated container \"redis\" in pod \"u\" not found"
    );
    let followed = tokio::spawn({
        let agent = agent.clone();
        async move {
            let options = LogOptions { follow: true, ..LogOptions::default() };
            let stream = agent.logs("ns", "u", "redis", options).await.expect("a log");
            stream
                .map(|part| part.expect("a part").len())
                .fold(0, |sum, len| async move { sum + len })
                .await
        }
    });
    machine.shims.exit(&machine.shim_dir("u"), "redis.0", 1);
    machine.wait_running("u", "redis", 1).await;
    assert_eq!(read(LogOptions::default()).await.expect("a log"), "hello from redis.1\n");
    assert_eq!(read(previous).await.expect("a log"), "hello from redis.0\n");
    let followed = tokio::time::timeout(Duration::from_secs(20), followed)
        .await
        .expect("in time")
        .expect("an end");
    assert!(followed > 0, "the follower ends with its instance, having read it");
}

#[tokio::test]
async fn reports_wait_for_an_api_that_is_away() {
    let machine = Machine::new();
    machine.known(|known| known.api_is_down = true);
    let agent = machine.agent().await;
    agent.take(Change::Pod(machine.create("u", redis()))).await;
    machine
        .wait("the start", |known| known.events.contains(&"Started: Container started".to_owned()))
        .await;
    assert_eq!(machine.known(|known| known.writes), 0);
    machine.known(|known| known.api_is_down = false);
    machine.wait_running("u", "redis", 0).await;
}

#[tokio::test]
async fn record_that_the_disk_refuses_is_written_when_it_can_be() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    // A folder in the way of the new record stands for a disk that takes nothing more.
    let obstacle = machine.path("state/u/record.new");
    std::fs::create_dir_all(&obstacle).expect("a folder");
    agent.take(Change::Pod(machine.create("u", redis()))).await;
    machine.wait_running("u", "redis", 0).await;
    let record = machine.path("state/u/record");
    assert!(!record.exists());
    std::fs::remove_dir(obstacle).expect("room");
    machine.wait("the record", |_| record.exists()).await;
}

#[tokio::test]
async fn program_that_is_not_in_the_image_is_a_failed_start() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1", "command": ["missing"]}]});
    agent.take(Change::Pod(machine.create("u", spec))).await;
    machine.wait("the end", |known| known.phase("u") == "Failed").await;
    let status = machine.known(|known| known.container("u", "c")).expect("a status");
    let end = status.state.and_then(|state| state.terminated).expect("an end");
    assert_eq!((end.exit_code, end.reason.as_deref()), (128, Some("StartError")));
    let spec = json!({"containers": [{"name": "c", "image": "i:1", "command": ["root"]}]});
    agent.take(Change::Pod(machine.create("v", spec))).await;
    machine
        .wait("the refusal", |known| {
            known.waiting_reason("v", "c").as_deref() == Some("CreateContainerConfigError")
        })
        .await;
}

#[tokio::test]
async fn instance_that_was_created_and_cannot_be_started_does_not_stay() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    let spec = json!({"containers": [{"name": "c", "image": "i:1", "command": ["broken"]}]});
    agent.take(Change::Pod(machine.create("u", spec))).await;
    machine
        .wait("two attempts", |known| {
            known.container("u", "c").is_some_and(|status| status.restart_count == 1)
                && known.waiting_reason("u", "c").as_deref() == Some("CrashLoopBackOff")
        })
        .await;
    machine.wait("nothing", |_| machine.shims.ids(&machine.shim_dir("u")).is_empty()).await;
}

#[tokio::test]
async fn pods_beyond_the_nodes_room_are_refused() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    let big = json!({"containers": [{"name": "c", "image": "i:1", "resources": {"requests": {"memory": "900Ti"}}}]});
    agent.take(Change::Pod(machine.create("u", big))).await;
    machine.wait("the refusal", |known| known.phase("u") == "Failed").await;
    assert_eq!(
        machine
            .known(|known| known.status("u").and_then(|status| status.reason.clone()))
            .as_deref(),
        Some("OutOfmemory")
    );
    assert_eq!(machine.shims.launches(), 0);
}

#[tokio::test]
async fn shutdown_stops_every_pod_and_keeps_its_object() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    for uid in ["u", "v"] {
        agent.take(Change::Pod(machine.create(uid, redis()))).await;
    }
    machine.wait_running("u", "redis", 0).await;
    machine.wait_running("v", "redis", 0).await;
    assert_eq!(agent.shutdown(Duration::from_secs(5)).await, 0);
    assert!(machine.known(|known| known.attached.is_empty() && known.deleted.is_empty()));
    assert_eq!(machine.known(|known| known.phase("u").to_owned()), "Running");
    let again = machine.agent().await;
    machine.wait_running("u", "redis", 1).await;
    drop(again);
}
