//! The network child as PID 1 sees it: what it is told, what it reports, and how it is started.
//!
//! The child is this program as `init net`, with few capabilities: it is the only part of init that reads what comes
//! from the network. Both directions are frames of [`podium_init::protocol::frame`], over its stdin and stdout.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};

use podium_init::config::Network;
use podium_init::protocol::NetworkStatus;
use podium_init::protocol::frame::{self, Inbox};
use serde::{Deserialize, Serialize};

pub(crate) mod child;
mod links;
mod time;

/// What the child is to do; told once, at its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Orders {
    /// DHCP or fixed addresses.
    pub(crate) network: Network,
    /// The name to tell DHCP servers.
    pub(crate) hostname: Option<String>,
    /// Time servers of the config; without any, those of DHCP are asked.
    pub(crate) time_servers: Vec<String>,
    /// Makes DHCP transactions differ between machines.
    pub(crate) seed: u64,
}

/// What the child reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// Links, addresses or name servers changed.
    Network {
        /// All of it.
        status: NetworkStatus,
        /// A name that a DHCP server gave.
        hostname: Option<String>,
    },
    /// A time server answered.
    Time {
        /// Which.
        server: IpAddr,
        /// What is to be added to the wall clock.
        offset_milliseconds: i64,
    },
    /// Something the operator should read.
    Said(String),
}

/// The child's end of the conversation, in PID 1.
#[derive(Debug)]
pub(crate) struct Child {
    reports: File,
    inbox: Inbox,
    /// Kept open: the child ends when PID 1 closes it.
    _orders: OwnedFd,
}

impl Child {
    /// Starts the child; its process number comes along.
    pub(crate) fn spawn(orders: &Orders) -> io::Result<(Self, u32)> {
        let mut command = Command::new("/init");
        command.arg("net").env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = crate::spawn::spawn(&mut command)?;
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("the child has no pipes"));
        };
        // A pipe holds 64 kB and the orders are a few hundred bytes, so this does not block.
        stdin.write_all(&frame::encode(orders).map_err(io::Error::other)?)?;
        let reports = File::from(OwnedFd::from(stdout));
        rustix::io::ioctl_fionbio(&reports, true)?;
        Ok((Self { reports, inbox: Inbox::default(), _orders: stdin.into() }, child.id()))
    }

    /// What has been reported since the last call. After an error or the end of the pipe there is nothing more.
    pub(crate) fn reports(&mut self) -> (Vec<Report>, bool) {
        use std::io::Read as _;
        let mut buffer = [0u8; 4096];
        let open = loop {
            match self.reports.read(&mut buffer) {
                Ok(0) => break false,
                Ok(count) => self.inbox.push(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break false,
            }
        };
        let mut reports = Vec::new();
        loop {
            match self.inbox.next() {
                Ok(Some(report)) => reports.push(report),
                Ok(None) => return (reports, open),
                Err(_) => return (reports, false),
            }
        }
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reports.as_fd()
    }
}
