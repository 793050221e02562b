//! The surroundings of `podium_form` on a node, and what a member does beside it.
//!
//! [`Former`] answers the other machines. After the store is made it pins the members' keys for the transport, and tells who is
//! missing when there is no leader.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use podium_control::forming::{
    self, ClusterId, Fingerprint, Hello, Joined, Machine, MemberSet, Quorum, Standing,
};
use podium_form::{Company, Ears, FormError, Founding, Ground, Hellos};
use podium_peer::{Peers, Pinned, Protocol, Services, Session};
use podium_store::{
    Member, MemberId, Message, Status, Store, StoreError, StoreHandle as _, TokioRuntime,
};
use tokio::sync::watch;

use crate::directory;
use crate::voters::{self, Voters};

/// What other nodes may ask of this one, besides the store; see `podium_peer::Services`.
pub(crate) trait NodeSessions: Send + Sync {
    /// Whether this key is that of a node of the cluster.
    fn knows(&self, key: &[u8]) -> bool;

    /// Serves a session of such a node; returns when it is over.
    fn serve(&self, protocol: Protocol, session: Session) -> BoxFuture<'_, ()>;
}

/// Gives machines their places in the cluster.
pub(crate) trait Places: Send + Sync {
    /// A place for this machine, whose key was proven; the error says why it gets none.
    fn give(&self, machine: Machine) -> BoxFuture<'_, Result<Joined, String>>;
}

/// What a node stands on.
pub(crate) struct NodeGround {
    begun: Instant,
    store: Arc<Store<TokioRuntime>>,
}

impl NodeGround {
    pub(crate) fn new(store: Arc<Store<TokioRuntime>>) -> Self {
        Self { begun: Instant::now(), store }
    }
}

impl Ground for NodeGround {
    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(span))
    }

    fn fresh(&self) -> io::Result<ClusterId> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(ClusterId(u128::from_le_bytes(bytes)))
    }

    fn initialise<'a>(&'a self, set: &'a MemberSet) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.store.initialise(podium_form::members(set)))
    }
}

/// What the peers hear.
struct Heard(watch::Receiver<Hellos>);

impl Ears for Heard {
    fn heard(&self) -> Hellos {
        self.0.borrow().clone()
    }

    fn news(&self) -> BoxFuture<'static, ()> {
        let mut heard = self.0.clone();
        heard.mark_unchanged();
        Box::pin(async move {
            if heard.changed().await.is_err() {
                // The peers are gone: there is no news any more.
                std::future::pending::<()>().await;
            }
        })
    }
}

/// The other machines, and the console.
pub(crate) struct Others {
    pub(crate) peers: Arc<Peers>,
    /// One line on what is not well; none when all is.
    pub(crate) trouble: watch::Sender<Option<String>>,
}

impl Company for Others {
    fn say(&self, hello: Hello) {
        self.peers.say(hello);
    }

    fn propose(&self, to: Fingerprint, set: MemberSet) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(self.peers.propose(to, set))
    }

    fn join(&self, to: Fingerprint, me: Machine) -> BoxFuture<'_, Result<Joined, String>> {
        Box::pin(self.peers.join(to, me))
    }

    fn complaint(&self) -> Option<String> {
        self.peers.complaint()
    }

    fn tell(&self, line: Option<String>) {
        self.trouble.send_if_modified(|known| {
            let news = *known != line;
            if news {
                if let Some(line) = &line {
                    tracing::info!("{line}");
                }
                *known = line;
            }
            news
        });
    }
}

/// See the module.
pub(crate) struct Former {
    former: podium_form::Former,
    store: Arc<Store<TokioRuntime>>,
    /// Whom to trust; a member keeps it as its store's membership is.
    voters: Voters,
    /// Gives places, once this machine is a member.
    pub(crate) places: OnceLock<Arc<dyn Places>>,
    /// Sessions of other nodes, once there is somebody to serve them.
    pub(crate) sessions: OnceLock<Arc<dyn NodeSessions>>,
}

impl Former {
    pub(crate) fn new(
        founding: Founding,
        store: Arc<Store<TokioRuntime>>,
        voters: Voters,
    ) -> Arc<Self> {
        let former = podium_form::Former::new(founding);
        let (places, sessions) = (OnceLock::new(), OnceLock::new());
        Arc::new(Self { former, store, voters, places, sessions })
    }

    /// What this machine says before it has heard anybody.
    pub(crate) fn first_hello(&self) -> Hello {
        self.former.first_hello()
    }

    /// Forms the cluster with others or joins theirs, if this machine is in none; returns how it stands then: as a member or a
    /// worker.
    pub(crate) async fn form(&self, others: &Others) -> Result<Standing, FormError> {
        self.former.listen(Arc::new(Heard(others.peers.heard())));
        self.former.form(others).await
    }

    /// Says hello as a worker; never returns.
    pub(crate) async fn greet(self: Arc<Self>, others: Others) -> ! {
        self.former.greet(&others).await
    }

    /// Pins the members for the transport. Damage may have cost the store the knowledge of who they are; then it is mended by
    /// the `first`.
    pub(crate) fn pin(&self, others: &Others, cluster: ClusterId, first: &[Member]) {
        let members = self.store.status().membership.members;
        let pins = match members.is_empty() {
            true => pinned(cluster, first.iter()),
            false => pinned(cluster, members.values()),
        };
        others.peers.pin(pins);
    }

    /// Says hello as a member, pins the members, and tells what keeps the cluster from serving; never returns.
    pub(crate) async fn keep(
        self: Arc<Self>,
        others: Others,
        cluster: ClusterId,
        first: &[Member],
    ) -> ! {
        let Founding { ground, patience, .. } = self.former.founding();
        let mut led = ground.now();
        loop {
            let news = self.former.news();
            let status = self.store.status();
            self.pin(&others, cluster, first);
            self.voters.are(voters::pinned(&status.membership));
            let now = ground.now();
            if self.is_led(&status, now) {
                led = now;
            }
            match self.former.look().await {
                Ok(look) => {
                    let seen = look.hello.sees.clone();
                    others.say(look.hello);
                    let silent = now.saturating_sub(led) > *patience;
                    let voters = status.membership.members.values();
                    let members = voters.filter(|it| status.membership.is_voter(it.id));
                    let lost = silent.then(|| self.missing(cluster, members, &seen));
                    others.tell(lost.or(look.conflict));
                }
                Err(error) => tracing::error!("{:#}", anyhow::Error::new(error)),
            }
            self.former.pause(news).await;
        }
    }

    /// Whether there is a leader that can lead. One that has lost its quorum goes on calling itself the leader, and followers
    /// that cannot elect another remember the last.
    fn is_led(&self, status: &Status, now: Duration) -> bool {
        let heard = self.former.heard();
        let patience = self.former.founding().patience;
        let is_heard = |member: &Member| {
            member.id == status.member
                || heard
                    .get(&Fingerprint::of(&member.public_key))
                    .is_some_and(|heard| now.saturating_sub(heard.at) <= patience)
        };
        let members = &status.membership.members;
        let is_voter = |member: &&Member| status.membership.is_voter(member.id);
        let voters: Vec<_> = members.values().filter(is_voter).collect();
        let count = voters.iter().filter(|voter| is_heard(voter)).count();
        let leader = status.leader.and_then(|leader| members.get(&leader));
        leader.is_some_and(is_heard) && count * 2 > voters.len()
    }

    fn missing<'a>(
        &self,
        cluster: ClusterId,
        members: impl Iterator<Item = &'a Member>,
        seen: &BTreeMap<Fingerprint, String>,
    ) -> String {
        let heard = self.former.heard();
        // Whoever has not been heard since this machine's boot is known by the objects of the cluster.
        let known = directory::names(&self.store.local());
        let name = |member: &Member| {
            let key = Fingerprint::of(&member.public_key);
            let name = heard.get(&key).map(|heard| &heard.hello.machine.name);
            let name = name.or_else(|| known.get(&member.public_key)).cloned();
            (key, name.unwrap_or_else(|| format!("key {key}")))
        };
        let voters = members.map(name).collect();
        let me = self.former.founding().me.fingerprint();
        let seen = seen.keys().copied().collect();
        forming::quorum(&Quorum { cluster, me, voters: &voters, seen: &seen })
    }
}

/// The members for the transport.
fn pinned<'a>(cluster: ClusterId, members: impl Iterator<Item = &'a Member>) -> Pinned {
    let keys = members.map(|member| (member.id, member.public_key.clone())).collect();
    Pinned { cluster: Some(cluster), keys }
}

impl Services for Former {
    fn propose(&self, from: Fingerprint, set: MemberSet) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(self.former.consider(from, set))
    }

    fn narrow(&self, only: BTreeSet<Fingerprint>) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(self.former.narrow(only))
    }

    fn join(&self, machine: Machine) -> BoxFuture<'_, Result<Joined, String>> {
        Box::pin(async move {
            match self.places.get() {
                Some(places) => places.give(machine).await,
                None => Err("this machine gives no places; ask a voter".to_owned()),
            }
        })
    }

    fn store(&self, from: MemberId, message: Message) -> BoxFuture<'_, Option<Message>> {
        Box::pin(async move { Some(self.store.serve(from, message).await) })
    }

    fn knows(&self, key: &[u8]) -> bool {
        self.sessions.get().is_some_and(|sessions| sessions.knows(key))
    }

    fn session(&self, protocol: Protocol, session: Session) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(sessions) = self.sessions.get() {
                sessions.serve(protocol, session).await;
            }
        })
    }
}
