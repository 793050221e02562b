//! `podium image`: building the operating system's image, and renewing the list of what it is built from.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use podium_image::{BuildOptions, build, checksum, pin};
use podium_qemu_tests::boot::Manifest;

/// What to do with images.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build the image: a UKI, its kernel and initramfs apart, and a raw disk.
    Build(Build),
    /// Renew the lock file with the newest packages of their series.
    Pin(Pin),
}

/// What to build from.
#[derive(Debug, Args)]
pub(crate) struct Build {
    /// The folder with the static programs init, node and shim; this program's own if left out.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// The lock file.
    #[arg(long, default_value = "image/podium-image.lock")]
    lock: PathBuf,
    /// Where the image goes; `image` in the folder of `--dir` if left out.
    #[arg(long)]
    out: Option<PathBuf>,
    /// If a locked package has left the archive, go on with the newest of its series, and say so.
    #[arg(long)]
    allow_newer: bool,
}

/// What to renew.
#[derive(Debug, Args)]
pub(crate) struct Pin {
    /// The lock file.
    #[arg(long, default_value = "image/podium-image.lock")]
    lock: PathBuf,
}

/// Runs one of the commands.
pub(crate) fn run(dir: &Path, command: Command) -> anyhow::Result<()> {
    let cache = dir.join("cache").join("packages");
    std::fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
    match command {
        Command::Build(options) => build_image(dir, cache, options),
        Command::Pin(options) => {
            let lock = pin(&options.lock, &cache)?;
            print!("{lock}");
            Ok(())
        }
    }
}

fn build_image(dir: &Path, cache: PathBuf, options: Build) -> anyhow::Result<()> {
    let started = Instant::now();
    let own = std::env::current_exe()?;
    let programs = match (options.programs, own.parent()) {
        (Some(programs), _) => programs,
        (None, Some(folder)) => folder.to_owned(),
        (None, None) => bail!("--programs is needed: this program has no folder"),
    };
    let out = options.out.unwrap_or_else(|| dir.join("image"));
    let artifacts = build(&BuildOptions {
        programs,
        lock: options.lock,
        cache,
        out: out.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        allow_newer: options.allow_newer,
    })?;
    for note in &artifacts.notes {
        eprintln!("podium: note: {note}");
    }
    let name = |path: &Path| -> anyhow::Result<String> {
        let name = path.file_name().and_then(|name| name.to_str());
        Ok(name.with_context(|| format!("{} has no name", path.display()))?.to_owned())
    };
    let manifest = Manifest {
        uki: name(&artifacts.uki)?,
        kernel: name(&artifacts.kernel)?,
        initramfs: name(&artifacts.initramfs)?,
        disk: name(&artifacts.disk)?,
        command_line: artifacts.cmdline.clone(),
    };
    manifest.write(&out)?;
    for path in [&artifacts.uki, &artifacts.disk] {
        println!("{}  {}", checksum(path)?, path.display());
    }
    let bytes = std::fs::metadata(&artifacts.uki)?.len();
    println!(
        "UKI of {:.1} MiB in {:.1}s",
        bytes as f64 / f64::from(1 << 20),
        started.elapsed().as_secs_f64()
    );
    Ok(())
}
