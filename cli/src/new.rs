//! `podium cluster new`: everything that a cluster needs before its first machine boots.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use podium_qemu_tests::credentials::Credentials;

use crate::Name;

/// What to make.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    name: Name,
    /// How many machines must see each other before they form the cluster.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=7))]
    expect: u32,
    /// The folder to make; `clusters/<name>` in the folder of `--dir` if left out.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Makes the secrets and the machine config.
pub(crate) fn run(dir: &Path, options: &Options) -> anyhow::Result<()> {
    let folder =
        options.out.clone().unwrap_or_else(|| dir.join("clusters").join(&options.name.name));
    let config_file = folder.join("machine.yaml");
    if config_file.exists() {
        bail!("{} exists: a cluster's config is never overwritten", config_file.display());
    }
    let credentials = Credentials::create(&folder)?;
    let config = credentials.machine_config(&options.name.name, options.expect)?.to_yaml()?;
    std::fs::write(&config_file, config).with_context(|| config_file.display().to_string())?;
    println!("{}", config_file.display());
    println!(
        "  is the config of all {} machines: put it on the ESP as podium/config.yaml.",
        options.expect
    );
    println!("{}", folder.join("admin.key").display());
    println!("  is the administrator's key. Nobody else has it, and it cannot be got back.");
    Ok(())
}
