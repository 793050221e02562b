//! What reaches PID 1 unasked: signals, devices, and the network child's reports.

use std::fs;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use podium_init::protocol::{Ending as How, Event, NetworkStatus, StateStatus};

use super::{GRACE, Machine};
use crate::boot::PHASES;
use crate::console::{say, warn};
use crate::disk::scan;
use crate::net::Report;
use crate::power::Button;
use crate::uevent::Uevents;
use crate::{clock, ending, supervisor};

impl Machine {
    pub(super) fn hear_signals(&mut self) {
        while let Some(signal) =
            self.signals.as_ref().and_then(|signals| signals.read_signal().ok().flatten())
        {
            match i32::try_from(signal.ssi_signo)
                .ok()
                .and_then(|number| Signal::try_from(number).ok())
            {
                Some(Signal::SIGINT) => self.end(How::Reboot, "Ctrl-Alt-Del", GRACE),
                Some(Signal::SIGTERM | Signal::SIGPWR) => {
                    self.end(How::PowerOff, "a signal to init", GRACE);
                }
                // SIGCHLD carries no number that could be trusted: several may have become one.
                _ => {}
            }
        }
        self.reap();
    }

    /// Takes leave of every process that ended: our own, and the orphans of all others.
    fn reap(&mut self) {
        loop {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => self.gone(pid, format!("exit code {code}")),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.gone(pid, format!("signal {}", signal as i32));
                }
                Ok(WaitStatus::StillAlive) => return,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => {
                    self.feed_ending(ending::Event::NothingLeft);
                    return;
                }
            }
        }
    }

    fn gone(&mut self, pid: Pid, how: String) {
        let Ok(pid) = u32::try_from(pid.as_raw()) else { return };
        if self.node.pid() == Some(pid) {
            if self.ending.is_none() {
                warn(&format!("the node ended ({how}); it will be started again"));
            }
            self.node_last_exit = Some(how);
            self.node_report = None;
            self.feed_node(supervisor::Event::Exited(pid));
            self.feed_ending(ending::Event::NodeGone);
        } else if self.net.pid() == Some(pid) {
            self.net_child = None;
            self.feed_net(supervisor::Event::Exited(pid));
        }
    }

    pub(super) fn hear_devices(&mut self) {
        let mut disks = false;
        while let Some(event) = self.uevents.as_ref().and_then(Uevents::next) {
            if event.subsystem == "input" {
                self.buttons = Button::find();
            }
            if !event.added {
                continue;
            }
            disks |= event.subsystem == "block";
            for failed in
                event.modalias.iter().flat_map(|modalias| self.modules.load_for_modalias(modalias))
            {
                warn(&crate::console::chain(&failed));
            }
        }
        // A disk that came late may be the one with STATE.
        let waiting = matches!(self.state, StateStatus::Refused { .. }) && self.ending.is_none();
        if disks && waiting && self.disks_changed() {
            for phase in
                PHASES.iter().filter(|phase| matches!(phase.name, "state" | "hostname" | "node"))
            {
                self.enter(phase);
            }
        }
    }

    /// The announcements of the boot's own disks are heard once more here; they change nothing.
    fn disks_changed(&self) -> bool {
        let present: Vec<String> = scan::disks().into_iter().map(|disk| disk.path).collect();
        self.disks.as_ref() != Some(&present)
    }

    pub(super) fn hear_network(&mut self) {
        let Some(child) = &mut self.net_child else { return };
        let (reports, open) = child.reports();
        if !open {
            // It is about to end; the supervisor starts another.
            self.net_child = None;
        }
        for report in reports {
            match report {
                Report::Network { status, hostname } => self.learn_network(status, hostname),
                Report::Time { server, offset_milliseconds } => {
                    self.learn_time(server, offset_milliseconds);
                }
                Report::Said(text) => warn(&format!("network: {text}")),
            }
        }
    }

    pub(super) fn hear_loader(&mut self) {
        let Some(child) = &mut self.loader else { return };
        match child.hear(&mut self.modules) {
            Ok(None) => {}
            Ok(Some(failed)) => {
                self.late_failures = Some(failed);
                self.finish_boot();
            }
            Err(error) => {
                warn(&format!("the loader: {error}; its work is done here"));
                self.finish_boot();
            }
        }
    }

    fn learn_network(&mut self, status: NetworkStatus, hostname: Option<String>) {
        if status.address() != self.network.address() {
            match status.address() {
                Some(address) => say(&format!("address {address} on {}", links(&status))),
                None => warn("the machine has no address any more"),
            }
        }
        write_resolv_conf(&status);
        let named = self.config.as_ref().is_some_and(|config| config.machine.hostname.is_some());
        if let Some(name) = hostname.filter(|name| !named && *name != self.hostname) {
            let _ = self.set_hostname(&name);
        }
        self.network = status.clone();
        self.control
            .iter_mut()
            .for_each(|control| control.broadcast(&Event::Network(status.clone())));
    }

    fn learn_time(&mut self, server: std::net::IpAddr, offset_milliseconds: i64) {
        let Some(status) = clock::correct(server, offset_milliseconds, self.built) else {
            warn(&format!(
                "the time server {server} is {offset_milliseconds} ms away; it is not followed"
            ));
            return;
        };
        say(&format!("clock set from {server}, it was off by {offset_milliseconds} ms"));
        self.clock = status.clone();
        self.control
            .iter_mut()
            .for_each(|control| control.broadcast(&Event::ClockSet(status.clone())));
    }
}

/// The signals that PID 1 hears, as a descriptor.
pub(super) fn signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGPWR] {
        set.add(signal);
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

fn links(status: &NetworkStatus) -> String {
    let names: Vec<&str> = status
        .links
        .iter()
        .filter(|link| !link.addresses.is_empty())
        .map(|link| link.name.as_str())
        .collect();
    names.join(", ")
}

/// For programs that resolve names by themselves; `/etc/resolv.conf` points here. At most three servers are read.
fn write_resolv_conf(status: &NetworkStatus) {
    let mut text = String::new();
    for server in status.nameservers.iter().take(3) {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if let Some(domain) = &status.domain {
        text.push_str(&format!("search {domain}\n"));
    }
    let _ = fs::create_dir_all("/run/podium");
    let partial = "/run/podium/resolv.conf.partial";
    if fs::write(partial, text).is_ok() {
        let _ = fs::rename(partial, "/run/podium/resolv.conf");
    }
}
