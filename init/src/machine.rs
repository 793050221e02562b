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

use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use podium_init::config::MachineConfig;
use podium_init::protocol::{
    ClockStatus, ConfigSource, ConfigStatus, Ending as How, Event, NetworkStatus, NodeReport,
    PhaseOutcome, PhaseReport, StateStatus,
};
use rustix::event::{PollFd, PollFlags, poll};

use crate::boot::{self, LAST, PHASES};
use crate::console::{chain, say, uptime, warn};
use crate::control::{Control, Source};
use crate::ending::{self, Ending};
use crate::modules::child::Child as LoaderChild;
use crate::modules::{Loader, When};
use crate::net::{self, Orders};
use crate::power::{Button, Watchdog};
use crate::source;
use crate::supervisor::{self, Supervisor};
use crate::uevent::Uevents;

mod answer;
mod hear;

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
    pub(crate) loader: Option<LoaderChild>,
    /// What the loader could not load of its last list.
    pub(crate) late_failures: Option<Vec<String>>,
    /// When the last list was asked for.
    late_began: Duration,
    pub(crate) config: Option<MachineConfig>,
    pub(crate) config_status: ConfigStatus,
    /// The good config's text until it is kept on STATE.
    pub(crate) config_text: Option<String>,
    pub(crate) state: StateStatus,
    /// The disks that were there when STATE was last looked for.
    pub(crate) disks: Option<Vec<String>>,
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
    Loader,
    Control(Source),
}

/// Boots, then serves for ever. Process 1 must not return, so this does not.
pub(crate) fn run() -> ExitCode {
    let mut machine = Machine::new();
    for phase in PHASES {
        machine.enter(phase);
    }
    machine.load_late();
    loop {
        machine.turn();
    }
}

impl Machine {
    fn new() -> Self {
        let signals = hear::signals()
            .map_err(|error| warn(&format!("signals will not be heard: {error}")))
            .ok();
        Self {
            version: String::new(),
            kernel: String::new(),
            built: Duration::ZERO,
            boot_id: String::new(),
            hostname: "podium".to_owned(),
            phases: Vec::new(),
            modules: Loader::open("/lib/modules".as_ref()),
            loader: None,
            late_failures: None,
            late_began: Duration::ZERO,
            config: None,
            config_status: ConfigStatus::default(),
            config_text: None,
            state: StateStatus::Pending,
            disks: None,
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
        self.enter_since(phase, uptime());
    }

    /// The same, for a phase whose work began earlier, elsewhere.
    fn enter_since(&mut self, phase: &boot::Phase, began: Duration) {
        let (outcome, detail) = match (phase.run)(self) {
            Ok(detail) => (PhaseOutcome::Done, detail),
            Err(detail) => (PhaseOutcome::Failed, detail),
        };
        let took = uptime().saturating_sub(began);
        let mark = if outcome == PhaseOutcome::Failed { "!! " } else { "" };
        say(&format!("{:<9}{:>5} ms  {mark}{detail}", phase.name, took.as_millis()));
        self.phases.push(PhaseReport { name: phase.name.to_owned(), began, took, outcome, detail });
    }

    /// Loads a list here; what fails is returned.
    pub(crate) fn load_listed(&mut self, when: When) -> Vec<String> {
        self.modules.load_listed(when).iter().map(|error| chain(error)).collect()
    }

    /// Has the last list loaded, and ends the boot when that is done.
    fn load_late(&mut self) {
        self.late_began = uptime();
        let ordered = self.loader.as_mut().map(|child| child.order(When::Late));
        if !matches!(ordered, Some(Ok(()))) {
            self.finish_boot();
        }
    }

    fn finish_boot(&mut self) {
        self.loader = None;
        for (index, phase) in LAST.iter().enumerate() {
            self.enter_since(phase, if index == 0 { self.late_began } else { uptime() });
        }
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
                Ready::Loader => self.hear_loader(),
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
        sources.extend(self.loader.iter().map(|child| (Ready::Loader, child.as_fd())));
        let control = self.control.iter().flat_map(Control::fds);
        sources.extend(control.map(|(source, fd)| (Ready::Control(source), fd)));
        sources
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
