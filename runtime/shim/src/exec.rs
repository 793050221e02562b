//! Runs a process in a container that runs already.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use oci_spec::runtime::LinuxSeccomp;
use podium_shim_protocol::{ExecConfig, Failure, FailureKind};
use serde_json::{Value, json};

use crate::create::{self, Folder, state_root};
use crate::failure;
use crate::leaks;
use crate::pod::{self, Pod};
use crate::terminal::Console;
use crate::workload::Workload;

/// A process that was started, and its terminal's master side if it has one.
pub(crate) struct Started {
    pub(crate) pid: i32,
    pub(crate) terminal: Option<OwnedFd>,
}

/// Starts the process. `stdio` holds three descriptors unless it gets a terminal.
pub(crate) fn start(
    pod: &Pod,
    config: &ExecConfig,
    stdio: Vec<OwnedFd>,
) -> Result<Started, Failure> {
    let folder = Folder::of(pod, &config.container);
    let system = |error: &io::Error| failure::of(FailureKind::System, error);
    if config.args.is_empty() {
        return Err(failure::new(FailureKind::CannotExecute, "no command specified"));
    }
    let prepared = Prepared::make(&folder, config).map_err(|error| system(&error))?;
    let mut builder = ContainerBuilder::new(config.container.clone(), SyscallType::Linux)
        .with_executor(Workload::exec(prepared.filter, prepared.admin_is_lent, config.terminal))
        .with_root_path(state_root(pod))
        .map_err(|error| failure::of_runtime(&error))?;
    let mut console = None;
    if config.terminal.is_some() {
        let listening = Console::listen(&pod.dir).map_err(|error| system(&error))?;
        builder = builder.with_console_socket(Some(listening.path().to_owned()));
        console = Some(listening);
    } else {
        let Ok([stdin, stdout, stderr]) = <[OwnedFd; 3]>::try_from(stdio) else {
            return Err(failure::new(
                FailureKind::InvalidConfig,
                "exec needs three descriptors or a terminal",
            ));
        };
        for end in [&stdin, &stdout, &stderr] {
            create::give(end.as_fd(), prepared.uid).map_err(|error| system(&error))?;
        }
        builder = builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr);
    }
    let process = folder.path().join("exec.json");
    fs::write(&process, prepared.process).map_err(|error| system(&error))?;
    let tenant = builder.as_tenant().with_detach(true).with_process(Some(&process));
    let built = leaks::closed_on_failure(|| tenant.build());
    let _ = fs::remove_file(&process);
    pod::set_oom_score(pod.config.resources.oom_score_adj.unwrap_or(0));
    let pid = built.map_err(|error| failure::of_runtime(&error))?.as_raw();
    let mut terminal = None;
    if let Some(console) = console {
        let master = console.receive().map_err(|error| system(&error))?;
        // Who gets it may do with it what blocking programs do.
        rustix::io::ioctl_fionbio(&master, false).map_err(|error| system(&error.into()))?;
        terminal = Some(master);
    }
    Ok(Started { pid, terminal })
}

/// What libcontainer needs to be told.
struct Prepared {
    process: Vec<u8>,
    filter: Option<LinuxSeccomp>,
    admin_is_lent: bool,
    uid: u32,
}

impl Prepared {
    /// The container's own process with other arguments. libcontainer drops the filter for processes that join later, so they load it
    /// themselves; without `noNewPrivileges` that takes CAP_SYS_ADMIN, which is lent to them until then.
    fn make(folder: &Folder, config: &ExecConfig) -> io::Result<Self> {
        let mut process: Value = serde_json::from_slice(&fs::read(folder.process())?)?;
        process["args"] = json!(config.args);
        process["terminal"] = json!(config.terminal.is_some());
        if config.terminal.is_some() {
            add_term(&mut process);
        }
        let filter: Option<LinuxSeccomp> = match fs::read(folder.filter()) {
            Ok(bytes) => Some(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let admin = json!("CAP_SYS_ADMIN");
        let has_admin = process["capabilities"]["bounding"]
            .as_array()
            .is_some_and(|names| names.contains(&admin));
        let admin_is_lent =
            filter.is_some() && !has_admin && process.get("noNewPrivileges") != Some(&json!(true));
        if admin_is_lent {
            for set in ["effective", "permitted"] {
                if let Some(names) = process["capabilities"][set].as_array_mut() {
                    names.push(admin.clone());
                }
            }
        }
        let uid =
            process["user"]["uid"].as_u64().and_then(|uid| u32::try_from(uid).ok()).unwrap_or(0);
        Ok(Self { process: serde_json::to_vec(&process)?, filter, admin_is_lent, uid })
    }
}

fn add_term(process: &mut Value) {
    if let Some(env) = process["env"].as_array_mut() {
        let has = env
            .iter()
            .any(|variable| variable.as_str().is_some_and(|text| text.starts_with("TERM=")));
        if !has {
            env.push(json!("TERM=xterm"));
        }
    }
}
