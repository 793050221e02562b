//! All of it together: what a program starts, says and hears.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use podium_control::forming::{
    Fingerprint, Heard, Hearing, Hello, Joined, Machine, MemberSet, Order,
};
use podium_store::{MemberId, Message, Transport};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::book::Book;
use crate::complaint::Complaints;
use crate::identity::NodeKey;
use crate::link::{self, Call, Lane, PeerTransport};
use crate::meet::{self, Command, GOSSIP_MAX, HelloFrame};
use crate::pace::Pace;
use crate::pinned::Pinned;
use crate::proof::TokenKeys;
use crate::tls::{Protocol, Secured, Session, Tls};
use crate::{discover, listen};

/// What a machine needs to speak to others.
pub struct Config {
    /// Its identity.
    pub key: NodeKey,
    /// The cluster's token.
    pub token: Vec<u8>,
    /// Where to listen. The port is also where others are expected to.
    pub listen: SocketAddr,
    /// This machine's addresses, to be told to others; see [`Peers::set_addresses`].
    pub addresses: Vec<IpAddr>,
    /// Addresses of other machines, from the config.
    pub listed: Vec<SocketAddr>,
    /// Addresses where other machines once were.
    pub hints: Vec<SocketAddr>,
    /// Whether machines are looked for by multicast.
    pub multicast: bool,
    /// How fast.
    pub pace: Pace,
    /// The monotonic clock, which [`Heard::at`] is of.
    pub clock: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// The first hello.
    pub hello: Hello,
}

/// What other machines may ask for.
pub trait Services: Send + Sync {
    /// A machine that has proven the token proposes the first members of a cluster. `Ok`: they are accepted, durably.
    fn propose(&self, from: Fingerprint, set: MemberSet) -> BoxFuture<'_, Result<(), String>>;

    /// Somebody who has proven the token says that exactly these machines, this one among them, shall form a cluster.
    fn narrow(&self, only: BTreeSet<Fingerprint>) -> BoxFuture<'_, Result<(), String>>;

    /// A machine that has proven the token and this key wants a place in the cluster as a worker. `Err` says why it gets none.
    fn join(&self, machine: Machine) -> BoxFuture<'_, Result<Joined, String>>;

    /// A message of a member of the store; `None` while there is no store here.
    fn store(&self, from: MemberId, message: Message) -> BoxFuture<'_, Option<Message>>;

    /// Whether this key is that of a node of the cluster.
    fn knows(&self, key: &[u8]) -> bool;

    /// Serves a session of a node that is known; returns when it is over.
    fn session(&self, protocol: Protocol, session: Session) -> BoxFuture<'_, ()>;
}

/// Why a machine cannot speak to others.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// TLS could not be set up.
    #[error("set up TLS")]
    Tls(#[from] rustls::Error),
    /// The port is taken, mostly.
    #[error("listen to other machines at {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No epoch.
    #[error("get a random number")]
    Random(#[from] getrandom::Error),
}

/// The hello that is said now.
pub(crate) struct Said {
    hello: Hello,
    count: u64,
}

/// Sessions to other machines, by their keys.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<BTreeMap<Fingerprint, mpsc::Sender<Command>>>);

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Fingerprint, mpsc::Sender<Command>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `false` if there is one already.
    pub(crate) fn begin(&self, key: Fingerprint, commands: mpsc::Sender<Command>) -> bool {
        let mut sessions = self.lock();
        if sessions.contains_key(&key) {
            return false;
        }
        sessions.insert(key, commands);
        true
    }

    pub(crate) fn end(&self, key: &Fingerprint) {
        self.lock().remove(key);
    }
}

/// The queues of the store's connections; none any more when the peers are shut down.
type Links = BTreeMap<(MemberId, Lane), mpsc::Sender<Call>>;

/// What all tasks share.
pub(crate) struct Shared {
    pub(crate) me: Fingerprint,
    pub(crate) name: String,
    pub(crate) tls: Tls,
    pub(crate) tokens: TokenKeys,
    pub(crate) pace: Pace,
    pub(crate) services: Arc<dyn Services>,
    pub(crate) complaints: Complaints,
    pub(crate) sessions: Sessions,
    pub(crate) book_news: Notify,
    pub(crate) addresses: watch::Sender<Vec<IpAddr>>,
    pub(crate) said: watch::Sender<Said>,
    pub(crate) pinned: watch::Sender<Pinned>,
    pub(crate) budget: Semaphore,
    heard: watch::Sender<BTreeMap<Fingerprint, Heard>>,
    hearing: Mutex<Hearing>,
    links: Mutex<Option<Links>>,
    book: Mutex<Book>,
    clock: Arc<dyn Fn() -> Duration + Send + Sync>,
    port: u16,
    epoch: u64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Peers({} {})", self.name, self.me)
    }
}

/// The other machines. Dropping it ends all connections.
#[derive(Debug)]
pub struct Peers {
    shared: Arc<Shared>,
    tasks: AbortHandle,
    local: SocketAddr,
}

impl Peers {
    /// Listens, looks for others, and says hello to them from now on.
    ///
    /// # Errors
    /// When the port cannot be listened to.
    pub async fn start(config: Config, services: Arc<dyn Services>) -> Result<Self, StartError> {
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|source| StartError::Listen { address: config.listen, source })?;
        let local = listener.local_addr().unwrap_or(config.listen);
        let mut epoch = [0; 8];
        getrandom::fill(&mut epoch)?;
        let pace = config.pace;
        let me = config.key.fingerprint();
        let shared = Arc::new(Shared {
            me,
            name: config.hello.machine.name.clone(),
            tls: Tls::new(&config.key, pace.patience)?,
            tokens: TokenKeys::new(&config.token),
            pace,
            services,
            complaints: Complaints::default(),
            sessions: Sessions::default(),
            book_news: Notify::new(),
            addresses: watch::Sender::new(config.addresses),
            said: watch::Sender::new(Said { hello: config.hello, count: 0 }),
            pinned: watch::Sender::new(Pinned::default()),
            budget: Semaphore::new(link::BUDGET_UNITS),
            heard: watch::Sender::new(BTreeMap::new()),
            hearing: Mutex::default(),
            links: Mutex::new(Some(BTreeMap::new())),
            book: Mutex::new(Book::new(me, (pace.retry_min, pace.retry_max))),
            clock: config.clock,
            port: local.port(),
            epoch: u64::from_le_bytes(epoch),
        });
        for (addresses, listed) in [(&config.listed, true), (&config.hints, false)] {
            for address in addresses {
                shared.book().learn(*address, None, listed, shared.now());
            }
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(listen::run(Arc::clone(&shared), listener));
        tasks.spawn(dial(Arc::clone(&shared)));
        if config.multicast {
            tasks.spawn(discover::run(Arc::clone(&shared), local.port()));
        }
        let tasks = tokio::spawn(async move { while tasks.join_next().await.is_some() {} });
        Ok(Self { shared, tasks: tasks.abort_handle(), local })
    }

    /// Says this from now on, and at once if it is news.
    pub fn say(&self, hello: Hello) {
        self.shared.said.send_if_modified(|said| {
            let news = said.hello != hello;
            if news {
                *said = Said { hello, count: said.count + 1 };
            }
            news
        });
    }

    /// The last hello of each machine to which there was a session.
    #[must_use]
    pub fn heard(&self) -> watch::Receiver<BTreeMap<Fingerprint, Heard>> {
        self.shared.heard.subscribe()
    }

    /// Asks a machine to accept a set. The hellos tell the outcome as well.
    ///
    /// # Errors
    /// Its reason, or that it cannot be reached.
    pub async fn propose(&self, to: Fingerprint, set: MemberSet) -> Result<(), String> {
        let unreachable = || "there is no session to it".to_owned();
        let session = self.shared.sessions.lock().get(&to).cloned().ok_or_else(unreachable)?;
        let (answer, answered) = oneshot::channel();
        let sent = session.send(Command::Propose(set, answer)).await;
        sent.map_err(|_| unreachable())?;
        answered.await.map_err(|_| unreachable())?
    }

    /// Asks a machine for a place in its cluster, for this machine.
    ///
    /// # Errors
    /// Its reason, or that it cannot be reached.
    pub async fn join(&self, to: Fingerprint, me: Machine) -> Result<Joined, String> {
        let unreachable = || "there is no session to it".to_owned();
        let session = self.shared.sessions.lock().get(&to).cloned().ok_or_else(unreachable)?;
        let (answer, answered) = oneshot::channel();
        session.send(Command::Join(me, answer)).await.map_err(|_| unreachable())?;
        answered.await.map_err(|_| unreachable())?
    }

    /// Opens a session to the machine with this key.
    ///
    /// # Errors
    /// Why it cannot be reached.
    pub async fn open(&self, to: &[u8], protocol: Protocol) -> Result<Session, String> {
        let addresses = self.shared.book().of(&Fingerprint::of(to));
        self.shared.reach(to, &addresses, protocol).await.map(Session::from)
    }

    /// The store's way to its other members.
    #[must_use]
    pub fn transport(&self) -> Arc<dyn Transport> {
        Arc::new(PeerTransport(Arc::clone(&self.shared)))
    }

    /// Who belongs to the store, from now on.
    pub fn pin(&self, pinned: Pinned) {
        self.shared.pinned.send_if_modified(|known| {
            let news = *known != pinned;
            if news {
                *known = pinned;
            }
            news
        });
    }

    /// The addresses of this machine, from now on.
    pub fn set_addresses(&self, addresses: Vec<IpAddr>) {
        self.shared.addresses.send_if_modified(|known| {
            let news = *known != addresses;
            *known = addresses;
            news
        });
    }

    /// Takes an address of another machine as a hint.
    pub fn try_address(&self, address: SocketAddr) {
        self.shared.learn(&[address], None);
    }

    /// Where other machines were found: hints for the next run.
    #[must_use]
    pub fn known(&self) -> BTreeMap<Fingerprint, Vec<SocketAddr>> {
        self.shared.book().known()
    }

    /// What went wrong last with another machine, if it still does.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        self.shared.complaints.last()
    }

    /// Where it listens.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.tasks.abort();
        self.shared.links.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Tries what the book says.
async fn dial(shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    let least = shared.pace.hello / 4;
    loop {
        let now = shared.now();
        let due = {
            let sessions = shared.sessions.lock();
            shared.book().due(now, |key| sessions.contains_key(key))
        };
        for address in due {
            tasks.spawn(meet::dial(Arc::clone(&shared), address));
        }
        let next = shared.book().next();
        let wait = next.map_or(shared.pace.hello, |at| at.saturating_sub(now));
        tokio::select! {
            () = tokio::time::sleep(wait.clamp(least, shared.pace.hello)) => {}
            () = shared.book_news.notified() => {}
            Some(_) = tasks.join_next() => {}
        }
    }
}

impl Shared {
    pub(crate) fn now(&self) -> Duration {
        (self.clock)()
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn own_addresses(&self) -> Vec<SocketAddr> {
        let addresses = self.addresses.borrow();
        addresses.iter().map(|address| SocketAddr::new(*address, self.port)).collect()
    }

    /// Takes addresses, of a machine if that is known.
    pub(crate) fn learn(&self, addresses: &[SocketAddr], key: Option<Fingerprint>) {
        let now = self.now();
        let mut news = false;
        {
            let mut book = self.book();
            for address in addresses.iter().take(crate::book::PER_MACHINE_MAX) {
                news |= book.learn(*address, key, false, now);
            }
        }
        if news {
            self.book_news.notify_one();
        }
    }

    /// The hello to be sent now.
    pub(crate) fn hello(&self) -> HelloFrame {
        let known = self.book().known().into_iter().take(GOSSIP_MAX).collect();
        let said = self.said.borrow();
        HelloFrame {
            hello: said.hello.clone(),
            epoch: self.epoch,
            count: said.count,
            addresses: self.own_addresses(),
            known,
        }
    }

    /// Takes another machine's hello; `None` if it is not about that machine. Only one that was asked for, through a session
    /// of this machine's own, counts as hearing it.
    pub(crate) fn hear(&self, key: Fingerprint, frame: HelloFrame, asked: bool) -> Option<()> {
        if frame.hello.machine.fingerprint() != key {
            return None;
        }
        self.learn(&frame.addresses, Some(key));
        for (other, addresses) in frame.known.iter().take(GOSSIP_MAX) {
            self.learn(addresses, Some(*other));
        }
        let now = self.now();
        let order = Order { epoch: frame.epoch, count: frame.count };
        let mut hearing = self.hearing.lock().unwrap_or_else(PoisonError::into_inner);
        self.heard
            .send_if_modified(|heard| hearing.hear(heard, (key, frame.hello, order), asked, now));
        Some(())
    }

    /// Tries all addresses at once; the first behind which the key is wins.
    pub(crate) async fn reach(
        &self,
        key: &[u8],
        addresses: &[SocketAddr],
        protocol: Protocol,
    ) -> Result<Secured, String> {
        let mut last = "no address of it is known".to_owned();
        let mut attempts: FuturesUnordered<_> = addresses
            .iter()
            .map(|address| async move {
                let attempt = self.tls.connect(*address, protocol);
                match tokio::time::timeout(self.pace.connect, attempt).await {
                    Err(_) => Err(format!("{address} does not answer")),
                    Ok(Err(error)) => Err(format!("{address}: {error}")),
                    Ok(Ok(secured)) if secured.key != key => {
                        self.book().found(*address, secured.fingerprint, self.now());
                        Err(format!("{address} is another machine ({})", secured.fingerprint))
                    }
                    Ok(Ok(secured)) => Ok(secured),
                }
            })
            .collect();
        while let Some(attempt) = attempts.next().await {
            match attempt {
                Ok(secured) => return Ok(secured),
                Err(reason) => last = reason,
            }
        }
        Err(last)
    }

    /// The queue to a member.
    pub(crate) fn link(self: &Arc<Self>, to: MemberId, lane: Lane) -> mpsc::Sender<Call> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        match links.as_mut() {
            Some(links) => {
                links.entry((to, lane)).or_insert_with(|| link::start(Arc::clone(self), to)).clone()
            }
            // After the end: a queue that nobody reads.
            None => mpsc::channel(1).0,
        }
    }
}

#[cfg(test)]
mod tests;
