//! `podium form`: a cluster of fewer machines than the config expects, because somebody says so.
//!
//! Machines form a cluster by themselves when as many as `cluster.expect` see each other. When some of them will not come, an
//! operator names those that there are. All that this needs is the config that they were booted with: its token is the proof.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use podium_init::config;
use podium_peer::{PORT, Pace, operator};

/// Which machines.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The machine config that the machines have.
    #[arg(long)]
    config: PathBuf,
    /// Where the machines are, all of them that shall form the cluster: `10.0.2.11`, or `10.0.2.11:6444`.
    #[arg(required = true, value_parser = address)]
    machines: Vec<SocketAddr>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let path = options.config.display();
    let text = std::fs::read_to_string(&options.config).with_context(|| path.to_string())?;
    let config = config::decode(&text).with_context(|| path.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let token = config.cluster.token.as_bytes();
    let told = runtime.block_on(operator::form(token, &options.machines, Pace::default()))?;
    println!(
        "{} will form a cluster when they see each other; their consoles say so.",
        told.join(", ")
    );
    Ok(())
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let alone = text.parse().map(|ip| SocketAddr::new(ip, PORT));
    alone
        .or_else(|_| text.parse())
        .map_err(|_| "not an IP address, with or without a port".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_the_usual_port_unless_it_says_another() {
        assert_eq!(address("10.0.2.11"), Ok(SocketAddr::from(([10, 0, 2, 11], PORT))));
        assert_eq!(address("10.0.2.11:7000"), Ok(SocketAddr::from(([10, 0, 2, 11], 7000))));
        assert!(address("n1").is_err());
    }
}
