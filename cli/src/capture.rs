//! `podium capture`: what passes between a rig's machines, for tcpdump and Wireshark.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use podium_qemu_tests::layout::Layout;
use podium_qemu_tests::links::End;

use crate::Name;
use crate::control::{Connection, Event, Request};

/// What to capture.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    name: Name,
    /// Between whom: machines, or `host`; everybody if left out.
    between: Vec<End>,
    /// The file to write, in libpcap's format.
    #[arg(long, short, default_value = "podium.pcap")]
    out: PathBuf,
    /// For how long; until Ctrl-C if left out.
    #[arg(long)]
    seconds: Option<u64>,
}

/// Captures until the time is over or Ctrl-C comes, and writes the file.
pub(crate) fn run(dir: &Path, options: Options) -> anyhow::Result<()> {
    let layout = Layout::new(dir, &options.name.name)?;
    let ask = |request: &Request| -> anyhow::Result<Event> {
        let Some(mut connection) = Connection::open(&layout.cluster())? else {
            bail!("cluster {} is not up", layout.name());
        };
        connection.send(request)?;
        connection.event()
    };
    let Event::Capturing { id } = ask(&Request::Capture { between: options.between })? else {
        bail!("the supervisor did not answer")
    };
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&stop))?;
    let deadline = options.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    while !stop.load(Ordering::Relaxed) && deadline.is_none_or(|it| Instant::now() < it) {
        std::thread::park_timeout(Duration::from_millis(100));
    }
    let out = std::path::absolute(&options.out)?;
    let Event::Captured { frames, missed } = ask(&Request::EndCapture { id, out })? else {
        bail!("the supervisor did not answer")
    };
    println!("{frames} frames in {}", options.out.display());
    if missed > 0 {
        println!("{missed} more did not fit");
    }
    Ok(())
}
