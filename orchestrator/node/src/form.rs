//! Forming and keeping: does what `podium_control::forming` decides, and says how it stands.
//!
//! One [`Former`] per machine. It answers proposals of others and makes its own, both under one lock, so that what it has
//! said, what is on its disk and what it decides on are the same. After the store is made it goes on saying hello, pins the
//! members' keys for the transport, and tells who is missing when there is no leader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use futures::future::BoxFuture;
use podium_control::forming::{
    self, ClusterId, Fingerprint, Heard, Hello, Intent, Machine, MemberSet, Quorum, Situation,
    Standing,
};
use podium_peer::{Joined, Peers, Pinned, Protocol, Services, Session};
use podium_store::{Member, MemberId, Message, Status, Store, StoreHandle as _, TokioRuntime};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

use crate::directory;
use crate::standing::StandingFiles;
use crate::voters::{self, Voters};

/// Hellos by the keys of their machines.
type Hellos = BTreeMap<Fingerprint, Heard>;

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

/// What a former is made with.
pub(crate) struct Founding {
    /// This machine.
    pub(crate) me: Machine,
    /// How many machines form the cluster.
    pub(crate) expect: u32,
    /// How it stands now, and where that is kept.
    pub(crate) standing: Standing,
    /// See `standing`.
    pub(crate) files: StandingFiles,
    /// The store, which may be blank.
    pub(crate) store: Arc<Store<TokioRuntime>>,
    /// The monotonic clock.
    pub(crate) clock: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// Whoever was silent for longer is missing.
    pub(crate) patience: Duration,
    /// Between two looks.
    pub(crate) interval: Duration,
    /// One line on what is not well; none when all is.
    pub(crate) trouble: watch::Sender<Option<String>>,
    /// Whom to trust; a member keeps it as its store's membership is.
    pub(crate) voters: Voters,
}

/// See the module.
pub(crate) struct Former {
    founding: Founding,
    standing: Mutex<Standing>,
    heard: OnceLock<watch::Receiver<Hellos>>,
    /// Gives places, once this machine is a member.
    pub(crate) places: OnceLock<Arc<dyn Places>>,
    /// Sessions of other nodes, once there is somebody to serve them.
    pub(crate) sessions: OnceLock<Arc<dyn NodeSessions>>,
}

/// What one look came to.
struct Look {
    hello: Hello,
    report: String,
    conflict: Option<String>,
    proposals: Option<(MemberSet, Vec<Fingerprint>)>,
    join: Vec<Fingerprint>,
}

impl Former {
    pub(crate) fn new(founding: Founding) -> Arc<Self> {
        let standing = Mutex::new(founding.standing.clone());
        Arc::new(Self {
            founding,
            standing,
            heard: OnceLock::new(),
            places: OnceLock::new(),
            sessions: OnceLock::new(),
        })
    }

    /// What this machine says before it has heard anybody.
    pub(crate) fn first_hello(&self) -> Hello {
        let Founding { me, expect, standing, .. } = &self.founding;
        Hello {
            machine: me.clone(),
            expect: *expect,
            standing: standing.clone(),
            sees: BTreeMap::new(),
            choice: None,
        }
    }

    /// Forms the cluster with others or joins theirs, if this machine is in none; returns how it stands then: as a member or a
    /// worker.
    pub(crate) async fn form(&self, peers: &Arc<Peers>) -> anyhow::Result<Standing> {
        let mut heard = peers.heard();
        // Only the first call sets it, with the same channel.
        let _ = self.heard.set(heard.clone());
        let mut proposing = JoinSet::new();
        let mut asked = BTreeSet::new();
        let mut refused = None;
        loop {
            let standing = self.standing.lock().await.clone();
            if standing.cluster().is_some() {
                return Ok(standing);
            }
            heard.mark_unchanged();
            let look = self.look().await?;
            peers.say(look.hello);
            let complaint = refused.take().or_else(|| peers.complaint());
            let complaint = complaint.map(|text| format!("; {text}"));
            self.tell(Some(look.report + &complaint.unwrap_or_default()));
            if !look.join.is_empty() {
                match self.join(peers, &look.join).await? {
                    Ok(()) => continue,
                    Err(reason) => refused = Some(reason),
                }
            }
            if let Some((set, to)) = look.proposals {
                for to in to.into_iter().filter(|to| asked.insert(*to)) {
                    let (peers, set) = (Arc::clone(peers), set.clone());
                    let patience = self.founding.patience;
                    proposing.spawn(async move {
                        let answer = tokio::time::timeout(patience, peers.propose(to, set)).await;
                        if let Ok(Err(reason)) = answer {
                            tracing::info!(%to, reason, "a proposal was not accepted");
                        }
                        to
                    });
                }
            }
            tokio::select! {
                _ = heard.changed() => {}
                Some(done) = proposing.join_next() => {
                    if let Ok(to) = done {
                        asked.remove(&to);
                    }
                }
                () = tokio::time::sleep(self.founding.interval) => {}
            }
        }
    }

    /// Decides, and does at once what concerns this machine alone.
    async fn look(&self) -> anyhow::Result<Look> {
        let mut standing = self.standing.lock().await;
        loop {
            let heard = self.heard.get().map(|heard| heard.borrow().clone()).unwrap_or_default();
            let situation = self.situation(&standing, &heard)?;
            let decision = forming::decide(&situation);
            let conflict = forming::conflict(&situation);
            let mut proposals = None;
            let mut join = Vec::new();
            let mut next = None;
            for intent in decision.intents {
                match intent {
                    Intent::Accept(set) => {
                        self.founding.files.accept(&set)?;
                        tracing::info!(cluster = %set.cluster, "proposing a cluster");
                        next = Some(Standing::Blank { accepted: Some(set) });
                    }
                    Intent::Release => {
                        self.founding.files.release()?;
                        next = Some(Standing::Blank { accepted: None });
                    }
                    Intent::Initialise => next = self.initialise(&standing).await?,
                    Intent::Propose(to) => {
                        if let Standing::Blank { accepted: Some(set) } = &*standing {
                            proposals.get_or_insert((set.clone(), Vec::new())).1.push(to);
                        }
                    }
                    Intent::Join { through, .. } => join = through,
                }
            }
            if let Some(next) = next {
                *standing = next;
                continue;
            }
            let hello = Hello {
                machine: self.founding.me.clone(),
                expect: self.founding.expect,
                standing: standing.clone(),
                sees: decision.sees,
                choice: decision.choice,
            };
            return Ok(Look { hello, report: decision.report, conflict, proposals, join });
        }
    }

    /// Asks one machine of the cluster after the other for a place. The inner error is the last one's reason.
    async fn join(
        &self,
        peers: &Peers,
        through: &[Fingerprint],
    ) -> anyhow::Result<Result<(), String>> {
        let mut last = String::new();
        for to in through {
            match peers.join(*to, self.founding.me.clone()).await {
                Ok(joined) => {
                    let mut standing = self.standing.lock().await;
                    if *standing != (Standing::Blank { accepted: None }) {
                        return Ok(Ok(()));
                    }
                    self.founding.files.keep_joined(&joined)?;
                    tracing::info!(cluster = %joined.cluster, "joined a cluster");
                    *standing = Standing::Worker(joined.cluster);
                    return Ok(Ok(()));
                }
                Err(reason) => last = reason,
            }
        }
        Ok(Err(last))
    }

    fn situation<'a>(
        &'a self,
        standing: &'a Standing,
        heard: &'a Hellos,
    ) -> anyhow::Result<Situation<'a>> {
        Ok(Situation {
            me: &self.founding.me,
            expect: self.founding.expect,
            standing,
            heard,
            now: (self.founding.clock)(),
            patience: self.founding.patience,
            fresh: random_cluster()?,
        })
    }

    /// Makes the store with exactly the accepted set.
    async fn initialise(&self, standing: &Standing) -> anyhow::Result<Option<Standing>> {
        let Standing::Blank { accepted: Some(set) } = standing else { return Ok(None) };
        initialise(&self.founding.store, &self.founding.files, set).await?;
        Ok(Some(Standing::Member(set.cluster)))
    }

    fn tell(&self, line: Option<String>) {
        self.founding.trouble.send_if_modified(|known| {
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

    /// Says hello as a worker; never returns.
    pub(crate) async fn greet(self: Arc<Self>, peers: Arc<Peers>) -> ! {
        let mut heard = peers.heard();
        let _ = self.heard.set(heard.clone());
        loop {
            heard.mark_unchanged();
            match self.look().await {
                Ok(look) => {
                    peers.say(look.hello);
                    self.tell(look.conflict);
                }
                Err(error) => tracing::error!("{error:#}"),
            }
            tokio::select! {
                _ = heard.changed() => {}
                () = tokio::time::sleep(self.founding.interval) => {}
            }
        }
    }

    /// Says hello as a member, pins the members, and tells what keeps the cluster from serving; never returns.
    pub(crate) async fn keep(self: Arc<Self>, peers: Arc<Peers>, cluster: ClusterId) -> ! {
        let mut heard = peers.heard();
        let _ = self.heard.set(heard.clone());
        let mut led = (self.founding.clock)();
        loop {
            heard.mark_unchanged();
            let status = self.founding.store.status();
            peers.pin(pinned(cluster, status.membership.members.values()));
            self.founding.voters.are(voters::pinned(&status.membership));
            let now = (self.founding.clock)();
            if self.is_led(&status, now) {
                led = now;
            }
            match self.look().await {
                Ok(look) => {
                    let seen = look.hello.sees.clone();
                    peers.say(look.hello);
                    let silent = now.saturating_sub(led) > self.founding.patience;
                    let voters = status.membership.members.values();
                    let members = voters.filter(|it| status.membership.is_voter(it.id));
                    let lost = silent.then(|| self.missing(cluster, members, &seen));
                    self.tell(lost.or(look.conflict));
                }
                Err(error) => tracing::error!("{error:#}"),
            }
            tokio::select! {
                _ = heard.changed() => {}
                () = tokio::time::sleep(self.founding.interval) => {}
            }
        }
    }

    /// Whether there is a leader that can lead. One that has lost its quorum goes on calling itself the leader, and followers
    /// that cannot elect another remember the last.
    fn is_led(&self, status: &Status, now: Duration) -> bool {
        let heard = self.heard.get().map(|heard| heard.borrow().clone()).unwrap_or_default();
        let patience = self.founding.patience;
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
        let heard = self.heard.get().map(|heard| heard.borrow().clone()).unwrap_or_default();
        // Whoever has not been heard since this machine's boot is known by the objects of the cluster.
        let known = directory::names(&self.founding.store.local());
        let name = |member: &Member| {
            let key = Fingerprint::of(&member.public_key);
            let name = heard.get(&key).map(|heard| &heard.hello.machine.name);
            let name = name.or_else(|| known.get(&member.public_key)).cloned();
            (key, name.unwrap_or_else(|| format!("key {key}")))
        };
        let voters = members.map(name).collect();
        let me = self.founding.me.fingerprint();
        let seen = seen.keys().copied().collect();
        forming::quorum(&Quorum { cluster, me, voters: &voters, seen: &seen })
    }
}

/// A name for a cluster that may be made.
pub(crate) fn random_cluster() -> anyhow::Result<ClusterId> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(ClusterId(u128::from_le_bytes(bytes)))
}

/// Makes the store of a cluster with exactly these members, and keeps that it was.
pub(crate) async fn initialise(
    store: &Store<TokioRuntime>,
    files: &StandingFiles,
    set: &MemberSet,
) -> anyhow::Result<()> {
    let members = set.machines.values().map(|machine| Member {
        id: MemberId(machine.member),
        public_key: machine.public_key.clone(),
    });
    store.initialise(members.collect()).await.context("form the cluster")?;
    files.join(set.cluster)?;
    tracing::info!(cluster = %set.cluster, members = set.machines.len(), "a cluster is formed");
    Ok(())
}

/// The members for the transport.
pub(crate) fn pinned<'a>(cluster: ClusterId, members: impl Iterator<Item = &'a Member>) -> Pinned {
    let keys = members.map(|member| (member.id, member.public_key.clone())).collect();
    Pinned { cluster: Some(cluster), keys }
}

impl Services for Former {
    fn propose(&self, from: Fingerprint, set: MemberSet) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let mut standing = self.standing.lock().await;
            let heard = self.heard.get().map(|heard| heard.borrow().clone()).unwrap_or_default();
            let situation =
                self.situation(&standing, &heard).map_err(|error| format!("{error:#}"))?;
            forming::consider(&situation, from, &set).map_err(|refusal| refusal.to_string())?;
            if *standing == (Standing::Blank { accepted: Some(set.clone()) }) {
                return Ok(());
            }
            self.founding.files.accept(&set).map_err(|error| format!("{error:#}"))?;
            tracing::info!(cluster = %set.cluster, %from, "accepted a cluster");
            *standing = Standing::Blank { accepted: Some(set) };
            Ok(())
        })
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
        Box::pin(async move { Some(self.founding.store.serve(from, message).await) })
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
