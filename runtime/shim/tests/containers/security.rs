//! What a container can see and do.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use podium_shim_protocol::{Mount, RunAs, Security};

use crate::support::TestPod;

fn status_lines(text: &str) -> Vec<(&str, &str)> {
    text.lines().filter_map(|line| line.split_once(":\t")).collect()
}

fn field<'a>(lines: &[(&'a str, &'a str)], name: &str) -> &'a str {
    lines.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value.trim())
}

#[test]
fn first_and_exec_d_processes_have_the_same_few_rights() {
    let pod = TestPod::start();
    let (_, first) = pod.run_to_end(pod.container("first", "cat /proc/self/status"));
    pod.run(pod.container("a", "echo up; sleep 600"));
    pod.wait_for_log("a", "up");
    let second = pod.exec("a", "cat /proc/self/status", "");
    for text in [&first.stdout, &second.stdout] {
        let lines = status_lines(text);
        assert_eq!(field(&lines, "Seccomp"), "2", "{text}");
        assert_eq!(field(&lines, "NoNewPrivs"), "0");
        // containerd's fourteen
        for set in ["CapBnd", "CapEff", "CapPrm"] {
            assert_eq!(field(&lines, set), "00000000a80425fb", "{set} in {text}");
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(field(&lines, set), "0000000000000000", "{set}");
        }
        // Nothing of the shim's signal handling shows.
        assert_eq!(field(&lines, "SigBlk"), "0000000000000000", "{text}");
        let ignored = u64::from_str_radix(field(&lines, "SigIgn"), 16).unwrap();
        assert_eq!(ignored & 1 << (nix::sys::signal::Signal::SIGPIPE as i32 - 1), 0, "{text}");
    }
}

#[test]
fn no_new_privileges_hold_for_both_kinds_of_process() {
    let pod = TestPod::start();
    let mut config = pod.container("a", "cat /proc/self/status; echo up; sleep 600");
    config.security = Security { no_new_privileges: true, ..Security::default() };
    pod.run(config);
    pod.wait_for_log("a", "up");
    for text in [pod.logged("a", "stdout"), pod.exec("a", "cat /proc/self/status", "").stdout] {
        let lines = status_lines(&text);
        assert_eq!((field(&lines, "NoNewPrivs"), field(&lines, "Seccomp")), ("1", "2"), "{text}");
    }
}

#[test]
fn container_holds_no_descriptor_but_its_three() {
    let pod = TestPod::start();
    // The fourth is ls's own view of the folder.
    let (_, finished) = pod.run_to_end(pod.container("a", "ls /proc/self/fd; ls /proc/1/fd; true"));
    let open: Vec<&str> = finished.stdout.split_whitespace().collect();
    assert_eq!(open, ["0", "1", "2", "3", "0", "1", "2"], "{}", finished.stderr);
    pod.run(pod.container("b", "echo up; sleep 600"));
    pod.wait_for_log("b", "up");
    assert_eq!(
        pod.exec("b", "ls /proc/self/fd", "").stdout.split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3"]
    );
}

#[test]
fn machine_is_masked_and_read_only() {
    let pod = TestPod::start();
    let script = "wc -c < /proc/interrupts; ls /sys/firmware | wc -l; touch /sys/x; echo 1 > /proc/sys/kernel/pid_max; touch /sys/fs/cgroup/x; \
                  mkdir /sys/fs/cgroup/y; mount -t tmpfs x /tmp; unshare -n true; chroot / true && echo chroot; ls /dev | sort | grep -v core; ls /sys/fs/cgroup | grep -c cgroup.procs";
    let (_, finished) = pod.run_to_end(pod.container("a", script));
    let expected = "0\n0\nchroot\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n1\n";
    assert_eq!(finished.stdout, expected, "{}", finished.stderr);
    for refusal in [
        "/sys/x: Read-only",
        "/sys/fs/cgroup/x",
        "can't create directory '/sys/fs/cgroup/y'",
        "mount: permission denied",
        "unshare",
        "can't create /proc/sys/kernel/pid_max: Read-only",
    ] {
        assert!(finished.stderr.contains(refusal), "{refusal:?} is not in {}", finished.stderr);
    }
}

#[test]
fn device_that_is_not_allowed_cannot_be_opened_even_when_made() {
    let pod = TestPod::start();
    let script = "mknod /tmp/kmsg c 1 11; dd if=/tmp/kmsg of=/dev/null bs=1 count=1; mknod /tmp/zero c 1 5 && head -c 3 /tmp/zero | wc -c";
    let (_, finished) = pod.run_to_end(pod.container("a", script));
    assert_eq!(finished.stdout, "3\n");
    assert!(
        finished.stderr.contains("can't open '/tmp/kmsg': Operation not permitted"),
        "{}",
        finished.stderr
    );
}

#[test]
fn privileged_container_has_what_the_machine_has() {
    let pod = TestPod::start();
    let mut config = pod.container("a", "cat /proc/self/status; mount -t tmpfs x /tmp && echo mounted; ls /dev/kmsg; touch /sys/fs/cgroup/x");
    config.security = Security { privileged: true, ..Security::default() };
    let (_, finished) = pod.run_to_end(config);
    let lines = status_lines(&finished.stdout);
    assert_eq!(field(&lines, "Seccomp"), "0");
    let own = fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(field(&lines, "CapEff"), field(&status_lines(&own), "CapBnd"));
    assert!(
        finished.stdout.contains("mounted\n/dev/kmsg\n"),
        "{}{}",
        finished.stdout,
        finished.stderr
    );
}

#[test]
fn image_user_runs_with_its_groups_and_owns_its_streams() {
    let pod = TestPod::start();
    let mut config =
        pod.container("a", "id; echo $HOME; pwd; echo direct > /dev/stderr; touch /etc/x");
    config.run_as = RunAs {
        image_user: "redis".to_owned(),
        supplemental_groups: vec![4242],
        ..RunAs::default()
    };
    config.working_dir = "/srv/made/here".to_owned();
    let (_, finished) = pod.run_to_end(config);
    let mut lines = finished.stdout.lines();
    let id = lines.next().unwrap();
    assert!(id.starts_with("uid=999(redis) gid=1000(redis) groups="), "{id}");
    for group in ["6(disk)", "1000(redis)", "4242"] {
        assert!(id.contains(group), "{group} is not in {id}");
    }
    assert_eq!(lines.collect::<Vec<_>>(), ["/data", "/srv/made/here"]);
    assert!(finished.stderr.starts_with("direct\n"), "{}", finished.stderr);
    assert!(finished.stderr.contains("/etc/x: Permission denied"));
    let mut config = pod.container("b", "echo up; sleep 600");
    config.run_as.image_user = "redis".to_owned();
    pod.run(config);
    pod.wait_for_log("b", "up");
    assert_eq!(pod.exec("b", "echo direct > /dev/stdout", "").stdout, "direct\n");
}

#[test]
fn working_dir_is_made_in_the_volume_it_lies_in() {
    let pod = TestPod::start();
    let data = pod.dir().join("data");
    fs::create_dir(&data).unwrap();
    let mut config = pod.container("a", "pwd");
    config.mounts = vec![Mount {
        source: data.display().to_string(),
        destination: "/data".to_owned(),
        ..Mount::default()
    }];
    config.working_dir = "/data/deep/er".to_owned();
    assert_eq!(pod.run_to_end(config).1.stdout, "/data/deep/er\n");
    assert!(data.join("deep/er").is_dir());
}

/// The machine's own programs, dynamically linked and many-threaded, work under the filter.
#[test]
fn ordinary_programs_run_under_the_filter() {
    let pod = TestPod::start();
    let script = r#"
        use IO::Socket::INET; use POSIX;
        my $server = IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1", ReuseAddr => 1) or die "listen: $!";
        my $pid = fork // die "fork: $!";
        if (!$pid) { my $c = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $server->sockport) or die; print $c "hello
"; exit 3 }
        print scalar readline($server->accept); waitpid($pid, 0); print $? >> 8, "
";
        $SIG{ALRM} = sub { print "alarm
" }; alarm 1; POSIX::pause();
        chmod(0600, "/tmp/x") if open(my $f, ">", "/tmp/x"); print -e "/tmp/x" ? "file
" : "no file
";
        print POSIX::setuid(1000) // "", "
"; print "$<
";
    "#;
    let mut config = pod.container("a", "");
    config.args = vec!["/usr/bin/perl".to_owned(), "-e".to_owned(), script.to_owned()];
    let bind = |path: &str| Mount {
        source: path.to_owned(),
        destination: path.to_owned(),
        read_only: true,
        ..Mount::default()
    };
    config.mounts = vec![bind("/usr"), bind("/lib"), bind("/lib64")];
    let (exit, finished) = pod.run_to_end(config);
    assert_eq!(
        (exit.code, finished.stdout.as_str()),
        (0, "hello\n3\nalarm\nfile\n0 but true\n1000\n"),
        "{}",
        finished.stderr
    );
}

#[test]
fn mounts_are_as_asked_and_the_upper_layer_takes_writes() {
    let pod = TestPod::start();
    let data = pod.dir().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "from the node\n").unwrap();
    let mount = |destination: &str, source: &std::path::Path, read_only| Mount {
        source: source.display().to_string(),
        destination: destination.to_owned(),
        read_only,
        ..Mount::default()
    };
    let mut config = pod.container(
        "a",
        "cat /etc/layer /ro/file /etc/hosts; touch /ro/x; echo written > /rw/new; echo own > /own; touch /link/x; ls /dev/termination-log",
    );
    symlink("/tmp", pod.dir().join("top/link")).unwrap();
    config.mounts = vec![
        mount("/ro", &data, true),
        mount("/rw", &data, false),
        mount("/etc/hosts", &data.join("file"), true),
        mount("/dev/termination-log", &data.join("file"), false),
    ];
    let (exit, finished) = pod.run_to_end(config);
    assert_eq!(
        finished.stdout, "top\nfrom the node\nfrom the node\n/dev/termination-log\n",
        "{}",
        finished.stderr
    );
    assert!(finished.stderr.contains("/ro/x: Read-only"), "{}", finished.stderr);
    assert_eq!(exit.code, 0);
    assert_eq!(fs::read_to_string(data.join("new")).unwrap(), "written\n");
    let upper = pod.dir().join("writable/a/upper");
    assert_eq!(fs::read_to_string(upper.join("own")).unwrap(), "own\n");
    assert!(upper.join("tmp/x").exists());
    assert!(!pod.dir().join("image/own").exists());
}

#[test]
fn read_only_root_takes_no_writes() {
    let pod = TestPod::start();
    let mut config = pod.container("a", "touch /x; touch /tmp/y; echo tried");
    config.security.read_only_root = true;
    let (_, finished) = pod.run_to_end(config);
    assert_eq!(finished.stdout, "tried\n");
    assert_eq!(finished.stderr.matches("Read-only file system").count(), 2, "{}", finished.stderr);
}

#[test]
fn hostile_image_cannot_reach_the_node() {
    let pod = TestPod::start();
    let outside = pod.dir().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("passwd"), "evil:x:0:0::/:/bin/sh\n").unwrap();
    let top = pod.dir().join("top");
    // /etc/passwd and mount points lead out of the image.
    symlink(outside.join("passwd"), top.join("etc/passwd")).unwrap();
    symlink(&outside, top.join("escape")).unwrap();
    let mut config = pod.container("user", "true");
    config.run_as.image_user = "evil".to_owned();
    let error = pod.client().create(config).unwrap_err().to_string();
    assert!(error.contains("unable to find user evil"), "{error}");
    let mut config = pod.container("mount", "ls /");
    let own = pod.dir().join("own");
    fs::create_dir(&own).unwrap();
    config.mounts = vec![Mount {
        source: own.display().to_string(),
        destination: "/escape/made".to_owned(),
        ..Mount::default()
    }];
    config.working_dir = "/escape/cwd".to_owned();
    // Refused or kept inside: nothing may appear outside either way.
    let _ = pod.client().create(config);
    let names: Vec<_> =
        fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["passwd"]);
    assert_eq!(fs::metadata(&outside).unwrap().uid(), 0);
}

#[test]
fn shims_files_are_not_in_the_container() {
    let pod = TestPod::start();
    let dir = pod.dir().display().to_string();
    let script =
        format!("ls {dir}; grep -c {dir} /proc/1/mountinfo; grep shim.sock /proc/net/unix | wc -l");
    let (_, finished) = pod.run_to_end(pod.container("a", &script));
    // The socket's name shows in the pod's network namespace, where the shim listens; its file does not.
    assert!(finished.stderr.contains("No such file or directory"), "{}", finished.stderr);
    assert!(!finished.stdout.contains("shim.sock\n"), "{}", finished.stdout);
}
