//! This machine's membership of its cluster: identity, store, other machines, from a disk to a member.
//!
//! In two steps, because the first needs no network: [`Opened`] has the store, and on a machine that expects no others the
//! cluster too; [`Opened::meet`] finds the others, and forms the cluster with them if there is none.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use futures::future::BoxFuture;
use podium_control::forming::{ClusterId, Joined, Machine, Standing};
use podium_form::{Founding, Ground as _, StandingFiles};
use podium_peer::{Config as PeerConfig, Pace, Peers};
use podium_store::disk::os::OsDisk;
use podium_store::{
    Config as StoreConfig, Member, MemberId, Message, Role, Store, StoreHandle as _, TokioRuntime,
    Transport, TransportError,
};
use tokio::sync::watch;

use crate::files;
use crate::form::{Former, NodeGround, Others};
use crate::identity::Identity;
use crate::voters::{self, Voters};

/// Addresses at which other machines were found, in the folder of the identity.
const HINTS: &str = "peers";
/// How often they are written, if they have changed.
const HINTS_INTERVAL: Duration = Duration::from_secs(10);
/// More are not worth trying.
const HINTS_MAX: usize = 64;

/// What is known before the machine has a name or an address.
pub(crate) struct Options {
    /// The folder of everything that is kept.
    pub(crate) state: PathBuf,
    /// How many machines form the cluster.
    pub(crate) expect: u32,
    /// How much slower than usual the machine is.
    pub(crate) factor: u32,
}

/// How other machines are found.
pub(crate) struct Meeting {
    /// This machine's name.
    pub(crate) name: String,
    /// The cluster's token.
    pub(crate) token: Vec<u8>,
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// This machine's addresses, as they change.
    pub(crate) addresses: watch::Receiver<Vec<IpAddr>>,
    /// Addresses of others, from the config.
    pub(crate) listed: Vec<SocketAddr>,
    /// Whether to look for others by multicast.
    pub(crate) multicast: bool,
    /// One line on what is not well; none when all is.
    pub(crate) trouble: watch::Sender<Option<String>>,
}

/// A machine whose disk was read.
pub(crate) struct Opened {
    identity: Identity,
    folder: PathBuf,
    files: StandingFiles,
    standing: Standing,
    store: Arc<Store<TokioRuntime>>,
    ground: Arc<NodeGround>,
    way: Arc<Late>,
    options: Options,
}

/// A machine of a cluster.
pub(crate) struct Cluster {
    /// This machine.
    pub(crate) identity: Identity,
    /// Which cluster.
    pub(crate) id: ClusterId,
    /// Its replica; that of a worker is blank, and shut down.
    pub(crate) store: Arc<Store<TokioRuntime>>,
    /// A worker's place.
    pub(crate) joined: Option<Joined>,
    /// Where that is kept.
    pub(crate) files: StandingFiles,
    /// Who votes, and may speak for the cluster.
    pub(crate) voters: Voters,
    /// The other machines.
    pub(crate) peers: Arc<Peers>,
    /// Answers the other machines.
    pub(crate) former: Arc<Former>,
}

/// The store is opened before the other machines can be spoken to.
#[derive(Debug, Default)]
struct Late(OnceLock<Arc<dyn Transport>>);

impl Transport for Late {
    fn call(
        &self,
        to: MemberId,
        message: Message,
    ) -> BoxFuture<'static, Result<Message, TransportError>> {
        match self.0.get() {
            Some(transport) => transport.call(to, message),
            None => Box::pin(async move {
                let reason = "this machine does not speak to others yet".to_owned();
                Err(TransportError::Unreachable { to, reason })
            }),
        }
    }
}

impl Opened {
    /// Reads the disk. A blank machine that expects no others is a cluster afterwards.
    pub(crate) async fn open(options: Options) -> anyhow::Result<Self> {
        let folder = options.state.join("identity");
        let identity = Identity::open(&folder)?;
        let disk = OsDisk::open(options.state.join("raft")).context("open the store's folder")?;
        let beside = disk.beside(&folder).context("open the identity's folder")?;
        let files = StandingFiles::new(Arc::new(beside));
        let way = Arc::new(Late::default());
        let store = open_store(&options, disk, identity.member, way.clone()).await?;
        let ground = Arc::new(NodeGround::new(Arc::clone(&store)));
        let mut standing = files.read(store.status().role != Role::Blank).await?;
        if let (1, Standing::Blank { accepted }) = (options.expect, &standing) {
            let me = machine(&identity, String::new());
            let alone = podium_form::alone(&*ground, &files, accepted.clone(), me).await?;
            standing = Standing::Member(alone);
        }
        Ok(Self { identity, folder, files, standing, store, ground, way, options })
    }

    /// Looks for the other machines, and returns when this one is a member of a cluster.
    pub(crate) async fn meet(self, meeting: Meeting) -> anyhow::Result<Cluster> {
        let Self { identity, folder, files, standing, store, ground, way, options } = self;
        let pace = Pace::default().slower(options.factor);
        let time = Arc::clone(&ground);
        let clock: Arc<dyn Fn() -> Duration + Send + Sync> = Arc::new(move || time.now());
        let (places, voters) = (files.clone(), Voters::new([]));
        let founding = Founding {
            me: machine(&identity, meeting.name),
            expect: options.expect,
            patience: pace.patience,
            interval: pace.hello,
            files,
            standing,
            ground,
        };
        let former = Former::new(founding, Arc::clone(&store), voters.clone());
        let hints = folder.join(HINTS);
        let config = PeerConfig {
            key: identity.key.clone(),
            token: meeting.token,
            listen: meeting.listen,
            addresses: meeting.addresses.borrow().clone(),
            listed: meeting.listed,
            hints: read_hints(&hints),
            multicast: meeting.multicast,
            pace,
            clock,
            hello: former.first_hello(),
        };
        let peers = Arc::new(Peers::start(config, former.clone()).await?);
        // Nobody else sets it.
        let _ = way.0.set(peers.transport());
        let others = Others { peers: Arc::clone(&peers), trouble: meeting.trouble };
        let standing = former.form(&others).await?;
        let id = standing.cluster().context("this machine is in no cluster")?;
        tokio::spawn(follow_addresses(Arc::downgrade(&peers), meeting.addresses));
        tokio::spawn(keep_hints(Arc::downgrade(&peers), hints));
        let joined = match standing {
            Standing::Worker(_) => {
                store.shutdown().await;
                tokio::spawn(greet(Arc::clone(&former), others));
                let joined = places.read_joined().await?.context("this worker's place is gone")?;
                voters.are(joined.voters.clone());
                Some(joined)
            }
            Standing::Member(_) | Standing::Blank { .. } => {
                let first = places.first_members().await?;
                former.pin(&others, id, &first);
                voters.are(voters::pinned(&store.status().membership));
                tokio::spawn(keep(Arc::clone(&former), others, id, first));
                None
            }
        };
        Ok(Cluster { identity, id, store, joined, files: places, voters, peers, former })
    }
}

async fn keep(former: Arc<Former>, others: Others, cluster: ClusterId, first: Vec<Member>) {
    former.keep(others, cluster, &first).await;
}

async fn greet(former: Arc<Former>, others: Others) {
    former.greet(others).await;
}

async fn open_store(
    options: &Options,
    disk: OsDisk,
    member: MemberId,
    way: Arc<Late>,
) -> anyhow::Result<Arc<Store<TokioRuntime>>> {
    let mut settings = StoreConfig::new(member);
    // Alone, nobody else can lead: there is nothing to be patient for.
    if options.expect > 1 {
        let factor = options.factor.max(1);
        settings.timings.heartbeat *= factor;
        settings.timings.election_min *= factor;
        settings.timings.election_max *= factor;
        settings.timings.request = settings.timings.request.max(settings.timings.election_max * 3);
    }
    let store = Store::<TokioRuntime>::open(settings, Arc::new(disk), way).await;
    Ok(Arc::new(store.context("open the store")?))
}

/// This machine, as it introduces itself.
fn machine(identity: &Identity, name: String) -> Machine {
    Machine { member: identity.member.0, name, public_key: identity.key.public().to_vec() }
}

/// A hint that cannot be read is none.
fn read_hints(file: &Path) -> Vec<SocketAddr> {
    let bytes = files::read(file).ok().flatten().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.lines().filter_map(|line| line.parse().ok()).take(HINTS_MAX).collect()
}

async fn keep_hints(peers: std::sync::Weak<Peers>, file: PathBuf) {
    let mut written = read_hints(&file);
    loop {
        tokio::time::sleep(HINTS_INTERVAL).await;
        let Some(peers) = peers.upgrade() else { return };
        let mut known: Vec<SocketAddr> = peers.known().into_values().flatten().collect();
        known.truncate(HINTS_MAX);
        known.sort_unstable();
        if known.is_empty() || known == written {
            continue;
        }
        let text: String = known.iter().map(|address| format!("{address}\n")).collect();
        match files::replace(&file, text.as_bytes()) {
            Ok(()) => written = known,
            Err(error) => tracing::warn!(%error, "cannot keep the other machines' addresses"),
        }
    }
}

async fn follow_addresses(
    peers: std::sync::Weak<Peers>,
    mut addresses: watch::Receiver<Vec<IpAddr>>,
) {
    loop {
        let now = addresses.borrow_and_update().clone();
        match peers.upgrade() {
            Some(peers) => peers.set_addresses(now),
            None => return,
        }
        if addresses.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
