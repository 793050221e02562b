//! PID 1, as the node talks to it: config and addresses at the start, reports of readiness, and word when the machine ends.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use podium_init::config::MachineConfig;
use podium_init::protocol::{Client, Event, NodeReport, SOCKET, Status};
use tokio::sync::watch;

/// What PID 1 tells while the node runs.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// The machine's addresses, the first one first.
    pub(crate) addresses: watch::Receiver<Vec<IpAddr>>,
    /// Where names outside the cluster are asked.
    pub(crate) nameservers: watch::Receiver<Vec<IpAddr>>,
    /// Set when the machine ends: how long pods may take.
    pub(crate) ending: watch::Receiver<Option<Duration>>,
}

/// Asks PID 1 for its config and status, once.
pub(crate) async fn introduce() -> anyhow::Result<(MachineConfig, Status)> {
    blocking(|| {
        let mut client = Client::connect(SOCKET)?;
        let status = client.status()?;
        let Some(config) = client.config()? else {
            let problems: Vec<String> =
                status.config.problems.iter().map(ToString::to_string).collect();
            bail!("this machine has no config: {}", problems.join("; "));
        };
        Ok((config, status))
    })
    .await
    .context("ask PID 1")
}

/// Listens to PID 1 from now on. The thread ends with the process.
pub(crate) fn listen() -> anyhow::Result<Machine> {
    let mut events = Client::connect(SOCKET)?.subscribe()?;
    let (addresses_tx, addresses) = watch::channel(Vec::new());
    let (nameservers_tx, nameservers) = watch::channel(Vec::new());
    let (ending_tx, ending) = watch::channel(None);
    std::thread::Builder::new().name("machine".to_owned()).spawn(move || {
        loop {
            match events.wait() {
                Ok(Event::Network(network)) => {
                    let all = network
                        .links
                        .iter()
                        .flat_map(|link| &link.addresses)
                        .map(|cidr| cidr.address);
                    let usable = all.filter(|address| !is_local(*address)).collect();
                    addresses_tx.send_if_modified(|known| replace(known, usable));
                    nameservers_tx.send_if_modified(|known| replace(known, network.nameservers));
                }
                Ok(Event::ShuttingDown { grace, reason, .. }) => {
                    tracing::info!(%reason, "the machine ends");
                    ending_tx.send_replace(Some(grace));
                }
                Ok(Event::ClockSet(_)) => {}
                Err(error) => {
                    // PID 1 never dies before the machine does; there is nothing that the node could do about it.
                    tracing::error!(%error, "PID 1 is not heard any more");
                    return;
                }
            }
        }
    })?;
    Ok(Machine { addresses, nameservers, ending })
}

/// Tells PID 1, and so the console, how the node is.
pub(crate) async fn report(report: NodeReport) {
    let told = blocking(move || Ok(Client::connect(SOCKET)?.report(report)?)).await;
    if let Err(error) = told {
        tracing::warn!("cannot report to PID 1: {error:#}");
    }
}

/// IPv6 link-local (RFC 4291, 2.5.6) and IPv4 link-local (RFC 3927) addresses identify nothing beyond one cable.
fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_loopback(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.is_loopback(),
    }
}

fn replace<T: PartialEq>(known: &mut T, new: T) -> bool {
    let changed = *known != new;
    *known = new;
    changed
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}
