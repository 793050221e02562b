//! A pod's shim on this machine, in a mount namespace of the test's own where `/sys/fs/cgroup` is cgroup v2 whatever the machine mounts
//! there. Needs root and a static busybox.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use podium_shim_protocol::client::{Client, Subscription};
use podium_shim_protocol::group::ControlGroup;
use podium_shim_protocol::{
    ContainerConfig, ContainerState, Event, ExecExit, ExitRecord, PodConfig, PodStatus, paths,
    record,
};

/// Longer than anything here takes, even beside compilers on two cores.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A pod with its shim running; killed when dropped.
pub(crate) struct TestPod {
    folder: tempfile::TempDir,
    pub(crate) config: PodConfig,
}

/// What a finished process wrote and how it ended.
pub(crate) struct Finished {
    pub(crate) exit: ExecExit,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

fn own_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).expect("these tests need root");
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), none).unwrap();
}

impl TestPod {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    pub(crate) fn start_with(change: impl FnOnce(&mut PodConfig)) -> Self {
        let pod = Self::prepare(change);
        let output = pod.launch();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        pod
    }

    /// A pod whose shim is not started yet.
    pub(crate) fn prepare(change: impl FnOnce(&mut PodConfig)) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        own_mounts();
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let uid = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut config = PodConfig {
            cgroup: format!("/podium-test/pods/{uid}"),
            uid,
            name: "web".to_owned(),
            namespace: "default".to_owned(),
            hostname: "web-0".to_owned(),
            log_dir: folder.path().join("logs").display().to_string(),
            ..PodConfig::default()
        };
        change(&mut config);
        let pod = Self { folder, config };
        pod.make_image();
        record::write(&paths::pod_config(pod.dir()), &pod.config).unwrap();
        pod
    }

    pub(crate) fn launch(&self) -> std::process::Output {
        Command::new(env!("CARGO_BIN_EXE_shim")).arg("--dir").arg(self.dir()).output().unwrap()
    }

    pub(crate) fn dir(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn group(&self) -> ControlGroup {
        ControlGroup::at(&self.config.cgroup)
    }

    fn image(&self) -> PathBuf {
        self.dir().join("image")
    }

    /// busybox with its usual links, in the older of two layers.
    fn make_image(&self) {
        let bin = self.image().join("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).expect("these tests need busybox-static");
        let applets = "sh cat echo sleep id ls true false kill ps tty head mount mkdir mknod ping hostname nc dd stat wc seq yes \
                       readlink chmod touch chroot unshare stty ip env sort grep";
        for applet in applets.split_whitespace() {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        for name in ["etc", "tmp", "proc", "sys", "dev"] {
            fs::create_dir_all(self.image().join(name)).unwrap();
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\nredis:x:999:1000::/data:/bin/sh\n";
        fs::write(self.image().join("etc/passwd"), passwd).unwrap();
        fs::write(self.image().join("etc/group"), "root:x:0:\nredis:x:1000:\ndisk:x:6:redis\n")
            .unwrap();
        fs::create_dir_all(self.dir().join("top/etc")).unwrap();
        fs::write(self.dir().join("top/etc/layer"), "top\n").unwrap();
    }

    pub(crate) fn client(&self) -> Client {
        let client = Client::connect(&paths::socket(self.dir())).unwrap();
        client.set_timeout(Some(DEADLINE)).unwrap();
        client
    }

    pub(crate) fn subscribe(&self) -> (PodStatus, Subscription) {
        let (status, subscription) = self.client().subscribe().unwrap();
        subscription.set_timeout(Some(DEADLINE)).unwrap();
        (status, subscription)
    }

    /// A container that runs a shell script.
    pub(crate) fn container(&self, id: &str, script: &str) -> ContainerConfig {
        let own = self.dir().join("writable").join(id);
        for name in ["upper", "work"] {
            fs::create_dir_all(own.join(name)).unwrap();
        }
        let path = |path: PathBuf| path.display().to_string();
        ContainerConfig {
            id: id.to_owned(),
            name: "main".to_owned(),
            args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            layers: vec![path(self.dir().join("top")), path(self.image())],
            upper_dir: path(own.join("upper")),
            work_dir: path(own.join("work")),
            log_path: format!("main/{id}.log"),
            ..ContainerConfig::default()
        }
    }

    pub(crate) fn run(&self, config: ContainerConfig) -> i32 {
        let id = config.id.clone();
        let mut client = self.client();
        let pid = client.create(config).unwrap();
        client.start(&id).unwrap();
        pid
    }

    /// Runs a script to its end and returns how it ended and what it wrote.
    pub(crate) fn run_to_end(&self, config: ContainerConfig) -> (ExitRecord, Finished) {
        let id = config.id.clone();
        self.run(config);
        let record = self.wait_for_exit(&id);
        let (stdout, stderr) = (self.logged(&id, "stdout"), self.logged(&id, "stderr"));
        (
            record,
            Finished {
                exit: ExecExit { code: record.code, signal: record.signal },
                stdout,
                stderr,
            },
        )
    }

    pub(crate) fn wait_for_exit(&self, id: &str) -> ExitRecord {
        let (status, mut events) = self.subscribe();
        let mut known = status.containers;
        loop {
            for status in known.drain(..) {
                if let (true, ContainerState::Exited(record)) = (status.id == id, status.state) {
                    return record;
                }
            }
            if let Event::Changed(status) = events.next_event().unwrap() {
                known.push(status);
            }
        }
    }

    pub(crate) fn log_file(&self, id: &str) -> PathBuf {
        Path::new(&self.config.log_dir).join(format!("main/{id}.log"))
    }

    /// What the log says that a container wrote to `stream`.
    pub(crate) fn logged(&self, id: &str, stream: &str) -> String {
        let text = fs::read_to_string(self.log_file(id)).unwrap_or_default();
        let mut out = String::new();
        for line in text.split_terminator('\n') {
            let mut fields = line.splitn(4, ' ').skip(1);
            let (from, tag, content) =
                (fields.next().unwrap(), fields.next().unwrap(), fields.next().unwrap());
            if from == stream {
                out.push_str(content);
                if tag == "F" {
                    out.push('\n');
                }
            }
        }
        out
    }

    /// Waits until the log holds `text`.
    pub(crate) fn wait_for_log(&self, id: &str, text: &str) {
        wait_until(&format!("{text:?} in the log"), || self.logged(id, "stdout").contains(text));
    }

    /// Runs a script in a container.
    pub(crate) fn exec(&self, id: &str, script: &str, input: &str) -> Finished {
        use std::io::{Read as _, Write as _};
        let (stdin, mut typed) = std::io::pipe().unwrap();
        let (mut out_read, stdout) = std::io::pipe().unwrap();
        let (mut err_read, stderr) = std::io::pipe().unwrap();
        let args = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let exec =
            self.client().exec(id, args, [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]).unwrap();
        drop((stdin, stdout, stderr));
        typed.write_all(input.as_bytes()).unwrap();
        drop(typed);
        let (mut stdout, mut stderr) = (String::new(), String::new());
        out_read.read_to_string(&mut stdout).unwrap();
        err_read.read_to_string(&mut stderr).unwrap();
        exec.set_timeout(Some(DEADLINE)).unwrap();
        Finished { exit: exec.wait().unwrap(), stdout, stderr }
    }
}

impl Drop for TestPod {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let shim_log = fs::read_to_string(paths::shim_log(self.dir())).unwrap_or_default();
            eprintln!("shim.log: {shim_log}");
            for entry in fs::read_dir(Path::new(&self.config.log_dir).join("main"))
                .into_iter()
                .flatten()
                .flatten()
            {
                eprintln!(
                    "{}:\n{}",
                    entry.path().display(),
                    fs::read_to_string(entry.path()).unwrap_or_default()
                );
            }
        }
        let group = self.group();
        let _ = group.kill();
        let deadline = Instant::now() + DEADLINE;
        while !group.remove() && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
}

/// Waits for a condition that nothing announces.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "timed out waiting for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
