//! The process that owns a rig: its network, its registry and its machines.
//!
//! One thread. It boots the cluster, serves one control connection at a time, and ends when it is told to, when it gets
//! SIGTERM, or when the client that started it goes away before the cluster is ready. However it ends, the kernel kills what
//! it started.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use podium_qemu_tests::console::Console;
use podium_qemu_tests::layout::Layout;
use podium_qemu_tests::{Cluster, cluster::machine_address};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::control::{self, Connection, Event, MachineStatus, Request};
use crate::progress::Milestones;
use crate::up::Options;

/// A three-node cluster under emulation on a busy two-core machine takes about a minute.
const READY_LIMIT: Duration = Duration::from_secs(300);
/// Pods get their grace, 30 s by default, and an emulated machine its time.
const SHUT_DOWN_LIMIT: Duration = Duration::from_secs(90);
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
        anyhow::bail!("a supervisor is started by `podium up`");
    }
    let ended = match boot(layout, options, &stop, &mut starter) {
        Ok(cluster) => Supervisor { cluster, listener, stop }.serve(),
        Err(error) => {
            // Nobody may be left to hear it; the log has it then.
            let _ = starter.send(&Event::Failed(format!("{error:#}")));
            Err(error)
        }
    };
    let _ = std::fs::remove_file(&link);
    ended
}

fn boot(
    layout: Layout,
    options: &Options,
    stop: &AtomicBool,
    starter: &mut Connection,
) -> anyhow::Result<Cluster> {
    let started = Instant::now();
    let seconds = || started.elapsed().as_secs_f64();
    let say = |starter: &mut Connection, text: String| {
        starter.send(&Event::Progress { seconds: seconds(), text })
    };
    let cluster_options = options.cluster(layout);
    let mut cluster = Cluster::prepare(&cluster_options)?;
    let (_, why) = cluster.accelerator();
    let why = why.to_owned();
    say(starter, why)?;
    cluster.power_on()?;
    say(starter, format!("{} machine(s) switched on", options.nodes))?;
    let mut consoles: Vec<(Console, Milestones)> = cluster
        .machines()
        .iter()
        .map(|machine| (Console::open(&machine.console()), Milestones::default()))
        .collect();
    let mut gone = None;
    cluster.wait_ready(READY_LIMIT, |cluster| {
        for (index, (console, milestones)) in consoles.iter_mut().enumerate() {
            for text in console.lines().iter().filter_map(|line| milestones.of(line)) {
                if let Err(error) = say(starter, format!("machine {index}: {text}")) {
                    gone = Some(error);
                }
            }
        }
        if gone.is_some() || stop.load(Ordering::Relaxed) || hung_up(starter) {
            // Machines without power end the wait.
            for machine in cluster.machines() {
                let _ = machine.cut_power();
            }
        }
    })?;
    let kubeconfig = cluster.write_kubeconfig()?;
    starter.send(&Event::Ready { seconds: seconds(), kubeconfig })?;
    Ok(cluster)
}

fn hung_up(starter: &Connection) -> bool {
    let mut fds = [PollFd::new(starter.stream(), PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

struct Supervisor {
    cluster: Cluster,
    listener: UnixListener,
    stop: Arc<AtomicBool>,
}

impl Supervisor {
    fn serve(mut self) -> anyhow::Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            let ready = {
                let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
                poll(&mut fds, Some(&TURN)).unwrap_or(0)
            };
            if ready > 0 {
                let mut client = Connection::new(self.listener.accept()?.0);
                // A client that went away in between is no reason to end.
                if let Ok(true) = self.answer(&mut client) {
                    return Ok(());
                }
            }
        }
        self.cluster.shut_down(SHUT_DOWN_LIMIT)
    }

    /// `true`: the cluster is down.
    fn answer(&mut self, client: &mut Connection) -> anyhow::Result<bool> {
        client.stream().set_read_timeout(Some(Duration::from_secs(5)))?;
        match client.receive()? {
            Some(Request::Status) => client.send(&Event::Status(self.status()))?,
            Some(Request::Down { force }) => {
                let limit = if force { Duration::ZERO } else { SHUT_DOWN_LIMIT };
                self.cluster.shut_down(limit)?;
                let _ = client.send(&Event::Down);
                return Ok(true);
            }
            Some(Request::Follow) => {
                client.send(&Event::Failed("the cluster is up already".to_owned()))?;
            }
            None => {}
        }
        Ok(false)
    }

    fn status(&mut self) -> Vec<MachineStatus> {
        let addresses: Vec<_> = (0..)
            .take(self.cluster.machines().len())
            .map(|index| self.cluster.api_address(index))
            .collect();
        let machines = self.cluster.machines().iter_mut().zip(0..).zip(addresses);
        machines
            .map(|((machine, index), api)| MachineStatus {
                index,
                on: machine.is_on(),
                address: machine_address(index),
                api,
                process: machine.process_id(),
            })
            .collect()
    }
}
