//! The last steps inside a container before its program runs: finding the program, loading the filter of an exec'd process, and undoing
//! what the shim did to its own signals.
#![allow(unsafe_code)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use oci_spec::runtime::{LinuxSeccomp, Spec};
use podium_shim_protocol::TerminalSize;
use rustix::fs::{Access, access};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::terminal;

/// Begins every message about a program that cannot be run, for the shim to tell this from other failures.
pub(crate) const CANNOT_EXECUTE: &str = "cannot execute ";

/// How libcontainer runs a container's program.
#[derive(Clone)]
pub(crate) struct Workload {
    filter: Option<Filter>,
    /// What the program finds its terminal to be. Set from inside, for by the time the shim has the master, the program runs.
    size: Option<TerminalSize>,
}

/// The filter that an exec'd process loads itself, since libcontainer forgets the container's for it.
#[derive(Clone)]
struct Filter {
    rules: Rc<LinuxSeccomp>,
    /// CAP_SYS_ADMIN was lent for loading it, and goes now.
    admin_is_lent: bool,
}

impl Workload {
    /// For a container's first process: libcontainer loads the filter of the specification.
    pub(crate) fn first() -> Self {
        Self { filter: None, size: None }
    }

    /// For a process in a container that runs already.
    pub(crate) fn exec(
        rules: Option<LinuxSeccomp>,
        admin_is_lent: bool,
        size: Option<TerminalSize>,
    ) -> Self {
        Self { size, filter: rules.map(|rules| Filter { rules: Rc::new(rules), admin_is_lent }) }
    }
}

impl Executor for Workload {
    /// Runs inside the container as its user, right before the process reports that it is ready.
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let refused = |message: String| ExecutorValidationError::ArgValidationError(message);
        let process = spec
            .process()
            .as_ref()
            .ok_or_else(|| refused("there is no process to run".to_owned()))?;
        let program =
            process.args().as_deref().and_then(<[String]>::first).map_or("", String::as_str);
        let path = process
            .env()
            .iter()
            .flatten()
            .find_map(|variable| variable.strip_prefix("PATH="))
            .unwrap_or_default();
        find(program, path)
            .map_err(|reason| refused(format!("{CANNOT_EXECUTE}{program:?}: {reason}")))?;
        if let Some(filter) = &self.filter {
            filter.load().map_err(refused)?;
        }
        Ok(())
    }

    /// Becomes the program. By now the process counts as started, so that a failure can only be told on its standard error and by the
    /// exit codes that shells use.
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let args = spec.process().as_ref().and_then(|process| process.args().as_ref());
        let args: Vec<std::ffi::CString> = args
            .into_iter()
            .flatten()
            .map(|arg| std::ffi::CString::new(arg.as_bytes()))
            .collect::<Result<_, _>>()
            .map_err(|_| ExecutorError::InvalidArg)?;
        let program = args.first().ok_or(ExecutorError::InvalidArg)?;
        if let Some(size) = self.size {
            // A wrong size is no reason not to run.
            let _ = terminal::resize(std::io::stdin(), size);
        }
        restore_signals();
        let Err(error) = nix::unistd::execvp(program, &args);
        let _ =
            writeln!(std::io::stderr(), "podium: {CANNOT_EXECUTE}{program:?}: {}", error.desc());
        std::process::exit(if error == Errno::ENOENT { 127 } else { 126 })
    }
}

impl Filter {
    fn load(&self) -> Result<(), String> {
        libcontainer::seccomp::initialize_seccomp(&self.rules)
            .map_err(|error| crate::failure::chain(&error))?;
        if self.admin_is_lent {
            // The bounding set never had it, so no later program can get it back.
            let mut sets = capabilities(None).map_err(|error| error.to_string())?;
            sets.effective.remove(CapabilitySet::SYS_ADMIN);
            sets.permitted.remove(CapabilitySet::SYS_ADMIN);
            set_capabilities(None, sets).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// execvp(3)'s search, made beforehand so that a missing program fails the request instead of the container.
fn find(program: &str, path: &str) -> Result<PathBuf, String> {
    if program.is_empty() {
        return Err("no program is named".to_owned());
    }
    if program.contains('/') {
        return check(Path::new(program))
            .map(|()| PathBuf::from(program))
            .map_err(|error| error.desc().to_owned());
    }
    let mut denied = false;
    for folder in path.split(':') {
        let candidate = Path::new(if folder.is_empty() { "." } else { folder }).join(program);
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(_) => denied = true,
        }
    }
    Err(if denied {
        "Permission denied".to_owned()
    } else {
        "executable file not found in $PATH".to_owned()
    })
}

fn check(path: &Path) -> Result<(), Errno> {
    let metadata = path
        .metadata()
        .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    if metadata.is_dir() {
        return Err(Errno::EISDIR);
    }
    access(path, Access::EXEC_OK).map_err(|error| Errno::from_raw(error.raw_os_error()))
}

/// The shim blocks the signals that it reads from a descriptor, and Rust's start-up code ignores SIGPIPE; a program would inherit both.
fn restore_signals() {
    let _ = SigSet::empty().thread_set_mask();
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator() {
        if signal != Signal::SIGKILL && signal != Signal::SIGSTOP {
            // SAFETY: the default disposition runs no code of ours, so nothing can be interrupted at a bad moment.
            let _ = unsafe { sigaction(signal, &default) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn program_is_found_as_execvp_finds_it() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("tool");
        fs::write(&program, "").unwrap();
        let path = format!("/nonexistent:{}", folder.path().display());
        fs::set_permissions(&program, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(find("tool", &path), Err("Permission denied".to_owned()));
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(find("tool", &path), Ok(program));
        assert_eq!(find("nosuchtool", &path), Err("executable file not found in $PATH".to_owned()));
        assert_eq!(find("/no/such", &path), Err("No such file or directory".to_owned()));
        assert_eq!(find("/tmp", &path), Err("Is a directory".to_owned()));
    }
}
