//! What `kubectl describe pod` tells, word for word, and the statuses beside it.

use std::time::Duration;

use podium_control::pod::{Phase, PodEvent, ProbeOutcome, Refusal, StartStage};
use serde_json::json;

use super::runtime::{Behaviour, Node, Script, pod};

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn script(container: &str, behaviours: Vec<Behaviour>) -> Script {
    Script { containers: [(container.to_owned(), behaviours)].into(), ..Script::default() }
}

#[test]
fn first_start_pulls_creates_and_starts() {
    let mut node = Node::new(pod(&[], &["redis"], "Always"), Script::default());
    node.bind(Ok(()));
    node.run_until("running", |node| node.is_running("redis"));
    assert_eq!(
        node.story(),
        [
            "Normal Pulling: Pulling image \"img:1\"",
            "Normal Pulled: Successfully pulled image \"img:1\" in 1.2s (1.2s including waiting). Image size: 4096 bytes.",
            "Normal Created: Container created",
            "Normal Started: Container started",
        ]
    );
    assert_eq!(
        node.occurrences.first().and_then(|first| first.field_path.as_deref()),
        Some("spec.containers{redis}")
    );
    let status = node.status();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(
        (status.pod_ip.as_deref(), status.host_ip.as_deref()),
        (Some("10.244.0.7"), Some("10.0.2.15"))
    );
    assert_eq!(
        (status.qos_class.as_deref(), status.observed_generation),
        (Some("BestEffort"), Some(1))
    );
    assert!(status.start_time.is_some());
    for condition in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] {
        assert_eq!(node.condition(condition), ("True".to_owned(), None), "{condition}");
    }
    let container = node.container("redis");
    assert_eq!(
        (container.ready, container.started, container.restart_count),
        (true, Some(true), 0)
    );
    assert_eq!(container.container_id.as_deref(), Some("podium://u.redis.0"));
    assert_eq!(container.image_id, "docker.io/library/img:1@sha256:00");
}

#[test]
fn image_that_is_here_is_not_pulled() {
    let script = Script { present: ["img:1".to_owned()].into(), ..Script::default() };
    let mut node = Node::new(pod(&[], &["c"], "Always"), script);
    node.bind(Ok(()));
    node.run_until("running", |node| node.is_running("c"));
    assert_eq!(
        node.story().first().map(String::as_str),
        Some(
            "Normal Pulled: Container image \"img:1\" already present on machine and can be accessed by the pod"
        )
    );
}

#[test]
fn missing_image_shows_the_error_then_the_back_off_and_is_tried_again() {
    let script =
        Script { pulls: [Err("not found".to_owned()), Ok(())].into(), ..Script::default() };
    let mut node = Node::new(pod(&[], &["c"], "Always"), script);
    node.bind(Ok(()));
    node.run_until("the error", |node| node.waiting_reason("c").as_deref() == Some("ErrImagePull"));
    node.run_until("the back-off", |node| {
        node.waiting_reason("c").as_deref() == Some("ImagePullBackOff")
    });
    assert_eq!(node.phase(), Phase::Pending);
    assert_eq!(
        node.container("c").state.and_then(|state| state.waiting?.message).as_deref(),
        Some("Back-off pulling image \"img:1\": ErrImagePull: not found")
    );
    node.run_until("running", |node| node.is_running("c"));
    assert_eq!(node.elapsed(), seconds(10));
    assert_eq!(
        node.story().get(..6).expect("six events"),
        [
            "Normal Pulling: Pulling image \"img:1\"",
            "Warning Failed: Failed to pull image \"img:1\": not found",
            "Warning Failed: Error: ErrImagePull",
            "Normal BackOff: Back-off pulling image \"img:1\"",
            "Warning Failed: Error: ImagePullBackOff",
            "Normal Pulling: Pulling image \"img:1\"",
        ]
    );
}

#[test]
fn pulls_back_off_to_five_minutes() {
    let script = Script { pulls: [Err("no".to_owned())].into(), ..Script::default() };
    let mut node = Node::new(pod(&[], &["c"], "Always"), script);
    node.bind(Ok(()));
    let mut times = Vec::new();
    let pulls =
        |node: &Node| node.occurrences.iter().filter(|event| event.reason == "Pulling").count();
    for count in 1..=8 {
        node.run_until("a pull", |node| pulls(node) >= count);
        times.push(node.elapsed().as_secs());
    }
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps, [10, 20, 40, 80, 160, 300, 300]);
}

#[test]
fn crashing_container_backs_off() {
    let mut node = Node::new(pod(&[], &["c"], "Always"), script("c", vec![Behaviour::exit(1, 3)]));
    node.bind(Ok(()));
    node.run_until("the loop", |node| {
        node.waiting_reason("c").as_deref() == Some("CrashLoopBackOff")
    });
    let container = node.container("c");
    assert_eq!(container.restart_count, 1);
    assert_eq!(
        container.state.and_then(|state| state.waiting?.message).as_deref(),
        Some("back-off 10s restarting failed container=c pod=p_ns(u)")
    );
    let last = container.last_state.and_then(|state| state.terminated).expect("an end");
    assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));
    assert_eq!(last.container_id.as_deref(), Some("podium://u.c.1"));
    assert_eq!(
        node.story().last().map(String::as_str),
        Some("Warning BackOff: Back-off restarting failed container c in pod p_ns(u)")
    );
    assert_eq!(node.phase(), Phase::Running);
    assert_eq!(node.condition("Ready").1.as_deref(), Some("ContainersNotReady"));
}

#[test]
fn killed_container_runs_again_within_a_second_the_first_time() {
    let script = Script {
        present: ["img:1".to_owned()].into(),
        effect_takes: Duration::from_millis(50),
        ..Script::default()
    };
    let mut node = Node::new(pod(&[], &["c"], "Always"), script);
    node.bind(Ok(()));
    node.run_until("running", |node| node.is_running("c"));
    node.run_for(seconds(5));
    let killed_at = node.elapsed();
    node.kill_container("c");
    node.run_until("the second instance", |node| {
        node.is_running("c") && node.container("c").restart_count == 1
    });
    assert!(node.elapsed() - killed_at < seconds(1), "it took {:?}", node.elapsed() - killed_at);
    let last = node.container("c").last_state.and_then(|state| state.terminated).expect("an end");
    assert_eq!(last.exit_code, 137);
}

#[test]
fn oom_kill_is_told_from_other_ends() {
    let behaviour = Behaviour { oom: true, ..Behaviour::exit(1, 137) };
    let mut node = Node::new(pod(&[], &["c"], "Never"), script("c", vec![behaviour]));
    node.bind(Ok(()));
    node.run_until("the end", |node| node.phase() == Phase::Failed);
    let end = node.container("c").state.and_then(|state| state.terminated).expect("an end");
    assert_eq!((end.exit_code, end.reason.as_deref()), (137, Some("OOMKilled")));
}

#[test]
fn liveness_probe_kills_and_restarts() {
    let mut spec = pod(&[], &["c"], "Always");
    spec["spec"]["containers"][0]["livenessProbe"] =
        json!({"httpGet": {"port": 1}, "periodSeconds": 5, "failureThreshold": 2});
    let failure = ProbeOutcome::Failure("HTTP probe failed with statuscode: 500".to_owned());
    let mut node =
        Node::new(spec, Script { probes: [("c".to_owned(), failure)].into(), ..Script::default() });
    node.bind(Ok(()));
    node.run_until("the restart", |node| node.start_times.len() == 2);
    assert_eq!(
        node.story().get(4..7).expect("events"),
        [
            "Warning Unhealthy: Liveness probe failed: HTTP probe failed with statuscode: 500",
            "Warning Unhealthy: Liveness probe failed: HTTP probe failed with statuscode: 500",
            "Normal Killing: Container c failed liveness probe, will be restarted",
        ]
    );
    assert_eq!(node.signals.first().map(|(at, _, force)| (at.as_secs(), *force)), Some((5, false)));
}

#[test]
fn readiness_probe_gates_the_ready_condition_only() {
    let mut spec = pod(&[], &["a", "b"], "Always");
    spec["spec"]["containers"][1]["readinessProbe"] =
        json!({"tcpSocket": {"port": 1}, "periodSeconds": 1});
    let failure = ProbeOutcome::Failure("refused".to_owned());
    let mut node =
        Node::new(spec, Script { probes: [("b".to_owned(), failure)].into(), ..Script::default() });
    node.bind(Ok(()));
    node.run_for(seconds(10));
    assert_eq!(node.phase(), Phase::Running);
    let condition = node
        .status()
        .conditions
        .iter()
        .flatten()
        .find(|known| known.type_ == "Ready")
        .expect("Ready");
    assert_eq!(condition.message.as_deref(), Some("containers with unready status: [b]"));
    assert_eq!(node.container("b").restart_count, 0);
    node.script.probes.clear();
    node.run_for(seconds(2));
    assert_eq!(node.condition("Ready").0, "True");
}

#[test]
fn readiness_gate_of_someone_else_is_waited_for() {
    let mut spec = pod(&[], &["c"], "Always");
    spec["spec"]["readinessGates"] = json!([{"conditionType": "example.com/ok"}]);
    let mut node = Node::new(spec, Script::default());
    node.bind(Ok(()));
    node.run_until("running", |node| node.is_running("c"));
    assert_eq!(
        node.condition("Ready"),
        ("False".to_owned(), Some("ReadinessGatesNotReady".to_owned()))
    );
    let mut pod = (*node.pod).clone();
    let mut status = pod.status.take().expect("a status");
    let gate = serde_json::from_value(json!({"type": "example.com/ok", "status": "True"}))
        .expect("a condition");
    status.conditions.get_or_insert_default().push(gate);
    pod.status = Some(status);
    node.update(pod);
    assert_eq!(node.condition("Ready").0, "True");
    let kept = node.pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    assert!(
        kept.into_iter().any(|condition| condition.type_ == "example.com/ok"),
        "a foreign condition was lost"
    );
}

#[test]
fn deleted_pod_is_stopped_with_its_signal_first() {
    let mut node = Node::new(pod(&[], &["c"], "Always"), Script::default());
    node.bind(Ok(()));
    node.run_until("running", |node| node.is_running("c"));
    node.delete(30);
    node.run_until("gone", |node| node.forgotten);
    assert_eq!(
        node.story().last().map(String::as_str),
        Some("Normal Killing: Stopping container c")
    );
    assert_eq!(node.signals.len(), 1);
    assert_eq!((node.deletions, node.phase()), (1, Phase::Succeeded));
    assert!(node.elapsed() < seconds(1));
}

#[test]
fn container_that_ignores_the_signal_is_killed_after_the_grace() {
    let behaviour = Behaviour { stops_after: None, ..Behaviour::default() };
    let mut node = Node::new(pod(&[], &["c"], "Always"), script("c", vec![behaviour]));
    node.bind(Ok(()));
    node.run_until("running", |node| node.is_running("c"));
    node.delete(7);
    node.run_until("gone", |node| node.forgotten);
    let signals: Vec<_> =
        node.signals.iter().map(|(at, _, force)| (at.as_secs(), *force)).collect();
    assert_eq!(signals, [(0, false), (7, true)]);
    assert_eq!(node.phase(), Phase::Failed);
}

#[test]
fn grace_can_be_shortened_while_it_runs() {
    let behaviour = Behaviour { stops_after: None, ..Behaviour::default() };
    let mut node = Node::new(pod(&[], &["c"], "Always"), script("c", vec![behaviour]));
    node.bind(Ok(()));
    node.run_until("running", |node| node.is_running("c"));
    node.delete(300);
    node.run_for(seconds(5));
    node.delete(0);
    node.run_until("gone", |node| node.forgotten);
    assert!(node.elapsed() < seconds(6), "it took {:?}", node.elapsed());
}

#[test]
fn pre_stop_hook_comes_before_the_signal_and_counts_against_the_grace() {
    let mut spec = pod(&[], &["c"], "Always");
    spec["spec"]["containers"][0]["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 4}}});
    let behaviour = Behaviour { stops_after: None, ..Behaviour::default() };
    for (takes, expected) in [(4, [(4, false), (10, true)]), (60, [(10, false), (12, true)])] {
        let mut script = script("c", vec![behaviour.clone()]);
        script.hook_takes = seconds(takes);
        let mut node = Node::new(spec.clone(), script);
        node.bind(Ok(()));
        node.run_until("running", |node| node.is_running("c"));
        node.delete(10);
        node.run_until("gone", |node| node.forgotten);
        let signals: Vec<_> =
            node.signals.iter().map(|(at, _, force)| (at.as_secs(), *force)).collect();
        assert_eq!(signals, expected, "a hook of {takes} s");
    }
}

#[test]
fn failed_post_start_hook_restarts_the_container() {
    let mut spec = pod(&[], &["c"], "Always");
    spec["spec"]["containers"][0]["lifecycle"] = json!({"postStart": {"exec": {"command": ["x"]}}});
    let mut node = Node::new(spec, Script { hooks_fail: true, ..Script::default() });
    node.bind(Ok(()));
    node.run_until("the restart", |node| node.start_times.len() == 2);
    assert_eq!(
        node.story().get(4..6).expect("events"),
        [
            "Warning FailedPostStartHook: PostStartHook failed",
            "Normal Killing: FailedPostStartHook"
        ]
    );
}

#[test]
fn container_after_a_post_start_hook_waits_for_it() {
    let mut spec = pod(&[], &["proxy", "app"], "Always");
    spec["spec"]["containers"][0]["lifecycle"] = json!({"postStart": {"exec": {"command": ["x"]}}});
    let mut node = Node::new(spec, Script { hook_takes: seconds(9), ..Script::default() });
    node.bind(Ok(()));
    node.run_until("both", |node| node.is_running("proxy") && node.is_running("app"));
    assert_eq!(node.start_times.values().map(Duration::as_secs).collect::<Vec<_>>(), [9, 0]);
}

#[test]
fn missing_config_map_is_an_event_and_its_appearance_ends_the_wait() {
    let text = "MountVolume.SetUp failed for volume \"v\" : configmap \"c\" not found";
    let script = Script { volumes: [text.to_owned(), text.to_owned()].into(), ..Script::default() };
    let mut node = Node::new(pod(&[], &["c"], "Always"), script);
    node.bind(Ok(()));
    node.run_for(Duration::from_millis(100));
    assert_eq!(node.story(), [format!("Warning FailedMount: {text}")]);
    assert_eq!(node.waiting_reason("c").as_deref(), Some("ContainerCreating"));
    node.feed(PodEvent::ReferencesChanged);
    node.feed(PodEvent::ReferencesChanged);
    node.run_until("running", |node| node.is_running("c"));
    assert!(node.elapsed() < seconds(2));
}

#[test]
fn refused_configuration_and_failed_start_are_told_apart() {
    for (stage, reason, restarts) in [
        (StartStage::Config, "CreateContainerConfigError", 0),
        (StartStage::Create, "CreateContainerError", 0),
    ] {
        let behaviour = Behaviour { refused: Some(stage), ..Behaviour::default() };
        let mut node = Node::new(pod(&[], &["c"], "Always"), script("c", vec![behaviour]));
        node.bind(Ok(()));
        node.run_until("the refusal", |node| node.waiting_reason("c").as_deref() == Some(reason));
        node.run_for(seconds(60));
        assert_eq!(node.container("c").restart_count, restarts, "{reason}");
        node.script.containers.clear();
        node.run_until("running", |node| node.is_running("c"));
        assert_eq!(node.container("c").restart_count, 0, "{reason}");
    }
    let behaviour = Behaviour { refused: Some(StartStage::Start), ..Behaviour::default() };
    let mut node = Node::new(pod(&[], &["c"], "Never"), script("c", vec![behaviour]));
    node.bind(Ok(()));
    node.run_until("the end", |node| node.phase() == Phase::Failed);
    let end = node.container("c").state.and_then(|state| state.terminated).expect("an end");
    assert_eq!((end.exit_code, end.reason.as_deref()), (128, Some("StartError")));
    assert_eq!(end.message.as_deref(), Some("exec: \"x\": not found"));
}

#[test]
fn refused_pod_is_failed_and_starts_nothing() {
    let mut node = Node::new(pod(&[], &["c"], "Always"), Script::default());
    let message = "Node didn't have enough resource: cpu, requested: 2000, used: 0, capacity: 1000"
        .to_owned();
    node.bind(Err(Refusal { reason: "OutOfcpu".to_owned(), message: message.clone() }));
    node.run_for(seconds(60));
    let status = node.status();
    assert_eq!(
        (status.phase.as_deref(), status.reason.as_deref()),
        (Some("Failed"), Some("OutOfcpu"))
    );
    assert_eq!(status.message, Some(format!("Pod was rejected: {message}")));
    assert_eq!(node.story(), [format!("Warning OutOfcpu: {message}")]);
    assert!(node.start_times.is_empty());
    node.delete(30);
    node.run_until("gone", |node| node.forgotten);
}

#[test]
fn lost_shim_means_a_new_sandbox_and_one_restart() {
    let mut node =
        Node::new(pod(&["i"], &["c"], "Always"), script("i", vec![Behaviour::exit(1, 0)]));
    node.bind(Ok(()));
    node.run_until("running", |node| node.is_running("c"));
    node.run_for(seconds(60));
    node.kill_shim();
    node.run_until("again", |node| node.is_running("c") && node.container("c").restart_count == 1);
    assert!(node.story().contains(
        &"Normal SandboxChanged: Pod sandbox changed, it will be killed and re-created.".to_owned()
    ));
    assert_eq!(
        node.container("i").restart_count,
        1,
        "the init container has to prepare the new sandbox"
    );
    let last = node.container("c").last_state.and_then(|state| state.terminated).expect("an end");
    assert_eq!(last.exit_code, 137);
}

#[test]
fn new_image_in_the_spec_restarts_the_container() {
    let mut node = Node::new(pod(&[], &["c"], "Never"), Script::default());
    node.bind(Ok(()));
    node.run_until("running", |node| node.is_running("c"));
    let mut changed = (*node.pod).clone();
    changed.spec.as_mut().expect("a spec").containers.first_mut().expect("a container").image =
        Some("img:2".to_owned());
    node.update(changed);
    node.run_until("the new image", |node| {
        node.container("c").image.ends_with("img:2") && node.is_running("c")
    });
    assert!(
        node.story().contains(
            &"Normal Killing: Container c definition changed, will be restarted".to_owned()
        )
    );
}

#[test]
fn active_deadline_ends_the_pod() {
    let mut spec = pod(&[], &["c"], "Always");
    spec["spec"]["activeDeadlineSeconds"] = json!(20);
    let mut node = Node::new(spec, Script::default());
    node.bind(Ok(()));
    node.run_until("the end", |node| node.phase() == Phase::Failed);
    assert_eq!(node.status().reason.as_deref(), Some("DeadlineExceeded"));
    assert!((20..22).contains(&node.elapsed().as_secs()));
    assert_eq!(node.live_count(), 0);
}
