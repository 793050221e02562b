//! Starting: `shim --dir <dir>` starts itself again as the server and returns when that serves. The server is then an orphan, which PID 1
//! adopts: no death of the agent that ran the command can touch it.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use podium_shim_protocol::paths;
use thiserror::Error;

use crate::pod::{self, SetUpError};
use crate::server::Server;

/// What the server writes to its standard output when it serves.
const READY: &str = "ready\n";

/// Why the shim did not start, or ended.
#[derive(Debug, Error)]
pub enum ShimError {
    /// The pod could not be set up.
    #[error(transparent)]
    SetUp(#[from] SetUpError),
    /// The kernel refused.
    #[error("cannot {action}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The server ended before it served; it said why on standard error.
    #[error("the shim did not start")]
    NotStarted,
}

fn failed(action: &'static str) -> impl FnOnce(io::Error) -> ShimError {
    move |source| ShimError::Io { action, source }
}

/// Starts a server for the pod in `dir` and waits until it serves.
///
/// # Errors
///
/// [`ShimError::NotStarted`] if it ends instead.
pub fn launch(dir: &Path) -> Result<(), ShimError> {
    let mut server = Command::new("/proc/self/exe")
        .arg("--serve")
        .arg(dir)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed("start the server"))?;
    let mut said = String::new();
    if let Some(mut stdout) = server.stdout.take() {
        stdout.read_to_string(&mut said).map_err(failed("hear from the server"))?;
    }
    if said == READY {
        return Ok(());
    }
    let _ = server.wait();
    Err(ShimError::NotStarted)
}

/// Sets the pod in `dir` up and serves it until told to end.
///
/// # Errors
///
/// See [`ShimError`].
pub fn serve(dir: &Path) -> Result<(), ShimError> {
    close_inherited().map_err(failed("close inherited descriptors"))?;
    rustix::process::setsid().map_err(|error| failed("leave the agent's session")(error.into()))?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| failed("adopt the containers' orphans")(error.into()))?;
    let pod = pod::set_up(dir)?;
    let socket = paths::socket(dir);
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).map_err(failed("listen"))?;
    let server = Server::new(pod, listener).map_err(failed("prepare to serve"))?;
    fs::write(paths::pid_file(dir), std::process::id().to_string())
        .map_err(failed("write the process id"))?;
    report_ready(dir).map_err(failed("report that it serves"))?;
    server.run().map_err(failed("serve"))?;
    let _ = fs::remove_file(&socket);
    Ok(())
}

/// Closes what the agent, or whoever else ran the command, left open by mistake: the shim would hold it for the pod's whole life. Called
/// before the shim opens anything itself.
fn close_inherited() -> io::Result<()> {
    let names: Vec<_> =
        fs::read_dir("/proc/self/fd")?.flatten().map(|entry| entry.file_name()).collect();
    for number in names.iter().filter_map(|name| name.to_str()?.parse::<i32>().ok()) {
        if number > 2 {
            // The folder's own descriptor is among them, and closed already.
            let _ = nix::unistd::close(number);
        }
    }
    Ok(())
}

/// Tells the launching command, and parts from its standard streams.
fn report_ready(dir: &Path) -> io::Result<()> {
    let log = OpenOptions::new().append(true).create(true).open(paths::shim_log(dir))?;
    rustix::stdio::dup2_stderr(&log)?;
    io::stdout().write_all(READY.as_bytes())?;
    io::stdout().flush()?;
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}
