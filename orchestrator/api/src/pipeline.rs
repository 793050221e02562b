//! The verbs, carried out on a store.
//!
//! ```text
//!            ┌ authorize ─ decode ─ mutate ─ prepare ─ claim ─ validate ─ admit ─┐
//!  request ──┤                    (on a linearizable view)                       ├─► transaction ─► answer
//!            └──────────────◄── somebody was faster: again ◄────────────────────┘
//! ```
//!
//! A write is decided on a view and committed with guards on everything the decision rests on (the object's revision, its
//! namespace, the addresses it takes), so two servers that decide at the same time cannot both be right. A decision
//! whose guard fails is made again on a newer view.
//!
//! No I/O, clock, randomness or runtime of its own: [`StoreHandle`], [`Clock`] and [`Ids`] are handed in.

mod bind;
mod claim;
mod continuation;
mod create;
mod decode;
mod delete;
mod lease;
mod options;
mod read;
mod scale;
mod served;
mod splice;
mod update;
mod watch;

use std::net::Ipv4Addr;
use std::sync::Arc;

use podium_store::{Guard, Operation, Outcome, StoreHandle, Transaction, TransactionId, View};
use podium_types::{GroupResource, Now, ObjectKey};

use crate::admission::{Admission, Review};
use crate::auth::{Attributes, Authorizer, ClusterRules, Decision, Subject, User};
use crate::bugs::Bugs;
use crate::registry::{self, Resource, Subresource};
use crate::seams::{Beats, Clock, Ids};
use crate::status::Status;

pub use claim::{Cidr, CidrError, PodRange};
pub use decode::Input;
pub use delete::Deleted;
pub use options::{
    DeleteOptions, FieldValidation, ListOptions, Match, Propagation, ReadOptions, WatchOptions,
    WriteOptions,
};
pub use read::Listing;
pub use served::Served;
pub use watch::{WatchEvent, WatchKind, Watcher};

/// How often a write is decided again because somebody else was faster. More than any honest contention needs.
const MOST_ATTEMPTS: usize = 16;

/// What a cluster decides once.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the addresses of Services come from.
    pub service_cidr: Cidr,
    /// Addresses in it that no Service gets: that of the cluster's DNS.
    pub reserved: Vec<Ipv4Addr>,
    /// Where the pod addresses of nodes come from; without it a node has those that it says.
    pub pods: Option<PodRange>,
    /// None.
    pub bugs: Bugs,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            service_cidr: Cidr::new(Ipv4Addr::new(10, 96, 0, 0), 16),
            reserved: vec![Ipv4Addr::new(10, 96, 0, 10)],
            pods: None,
            bugs: Bugs::NONE,
        }
    }
}

/// What a request is about.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The resource.
    pub resource: &'static Resource,
    /// The namespace; empty for the cluster scope, and for all namespaces.
    pub namespace: &'a str,
    /// The object; empty for collections.
    pub name: &'a str,
    /// The part of it.
    pub subresource: Option<&'static Subresource>,
}

impl<'a> Target<'a> {
    /// All objects of a resource, in one namespace or (empty) everywhere.
    #[must_use]
    pub fn collection(resource: &'static Resource, namespace: &'a str) -> Self {
        Self { resource, namespace, name: "", subresource: None }
    }

    /// One object; `None` if its resource is not served.
    #[must_use]
    pub fn object(key: &'a ObjectKey) -> Option<Self> {
        let resource = registry::find(&key.resource)?;
        Some(Self { resource, namespace: &key.namespace, name: &key.name, subresource: None })
    }

    /// A part of the object; `None` if its resource has no such part.
    #[must_use]
    pub fn part(self, subresource: &str) -> Option<Self> {
        let subresource = self.resource.subresource(subresource)?;
        Some(Self { subresource: Some(subresource), ..self })
    }

    /// Its name in messages: `pods/binding`.
    fn names(&self) -> GroupResource {
        let names = self.resource.names.clone();
        match self.subresource {
            None => names,
            Some(part) => GroupResource {
                group: names.group,
                resource: format!("{}/{}", names.resource, part.name).into(),
            },
        }
    }

    /// Where the object is stored.
    fn key(&self) -> String {
        self.key_of(self.name)
    }

    fn key_of(&self, name: &str) -> String {
        ObjectKey::new(self.resource.stored_as.clone(), self.namespace, name).storage_key()
    }

    fn part_name(&self) -> &'static str {
        self.subresource.map_or("", |part| part.name)
    }
}

/// What a write has made.
#[derive(Debug, Clone)]
pub struct Written {
    /// The object as served, with its resourceVersion.
    pub object: serde_json::Value,
    /// The revision of the object; of the transaction, if there was something to change.
    pub revision: u64,
    /// Sentences for the client.
    pub warnings: Vec<String>,
}

/// The verbs. Cheap to clone.
#[derive(Clone)]
pub struct Pipeline {
    store: Arc<dyn StoreHandle>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    authorizer: Arc<dyn Authorizer>,
    admission: Admission,
    beats: Option<Arc<dyn Beats>>,
    config: Config,
}

impl Pipeline {
    /// A pipeline with the built-in rules and stages.
    #[must_use]
    pub fn new(
        store: Arc<dyn StoreHandle>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn Ids>,
        config: Config,
    ) -> Self {
        let authorizer = Arc::new(ClusterRules);
        let admission = Admission::default();
        Self { store, clock, ids, authorizer, admission, beats: None, config }
    }

    /// The same with another authorizer.
    #[must_use]
    pub fn with_authorizer(mut self, authorizer: Arc<dyn Authorizer>) -> Self {
        self.authorizer = authorizer;
        self
    }

    /// The same with other stages.
    #[must_use]
    pub fn with_admission(mut self, admission: Admission) -> Self {
        self.admission = admission;
        self
    }

    /// The same where nodes are heard: their Leases tell when.
    #[must_use]
    pub fn with_beats(mut self, beats: Arc<dyn Beats>) -> Self {
        self.beats = Some(beats);
        self
    }

    /// The same over another store.
    #[must_use]
    pub fn with_store(mut self, store: Arc<dyn StoreHandle>) -> Self {
        self.store = store;
        self
    }

    /// Commits nothing, behind everything that has been given to the store from here, and says at which revision.
    ///
    /// # Errors
    /// The store's.
    pub async fn barrier(&self) -> Result<u64, Status> {
        match self.commit(Vec::new(), Vec::new()).await? {
            Outcome::Committed { revision } => Ok(revision.0),
            Outcome::Refused { .. } => Err(Status::internal("a barrier was refused")),
        }
    }

    /// The store below.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn StoreHandle> {
        &self.store
    }

    /// The mistakes that it makes.
    pub(crate) fn bugs(&self) -> Bugs {
        self.config.bugs
    }

    /// What it was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where it has the time from.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Asks the authorizer. Every verb does it by itself; callers do for what is not a verb.
    ///
    /// # Errors
    /// 401 for those who have proven nothing, else 403, with a message that says what was asked.
    pub async fn authorize(
        &self,
        user: &User,
        verb: &str,
        subject: Subject<'_>,
    ) -> Result<(), Status> {
        self.authorize_selection(Attributes { user, verb, subject, fields: "" }).await
    }

    async fn authorize_selection(&self, request: Attributes<'_>) -> Result<(), Status> {
        let Attributes { user, verb, subject, .. } = request;
        let mut decision = self.authorizer.authorize(request, self.store.local()).await;
        if decision != Decision::Allow && user.as_node().is_some() {
            // What a node may depends on the pods that are bound to it, and this server may know them later than the node.
            decision = self.authorizer.authorize(request, self.view().await?).await;
        }
        match decision {
            Decision::Allow => Ok(()),
            Decision::Deny(_) if user.is_anonymous() => Err(Status::unauthorized()),
            Decision::Deny(reason) => Err(refusal(user, verb, subject, &reason)),
        }
    }

    async fn authorize_target(
        &self,
        user: &User,
        verb: &str,
        target: &Target<'_>,
    ) -> Result<(), Status> {
        self.authorize_fields(user, verb, target, "").await
    }

    /// The same for those objects of a collection whose fields are so.
    async fn authorize_fields(
        &self,
        user: &User,
        verb: &str,
        target: &Target<'_>,
        fields: &str,
    ) -> Result<(), Status> {
        let subject = Subject::Object {
            resource: target.resource,
            subresource: target.part_name(),
            namespace: target.namespace,
            name: target.name,
        };
        self.authorize_selection(Attributes { user, verb, subject, fields }).await
    }

    /// Everything that anybody has been told is done.
    async fn view(&self) -> Result<View, Status> {
        self.store.read().await.map_err(|error| Status::from_store(&error))
    }

    async fn commit(
        &self,
        guards: Vec<Guard>,
        operations: Vec<Operation>,
    ) -> Result<Outcome, Status> {
        let id = TransactionId(self.ids.random());
        let transaction = Transaction { id, guards, operations };
        self.store.submit(transaction).await.map_err(|error| Status::from_store(&error))
    }

    async fn mutate(
        &self,
        review: Review<'_>,
        object: &mut serde_json::Value,
    ) -> Result<(), Status> {
        for stage in &self.admission.mutating {
            stage.admit(review, object).await?;
        }
        Ok(())
    }

    async fn admit(&self, review: Review<'_>, object: &serde_json::Value) -> Result<(), Status> {
        for stage in &self.admission.validating {
            stage.admit(review, object).await?;
        }
        Ok(())
    }
}

fn refusal(user: &User, verb: &str, subject: Subject<'_>, reason: &str) -> Status {
    let (resource, subresource, namespace, name) = match subject {
        Subject::Path(path) => return Status::forbidden_path(&user.name, verb, path),
        Subject::Object { resource, subresource, namespace, name } => {
            (resource, subresource, namespace, name)
        }
    };
    let place = if namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {namespace:?}")
    };
    let mut plural = resource.names.resource.to_string();
    if !subresource.is_empty() {
        plural = format!("{plural}/{subresource}");
    }
    let mut why = format!(
        "User {:?} cannot {verb} resource {plural:?} in API group {:?} {place}",
        user.name, resource.names.group
    );
    if !reason.is_empty() {
        why = format!("{why}: {reason}");
    }
    Status::forbidden(resource.names, name, &why)
}
