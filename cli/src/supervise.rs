//! The process that owns a rig: its network, its registry and its machines.
//!
//! One thread. It boots the cluster, serves one control connection at a time (faults already while it boots), and ends when
//! it is told to, when it gets SIGTERM, or when the client that started it goes away before the cluster is ready. However it
//! ends, the kernel kills what it started.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use podium_qemu_tests::Cluster;
use podium_qemu_tests::layout::Layout;
use podium_qemu_tests::links::machine_name;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::control::{self, Connection, Event, Request};
use crate::progress::{self, Boot};
use crate::up::Options;

mod desk;

use desk::Desk;

/// One machine under emulation on a busy two-core host takes half a minute; each further one takes its share of the host.
const READY_LIMIT: Duration = Duration::from_secs(240);
const READY_LIMIT_EACH: Duration = Duration::from_secs(60);
/// Pods get their grace, 30 s by default, and an emulated machine its time.
const SHUT_DOWN_LIMIT: Duration = Duration::from_secs(90);
/// From the API's word that a node is Ready to its own.
const REPORT_LIMIT: Duration = Duration::from_secs(15);
/// How long a signal may go unnoticed.
const TURN: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Runs a rig until it is told to end.
pub(crate) fn run(dir: &Path, options: &Options) -> anyhow::Result<()> {
    let layout = Layout::new(dir, &options.name.name)?;
    std::fs::create_dir_all(layout.cluster())?;
    let folder = tempfile::Builder::new().prefix("podium-control-").tempdir_in("/tmp")?;
    let socket = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).with_context(|| socket.display().to_string())?;
    let link = control::link(&layout.cluster());
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(&socket, &link).with_context(|| link.display().to_string())?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in
        [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT, signal_hook::consts::SIGHUP]
    {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let mut starter = Connection::new(listener.accept()?.0);
    if !matches!(starter.receive()?, Some(Request::Follow)) {
        bail!("a supervisor is started by `podium up`");
    }
    let ended = match Supervisor::start(layout, options, listener, stop, &mut starter) {
        Ok(supervisor) => supervisor.boot_and_serve(&mut starter),
        Err(error) => Err(error),
    };
    if let Err(error) = &ended {
        // Nobody may be left to hear it; the log has it then.
        let _ = starter.send(&Event::Failed(format!("{error:#}")));
    }
    let _ = std::fs::remove_file(&link);
    ended
}

struct Supervisor {
    desk: Desk,
    listener: UnixListener,
    stop: Arc<AtomicBool>,
    started: Instant,
}

/// What a turn leads to.
#[derive(PartialEq, Eq)]
enum Turn {
    Next,
    Down,
}

impl Supervisor {
    fn start(
        layout: Layout,
        options: &Options,
        listener: UnixListener,
        stop: Arc<AtomicBool>,
        starter: &mut Connection,
    ) -> anyhow::Result<Self> {
        let started = Instant::now();
        let mut cluster = Cluster::prepare(&options.cluster(layout))?;
        let (_, why) = cluster.accelerator();
        let why = why.to_owned();
        cluster.power_on()?;
        let on = format!("{} machine(s) switched on; {why}", options.nodes);
        let supervisor = Self { desk: Desk::new(cluster), listener, stop, started };
        supervisor.say(starter, on)?;
        Ok(supervisor)
    }

    fn boot_and_serve(mut self, starter: &mut Connection) -> anyhow::Result<()> {
        if self.boot(starter)? == Turn::Down {
            return Ok(());
        }
        let kubeconfig = self.desk.cluster.write_kubeconfig()?;
        self.wait_for_reports(starter)?;
        let boots: Vec<_> = (0..).map(machine_name).zip(self.desk.boots()).collect();
        let phases = progress::table(&boots);
        let seconds = self.started.elapsed().as_secs_f64();
        starter.send(&Event::Ready { seconds, kubeconfig, phases })?;
        while !self.stop.load(Ordering::Relaxed) {
            self.desk.hear();
            if self.turn()? == Turn::Down {
                return Ok(());
            }
        }
        self.desk.cluster.shut_down(SHUT_DOWN_LIMIT)
    }

    /// A machine says that it is ready when the API has heard it, so its console may be a moment behind.
    fn wait_for_reports(&mut self, starter: &mut Connection) -> anyhow::Result<()> {
        let deadline = Instant::now() + REPORT_LIMIT;
        while !self.desk.boots().all(Boot::is_ready) && Instant::now() < deadline {
            self.tell(starter)?;
            std::thread::park_timeout(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Tells what the machines have said.
    fn tell(&mut self, starter: &mut Connection) -> anyhow::Result<()> {
        for (index, text) in self.desk.hear() {
            self.say(starter, format!("{:4}  {text}", machine_name(index)))?;
        }
        Ok(())
    }

    /// Until every machine that is meant to run is Ready.
    fn boot(&mut self, starter: &mut Connection) -> anyhow::Result<Turn> {
        let machines = u32::try_from(self.desk.cluster.machines().len()).unwrap_or(u32::MAX);
        let limit = READY_LIMIT + READY_LIMIT_EACH * machines;
        loop {
            self.tell(starter)?;
            let missing = self.desk.cluster.not_ready();
            if missing.as_ref().is_ok_and(Vec::is_empty) {
                return Ok(Turn::Next);
            }
            if self.stop.load(Ordering::Relaxed) || hung_up(starter) {
                bail!("taken down before it was ready");
            }
            if let Some(index) = self.desk.ended_by_itself() {
                let consoles = self.desk.cluster.consoles();
                bail!("{} has switched itself off\n{consoles}", machine_name(index));
            }
            if self.started.elapsed() > limit {
                let why = match missing {
                    Ok(missing) => {
                        let names: Vec<_> = missing.into_iter().map(machine_name).collect();
                        format!("not Ready: {}", names.join(", "))
                    }
                    Err(error) => format!("the API does not answer: {error:#}"),
                };
                let consoles = self.desk.cluster.consoles();
                bail!("not ready after {}s: {why}\n{consoles}", limit.as_secs());
            }
            if self.turn()? == Turn::Down {
                bail!("taken down before it was ready");
            }
        }
    }

    /// Waits a moment for a client, and answers it.
    fn turn(&mut self) -> anyhow::Result<Turn> {
        let ready = {
            let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
            poll(&mut fds, Some(&TURN)).unwrap_or(0)
        };
        if ready == 0 {
            return Ok(Turn::Next);
        }
        let mut client = Connection::new(self.listener.accept()?.0);
        // A client that went away in between is no reason to end.
        Ok(self.desk.answer(&mut client).unwrap_or(Turn::Next))
    }

    fn say(&self, starter: &mut Connection, text: String) -> anyhow::Result<()> {
        starter.send(&Event::Progress { seconds: self.started.elapsed().as_secs_f64(), text })
    }
}

fn hung_up(starter: &Connection) -> bool {
    let mut fds = [PollFd::new(starter.stream(), PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}
