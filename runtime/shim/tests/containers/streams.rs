//! Output, input and terminals.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;

use podium_shim_protocol::{LogLimits, Stdio, TerminalSize};

use crate::support::{DEADLINE, TestPod, wait_until};

#[test]
fn output_is_logged_byte_for_byte() {
    let pod = TestPod::start();
    let script = "seq 1 20000; printf 'no newline'; printf 'to err\\n' >&2; dd if=/dev/zero bs=1000 count=50 2>/dev/null; echo; echo end";
    let (exit, finished) = pod.run_to_end(pod.container("a", script));
    assert_eq!(exit.code, 0);
    let mut expected: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    expected.push_str("no newline");
    expected.push_str(&"\0".repeat(50_000));
    expected.push_str("\nend\n");
    assert!(
        finished.stdout == expected,
        "{} bytes logged, {} written",
        finished.stdout.len(),
        expected.len()
    );
    assert_eq!(finished.stderr, "to err\n");
}

#[test]
fn log_is_rotated_while_the_container_writes() {
    let pod = TestPod::start_with(|config| {
        config.log_limits = LogLimits { file_bytes: 100_000, files: 3 }
    });
    let (_, finished) = pod.run_to_end(pod.container("a", "seq 1 20000"));
    assert!(finished.stdout.ends_with("20000\n"));
    let folder = pod.log_file("a").parent().unwrap().to_owned();
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 3, "{files:?}");
    let total: u64 = files.iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(total < 400_000, "{total}");
}

#[test]
fn disk_that_refuses_the_log_does_not_stop_the_container() {
    let pod = TestPod::start();
    fs::create_dir_all(pod.log_file("a").parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/full", pod.log_file("a")).unwrap();
    pod.run(pod.container("a", "seq 1 50000; exit 8"));
    assert_eq!(pod.wait_for_exit("a").code, 8);
    let lost = pod.client().status().unwrap().containers[0].log_bytes_lost;
    assert_eq!(
        lost,
        (1..=50_000).map(|number: u32| number.to_string().len() as u64 + 1).sum::<u64>()
    );
}

#[test]
fn exec_has_its_own_streams_and_exit_code() {
    let pod = TestPod::start();
    pod.run(pod.container("a", "echo up; sleep 600"));
    pod.wait_for_log("a", "up");
    let finished = pod.exec("a", "cat; echo err >&2; exit 7", "typed\n");
    assert_eq!(
        (finished.exit.code, finished.stdout.as_str(), finished.stderr.as_str()),
        (7, "typed\n", "err\n")
    );
    let finished = pod.exec("a", "kill -9 $$", "");
    assert_eq!((finished.exit.code, finished.exit.signal), (137, Some(9)));
    // Nothing of it is in the container's log.
    assert_eq!(pod.logged("a", "stdout"), "up\n");
    let null = fs::File::options().read(true).write(true).open("/dev/null").unwrap();
    let fds = [&null, &null, &null].map(std::os::fd::AsFd::as_fd);
    let error = pod.client().exec("a", vec!["nosuch".to_owned()], fds).unwrap_err();
    assert_eq!(error.to_string(), "cannot execute \"nosuch\": executable file not found in $PATH");
}

#[test]
fn exec_with_a_terminal_gets_a_pts_of_the_asked_size() {
    let pod = TestPod::start();
    pod.run(pod.container("a", "echo up; sleep 600"));
    pod.wait_for_log("a", "up");
    let args = ["/bin/sh", "-c", "tty; stty size; read line; echo got $line; exit 5"]
        .map(str::to_owned)
        .to_vec();
    let size = TerminalSize { columns: 123, rows: 45 };
    let (exec, master) = pod.client().exec_terminal("a", args, size).unwrap();
    exec.set_timeout(Some(DEADLINE)).unwrap();
    let mut master = fs::File::from(master);
    master.write_all(b"hello\n").unwrap();
    let mut text = Vec::new();
    // A terminal ends with an error when its last user has gone.
    let _ = master.read_to_end(&mut text);
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("/dev/pts/0\r\n"), "{text:?}");
    assert!(text.contains("45 123\r\n") && text.contains("got hello\r\n"), "{text:?}");
    assert_eq!(exec.wait().unwrap().code, 5);
}

#[test]
fn longest_names_have_terminals_too() {
    let pod = TestPod::start();
    let id = "n".repeat(64);
    let mut config = pod.container(&id, "tty; read line");
    config.stdio = Stdio { terminal: true, stdin: true, stdin_once: false };
    pod.run(config);
    pod.wait_for_log(&id, "/dev/pts/0");
    let size = TerminalSize { columns: 80, rows: 25 };
    let (exec, _master) = pod.client().exec_terminal(&id, vec!["true".to_owned()], size).unwrap();
    exec.set_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(exec.wait().unwrap().code, 0);
}

#[test]
fn exec_dies_with_its_connection() {
    let pod = TestPod::start();
    pod.run(pod.container("a", "echo up; sleep 600"));
    pod.wait_for_log("a", "up");
    let null = fs::File::options().read(true).write(true).open("/dev/null").unwrap();
    let fds = [&null, &null, &null].map(std::os::fd::AsFd::as_fd);
    let exec = pod.client().exec("a", ["sleep", "600"].map(str::to_owned).to_vec(), fds).unwrap();
    let proc = std::path::PathBuf::from(format!("/proc/{}", exec.pid));
    assert!(proc.exists());
    drop(exec);
    wait_until("the process's end", || !proc.exists());
    assert!(pod.exec("a", "echo still here", "").stdout.contains("still here"));
}

#[test]
fn attached_client_types_and_reads_and_the_log_has_it_too() {
    let pod = TestPod::start();
    let mut config = pod.container("a", "read line; echo got $line; cat; echo end");
    config.stdio = Stdio { stdin: true, stdin_once: true, terminal: false };
    pod.client().create(config).unwrap();
    let (stdin, mut typed) = std::io::pipe().unwrap();
    let (mut read, stdout) = std::io::pipe().unwrap();
    let attachment =
        pod.client().attach("a", [stdin.as_fd(), stdout.as_fd(), stdout.as_fd()]).unwrap();
    drop((stdin, stdout));
    pod.client().start("a").unwrap();
    typed.write_all(b"first\n").unwrap();
    let mut seen = vec![0; 10];
    read.read_exact(&mut seen).unwrap();
    assert_eq!(seen, b"got first\n");
    let large = "x".repeat(300_000);
    let writer =
        std::thread::spawn(move || typed.write_all(large.as_bytes()).map(|()| drop(typed)));
    let mut rest = String::new();
    read.read_to_string(&mut rest).unwrap();
    writer.join().unwrap().unwrap();
    // Who attaches may lose what it does not take in time, the log may not.
    assert!(rest.starts_with("xxx"));
    attachment.wait().unwrap();
    assert_eq!(pod.wait_for_exit("a").code, 0);
    assert_eq!(pod.logged("a", "stdout").len(), "got first\n".len() + 300_000 + "end\n".len());
}

#[test]
fn container_with_a_terminal_logs_it_and_can_be_resized() {
    let pod = TestPod::start();
    let mut config = pod.container(
        "a",
        "tty; echo $TERM; until [ \"$(stty size 2>/dev/null)\" = '40 100' ]; do sleep 0.02; done; echo big",
    );
    config.stdio = Stdio { terminal: true, stdin: true, stdin_once: false };
    pod.run(config);
    pod.wait_for_log("a", "xterm");
    pod.client().resize("a", TerminalSize { columns: 100, rows: 40 }).unwrap();
    assert_eq!(pod.wait_for_exit("a").code, 0);
    assert_eq!(pod.logged("a", "stdout"), "/dev/pts/0\r\nxterm\r\nbig\r\n");
}

#[test]
fn closed_standard_input_reads_as_its_end() {
    let pod = TestPod::start();
    assert_eq!(pod.run_to_end(pod.container("a", "cat; echo end")).1.stdout, "end\n");
}
