//! Loading modules in a process beside PID 1.
//!
//! Under emulation the kernel takes most of a second to link and start what the data path needs, on the processor of whoever
//! asks. A child (this program as `init modules`, with no capability but the one to load) does it on another processor, while
//! PID 1 goes on to the disk and the network; later it loads what the node does not wait for, and PID 1 listens meanwhile.
//!
//! PID 1 sends a [`When`] for each list; the child answers with one [`Report`] per module and [`Report::Done`] after the list, and
//! ends when PID 1 closes the pipe. If it dies, PID 1 loads the rest of the list itself: a module that was loaded meanwhile is
//! seen in /sys/module.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, ExitCode, Stdio};

use podium_init::protocol::frame::{self, Inbox};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use super::{Loader, When};
use crate::console::chain;

/// What the child says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Report {
    /// The kernel has it.
    Loaded(String),
    /// It could not be loaded, and why.
    Failed(String),
    /// The list is through.
    Done,
}

/// The child, in PID 1.
#[derive(Debug)]
pub(crate) struct Child {
    orders: File,
    reports: File,
    inbox: Inbox,
    failed: Vec<String>,
}

impl Child {
    /// Starts the child; it waits for the first list.
    pub(crate) fn spawn() -> io::Result<Self> {
        let mut command = Command::new("/init");
        command.arg("modules").env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = crate::spawn::spawn(&mut command)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("the child has no pipes"));
        };
        Ok(Self {
            orders: File::from(OwnedFd::from(stdin)),
            reports: File::from(OwnedFd::from(stdout)),
            inbox: Inbox::default(),
            failed: Vec::new(),
        })
    }

    /// Asks for a list. A pipe holds far more than all of them, so this does not block.
    pub(crate) fn order(&mut self, when: When) -> io::Result<()> {
        self.orders.write_all(&frame::encode(&when).map_err(io::Error::other)?)
    }

    /// Waits until the child has said something, and tells the loader. With the end of the list comes what failed of it.
    pub(crate) fn hear(&mut self, loader: &mut Loader) -> io::Result<Option<Vec<String>>> {
        let mut buffer = [0u8; 4096];
        match self.reports.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => self.inbox.push(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        while let Some(report) = self.inbox.next().map_err(io::Error::other)? {
            match report {
                Report::Loaded(name) => loader.remember(name),
                Report::Failed(text) => self.failed.push(text),
                Report::Done => return Ok(Some(std::mem::take(&mut self.failed))),
            }
        }
        Ok(None)
    }

    /// Waits for the end of the list.
    pub(crate) fn finish(&mut self, loader: &mut Loader) -> io::Result<Vec<String>> {
        loop {
            if let Some(failed) = self.hear(loader)? {
                return Ok(failed);
            }
        }
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reports.as_fd()
    }
}

/// The child's own story: runs until PID 1 closes the pipe.
pub(crate) fn run() -> ExitCode {
    let served = crate::spawn::keep_capabilities(CapabilitySet::SYS_MODULE).and_then(|()| {
        let loader = Loader::open("/lib/modules".as_ref());
        serve(loader, io::stdin().lock(), io::stdout().lock())
    });
    if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn serve(
    mut loader: Loader,
    mut orders: impl io::Read,
    mut reports: impl io::Write,
) -> io::Result<()> {
    let mut inbox = Inbox::default();
    let mut buffer = [0u8; 256];
    loop {
        while let Some(when) = inbox.next::<When>().map_err(io::Error::other)? {
            let before = loader.done.clone();
            let failed = loader.load_listed(when);
            let failed = failed.iter().map(|error| Report::Failed(chain(error)));
            let loaded = loader.done.difference(&before).cloned().map(Report::Loaded);
            for report in loaded.chain(failed).chain([Report::Done]) {
                reports.write_all(&frame::encode(&report).map_err(io::Error::other)?)?;
            }
            reports.flush()?;
        }
        match orders.read(&mut buffer)? {
            0 => return Ok(()),
            count => inbox.push(buffer.get(..count).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the child answers to these lists.
    fn answers(loader: Loader, lists: &[When]) -> Vec<Report> {
        let orders: Vec<u8> =
            lists.iter().flat_map(|when| frame::encode(when).expect("encodes")).collect();
        let mut said = Vec::new();
        serve(loader, orders.as_slice(), &mut said).expect("served");
        let mut inbox = Inbox::default();
        inbox.push(&said);
        std::iter::from_fn(|| inbox.next().expect("decodes")).collect()
    }

    #[test]
    fn every_list_ends_with_done_and_what_fails_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let index = "module podium_absent\nload data podium_absent\n";
        std::fs::write(folder.path().join("index"), index).expect("written");
        let said = answers(Loader::open(folder.path()), &[When::Data, When::Late]);
        assert!(
            matches!(said.as_slice(), [Report::Failed(text), Report::Done, Report::Done]
                if text.contains("podium_absent")),
            "{said:?}"
        );
    }

    #[test]
    fn what_the_child_loaded_is_not_loaded_again() {
        let (mut reports, written) = io::pipe().expect("a pipe");
        let (_unread, orders) = io::pipe().expect("a pipe");
        let mut written = File::from(OwnedFd::from(written));
        for report in [Report::Loaded("veth".into()), Report::Failed("x".into()), Report::Done] {
            written.write_all(&frame::encode(&report).expect("encodes")).expect("written");
        }
        let mut child = Child {
            orders: File::from(OwnedFd::from(orders)),
            reports: File::from(OwnedFd::from(reports.try_clone().expect("cloned"))),
            inbox: Inbox::default(),
            failed: Vec::new(),
        };
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("index"), "module veth\nload data veth\n")
            .expect("written");
        let mut loader = Loader::open(folder.path());
        assert_eq!(child.finish(&mut loader).expect("heard"), ["x"]);
        assert!(loader.load_listed(When::Data).is_empty(), "there is no file to load");
        // A child that dies is an error, and not an endless wait.
        drop(written);
        assert!(child.finish(&mut loader).is_err());
        assert_eq!(reports.read(&mut [0; 1]).expect("the end"), 0);
    }
}
