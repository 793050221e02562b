//! `podium up` and `podium down`.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use podium_qemu_tests::ClusterOptions;
use podium_qemu_tests::boot::Firmware;
use podium_qemu_tests::layout::Layout;

use crate::Name;
use crate::control::{Connection, Event, Request};

/// The supervisor only has to bind a socket.
const SUPERVISOR_LIMIT: Duration = Duration::from_secs(30);

/// What to boot.
#[derive(Debug, Args, Clone)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) name: Name,
    /// How many machines.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) nodes: u16,
    /// Memory of each machine, in MiB.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(128..))]
    pub(crate) memory: u32,
    /// Virtual processors of each machine.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) cpus: u32,
    /// Boot the disk image through UEFI firmware, as a real machine does, instead of QEMU's quicker way.
    #[arg(long)]
    pub(crate) uefi: bool,
    /// The image's folder; `image` in the folder of `--dir` if left out.
    #[arg(long)]
    pub(crate) image: Option<PathBuf>,
    /// The port of 127.0.0.1 for the cluster's API, at whichever machine answers; any free one if left out.
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
    /// How many machines form the cluster; the others join it. Three, or all if there are fewer, if left out.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=7))]
    pub(crate) expect: Option<u32>,
    /// What decides which frames bad links lose, double and hold back; random if left out.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
}

impl Options {
    /// The rig's options.
    pub(crate) fn cluster(&self, layout: Layout) -> ClusterOptions {
        let image = self.image.clone().unwrap_or_else(|| layout.default_image());
        ClusterOptions {
            machines: self.nodes,
            memory_mebibytes: self.memory,
            processors: self.cpus,
            firmware: if self.uefi { Firmware::Uefi } else { Firmware::Direct },
            api_port: self.port,
            expect: self.expect,
            seed: self.seed,
            ..ClusterOptions::new(layout, image)
        }
    }

    fn words(&self) -> Vec<std::ffi::OsString> {
        let mut words: Vec<std::ffi::OsString> =
            vec!["--name".into(), self.name.name.clone().into()];
        let numbers = [
            ("--nodes", self.nodes.to_string()),
            ("--memory", self.memory.to_string()),
            ("--cpus", self.cpus.to_string()),
            ("--port", self.port.to_string()),
        ];
        words.extend(numbers.into_iter().flat_map(|(name, value)| [name.into(), value.into()]));
        if self.uefi {
            words.push("--uefi".into());
        }
        if let Some(expect) = self.expect {
            words.extend(["--expect".into(), expect.to_string().into()]);
        }
        if let Some(seed) = self.seed {
            words.extend(["--seed".into(), seed.to_string().into()]);
        }
        if let Some(image) = &self.image {
            words.extend(["--image".into(), image.into()]);
        }
        words
    }
}

/// Boots a cluster and waits until it is ready. Ctrl-C before that takes everything down again.
pub(crate) fn run(dir: &Path, options: &Options) -> anyhow::Result<()> {
    let layout = Layout::new(dir, &options.name.name)?;
    std::fs::create_dir_all(layout.cluster())?;
    if Connection::open(&layout.cluster())?.is_some() {
        bail!("cluster {} is up already; `podium down` ends it", layout.name());
    }
    let mut connection = start_supervisor(dir, options, &layout)?;
    let started = Instant::now();
    connection.send(&Request::Follow)?;
    // Ctrl-C ends this process, as it does any; the supervisor sees the connection end, and takes the cluster down.
    loop {
        match connection.event().with_context(|| format!("start cluster {}", layout.name()))? {
            Event::Progress { seconds, text } => println!("{seconds:7.2}s  {text}"),
            Event::Ready { seconds, kubeconfig, phases } => {
                println!("{seconds:7.2}s  ready ({:.2}s in all)", started.elapsed().as_secs_f64());
                println!("\n{phases}\n");
                println!("  export KUBECONFIG={}", kubeconfig.display());
                println!("  kubectl get nodes");
                return Ok(());
            }
            other => bail!("the supervisor said something unexpected: {other:?}"),
        }
    }
}

/// Ends a cluster; its disks stay unless they are to be deleted.
pub(crate) fn down(dir: &Path, name: &str, force: bool, delete: bool) -> anyhow::Result<()> {
    let layout = Layout::new(dir, name)?;
    match Connection::open(&layout.cluster())? {
        Some(mut connection) => {
            connection.send(&Request::Down { force })?;
            let event = connection.event()?;
            if !matches!(event, Event::Down) {
                bail!("the supervisor said something unexpected: {event:?}");
            }
            println!("cluster {name} is down");
        }
        None => println!("cluster {name} was not up"),
    }
    if delete {
        match std::fs::remove_dir_all(layout.cluster()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| layout.cluster().display().to_string());
            }
            _ => println!("its disks and secrets are deleted"),
        }
    }
    Ok(())
}

fn start_supervisor(dir: &Path, options: &Options, layout: &Layout) -> anyhow::Result<Connection> {
    let log = layout.cluster().join("supervisor.log");
    let output = std::fs::File::create(&log).with_context(|| log.display().to_string())?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("--dir")
        .arg(dir)
        .arg("supervise")
        .args(options.words())
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        // Not in the terminal's group: its Ctrl-C is this process's to handle.
        .process_group(0);
    let mut supervisor = command.spawn().context("start the supervisor")?;
    let deadline = Instant::now() + SUPERVISOR_LIMIT;
    loop {
        if let Some(connection) = Connection::open(&layout.cluster())? {
            return Ok(connection);
        }
        if supervisor.try_wait()?.is_some() || Instant::now() > deadline {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            bail!("the supervisor does not start: {}", said.trim());
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
