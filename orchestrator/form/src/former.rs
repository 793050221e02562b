//! Decides, does, and says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::{BoxFuture, Either, FutureExt as _, select};
use futures::lock::Mutex;
use futures::stream::{FuturesUnordered, StreamExt as _};
use futures::{pin_mut, select_biased};
use podium_control::forming::{
    self, ClusterId, Fingerprint, Hello, Intent, Machine, MemberSet, Situation, Standing,
};
use podium_store::{Member, MemberId};

use crate::{Company, Ears, FormError, Ground, Hellos, StandingFiles};

/// What a former is made with.
pub struct Founding {
    /// This machine.
    pub me: Machine,
    /// How many machines form the cluster.
    pub expect: u32,
    /// Whoever was silent for longer is missing.
    pub patience: Duration,
    /// Between two looks.
    pub interval: Duration,
    /// Where its standing is kept.
    pub files: StandingFiles,
    /// How it stands, as `files` have it.
    pub standing: Standing,
    /// See [`Ground`].
    pub ground: Arc<dyn Ground>,
}

/// One machine on its way into a cluster, and in it. It answers proposals of others and makes its own.
pub struct Former {
    founding: Founding,
    state: Mutex<State>,
    ears: OnceLock<Arc<dyn Ears>>,
}

/// What it decides on, besides what it hears.
struct State {
    /// As the disk has it.
    standing: Standing,
    /// Those that an operator has named; forgotten when the program ends.
    only: Option<BTreeSet<Fingerprint>>,
}

/// What one look came to.
#[derive(Debug)]
pub struct Look {
    /// What is to be said.
    pub hello: Hello,
    /// Two clusters with one token, if they are heard.
    pub conflict: Option<String>,
    report: String,
    proposals: Option<(MemberSet, Vec<Fingerprint>)>,
    join: Vec<Fingerprint>,
}

impl Former {
    /// A machine that has heard nobody yet.
    #[must_use]
    pub fn new(founding: Founding) -> Self {
        let standing = founding.standing.clone();
        let state = Mutex::new(State { standing, only: None });
        Self { founding, state, ears: OnceLock::new() }
    }

    /// What it was made with.
    #[must_use]
    pub fn founding(&self) -> &Founding {
        &self.founding
    }

    /// What this machine says before it has heard anybody.
    #[must_use]
    pub fn first_hello(&self) -> Hello {
        let standing = self.founding.standing.clone();
        let state = State { standing, only: None };
        self.hello(&state, BTreeMap::new(), None)
    }

    /// What is listened to, from the first call on.
    pub fn listen(&self, ears: Arc<dyn Ears>) {
        // Later calls bring the same.
        let _ = self.ears.set(ears);
    }

    /// The hellos so far.
    #[must_use]
    pub fn heard(&self) -> Hellos {
        self.ears.get().map(|ears| ears.heard()).unwrap_or_default()
    }

    /// Forms the cluster with others or joins theirs, if this machine is in none; returns how it stands then: as a member or a
    /// worker.
    ///
    /// # Errors
    /// The program is to start anew.
    pub async fn form(&self, company: &dyn Company) -> Result<Standing, FormError> {
        let mut proposing = FuturesUnordered::new();
        let mut asked = BTreeSet::new();
        let mut refused = None;
        loop {
            let standing = self.state.lock().await.standing.clone();
            if standing.cluster().is_some() {
                return Ok(standing);
            }
            let news = self.news();
            let look = self.look().await?;
            company.say(look.hello);
            let complaint = refused.take().or_else(|| company.complaint());
            let complaint = complaint.map(|text| format!("; {text}")).unwrap_or_default();
            company.tell(Some(look.report + &complaint));
            if !look.join.is_empty() {
                match self.join(company, &look.join).await? {
                    Ok(()) => continue,
                    Err(reason) => refused = Some(reason),
                }
            }
            if let Some((set, to)) = look.proposals {
                for to in to.into_iter().filter(|to| asked.insert(*to)) {
                    proposing.push(self.propose_to(company, to, set.clone()));
                }
            }
            let mut news = news.fuse();
            let mut pause = self.founding.ground.sleep(self.founding.interval).fuse();
            loop {
                select_biased! {
                    // Not a reason to ask again at once: hellos tell what came of it.
                    to = proposing.select_next_some() => {
                        asked.remove(&to);
                    }
                    () = news => break,
                    () = pause => break,
                }
            }
        }
    }

    async fn propose_to(
        &self,
        company: &dyn Company,
        to: Fingerprint,
        set: MemberSet,
    ) -> Fingerprint {
        let limit = self.founding.ground.sleep(self.founding.patience);
        if let Either::Left((Err(reason), _)) = select(company.propose(to, set), limit).await {
            tracing::info!(%to, reason, "a proposal was not accepted");
        }
        to
    }

    /// Says hello as what this machine has become; never returns.
    pub async fn greet(&self, company: &dyn Company) -> ! {
        loop {
            let news = self.news();
            match self.look().await {
                Ok(look) => {
                    company.say(look.hello);
                    company.tell(look.conflict);
                }
                Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "forming"),
            }
            self.pause(news).await;
        }
    }

    /// Done at the first hello after this call.
    pub fn news(&self) -> BoxFuture<'static, ()> {
        match self.ears.get() {
            Some(ears) => ears.news(),
            None => std::future::pending().boxed(),
        }
    }

    /// Waits for news, and not longer than between two looks.
    pub async fn pause(&self, news: BoxFuture<'static, ()>) {
        let pause = self.founding.ground.sleep(self.founding.interval);
        pin_mut!(news, pause);
        select(news, pause).await;
    }

    /// Decides, and does at once what concerns this machine alone.
    ///
    /// # Errors
    /// The disk or the store did not do it.
    pub async fn look(&self) -> Result<Look, FormError> {
        let mut state = self.state.lock().await;
        loop {
            let heard = self.heard();
            let situation = self.situation(&state, &heard)?;
            let decision = forming::decide(&situation);
            let conflict = forming::conflict(&situation);
            let mut proposals = None;
            let mut join = Vec::new();
            let mut next = None;
            for intent in decision.intents {
                match intent {
                    Intent::Accept(set) => {
                        self.founding.files.accept(&set).await?;
                        tracing::info!(cluster = %set.cluster, "proposing a cluster");
                        next = Some(Standing::Blank { accepted: Some(set) });
                    }
                    Intent::Release => {
                        self.founding.files.release().await?;
                        next = Some(Standing::Blank { accepted: None });
                    }
                    Intent::Initialise => next = self.initialise(&state.standing).await?,
                    Intent::Propose(to) => {
                        if let Standing::Blank { accepted: Some(set) } = &state.standing {
                            proposals.get_or_insert((set.clone(), Vec::new())).1.push(to);
                        }
                    }
                    Intent::Join { through, .. } => join = through,
                }
            }
            if let Some(next) = next {
                state.standing = next;
                continue;
            }
            let hello = self.hello(&state, decision.sees, decision.choice);
            return Ok(Look { hello, conflict, report: decision.report, proposals, join });
        }
    }

    fn hello(
        &self,
        state: &State,
        sees: BTreeMap<Fingerprint, String>,
        choice: Option<BTreeSet<Fingerprint>>,
    ) -> Hello {
        Hello {
            machine: self.founding.me.clone(),
            expect: expected(state, self.founding.expect),
            standing: state.standing.clone(),
            sees,
            choice,
        }
    }

    /// Asks one machine of the cluster after the other for a place. The inner error is the last one's reason.
    async fn join(
        &self,
        company: &dyn Company,
        through: &[Fingerprint],
    ) -> Result<Result<(), String>, FormError> {
        let mut last = String::new();
        for to in through {
            match company.join(*to, self.founding.me.clone()).await {
                Ok(joined) => {
                    let mut state = self.state.lock().await;
                    if state.standing != (Standing::Blank { accepted: None }) {
                        return Ok(Ok(()));
                    }
                    self.founding.files.keep_joined(&joined).await?;
                    tracing::info!(cluster = %joined.cluster, "joined a cluster");
                    state.standing = Standing::Worker(joined.cluster);
                    return Ok(Ok(()));
                }
                Err(reason) => last = reason,
            }
        }
        Ok(Err(last))
    }

    /// Another machine's proposal. `Ok`: it is accepted, durably.
    ///
    /// # Errors
    /// A sentence for the machine that proposed.
    pub async fn consider(&self, from: Fingerprint, set: MemberSet) -> Result<(), String> {
        let mut state = self.state.lock().await;
        let heard = self.heard();
        let situation = self.situation(&state, &heard).map_err(|error| chain(&error))?;
        forming::consider(&situation, from, &set).map_err(|refusal| refusal.to_string())?;
        if state.standing == (Standing::Blank { accepted: Some(set.clone()) }) {
            return Ok(());
        }
        self.founding.files.accept(&set).await.map_err(|error| chain(&error))?;
        tracing::info!(cluster = %set.cluster, %from, "accepted a cluster");
        state.standing = Standing::Blank { accepted: Some(set) };
        Ok(())
    }

    /// An operator's word that exactly these machines shall form a cluster. It is forgotten when the program ends.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub async fn narrow(&self, only: BTreeSet<Fingerprint>) -> Result<(), String> {
        let mut state = self.state.lock().await;
        let heard = self.heard();
        let situation = self.situation(&state, &heard).map_err(|error| chain(&error))?;
        forming::narrow(&situation, &only).map_err(|refusal| refusal.to_string())?;
        tracing::info!(machines = only.len(), "told to form a cluster with fewer machines");
        state.only = Some(only);
        Ok(())
    }

    /// Makes the store with exactly the accepted set.
    async fn initialise(&self, standing: &Standing) -> Result<Option<Standing>, FormError> {
        let Standing::Blank { accepted: Some(set) } = standing else { return Ok(None) };
        let cluster = initialise(&*self.founding.ground, &self.founding.files, set).await?;
        Ok(Some(Standing::Member(cluster)))
    }

    fn situation<'a>(
        &'a self,
        state: &'a State,
        heard: &'a Hellos,
    ) -> Result<Situation<'a>, FormError> {
        Ok(Situation {
            me: &self.founding.me,
            expect: self.founding.expect,
            only: state.only.as_ref(),
            standing: &state.standing,
            heard,
            now: self.founding.ground.now(),
            patience: self.founding.patience,
            fresh: self.founding.ground.fresh().map_err(FormError::Random)?,
        })
    }
}

/// How many machines form the cluster.
fn expected(state: &State, expect: u32) -> u32 {
    state.only.as_ref().map_or(expect, |only| u32::try_from(only.len()).unwrap_or(u32::MAX))
}

/// Makes a cluster of this machine alone, or finishes making it. The machine has no name yet, and needs none: nobody is told
/// of the set.
///
/// # Errors
/// The program is to start anew.
pub async fn alone(
    ground: &dyn Ground,
    files: &StandingFiles,
    accepted: Option<MemberSet>,
    me: Machine,
) -> Result<ClusterId, FormError> {
    let set = match accepted {
        Some(set) => set,
        None => {
            let set = MemberSet::new(ground.fresh().map_err(FormError::Random)?, [me]);
            files.accept(&set).await?;
            set
        }
    };
    initialise(ground, files, &set).await
}

/// The members of the store that a set makes.
#[must_use]
pub fn members(set: &MemberSet) -> Vec<Member> {
    let member = |machine: &Machine| Member {
        id: MemberId(machine.member),
        public_key: machine.public_key.clone(),
    };
    set.machines.values().map(member).collect()
}

/// Makes the store of a cluster with exactly these members, and keeps that it was.
async fn initialise(
    ground: &dyn Ground,
    files: &StandingFiles,
    set: &MemberSet,
) -> Result<ClusterId, FormError> {
    ground.initialise(set).await?;
    files.join(set.cluster).await?;
    tracing::info!(cluster = %set.cluster, members = set.machines.len(), "a cluster is formed");
    Ok(set.cluster)
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}
