//! The network child's loop: links and DHCP here, the clock in a thread beside it.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use podium_init::protocol::frame::{self, Inbox};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::CapabilitySet;

use super::links::Links;
use super::{Orders, Report, time};
use crate::console::{chain, uptime};

/// Configuring links, raw frames for DHCP, and nothing else.
const CAPABILITIES: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW);

/// Runs until PID 1 closes the pipe.
pub(crate) fn run() -> ExitCode {
    match configure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&Report::Said(format!("the network child gives up: {}", chain(&error))));
            ExitCode::FAILURE
        }
    }
}

fn configure() -> io::Result<()> {
    // What is not needed is given up for good, before the first byte from the network is read.
    crate::spawn::keep_capabilities(CAPABILITIES)?;
    let orders = orders()?;
    let (servers, for_clock) = mpsc::channel();
    let from_config = !orders.time_servers.is_empty();
    if from_config {
        let _ = servers.send(orders.time_servers.clone());
    }
    std::thread::Builder::new().name("clock".to_owned()).spawn(move || time::follow(&for_clock))?;
    let mut links = Links::open(orders).map_err(io::Error::other)?;
    let stdin = io::stdin();
    let mut last = None;
    loop {
        links.step(uptime());
        let status = links.status();
        if last.as_ref() != Some(&status) {
            if !from_config {
                let _ = servers.send(links.time_servers());
            }
            report(&Report::Network { status: status.clone(), hostname: links.hostname() });
            last = Some(status);
        }
        let wait =
            links.next_wake().map(|due| due.saturating_sub(uptime()).max(Duration::from_millis(1)));
        let mut fds = vec![PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
        fds.extend(links.fds().into_iter().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let timeout = wait.and_then(|wait| rustix::time::Timespec::try_from(wait).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if fds.first().is_some_and(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR)) {
            return Ok(());
        }
    }
}

fn orders() -> io::Result<Orders> {
    let mut inbox = Inbox::default();
    let mut buffer = [0u8; 4096];
    loop {
        if let Some(orders) = inbox.next().map_err(io::Error::other)? {
            return Ok(orders);
        }
        match io::stdin().read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => inbox.push(buffer.get(..count).unwrap_or_default()),
        }
    }
}

/// Tells PID 1. Whole frames under the lock, so that the threads do not cut into each other's.
pub(super) fn report(report: &Report) {
    if let Ok(bytes) = frame::encode(report) {
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(&bytes);
        let _ = stdout.flush();
    }
}
