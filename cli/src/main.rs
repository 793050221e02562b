//! `podium`: images, rigs, and what an operator asks of a cluster.
//!
//! This file is the command line's shape; each command is a module. Errors go to standard error as one chain, and the exit
//! code is 1; clap's own are 2.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

mod capture;
mod control;
mod fault;
mod form;
mod image;
mod kubeconfig;
mod logs;
mod new;
mod progress;
mod status;
mod supervise;
mod up;

/// Build Podium's image, and run clusters of it.
#[derive(Debug, Parser)]
#[command(version, disable_help_subcommand = true)]
struct Arguments {
    /// Where clusters, images and downloads are kept.
    #[arg(long, global = true, default_value = ".podium", env = "PODIUM_DIR")]
    dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the operating system's image.
    #[command(subcommand)]
    Image(image::Command),
    /// Make a cluster's secrets, or run one of the commands below.
    #[command(subcommand)]
    Cluster(Cluster),
    /// Have the machines that there are form a cluster, fewer than their config expects.
    Form(form::Options),
    #[command(flatten)]
    Run(Run),
    /// Own a rig's processes (started by `up`).
    #[command(hide = true)]
    Supervise(up::Options),
}

#[derive(Debug, Subcommand)]
enum Cluster {
    /// Make a token, an administrator's key, and the machine config that every machine of the cluster boots with.
    New(new::Options),
    #[command(flatten)]
    Run(Run),
}

#[derive(Debug, Subcommand)]
enum Run {
    /// Boot a cluster in QEMU and wait until it is ready.
    Up(up::Options),
    /// Shut a cluster down; its disks stay.
    Down(Down),
    /// Draw machines, their roles, and the pods on them.
    Status(Name),
    /// Print the administrator's kubeconfig.
    Kubeconfig(kubeconfig::Options),
    /// Show what a machine printed on its console.
    Logs(logs::Options),
    /// Break machines and links, and mend them.
    Fault(fault::Options),
    /// Capture what passes between machines.
    Capture(capture::Options),
}

/// Which cluster.
#[derive(Debug, Args, Clone)]
struct Name {
    /// The cluster's name.
    #[arg(long, global = true, default_value = "demo", value_parser = cluster_name)]
    name: String,
}

#[derive(Debug, Args)]
struct Down {
    #[command(flatten)]
    name: Name,
    /// Cut the power instead of shutting down.
    #[arg(long)]
    force: bool,
    /// Delete the cluster's disks and secrets afterwards.
    #[arg(long)]
    delete: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let dir = &arguments.dir;
    let result = match arguments.command {
        Command::Image(command) => image::run(dir, command),
        Command::Form(options) => form::run(&options),
        Command::Cluster(Cluster::New(options)) => new::run(dir, &options),
        Command::Cluster(Cluster::Run(run)) | Command::Run(run) => run_command(dir, run),
        Command::Supervise(options) => supervise::run(dir, &options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("podium: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_command(dir: &std::path::Path, run: Run) -> anyhow::Result<()> {
    match run {
        Run::Up(options) => up::run(dir, &options),
        Run::Down(down) => up::down(dir, &down.name.name, down.force, down.delete),
        Run::Status(name) => status::run(dir, &name.name),
        Run::Kubeconfig(options) => kubeconfig::run(dir, &options),
        Run::Logs(options) => logs::run(dir, &options),
        Run::Fault(options) => fault::run(dir, options),
        Run::Capture(options) => capture::run(dir, options),
    }
}

/// A DNS label (RFC 1123): the name becomes a folder's and a kubeconfig context's.
fn cluster_name(text: &str) -> Result<String, String> {
    let letters =
        text.chars().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-');
    if letters && (1..=63).contains(&text.len()) && !text.starts_with('-') && !text.ends_with('-') {
        Ok(text.to_owned())
    } else {
        Err("a name has 1 to 63 lower-case letters, digits and '-', and neither starts nor ends with '-'".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_cluster_name_cannot_leave_its_folder() {
        for bad in ["", "..", "a/b", "-a", "a-", "A", "a.b", &"a".repeat(64)] {
            assert!(cluster_name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(cluster_name("demo-1"), Ok("demo-1".to_owned()));
    }

    #[test]
    fn rig_commands_work_with_and_without_the_word_cluster() {
        for line in [
            ["podium", "up"].as_slice(),
            &["podium", "cluster", "up"],
            &["podium", "cluster", "status"],
            &["podium", "fault", "cut", "n1", "n2", "--name", "demo"],
            &["podium", "capture", "n1", "n2", "--seconds", "3"],
        ] {
            assert!(Arguments::try_parse_from(line).is_ok(), "{line:?}");
        }
    }
}
