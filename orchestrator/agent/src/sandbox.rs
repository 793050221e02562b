//! A pod's shim as a process: starting it, hearing of its end, and clearing away what it leaves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use podium_control::pod::Exit;
use podium_shim_protocol::{ExitRecord, WallTime, paths};

use crate::cgroup;
use crate::seams::{BoxFuture, LaunchError, ShimLauncher};
use crate::shim::Shim;

/// Starting a shim is an exec and some mounts; under emulation that is seconds.
const LAUNCH_LIMIT: Duration = Duration::from_secs(60);

/// How long killed processes may take to be gone before it is said that they are not.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// How often a condition is looked at that nobody announces.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Starts shims as processes: the one launcher that ships.
#[derive(Debug, Clone)]
pub struct ProcessLauncher {
    program: PathBuf,
}

impl ProcessLauncher {
    /// A launcher for this executable.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        Self { program }
    }
}

impl ShimLauncher for ProcessLauncher {
    fn launch<'a>(&'a self, dir: &'a Path) -> BoxFuture<'a, Result<(), LaunchError>> {
        Box::pin(async move {
            let mut command = tokio::process::Command::new(&self.program);
            command
                .arg("--dir")
                .arg(dir)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
            command.kill_on_drop(true).env_clear();
            let output = tokio::time::timeout(LAUNCH_LIMIT, command.output())
                .await
                .map_err(|_| LaunchError("the shim did not come up in time".to_owned()))?
                .map_err(|error| {
                    LaunchError(format!("cannot run {}: {error}", self.program.display()))
                })?;
            if output.status.success() {
                return Ok(());
            }
            let words = String::from_utf8_lossy(&output.stderr);
            Err(LaunchError(format!("the shim failed with {}: {}", output.status, words.trim())))
        })
    }
}

/// Ends a pod's shim and every process of the pod, whatever state they are in.
pub(crate) async fn end(dir: &Path, group: &Path) -> Result<(), String> {
    let shim = Shim::at(dir);
    if shim.stop_pod().await.is_ok() {
        wait_for(KILL_LIMIT, || async {
            shim.status().await.is_ok_and(|status| status.containers.iter().all(is_over))
        })
        .await;
        // A shim that does not go is killed with the rest.
        let _refused = shim.shutdown().await;
    }
    clear(dir, group).await
}

/// Kills what is left of a pod and removes the shim's files.
pub(crate) async fn clear(dir: &Path, group: &Path) -> Result<(), String> {
    cgroup::kill(group).map_err(|error| describe(&error))?;
    if !wait_for(KILL_LIMIT, || async { !cgroup::is_populated(group) }).await {
        return Err("processes of the pod do not die".to_owned());
    }
    cgroup::remove(group).map_err(|error| describe(&error))?;
    for file in [paths::socket(dir), paths::pid_file(dir), paths::pod_config(dir)] {
        let _absent = fs::remove_file(file);
    }
    let _absent = fs::remove_dir_all(dir.join("containers"));
    Ok(())
}

/// How an instance ended, if its shim recorded it.
pub(crate) fn recorded_exit(dir: &Path, id: &str) -> Option<ExitRecord> {
    podium_shim_protocol::record::read(&paths::exit_record(dir, id)).ok().flatten()
}

/// The end of an instance in the words of its pod's machine.
pub(crate) fn exit_of(record: &ExitRecord, message: Option<String>) -> Exit {
    Exit {
        code: record.code,
        oom_killed: record.oom_killed,
        started_at: record.started_at.map(timestamp),
        finished_at: timestamp(record.finished_at),
        message,
    }
}

/// A shim's time as a timestamp.
pub(crate) fn timestamp(time: WallTime) -> Timestamp {
    let nanoseconds = i32::try_from(time.nanoseconds).unwrap_or(0);
    Timestamp::new(time.seconds, nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// An error with its causes on one line.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = inner.source();
    }
    text
}

fn is_over(container: &podium_shim_protocol::ContainerStatus) -> bool {
    matches!(container.state, podium_shim_protocol::ContainerState::Exited(_))
}

/// Waits until the condition holds; false if it did not within the limit.
async fn wait_for<F: Future<Output = bool>>(limit: Duration, condition: impl Fn() -> F) -> bool {
    let holds = async {
        while !condition().await {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(limit, holds).await.is_ok()
}
