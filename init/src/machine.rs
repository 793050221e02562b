//! The machine as PID 1 keeps it: what is known, the one loop that everything happens in, and what each event does.
//!
//! The loop polls: a few dozen descriptors at most, listed afresh each time from what is open, so that nothing has to
//! be registered and forgotten. Every decision with a memory is a machine of its own ([`crate::supervisor`],
//! [`crate::ending`]); here events are carried to them and actions from them.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use podium_init::config::MachineConfig;
use podium_init::protocol::{
    ClockStatus, ConfigSource, ConfigStatus, Ending as How, Event, NetworkStatus, NodeReport,
    NodeStatus, PhaseOutcome, PhaseReport, Reply, Request, StateStatus, Status,
};
use rustix::event::{PollFd, PollFlags, poll};

use crate::boot::{self, PHASES};
use crate::clock;
use crate::console::{say, uptime, warn};
use crate::control::{Control, Source};
use crate::ending::{self, Ending};
use crate::modules::Loader;
use crate::net::{self, Orders, Report};
use crate::power::{Button, Watchdog};
use crate::source;
use crate::supervisor::{self, Supervisor};
use crate::uevent::Uevents;

/// When the power button or a signal ends the machine, pods have this long; their own grace is 30 s unless they say
/// otherwise, and a preStop hook may come before it.
const GRACE: Duration = Duration::from_secs(90);
/// The node is the last to go when memory is short, PID 1 apart.
const NODE_OOM_SCORE: &str = "-997";

/// Everything that PID 1 knows.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) version: String,
    pub(crate) kernel: String,
    /// The image's build time, since 1970.
    pub(crate) built: Duration,
    boot_id: String,
    pub(crate) hostname: String,
    phases: Vec<PhaseReport>,
    pub(crate) modules: Loader,
    pub(crate) config: Option<MachineConfig>,
    pub(crate) config_status: ConfigStatus,
    /// The good config's text until it is kept on STATE.
    pub(crate) config_text: Option<String>,
    pub(crate) state: StateStatus,
    network: NetworkStatus,
    pub(crate) clock: ClockStatus,
    node: Supervisor,
    node_last_exit: Option<String>,
    node_report: Option<NodeReport>,
    net: Supervisor,
    net_child: Option<net::Child>,
    pub(crate) control: Option<Control>,
    pub(crate) uevents: Option<Uevents>,
    pub(crate) buttons: Vec<Button>,
    pub(crate) watchdog: Option<Watchdog>,
    signals: Option<SignalFd>,
    ending: Option<Ending>,
}

/// What a readable descriptor means.
#[derive(Clone, Copy, Debug)]
enum Ready {
    Signal,
    Uevent,
    Button(usize),
    Network,
    Control(Source),
}

/// Boots, then serves for ever. Process 1 must not return, so this does not.
pub(crate) fn run() -> ExitCode {
    let mut machine = Machine::new();
    for phase in PHASES {
        machine.enter(phase);
    }
    loop {
        machine.turn();
    }
}

impl Machine {
    fn new() -> Self {
        let signals =
            signals().map_err(|error| warn(&format!("signals will not be heard: {error}"))).ok();
        Self {
            version: String::new(),
            kernel: String::new(),
            built: Duration::ZERO,
            boot_id: String::new(),
            hostname: "podium".to_owned(),
            phases: Vec::new(),
            modules: Loader::open("/lib/modules".as_ref()),
            config: None,
            config_status: ConfigStatus::default(),
            config_text: None,
            state: StateStatus::Pending,
            network: NetworkStatus::default(),
            clock: ClockStatus::default(),
            node: Supervisor::new(),
            node_last_exit: None,
            node_report: None,
            net: Supervisor::new(),
            net_child: None,
            control: None,
            uevents: None,
            buttons: Vec::new(),
            watchdog: None,
            signals,
            ending: None,
        }
    }

    /// Runs one phase of the boot and reports it.
    fn enter(&mut self, phase: &boot::Phase) {
        let began = uptime();
        let (outcome, detail) = match (phase.run)(self) {
            Ok(detail) => (PhaseOutcome::Done, detail),
            Err(detail) => (PhaseOutcome::Failed, detail),
        };
        let took = uptime().saturating_sub(began);
        let mark = if outcome == PhaseOutcome::Failed { "!! " } else { "" };
        say(&format!("{:<9}{:>5} ms  {mark}{detail}", phase.name, took.as_millis()));
        self.phases.push(PhaseReport { name: phase.name.to_owned(), began, took, outcome, detail });
    }

    /// Learns the image's and the kernel's names, and greets.
    pub(crate) fn learn_release(&mut self) {
        let release = fs::read_to_string("/etc/podium-release").unwrap_or_default();
        let field = |name: &str| {
            release
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
                .unwrap_or_default()
        };
        self.version = field("version").to_owned();
        self.built = Duration::from_secs(field("built").parse().unwrap_or_default());
        let kernel = rustix::system::uname();
        self.kernel = kernel.release().to_string_lossy().into_owned();
        self.boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .unwrap_or_default()
            .trim()
            .to_owned();
        say(&format!("Podium {} on Linux {}", self.version, self.kernel));
    }

    /// Names the machine.
    pub(crate) fn set_hostname(&mut self, name: &str) -> io::Result<()> {
        rustix::system::sethostname(name.as_bytes())?;
        self.hostname = name.to_owned();
        Ok(())
    }

    /// With STATE mounted: keeps a good config there, or takes the last good one from there.
    pub(crate) fn settle_config(&mut self) {
        if let Some(text) = self.config_text.take() {
            if let Err(error) = source::keep(&text) {
                warn(&format!("the config could not be kept on STATE: {error}"));
            }
        } else if self.config.is_none()
            && let Some(config) = source::last_good()
        {
            warn("running with the last good config, from STATE");
            let had_network = config.machine.network != podium_init::config::Network::default();
            self.config = Some(config);
            self.config_status.source = Some(ConfigSource::LastGood);
            if had_network {
                self.restart_network();
            }
        }
    }

    /// Starts the network child.
    pub(crate) fn start_network(&mut self) {
        self.feed_net(supervisor::Event::Start);
    }

    /// The child has no memory worth keeping: another one starts with the new orders.
    fn restart_network(&mut self) {
        self.net_child = None;
    }

    /// Starts the node, if it has what it needs.
    pub(crate) fn start_node(&mut self) -> Result<String, String> {
        if !matches!(self.state, StateStatus::Mounted { .. }) {
            return Err("not started: without STATE nothing that it says could be kept".to_owned());
        }
        if self.config.is_none() {
            return Err("not started: there is no usable config".to_owned());
        }
        self.feed_node(supervisor::Event::Start);
        match self.node.pid() {
            Some(pid) => Ok(format!("started as process {pid}")),
            None => Err("could not be started; it will be tried again".to_owned()),
        }
    }

    fn feed_node(&mut self, event: supervisor::Event) {
        let Some(supervisor::Action::Spawn) = self.node.step(uptime(), event) else { return };
        let answer = match spawn_node() {
            Ok(pid) => supervisor::Event::Started(pid),
            Err(error) => {
                warn(&format!("the node cannot be started: {error}"));
                supervisor::Event::NotStarted
            }
        };
        self.node.step(uptime(), answer);
    }

    fn feed_net(&mut self, event: supervisor::Event) {
        let Some(supervisor::Action::Spawn) = self.net.step(uptime(), event) else { return };
        let answer = match net::Child::spawn(&self.orders()) {
            Ok((child, pid)) => {
                self.net_child = Some(child);
                supervisor::Event::Started(pid)
            }
            Err(error) => {
                warn(&format!("the network child cannot be started: {error}"));
                supervisor::Event::NotStarted
            }
        };
        self.net.step(uptime(), answer);
    }

    fn orders(&self) -> Orders {
        let mut seed = [0u8; 8];
        let _ = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::NONBLOCK);
        let machine = self.config.as_ref().map(|config| config.machine.clone()).unwrap_or_default();
        Orders {
            network: machine.network,
            hostname: machine.hostname,
            time_servers: machine.time_servers,
            seed: u64::from_le_bytes(seed),
        }
    }

    /// Waits for something to happen, and does what it asks for.
    fn turn(&mut self) {
        for ready in self.wait() {
            match ready {
                Ready::Signal => self.hear_signals(),
                Ready::Uevent => self.hear_devices(),
                Ready::Button(index) => {
                    if self.buttons.get_mut(index).is_some_and(Button::pressed) {
                        self.end(How::PowerOff, "the power button", GRACE);
                    }
                }
                Ready::Network => self.hear_network(),
                Ready::Control(Source::Listener) => {
                    self.control.iter_mut().for_each(Control::accept);
                }
                Ready::Control(Source::Connection(token, _)) => self.serve(token),
            }
        }
        let now = uptime();
        self.feed_node(supervisor::Event::Tick);
        self.feed_net(supervisor::Event::Tick);
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.tick(now);
        }
        self.feed_ending(ending::Event::Tick);
    }

    fn wait(&self) -> Vec<Ready> {
        let sources = self.sources();
        let mut fds: Vec<PollFd<'_>> = sources
            .iter()
            .map(|(ready, fd)| {
                let write = matches!(ready, Ready::Control(Source::Connection(_, true)));
                let flags = if write { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
                PollFd::from_borrowed_fd(*fd, flags)
            })
            .collect();
        let due = [
            self.node.next_wake(),
            self.net.next_wake(),
            self.watchdog.as_ref().map(Watchdog::next_wake),
            self.ending.as_ref().and_then(Ending::next_wake),
        ];
        // A millisecond at least, so that a due time that rounds down does not spin.
        let wait = due
            .into_iter()
            .flatten()
            .min()
            .map(|due| due.saturating_sub(uptime()).max(Duration::from_millis(1)));
        let timeout = wait.and_then(|wait| rustix::time::Timespec::try_from(wait).ok());
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return Vec::new();
        }
        let ready = sources.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        ready.map(|((ready, _), _)| *ready).collect()
    }

    fn sources(&self) -> Vec<(Ready, BorrowedFd<'_>)> {
        let mut sources = Vec::new();
        sources.extend(self.signals.iter().map(|signals| (Ready::Signal, signals.as_fd())));
        sources.extend(self.uevents.iter().map(|uevents| (Ready::Uevent, uevents.as_fd())));
        sources.extend(
            self.buttons
                .iter()
                .enumerate()
                .map(|(index, button)| (Ready::Button(index), button.as_fd())),
        );
        sources.extend(self.net_child.iter().map(|child| (Ready::Network, child.as_fd())));
        let control = self.control.iter().flat_map(Control::fds);
        sources.extend(control.map(|(source, fd)| (Ready::Control(source), fd)));
        sources
    }

    fn hear_signals(&mut self) {
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

    fn hear_devices(&mut self) {
        let mut disks = false;
        while let Some(event) = self.uevents.as_ref().and_then(Uevents::next) {
            if !event.added {
                continue;
            }
            disks |= event.subsystem == "block";
            if event.subsystem == "input" {
                self.buttons = Button::find();
            }
            for failed in
                event.modalias.iter().flat_map(|modalias| self.modules.load_for_modalias(modalias))
            {
                warn(&crate::console::chain(&failed));
            }
        }
        // A disk that came late may be the one with STATE.
        let waiting = matches!(self.state, StateStatus::Refused { .. }) && self.ending.is_none();
        if disks && waiting {
            for phase in
                PHASES.iter().filter(|phase| matches!(phase.name, "state" | "hostname" | "node"))
            {
                self.enter(phase);
            }
        }
    }

    fn hear_network(&mut self) {
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

    fn serve(&mut self, token: u64) {
        let requests =
            self.control.as_mut().map(|control| control.serve(token)).unwrap_or_default();
        for request in requests {
            let subscribes = request == Request::Subscribe;
            let reply = self.answer(request);
            let network = Event::Network(self.network.clone());
            let Some(control) = &mut self.control else { return };
            control.reply(token, &reply);
            if subscribes {
                control.subscribe(token);
                control.notify(token, &network);
            }
        }
    }

    fn answer(&mut self, request: Request) -> Reply {
        match request {
            Request::GetStatus => Reply::Status(Box::new(self.status())),
            Request::GetConfig => Reply::Config(self.config.clone().map(Box::new)),
            Request::Shutdown { how, reason, grace } => {
                self.end(how, &reason, grace);
                Reply::Accepted
            }
            Request::ReportNode(report) => {
                if self.node_report.as_ref() != Some(&report) {
                    let state = if report.ready { "ready" } else { "not ready" };
                    say(&format!("node {} is {state}: {}", report.name, report.message));
                }
                self.node_report = Some(report);
                Reply::Accepted
            }
            Request::Subscribe => Reply::Accepted,
        }
    }

    fn status(&self) -> Status {
        Status {
            version: self.version.clone(),
            kernel: self.kernel.clone(),
            boot_id: self.boot_id.clone(),
            hostname: self.hostname.clone(),
            uptime: uptime(),
            phases: self.phases.clone(),
            config: self.config_status.clone(),
            state: self.state.clone(),
            network: self.network.clone(),
            clock: self.clock.clone(),
            node: NodeStatus {
                pid: self.node.pid(),
                restarts: self.node.restarts(),
                last_exit: self.node_last_exit.clone(),
                report: self.node_report.clone(),
            },
            ending: self.ending.as_ref().map(|ending| ending.how),
        }
    }

    /// Begins to end the machine; a second wish changes nothing.
    fn end(&mut self, how: How, reason: &str, grace: Duration) {
        if self.ending.is_some() {
            return;
        }
        let verb = match how {
            How::Reboot => "rebooting",
            How::PowerOff => "powering off",
        };
        say(&format!("{verb}: {reason}; pods have {} s", grace.as_secs()));
        self.ending = Some(Ending::begin(uptime(), how, grace));
        self.feed_node(supervisor::Event::Stop);
        let event = Event::ShuttingDown { how, reason: reason.to_owned(), grace };
        self.control.iter_mut().for_each(|control| control.broadcast(&event));
        let can_drain = self.node.pid().is_some()
            && self.control.as_ref().is_some_and(Control::has_subscribers);
        if !can_drain {
            self.feed_ending(ending::Event::NodeGone);
        }
    }

    fn feed_ending(&mut self, event: ending::Event) {
        let Some(ending) = &mut self.ending else { return };
        match ending.step(uptime(), event) {
            Some(ending::Action::Terminate) => {
                say("ending all processes");
                self.net.step(uptime(), supervisor::Event::Stop);
                ending::signal_all(Signal::SIGTERM);
            }
            Some(ending::Action::Kill) => ending::signal_all(Signal::SIGKILL),
            Some(ending::Action::Finish) => ending::finish(ending.how),
            None => {}
        }
    }
}

fn signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGPWR] {
        set.add(signal);
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// The node's output goes to the console; its log is its own business.
fn spawn_node() -> io::Result<u32> {
    let mut command = Command::new("/node");
    command
        .env_clear()
        .env("HOME", "/var/lib/podium")
        .env("TMPDIR", "/var/tmp")
        .env("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
        .envs(log_filter())
        .stdin(Stdio::null());
    let child = crate::spawn::spawn(&mut command)?;
    let _ = fs::write(format!("/proc/{}/oom_score_adj", child.id()), NODE_OOM_SCORE);
    Ok(child.id())
}

/// `podium.log=…` on the kernel command line sets the node's log filter.
fn log_filter() -> Option<(String, String)> {
    let line = fs::read_to_string("/proc/cmdline").ok()?;
    let filter = line.split_whitespace().find_map(|word| word.strip_prefix("podium.log="))?;
    Some(("RUST_LOG".to_owned(), filter.to_owned()))
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
