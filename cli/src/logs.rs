//! `podium logs`: a machine's serial console.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use podium_qemu_tests::console::Console;
use podium_qemu_tests::layout::Layout;
use podium_qemu_tests::links::{machine_name, parse_machine};

use crate::Name;

/// Whose console.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    name: Name,
    /// Which machine: n1, n2…
    #[arg(default_value = "n1", value_parser = parse_machine)]
    machine: u16,
    /// Go on as the machine prints more.
    #[arg(long, short)]
    follow: bool,
}

/// Prints it.
pub(crate) fn run(dir: &Path, options: &Options) -> anyhow::Result<()> {
    let layout = Layout::new(dir, &options.name.name)?;
    let path = layout.machine(options.machine).join("console.log");
    std::fs::metadata(&path).with_context(|| {
        format!("{} has no console yet: {}", machine_name(options.machine), path.display())
    })?;
    let mut console = Console::open(&path);
    let mut out = std::io::stdout().lock();
    loop {
        for line in console.lines() {
            if let Err(error) = writeln!(out, "{line}") {
                // `podium logs | head` closes the pipe; that is not an error.
                return if error.kind() == std::io::ErrorKind::BrokenPipe {
                    Ok(())
                } else {
                    Err(error.into())
                };
            }
        }
        if !options.follow {
            return Ok(());
        }
        out.flush()?;
        std::thread::park_timeout(Duration::from_millis(200));
    }
}
