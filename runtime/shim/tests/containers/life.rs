//! Containers begin, end, and are accounted for, whoever is there to see it.

use std::fs;

use podium_shim_protocol::client::ClientError;
use podium_shim_protocol::{
    ContainerState, Event, ExitRecord, FailureKind, Resources, paths, record,
};

use crate::support::{TestPod, wait_until};

fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>) -> (FailureKind, String) {
    match result {
        Err(ClientError::Refused(failure)) => (failure.kind, failure.message),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn exit_codes_and_signals_are_exact_and_on_disk() {
    let pod = TestPod::start();
    for (id, script, code, signal) in [
        ("ok", "exit 0", 0, None),
        ("seven", "exit 7", 7, None),
        ("killed", "kill -9 $$", 0, None), // PID 1 of a namespace cannot kill itself
        ("high", "exit 255", 255, None),
    ] {
        let (exit, _) = pod.run_to_end(pod.container(id, script));
        assert_eq!((exit.code, exit.signal, exit.oom_killed), (code, signal, false), "{id}");
        assert!(exit.started_at.unwrap() <= exit.finished_at);
        assert_eq!(
            record::read::<ExitRecord>(&paths::exit_record(pod.dir(), id)).unwrap(),
            Some(exit)
        );
    }
    pod.run(pod.container("term", "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done"));
    pod.wait_for_log("term", "up");
    pod.client().signal("term", 15).unwrap();
    assert_eq!(pod.wait_for_exit("term").code, 3);
    let rt = format!("trap 'exit 4' {}; echo up; while :; do sleep 0.05; done", 37);
    pod.run(pod.container("realtime", &rt));
    pod.wait_for_log("realtime", "up");
    assert_eq!(refused(pod.client().signal("realtime", 65)).0, FailureKind::InvalidConfig);
    pod.client().signal("realtime", 37).unwrap();
    assert_eq!(pod.wait_for_exit("realtime").code, 4);
    pod.run(pod.container("kill", "echo up; sleep 600"));
    pod.wait_for_log("kill", "up");
    pod.client().kill("kill").unwrap();
    let exit = pod.wait_for_exit("kill");
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (137, Some(9), false));
}

#[test]
fn subscriber_sees_created_running_exited_removed_in_order() {
    let pod = TestPod::start();
    let (status, mut events) = pod.subscribe();
    assert_eq!((status.uid.as_str(), status.containers.len()), (pod.config.uid.as_str(), 0));
    pod.run(pod.container("a", "exit 4"));
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let Event::Changed(status) = events.next_event().unwrap() else {
            panic!("removed too early")
        };
        seen.push(match status.state {
            ContainerState::Created { .. } => "created".to_owned(),
            ContainerState::Running { .. } => "running".to_owned(),
            ContainerState::Exited(exit) => format!("exited {}", exit.code),
        });
    }
    assert_eq!(seen, ["created", "running", "exited 4"]);
    pod.client().remove("a").unwrap();
    assert_eq!(events.next_event().unwrap(), Event::Removed { id: "a".to_owned() });
    pod.client().remove("a").unwrap();
    assert!(paths::exit_record(pod.dir(), "a").exists());
    assert!(!paths::container(pod.dir(), "a").join("config.json").exists());
}

#[test]
fn exit_while_nobody_is_connected_is_told_to_the_next_client() {
    let pod = TestPod::start();
    let release = pod.dir().join("release");
    fs::create_dir(&release).unwrap();
    let mut config =
        pod.container("a", "until [ -e /release/now ]; do sleep 0.02; done; echo done; exit 9");
    config.mounts = vec![podium_shim_protocol::Mount {
        source: release.display().to_string(),
        destination: "/release".to_owned(),
        ..Default::default()
    }];
    let pid = pod.run(config);
    // No connection is open from here on.
    fs::write(release.join("now"), "").unwrap();
    wait_until("the exit record", || paths::exit_record(pod.dir(), "a").exists());
    let (status, _) = pod.subscribe();
    let ContainerState::Exited(exit) = &status.containers[0].state else { panic!("{status:?}") };
    assert_eq!(exit.code, 9);
    assert_eq!(pod.logged("a", "stdout"), "done\n");
    assert!(pid > 0);
}

#[test]
fn containers_share_the_pods_network_ipc_and_host_name() {
    let pod = TestPod::start_with(|config| {
        config.sysctls = vec![("net.core.somaxconn".to_owned(), "77".to_owned())];
    });
    pod.run(pod.container(
        "server",
        "echo up; echo hello | nc -l -p 80; touch /dev/shm/served; sleep 600",
    ));
    pod.wait_for_log("server", "up");
    let script = "hostname; cat /proc/sys/net/core/somaxconn; until nc 127.0.0.1 80 </dev/null; do sleep 0.05; done; \
                  until [ -e /dev/shm/served ]; do sleep 0.05; done; echo $$; ip addr show lo | grep -c UP";
    let (exit, finished) = pod.run_to_end(pod.container("client", script));
    assert_eq!(
        (exit.code, finished.stdout.as_str()),
        (0, "web-0\n77\nhello\n1\n1\n"),
        "{}",
        finished.stderr
    );
    // The namespace that the agent plugs the pod's link into is the shim's own.
    let shim = pod.client().status().unwrap().pid;
    let container = pod.client().status().unwrap().containers[0].clone();
    let ContainerState::Running { pid, .. } = container.state else { panic!() };
    for namespace in ["net", "ipc", "uts"] {
        let of = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
        assert_eq!(of(shim), of(pid));
        assert_ne!(of(shim), fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap());
    }
}

#[test]
fn host_network_and_host_pid_are_the_machines() {
    let pod = TestPod::start_with(|config| {
        config.host_network = true;
        config.host_pid = true;
        config.host_ipc = true;
    });
    let (exit, finished) = pod.run_to_end(
        pod.container("a", "readlink /proc/self/ns/net; readlink /proc/self/ns/pid; hostname"),
    );
    assert_eq!(exit.code, 0, "{}", finished.stderr);
    let own =
        |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    assert_eq!(finished.stdout, format!("{}\n{}\n{host}\n", own("net"), own("pid")));
}

#[test]
fn processes_that_outlive_the_first_one_are_killed_before_the_end_is_told() {
    let pod = TestPod::start_with(|config| config.host_pid = true);
    let (exit, finished) = pod.run_to_end(pod.container("a", "sleep 600 & echo $!; exit 5"));
    assert_eq!(exit.code, 5);
    let orphan = finished.stdout.trim();
    assert!(
        !std::path::Path::new("/proc").join(orphan).join("exe").exists(),
        "process {orphan} lives"
    );
    assert!(!pod.group().below("a").is_populated());
}

#[test]
fn killed_shim_leaves_a_pod_that_its_group_kills_whole() {
    let pod = TestPod::start();
    let pid = pod.run(pod.container("a", "echo up; sleep 600 & sleep 600"));
    pod.wait_for_log("a", "up");
    let (status, mut events) = pod.subscribe();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(status.pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    assert!(
        matches!(events.next_event(), Err(ClientError::Socket(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof)
    );
    let group = pod.group();
    assert!(group.is_populated());
    group.kill().unwrap();
    wait_until("the group to be empty", || !group.is_populated());
    assert_eq!(record::read::<ExitRecord>(&paths::exit_record(pod.dir(), "a")).unwrap(), None);
    wait_until("the group to go", || group.remove());
    assert!(fs::read_link(format!("/proc/{pid}/exe")).is_err());
}

#[test]
fn stop_pod_ends_every_container_and_shutdown_then_ends_the_shim() {
    let pod = TestPod::start();
    for id in ["a", "b"] {
        pod.run(pod.container(id, "echo up; sleep 600"));
        pod.wait_for_log(id, "up");
    }
    assert_eq!(refused(pod.client().shutdown()).0, FailureKind::WrongState);
    pod.client().stop_pod().unwrap();
    for id in ["a", "b"] {
        assert_eq!(pod.wait_for_exit(id).code, 137);
    }
    let shim = pod.client().status().unwrap().pid;
    pod.client().shutdown().unwrap();
    wait_until("the shim's end", || fs::read_link(format!("/proc/{shim}/exe")).is_err());
    assert!(!paths::socket(pod.dir()).exists());
    wait_until("the group to go", || pod.group().remove());
}

#[test]
fn what_cannot_run_is_refused_with_a_reason_and_leaves_nothing() {
    let pod = TestPod::start();
    let mut missing = pod.container("a", "");
    missing.args = vec!["nosuchprogram".to_owned()];
    let (kind, message) = refused(pod.client().create(missing));
    assert_eq!(kind, FailureKind::CannotExecute);
    assert_eq!(message, "cannot execute \"nosuchprogram\": executable file not found in $PATH");

    let mut config = pod.container("a", "");
    config.run_as.image_user = "nosuchuser".to_owned();
    let (kind, message) = refused(pod.client().create(config));
    assert_eq!(kind, FailureKind::InvalidConfig);
    assert!(message.contains("unable to find user nosuchuser"), "{message}");

    let mut config = pod.container("a", "");
    config.run_as.non_root = true;
    assert_eq!(refused(pod.client().create(config)).0, FailureKind::WouldRunAsRoot);

    let mut config = pod.container("a", "");
    config.layers = vec!["/nonexistent/layer".to_owned()];
    let (kind, message) = refused(pod.client().create(config));
    assert_eq!(kind, FailureKind::System);
    assert!(message.contains("/nonexistent/layer"), "{message}");

    wait_until("the group to go", || !pod.group().below("a").path().exists());
    assert!(!paths::container(pod.dir(), "a").exists());
    assert_eq!(pod.client().status().unwrap().containers, []);
    // The id is free, and the shim none the worse.
    assert_eq!(pod.run_to_end(pod.container("a", "exit 6")).0.code, 6);
}

#[test]
fn limit_without_a_controller_is_an_error_that_names_it() {
    let pod = TestPod::start();
    if pod.group().path().join("memory.max").exists() {
        // This machine has the controller: then the limit must hold.
        let mut config = pod.container("a", "cat /sys/fs/cgroup/memory.max");
        config.resources = Resources { memory_max_bytes: Some(64 << 20), ..Resources::default() };
        assert_eq!(pod.run_to_end(config).1.stdout, "67108864\n");
        return;
    }
    let mut config = pod.container("a", "");
    config.resources = Resources { memory_max_bytes: Some(64 << 20), ..Resources::default() };
    let (kind, message) = refused(pod.client().create(config));
    assert_eq!(kind, FailureKind::InvalidConfig);
    assert_eq!(message, "memory.max is not available: the kernel has no memory controller here");
}

#[test]
fn shim_that_cannot_start_says_why() {
    let pod = TestPod::prepare(|config| {
        config.sysctls = vec![("kernel.core_pattern".to_owned(), "|/x".to_owned())];
    });
    let output = pod.launch();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("sysctl \"kernel.core_pattern\" is not allowed"), "{text}");
}

#[test]
fn states_only_move_forward() {
    let pod = TestPod::start();
    let mut client = pod.client();
    client.create(pod.container("a", "exit 0")).unwrap();
    assert_eq!(refused(client.create(pod.container("a", ""))).0, FailureKind::AlreadyExists);
    assert_eq!(refused(client.remove("a")).0, FailureKind::WrongState);
    let null = fs::File::options().read(true).write(true).open("/dev/null").unwrap();
    let stdio = || [&null, &null, &null].map(std::os::fd::AsFd::as_fd);
    let exec = pod.client().exec("a", vec!["true".to_owned()], stdio());
    assert_eq!(refused(exec).0, FailureKind::WrongState);
    client.start("a").unwrap();
    pod.wait_for_exit("a");
    assert_eq!(refused(client.start("a")).0, FailureKind::WrongState);
    assert_eq!(refused(client.start("b")).0, FailureKind::NotFound);
    client.signal("a", 15).unwrap();
    // A container that was made and never started can be killed and removed.
    client.create(pod.container("never", "exit 0")).unwrap();
    client.kill("never").unwrap();
    assert_eq!(pod.wait_for_exit("never").started_at, None);
    client.remove("never").unwrap();
}

#[test]
fn many_containers_and_execs_leave_nothing_behind_in_the_shim() {
    let pod = TestPod::start();
    let shim = pod.client().status().unwrap().pid;
    let count = |name: &str| match name {
        "mounts" => fs::read_to_string(format!("/proc/{shim}/mountinfo")).unwrap().lines().count(),
        folder => fs::read_dir(format!("/proc/{shim}/{folder}")).unwrap().count(),
    };
    let null = fs::File::options().read(true).write(true).open("/dev/null").unwrap();
    let round = |number: u32| {
        let mut fails = pod.container(&format!("f{number}"), "");
        fails.args = vec!["nosuchprogram".to_owned()];
        assert_eq!(refused(pod.client().create(fails)).0, FailureKind::CannotExecute);
        let id = format!("c{number}");
        pod.run(pod.container(&id, "echo up; read line; exit 2"));
        pod.wait_for_exit(&id);
        pod.client().remove(&id).unwrap();
        let id = format!("e{number}");
        pod.run(pod.container(&id, "echo up; sleep 600"));
        pod.wait_for_log(&id, "up");
        assert_eq!(pod.exec(&id, "exit 3", "").exit.code, 3);
        let stdio = [&null, &null, &null].map(std::os::fd::AsFd::as_fd);
        let fails = pod.client().exec(&id, vec!["nosuchprogram".to_owned()], stdio);
        assert_eq!(refused(fails).0, FailureKind::CannotExecute);
        pod.client().kill(&id).unwrap();
        pod.wait_for_exit(&id);
        pod.client().remove(&id).unwrap();
    };
    round(0);
    // Standard streams, poll set, listener and signals are all that an idle shim has open.
    let is_idle = || count("fd") == 6;
    wait_until("connections to close", is_idle);
    let dirty_kib = || {
        let rollup = fs::read_to_string(format!("/proc/{shim}/smaps_rollup")).unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let before_kib = dirty_kib();
    let mounts = count("mounts");
    (1..20).for_each(round);
    wait_until("connections to close", is_idle);
    assert_eq!(count("mounts"), mounts);
    assert_eq!(fs::read_dir(pod.dir().join("state")).unwrap().count(), 0);
    wait_until("the groups to go", || {
        let groups = fs::read_dir(pod.group().path()).unwrap().flatten();
        groups.filter(|entry| entry.path().is_dir()).count() == 1
    });
    let grown_kib = dirty_kib().saturating_sub(before_kib);
    assert!(grown_kib < 1024, "the shim grew by {grown_kib} KiB");
    let children = format!("/proc/{shim}/task/{shim}/children");
    wait_until("every child to be reaped", || {
        fs::read_to_string(&children).is_ok_and(|children| children.is_empty())
    });
}
