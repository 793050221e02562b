//! The way to other nodes' pods, kept as the Machines and Nodes of the cluster say.
//!
//! ```text
//!  Machine (key, endpoint, addresses) ─┐
//!  Node (its part of the pod network) ─┴─ Peers ─► Overlay ─► kernel: tunnel, routes
//!                                                     └─ largest packet ─► pods' links
//! ```
//!
//! [`Peers`] is pure. The loop around it programs the kernel after every change of what it follows, of the machine's
//! addresses, and of its links; it says up to which revision it has, and tries again what was refused. After a start it
//! touches nothing until this node knows the cluster's present state: an old view would take tunnels away that are in use.
//!
//! The key that others encrypt to is made once and kept on STATE; [`Published`] is what the Machine object says of it.

mod peers;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use podium_dataplane::overlay::{Overlay, OverlayConfig, OverlayMode, PrivateKey};
use podium_init::config::Overlay as Wanted;
use podium_link::netlink::LinkWatch;
use podium_store::{Revision, Role, StoreHandle};
use podium_types::ObjectKey;
use podium_types::kind::resources;
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::files;
use crate::follow::Follower;
use crate::network::SharedDataplane;
use crate::overlay::peers::{Peers, Table};

/// The kernel's modules come while the node starts; later it refuses only what is wrong, and that may be mended.
const RETRY: Duration = Duration::from_secs(1);
/// By then the modules are there, on an emulated machine too; what is still refused is worth a person's attention.
const QUIET_TRIES: u32 = 10;
/// Links change in bursts, when a pod comes or goes; one look after the burst is enough.
const SETTLE: Duration = Duration::from_millis(200);
/// The key's file in the folder of the machine's identity.
const KEY_FILE: &str = "overlay.key";

/// How this node reaches others' pods, with the key in `identity`, which is made if it is not there.
pub(crate) fn mode(wanted: Wanted, identity: &Path) -> anyhow::Result<OverlayMode> {
    Ok(match wanted {
        Wanted::WireGuard => OverlayMode::WireGuard(key(&identity.join(KEY_FILE))?),
        Wanted::Vxlan => OverlayMode::Vxlan,
        Wanted::Routes => OverlayMode::Routes,
    })
}

fn key(file: &Path) -> anyhow::Result<PrivateKey> {
    if let Some(bytes) = files::read(file).with_context(|| file.display().to_string())? {
        let text = String::from_utf8_lossy(&bytes);
        return text.parse().with_context(|| file.display().to_string());
    }
    let mut random = [0; 32];
    getrandom::fill(&mut random)?;
    let key = PrivateKey::new(random);
    let text = format!("{}\n", key.to_text());
    files::replace(file, text.as_bytes()).with_context(|| file.display().to_string())?;
    Ok(key)
}

/// What a Machine's spec says so that others reach its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    public_key: Option<String>,
    port: Option<u16>,
}

impl Published {
    /// Of a node in this mode.
    pub(crate) fn new(mode: &OverlayMode) -> Self {
        let public_key = match mode {
            OverlayMode::WireGuard(key) => Some(key.public().to_string()),
            OverlayMode::Vxlan | OverlayMode::Routes => None,
        };
        Self { public_key, port: mode.port() }
    }

    /// Writes the fields that are the overlay's into a Machine's spec; says whether one was different.
    pub(crate) fn write(&self, spec: &mut Map<String, Value>, addresses: &[IpAddr]) -> bool {
        let endpoint = addresses.first().zip(self.port);
        let endpoint = endpoint.map(|(address, port)| SocketAddr::new(*address, port).to_string());
        let fields = [("publicKey", self.public_key.clone()), ("endpoint", endpoint)];
        let mut different = false;
        for (field, value) in fields {
            let value = value.map(Value::String);
            different |= spec.get(field) != value.as_ref();
            match value {
                Some(value) => drop(spec.insert(field.to_owned(), value)),
                None => drop(spec.remove(field)),
            }
        }
        different
    }
}

/// What the loop needs.
pub(crate) struct Following {
    pub(crate) store: Arc<dyn StoreHandle>,
    /// This node's name.
    pub(crate) name: String,
    pub(crate) config: OverlayConfig,
    pub(crate) dataplane: SharedDataplane,
    /// The machine's own addresses, the one that others reach first.
    pub(crate) addresses: watch::Receiver<Vec<IpAddr>>,
}

/// Keeps the kernel's ways to other nodes as the store says; never returns.
pub(crate) async fn run(mut following: Following) -> ! {
    let (overlay, mut links) = open(&following.config).await;
    caught_up(&*following.store).await;
    let follow =
        |resource| Follower::new(Arc::clone(&following.store), ObjectKey::prefix(&resource, None));
    let (mut machines, mut nodes) = (follow(resources::MACHINES), follow(resources::NODES));
    let (mut has_machines, mut has_nodes) = (false, false);
    let mut peers = Peers::new(following.name.clone(), &following.config);
    let mut complaint = "it is not programmed yet".to_owned();
    let mut refusals = 0;
    loop {
        tokio::select! {
            news = machines.next() => {
                has_machines = true;
                peers.machines(&news);
            }
            news = nodes.next() => {
                has_nodes = true;
                peers.nodes(&news);
            }
            Ok(()) = following.addresses.changed() => {}
            () = changed(&mut links) => {}
            () = tokio::time::sleep(RETRY), if refusals > 0 => {}
        }
        let own = following.addresses.borrow_and_update().first().copied();
        let (true, true, Some(own)) = (has_machines, has_nodes, own) else { continue };
        // What has come of both kinds is in the table.
        let revision = machines.progress().min(nodes.progress());
        let found = program(&overlay, &following.dataplane, own, peers.table()).await;
        refusals = if found.is_empty() { 0 } else { refusals + 1 };
        if found != complaint || refusals == QUIET_TRIES {
            match refusals {
                0 => tracing::info!(%revision, "the way to other nodes' pods is whole"),
                1..QUIET_TRIES => {
                    tracing::debug!(%found, "the way to other nodes' pods is not whole");
                }
                _ => tracing::warn!("the way to other nodes' pods is not whole: {found}"),
            }
            complaint = found;
        }
        tracing::debug!(%revision, "the way to other nodes' pods is programmed");
    }
}

type Shared = Arc<Mutex<Overlay>>;

/// Both fail only for lack of memory or of descriptors, which may pass.
async fn open(config: &OverlayConfig) -> (Shared, watch::Receiver<()>) {
    loop {
        let opened = Overlay::open(config.clone()).map_err(anyhow::Error::from);
        match opened.and_then(|overlay| Ok((Arc::new(Mutex::new(overlay)), watch_links()?))) {
            Ok(opened) => return opened,
            Err(error) => tracing::error!("cannot open the overlay: {error:#}"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Changes when one of the machine's links does. The thread ends with the process.
fn watch_links() -> anyhow::Result<watch::Receiver<()>> {
    let mut links = LinkWatch::open()?;
    let (sender, receiver) = watch::channel(());
    std::thread::Builder::new().name("links".to_owned()).spawn(move || {
        loop {
            match links.wait() {
                Ok(()) => drop(sender.send(())),
                Err(error) => {
                    tracing::error!("links are not watched: {:#}", anyhow!(error));
                    return;
                }
            }
        }
    })?;
    Ok(receiver)
}

/// Waits until this node's view of the store is no older than this moment, as far as it can know.
async fn caught_up(store: &dyn StoreHandle) {
    loop {
        let status = store.status();
        // A node without a replica cannot ask, but what it gets at first is the whole of its share.
        if status.role == Role::Learner && status.applied > Revision(0) {
            return;
        }
        if store.read().await.is_ok() {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn changed(links: &mut watch::Receiver<()>) {
    match links.changed().await {
        Ok(()) => {
            tokio::time::sleep(SETTLE).await;
            links.borrow_and_update();
        }
        // Nobody watches any more.
        Err(_) => std::future::pending().await,
    }
}

/// Brings the kernel to the table; what could not be done comes back as text, which is empty if all is well.
async fn program(
    overlay: &Shared,
    dataplane: &SharedDataplane,
    own: IpAddr,
    table: Table,
) -> String {
    let (overlay, dataplane) = (Arc::clone(overlay), Arc::clone(dataplane));
    let done = tokio::task::spawn_blocking(move || {
        let mut problems = table.ignored;
        let applied = overlay
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .apply(own, &table.peers)
            .map_err(anyhow::Error::from)?;
        problems.extend(applied.refused.into_iter().map(|it| format!("{:#}", anyhow!(it))));
        if applied.changed > 0 {
            let (peers, changed, mtu) = (table.peers.len(), applied.changed, applied.mtu_bytes);
            tracing::info!(peers, changed, mtu, "the way to other nodes' pods has changed");
        }
        let nodes: BTreeSet<Ipv4Addr> = table
            .peers
            .values()
            .flat_map(|peer| &peer.addresses)
            .filter_map(|address| match address {
                IpAddr::V4(address) => Some(*address),
                IpAddr::V6(_) => None,
            })
            .collect();
        let mut dataplane = dataplane.lock().unwrap_or_else(PoisonError::into_inner);
        dataplane.apply_nodes(&nodes)?;
        dataplane.apply_mtu(applied.mtu_bytes)?;
        Ok::<_, anyhow::Error>(problems.join("; "))
    });
    match done.await {
        Ok(Ok(problems)) => problems,
        Ok(Err(error)) => format!("{error:#}"),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_is_made_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let made = mode(Wanted::WireGuard, folder.path()).expect("made");
        assert_eq!(mode(Wanted::WireGuard, folder.path()).expect("read"), made);
        std::fs::write(folder.path().join(KEY_FILE), "nonsense").expect("write");
        let error = mode(Wanted::WireGuard, folder.path()).expect_err("no key");
        assert!(format!("{error:#}").contains(KEY_FILE), "{error:#}");
    }

    #[test]
    fn no_key_is_made_for_what_is_not_encrypted() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(mode(Wanted::Vxlan, folder.path()).expect("a mode"), OverlayMode::Vxlan);
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);
    }

    #[test]
    fn what_is_published_follows_the_address_and_leaves_other_fields_alone() {
        let published = Published::new(&OverlayMode::Vxlan);
        let mut spec = Map::from_iter([
            ("identityKey".to_owned(), json!("k")),
            ("publicKey".to_owned(), json!("of another mode")),
        ]);
        let first = [IpAddr::from([10, 77, 0, 11])];
        assert!(published.write(&mut spec, &first));
        assert!(!published.write(&mut spec, &first));
        assert_eq!(
            Value::Object(spec.clone()),
            json!({"identityKey": "k", "endpoint": "10.77.0.11:4789"})
        );
        assert!(published.write(&mut spec, &[IpAddr::from([10, 77, 0, 12])]));
        assert_eq!(spec["endpoint"], "10.77.0.12:4789");
    }
}
