//! Makes one container: root filesystem, identity, control group, specification, and the first process, which then waits to be started.
//! Whatever fails, nothing of it stays.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use libcontainer::container::Container as RuntimeContainer;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use podium_shim_protocol::{ContainerConfig, Failure, FailureKind, Propagation, Seccomp, paths};
use rustix::fs::{FileType, fchown, fstat};
use rustix::process::Uid;
use serde_json::Value;

use crate::cgroup::{CgroupError, Group};
use crate::failure;
use crate::identity::IdentityError;
use crate::inside::Inside;
use crate::log::Stream;
use crate::pod::{self, Pod};
use crate::rootfs::RootError;
use crate::spec::Parts;
use crate::terminal::Console;
use crate::workload::Workload;
use crate::{capabilities, devices, identity, leaks, rootfs, spec};

/// What came into being.
pub(crate) struct Created {
    pub(crate) pid: i32,
    pub(crate) group: Group,
    pub(crate) runtime: RuntimeContainer,
    /// What the shim reads, each with the stream that it logs it as. All non-blocking.
    pub(crate) outputs: Vec<(Stream, OwnedFd)>,
    /// Where the container's standard input is written to. Non-blocking.
    pub(crate) input: Option<OwnedFd>,
    /// The terminal's master side.
    pub(crate) terminal: Option<OwnedFd>,
}

/// The files of one container.
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(crate) fn of(pod: &Pod, id: &str) -> Self {
        Self { path: paths::container(&pod.dir, id) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn root(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    fn staged(&self) -> PathBuf {
        self.path.join("mounts")
    }

    /// The process of the specification, which exec starts from.
    pub(crate) fn process(&self) -> PathBuf {
        self.path.join("process.json")
    }

    /// The filter that exec'd processes load.
    pub(crate) fn filter(&self) -> PathBuf {
        self.path.join("seccomp.json")
    }

    /// Takes the mounts away, and every file but the exit record.
    pub(crate) fn clear(&self, state: &Path) {
        rootfs::unmount_all(&self.root(), &self.staged());
        let _ = fs::remove_dir_all(state);
        // The mounts are gone, so these are plain empty folders; anything else would be refused here, not followed.
        let _ = fs::remove_dir(self.root());
        let _ = fs::remove_dir_all(self.staged());
        for file in ["config.json", "process.json", "seccomp.json"] {
            let _ = fs::remove_file(self.path.join(file));
        }
        // Succeeds only without an exit record.
        let _ = fs::remove_dir(&self.path);
    }
}

/// Where libcontainer keeps what it knows about a container.
pub(crate) fn state_root(pod: &Pod) -> PathBuf {
    pod.dir.join("state")
}

/// Makes the container. Its id is not in use. If it fails, a group that the kernel does not let go at once joins `leftovers`.
pub(crate) fn create(
    pod: &Pod,
    config: &ContainerConfig,
    leftovers: &mut Vec<Group>,
) -> Result<Created, Failure> {
    check(pod, config)?;
    let folder = Folder::of(pod, &config.id);
    let mut group = None;
    build(pod, config, &folder, &mut group).inspect_err(|_| {
        if let Some(group) = group {
            let _ = group.kill();
            if !group.remove() {
                leftovers.push(group);
            }
        }
        folder.clear(&state_root(pod).join(&config.id));
        rootfs::let_reuse(config);
    })
}

/// Refuses what can never work, before anything is touched.
fn check(pod: &Pod, config: &ContainerConfig) -> Result<(), Failure> {
    let invalid = |message: String| Err(failure::new(FailureKind::InvalidConfig, message));
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let id = &config.id;
    if id.is_empty()
        || id.len() > 64
        || !id.bytes().all(named)
        || id.starts_with('.')
        || id == "shim"
    {
        return invalid(format!("{id:?} is not a container id"));
    }
    if config.args.is_empty() {
        return Err(failure::new(FailureKind::CannotExecute, "no command specified"));
    }
    if config.log_path.split('/').any(|part| part.is_empty() || part == "..") {
        return invalid(format!("{:?} is not a log path", config.log_path));
    }
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return invalid(format!("the working directory {:?} is not absolute", config.working_dir));
    }
    for mount in &config.mounts {
        if !mount.source.starts_with('/') || !mount.destination.starts_with('/') {
            return invalid(format!(
                "mount {:?} at {:?}: a path is not absolute",
                mount.source, mount.destination
            ));
        }
        if mount.propagation == Propagation::Bidirectional
            && !(pod.config.host_mounts && config.security.privileged)
        {
            return invalid(format!(
                "mount {:?}: only a privileged container may pass mounts on",
                mount.destination
            ));
        }
    }
    Ok(())
}

fn build(
    pod: &Pod,
    config: &ContainerConfig,
    folder: &Folder,
    made_group: &mut Option<Group>,
) -> Result<Created, Failure> {
    let system = |error: &io::Error| failure::of(FailureKind::System, error);
    let root = folder.root();
    fs::create_dir_all(&root).map_err(|error| system(&error))?;
    fs::create_dir_all(folder.staged()).map_err(|error| system(&error))?;
    rootfs::mount(config, &root).map_err(|error| root_failure(&error))?;
    let sources =
        rootfs::stage(&config.mounts, &folder.staged()).map_err(|error| root_failure(&error))?;
    let inside = Inside::open(&root).map_err(|error| system(&error))?;
    let identity =
        identity::decide(&inside, &config.run_as).map_err(|error| identity_failure(&error))?;
    make_working_dir(config, &inside);
    let security = &config.security;
    let capabilities = capabilities::decide(
        security.privileged,
        &security.capabilities,
        capabilities::held_by_shim(),
    )
    .map_err(|error| failure::of(FailureKind::InvalidConfig, &error))?;

    let group =
        made_group.insert(pod.group.child(&config.id).map_err(|error| group_failure(&error))?);
    group.limit(&config.resources, true).map_err(|error| group_failure(&error))?;
    let nodes = if security.privileged {
        devices::machine_nodes()
    } else {
        devices::restrict(group.path())
            .map_err(|error| failure::of(FailureKind::System, &error))?;
        Vec::new()
    };
    let value = spec::build(&Parts {
        pod: &pod.config,
        container: config,
        root: &root,
        sources: &sources,
        shm: &pod.shm,
        cgroup: &group.oci_path(),
        identity: &identity,
        capabilities: &capabilities,
        nodes: &nodes,
    });
    write_specification(folder, config, &value).map_err(|error| system(&error))?;
    let group = group.clone();
    run(pod, config, folder, group, identity.uid)
}

/// Makes the working directory, in the image or in the volume that it lies in. Failing is met again, with a reason, when the
/// process cannot go there.
fn make_working_dir(config: &ContainerConfig, image: &Inside) {
    let path = Path::new(&config.working_dir);
    let within = config.mounts.iter().filter(|mount| path.starts_with(&mount.destination));
    let Some(mount) = within.max_by_key(|mount| mount.destination.len()) else {
        let _ = image.make_folders(path);
        return;
    };
    if let (Ok(rest), Ok(volume)) =
        (path.strip_prefix(&mount.destination), Inside::open(Path::new(&mount.source)))
        && !mount.read_only
    {
        let _ = volume.make_folders(rest);
    }
}

fn write_specification(folder: &Folder, config: &ContainerConfig, spec: &Value) -> io::Result<()> {
    fs::write(folder.path().join("config.json"), serde_json::to_vec(spec)?)?;
    fs::write(folder.process(), serde_json::to_vec(&spec["process"])?)?;
    if config.security.seccomp == Seccomp::RuntimeDefault && !config.security.privileged {
        fs::write(folder.filter(), serde_json::to_vec(&spec["linux"]["seccomp"])?)?;
    }
    Ok(())
}

fn run(
    pod: &Pod,
    config: &ContainerConfig,
    folder: &Folder,
    group: Group,
    uid: u32,
) -> Result<Created, Failure> {
    let runtime = |error: &dyn std::error::Error| failure::of_runtime(error);
    let system = |error: &io::Error| failure::of(FailureKind::System, error);
    let mut builder = ContainerBuilder::new(config.id.clone(), SyscallType::Linux)
        .with_executor(Workload::first())
        .with_root_path(state_root(pod))
        .map_err(|error| runtime(&error))?;
    let mut outputs = Vec::new();
    let mut input = None;
    let mut console = None;
    if config.stdio.terminal {
        let listening = Console::listen(&pod.dir).map_err(|error| system(&error))?;
        builder = builder.with_console_socket(Some(listening.path().to_owned()));
        console = Some(listening);
    } else {
        let pipes = Pipes::make(config.stdio.stdin, uid).map_err(|error| system(&error))?;
        builder =
            builder.with_stdin(pipes.stdin).with_stdout(pipes.stdout).with_stderr(pipes.stderr);
        outputs = pipes.outputs;
        input = pipes.input;
    }
    let first = builder.as_init(folder.path()).with_systemd(false).with_detach(true);
    let built = leaks::closed_on_failure(|| first.build());
    // libcontainer gives the shim itself the container's score on the way.
    pod::set_oom_score(pod.config.resources.oom_score_adj.unwrap_or(0));
    let container = built.map_err(|error| runtime(&error))?;
    let Some(pid) = container.pid() else {
        return Err(failure::new(FailureKind::System, "the container has no first process"));
    };
    let mut terminal = None;
    if let Some(console) = console {
        let master = console.receive().map_err(|error| system(&error))?;
        outputs.push((Stream::Stdout, master.try_clone().map_err(|error| system(&error))?));
        if config.stdio.stdin {
            input = Some(master.try_clone().map_err(|error| system(&error))?);
        }
        terminal = Some(master);
    }
    Ok(Created { pid: pid.as_raw(), group, runtime: container, outputs, input, terminal })
}

/// The standard streams of a container without a terminal.
struct Pipes {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    outputs: Vec<(Stream, OwnedFd)>,
    input: Option<OwnedFd>,
}

impl Pipes {
    /// The container's ends belong to its user, so that it may open `/dev/stdout` and the like.
    fn make(keep_stdin: bool, uid: u32) -> io::Result<Self> {
        let (stdout_read, stdout) = io::pipe()?;
        let (stderr_read, stderr) = io::pipe()?;
        let (stdin, input) = if keep_stdin {
            let (read, write) = io::pipe()?;
            give(read.as_fd(), uid)?;
            rustix::io::ioctl_fionbio(&write, true)?;
            (OwnedFd::from(read), Some(OwnedFd::from(write)))
        } else {
            (OwnedFd::from(File::open("/dev/null")?), None)
        };
        give(stdout.as_fd(), uid)?;
        give(stderr.as_fd(), uid)?;
        let mut outputs = Vec::with_capacity(2);
        for (stream, read) in [(Stream::Stdout, stdout_read), (Stream::Stderr, stderr_read)] {
            rustix::io::ioctl_fionbio(&read, true)?;
            outputs.push((stream, OwnedFd::from(read)));
        }
        Ok(Self { stdin, stdout: stdout.into(), stderr: stderr.into(), outputs, input })
    }
}

/// Makes a pipe's end its user's. What is no pipe (a terminal, a socket, a file) stays whose it is.
pub(crate) fn give(end: BorrowedFd<'_>, uid: u32) -> io::Result<()> {
    if FileType::from_raw_mode(fstat(end)?.st_mode) == FileType::Fifo {
        fchown(end, Some(Uid::from_raw(uid)), None)?;
    }
    Ok(())
}

fn root_failure(error: &RootError) -> Failure {
    let kind = match error {
        RootError::Io { .. } => FailureKind::System,
        RootError::NoLayers | RootError::NoSource(_) => FailureKind::InvalidConfig,
    };
    failure::of(kind, error)
}

fn identity_failure(error: &IdentityError) -> Failure {
    let kind = match error {
        IdentityError::NoUser(_) | IdentityError::NoGroup(_) => FailureKind::InvalidConfig,
        IdentityError::Root => FailureKind::WouldRunAsRoot,
        IdentityError::Io(_) => FailureKind::System,
    };
    failure::of(kind, error)
}

fn group_failure(error: &CgroupError) -> Failure {
    let kind = match error {
        CgroupError::Io { .. } => FailureKind::System,
        CgroupError::Path(_) | CgroupError::NoController { .. } | CgroupError::Value { .. } => {
            FailureKind::InvalidConfig
        }
    };
    failure::of(kind, error)
}
