//! Child processes that cannot outlive the rig.

use std::io;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal};

/// A process that dies with the thread that started it, and that is killed and reaped when this value is dropped.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    pidfd: rustix::fd::OwnedFd,
}

impl Child {
    /// Starts `command`. It gets its own process group, so that a Ctrl-C at the terminal reaches the rig alone and the rig
    /// takes its children down in order; and it is killed by the kernel should the rig be killed itself.
    ///
    /// # Errors
    /// The program cannot be started; the message names it.
    #[allow(unsafe_code)]
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let parent = rustix::process::getpid();
        command.process_group(0);
        // SAFETY: between fork and exec only two system calls are made, prctl(2) and getppid(2); nothing allocates and no
        // lock is taken.
        unsafe {
            command.pre_exec(move || {
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                // The parent may have died before the signal was armed.
                if rustix::process::getppid() != Some(parent) {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                Ok(())
            });
        }
        let process = command.spawn().map_err(|error| {
            let program = command.get_program().to_string_lossy().into_owned();
            io::Error::new(error.kind(), format!("start {program}: {error}"))
        })?;
        let pid = rustix::process::Pid::from_child(&process);
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { process, pidfd })
    }

    /// The process's id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What the process prints, if it was started with a pipe for it; once.
    pub fn take_stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.process.stdout.take()
    }

    /// Waits for the end, at most for `limit`. `None`: it still runs.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn wait_for(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(Some(status));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let timeout = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
            let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Kills the process at once, as a power cut would, and reaps it.
    ///
    /// # Errors
    /// The process cannot be killed or waited for.
    pub fn kill(&mut self) -> io::Result<()> {
        match self.process.kill() {
            Err(error) if error.kind() != io::ErrorKind::InvalidInput => return Err(error),
            _ => {}
        }
        self.process.wait().map(|_| ())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Killing what has ended already is no error worth a word, and there is nobody to tell.
        let _ = self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_child_is_gone() {
        let mut command = Command::new("sleep");
        command.arg("600");
        let child = Child::spawn(command).expect("start sleep");
        let path = format!("/proc/{}", child.id());
        assert!(std::path::Path::new(&path).exists());
        drop(child);
        assert!(!std::path::Path::new(&path).exists());
    }

    #[test]
    fn the_end_of_a_child_is_seen() {
        let mut command = Command::new("sh");
        command.args(["-c", "exit 7"]);
        let mut child = Child::spawn(command).expect("start sh");
        let status = child.wait_for(Duration::from_secs(60)).expect("wait").expect("an end");
        assert_eq!(status.code(), Some(7));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = Child::spawn(Command::new("/no/such/program")).expect_err("no program");
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    }
}
