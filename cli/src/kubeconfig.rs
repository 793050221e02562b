//! `podium kubeconfig`.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use podium_qemu_tests::cluster::kubeconfig;
use podium_qemu_tests::credentials::Credentials;
use podium_qemu_tests::layout::Layout;
use podium_qemu_tests::node_api::cluster_authority;

use crate::Name;
use crate::control::{Connection, Event, Request};

/// Of which cluster, and by which node.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    name: Name,
    /// A node's address and port, for machines that are not in a rig.
    #[arg(long)]
    endpoint: Option<String>,
    /// The folder with the cluster's token and key; `clusters/<name>` in the folder of `--dir` if left out.
    #[arg(long)]
    credentials: Option<PathBuf>,
}

/// Asks a node for the cluster's authority, by the token, and prints a kubeconfig.
pub(crate) fn run(dir: &Path, options: &Options) -> anyhow::Result<()> {
    let name = &options.name.name;
    let layout = Layout::new(dir, name)?;
    let folder = options.credentials.clone().unwrap_or_else(|| layout.cluster());
    let credentials = Credentials::open(&folder).context("the cluster's secrets")?;
    let server = match &options.endpoint {
        Some(endpoint) => resolve(endpoint)?,
        None => rig_endpoint(&layout)?,
    };
    let authority = cluster_authority(server, credentials.token())?;
    println!("{}", kubeconfig(name, server, &authority, &credentials)?);
    Ok(())
}

fn resolve(endpoint: &str) -> anyhow::Result<SocketAddr> {
    let found =
        endpoint.to_socket_addrs().with_context(|| format!("--endpoint {endpoint}"))?.next();
    found.with_context(|| format!("--endpoint {endpoint}: no address"))
}

fn rig_endpoint(layout: &Layout) -> anyhow::Result<SocketAddr> {
    let Some(mut connection) = Connection::open(&layout.cluster())? else {
        bail!("cluster {} is not up here; name a node of it with --endpoint", layout.name());
    };
    connection.send(&Request::Status)?;
    match connection.event()? {
        Event::Status(status) => Ok(status.api),
        other => bail!("the supervisor said something unexpected: {other:?}"),
    }
}
