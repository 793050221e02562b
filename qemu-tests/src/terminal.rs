//! A program on a terminal, driven as a person does: type, read, wait.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::process::Child;

/// A running program and the terminal that it is on.
#[derive(Debug)]
pub struct Terminal {
    keyboard: File,
    screen: String,
    program: Child,
}

impl Terminal {
    /// Starts `command` on a terminal of this size.
    ///
    /// # Errors
    /// There is no terminal, or the program cannot be started.
    pub fn start(mut command: Command, rows: u16, columns: u16) -> anyhow::Result<Self> {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&keyboard)?;
        unlockpt(&keyboard)?;
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&keyboard, size)?;
        let name = ptsname(&keyboard, Vec::new())?;
        let end = File::options().read(true).write(true).open(name.to_str()?)?;
        command.stdin(end.try_clone()?).stdout(end.try_clone()?).stderr(end);
        let program = Child::spawn(command)?;
        Ok(Self { keyboard: keyboard.into(), screen: String::new(), program })
    }

    /// Types `text`.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn type_text(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(self.keyboard.write_all(text.as_bytes())?)
    }

    /// Reads until the program has shown `text`, and gives what it has shown since the last time up to there.
    ///
    /// # Errors
    /// It ended, or `limit` passed, before; what it has shown is in the error.
    pub fn read_until(&mut self, text: &str, limit: Duration) -> anyhow::Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(found) = self.screen.find(text) {
                let rest = self.screen.split_off(found + text.len());
                return Ok(std::mem::replace(&mut self.screen, rest));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.keyboard, PollFlags::IN)];
            if left.is_zero() || poll(&mut fds, Some(&Timespec::try_from(left)?))? == 0 {
                bail!("waited {limit:?} for {text:?} and got {:?}", self.screen);
            }
            let mut bytes = [0; 4096];
            // Reading from a terminal that nobody has open is an error on Linux.
            let read = self.keyboard.read(&mut bytes).with_context(|| {
                format!("the program has ended; waited for {text:?}, got {:?}", self.screen)
            })?;
            self.screen.push_str(&String::from_utf8_lossy(bytes.get(..read).unwrap_or_default()));
        }
    }

    /// Waits for the program's end.
    ///
    /// # Errors
    /// It still runs at `limit`.
    pub fn wait(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        self.program.wait_for(limit)?.with_context(|| format!("it still runs after {limit:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_finds_a_terminal_of_the_given_size_and_reads_what_is_typed() {
        let mut command = Command::new("sh");
        command.args(["-c", "stty size; read word; echo \"<$word>\"; exit 7"]);
        let mut terminal = Terminal::start(command, 33, 77).expect("start");
        let limit = Duration::from_secs(60);
        terminal.read_until("33", limit).expect("the rows");
        terminal.read_until("77", limit).expect("the columns");
        terminal.type_text("hello\n").expect("type");
        terminal.read_until("<hello>", limit).expect("the word");
        assert_eq!(terminal.wait(limit).expect("an end").code(), Some(7));
    }
}
