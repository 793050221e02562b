//! How parts of the cluster and its users reach the API: a request, carried to a member, done there by the shipped
//! pipeline.
//!
//! As in the real cluster, a write runs its whole pipeline where it arrives, mostly on the leader; now and then on
//! another voter, whose store passes the transaction on, so that two servers decide at the same time.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use openraft::rt::AsyncRuntime;
use podium_api::patch::Patch;
use podium_api::pipeline::{
    Cidr, Config, DeleteOptions, PodRange, Propagation, ReadOptions, WriteOptions,
};
use podium_api::seams::{Clock, Ids};
use podium_api::status::Status;
use podium_api::{Pipeline, Target, User};
use podium_store::StoreHandle;
use podium_types::kind::resources;
use podium_types::{GroupResource, Now, ObjectKey};
use serde_json::Value;

use crate::cluster::{Cluster, Load};
use crate::executor;
use crate::network::{Lost, Work};
use crate::runtime::{SimRuntime, Sleep};

/// How long a client of the API waits.
const PATIENCE: Duration = Duration::from_secs(30);

/// A clock of the node whose number it has.
struct NodeTime(u16);

impl Clock for NodeTime {
    fn now(&self) -> Now {
        now_of(self.0)
    }
}

/// Both clocks of a node.
pub(crate) fn now_of(node: u16) -> Now {
    executor::with(|core| {
        let now = core.now();
        core.clock(node, |clock| clock.read(now))
    })
}

/// Ids from the seed.
struct SeededIds;

impl Ids for SeededIds {
    fn random(&self) -> u128 {
        executor::with(|core| (u128::from(core.random()) << 64) | u128::from(core.random()))
    }
}

/// The pipeline of a node over a store.
pub(crate) fn pipeline(cluster: &Cluster, node: u16, store: Arc<dyn StoreHandle>) -> Pipeline {
    let mut config = Config { bugs: cluster.mistakes().api, ..Config::default() };
    // Where nodes are simulated whole they say themselves which addresses they have.
    if cluster.load() == Load::Forming {
        let cidr = Cidr::new(Ipv4Addr::new(10, 244, 0, 0), 16);
        config.pods = Some(PodRange { cidr, node_prefix: 24 });
    }
    Pipeline::new(store, Arc::new(NodeTime(node)), Arc::new(SeededIds), config)
}

/// One call of the API.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// POST to a collection.
    Create { resource: GroupResource, object: Value },
    /// GET of one.
    Get { key: ObjectKey },
    /// PUT.
    Update { key: ObjectKey, part: Option<&'static str>, object: Value },
    /// PATCH, as a merge.
    Patch { key: ObjectKey, part: Option<&'static str>, patch: Value },
    /// DELETE.
    Delete {
        key: ObjectKey,
        uid: Option<String>,
        grace_seconds: Option<i64>,
        propagation: Option<Propagation>,
    },
    /// POST of bindings.
    Bind { pods: Vec<(ObjectKey, String)>, node: String },
}

/// What came of a call.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// It was done.
    Done {
        /// What is there now.
        object: Value,
    },
    /// It was refused, and nothing happened.
    Refused {
        /// In whose words.
        status: Status,
    },
    /// It may have happened.
    Unknown,
}

/// Does a call here and now.
pub(crate) async fn perform(pipeline: &Pipeline, user: &User, request: Request) -> Outcome {
    let result = attempt(pipeline, user, request).await;
    match result {
        Ok(object) => Outcome::Done { object },
        Err(status) if status.outcome_unknown => Outcome::Unknown,
        Err(status) => Outcome::Refused { status },
    }
}

async fn attempt(pipeline: &Pipeline, user: &User, request: Request) -> Result<Value, Status> {
    let options = WriteOptions::default();
    match request {
        Request::Create { resource, object } => {
            let namespace = podium_types::object::namespace(&object).to_owned();
            let key = ObjectKey::new(resource, namespace, "");
            let written =
                pipeline.create(user, &target(&key, None)?, object.into(), &options).await?;
            Ok(written.object)
        }
        Request::Get { key } => {
            let served = pipeline.get(user, &target(&key, None)?, &ReadOptions::default()).await?;
            Ok(served.value())
        }
        Request::Update { key, part, object } => {
            let written =
                pipeline.update(user, &target(&key, part)?, object.into(), &options).await?;
            Ok(written.object)
        }
        Request::Patch { key, part, patch } => {
            let written =
                pipeline.patch(user, &target(&key, part)?, &Patch::Merge(patch), &options).await?;
            Ok(written.object)
        }
        Request::Delete { key, uid, grace_seconds, propagation } => {
            let options = DeleteOptions {
                uid,
                grace_period_seconds: grace_seconds,
                propagation,
                ..Default::default()
            };
            pipeline.delete(user, &target(&key, None)?, &options).await?;
            Ok(Value::Null)
        }
        Request::Bind { pods, node } => bind(pipeline, user, &pods, &node).await,
    }
}

/// All pods are bound, or the first refusal counts for the step.
async fn bind(
    pipeline: &Pipeline,
    user: &User,
    pods: &[(ObjectKey, String)],
    node: &str,
) -> Result<Value, Status> {
    for answer in pipeline.bind(user, node, pods).await? {
        answer?;
    }
    Ok(Value::Null)
}

fn target<'a>(key: &'a ObjectKey, part: Option<&str>) -> Result<Target<'a>, Status> {
    let target = Target::object(key).ok_or_else(Status::no_such_resource)?;
    match part {
        None => Ok(target),
        Some(part) => target.part(part).ok_or_else(Status::no_such_resource),
    }
}

/// A way to the API from somewhere, as somebody. Clones are the same way.
#[derive(Clone)]
pub(crate) struct Access {
    cluster: Cluster,
    from: u16,
    user: User,
}

impl Access {
    pub(crate) fn new(cluster: Cluster, from: u16, user: User) -> Self {
        Self { cluster, from, user }
    }

    /// The clocks of whoever asks.
    pub(crate) fn now(&self) -> Now {
        now_of(self.from)
    }

    /// Makes one call, once.
    pub(crate) async fn call(&self, request: Request) -> Outcome {
        let node = self.server();
        let (cluster, user) = (self.cluster.clone(), self.user.clone());
        let work: Work<Outcome> = Arc::new(move || {
            let (store, user, request) = (cluster.store(node), user.clone(), request.clone());
            let pipeline = store.map(|store| pipeline(&cluster, node, store));
            Box::pin(async move {
                match pipeline {
                    Some(pipeline) => perform(&pipeline, &user, request).await,
                    None => Outcome::Refused { status: Status::service_unavailable("starting") },
                }
            })
        });
        let exchange = self.cluster.network().exchange_once(self.from, node, work);
        match SimRuntime::timeout(PATIENCE, exchange).await {
            Err(_) | Ok(Err(Lost::Broken)) => Outcome::Unknown,
            Ok(Err(Lost::Refused)) => {
                Outcome::Refused { status: Status::service_unavailable("refused") }
            }
            Ok(Ok(outcome)) => outcome,
        }
    }

    /// The leader, as far as anybody knows; sometimes any other.
    fn server(&self) -> u16 {
        let numbers = self.cluster.numbers();
        let leader = self.cluster.leader();
        executor::with(|core| match leader {
            Some(leader) if !core.one_in(5) => leader,
            _ => numbers[usize::try_from(core.below(numbers.len() as u64)).unwrap_or(0)],
        })
    }

    /// Makes the node's object, or puts its status right if it is there.
    pub(crate) async fn ensure_node(&self, name: &str, node: Value) {
        let status = node["status"].clone();
        let request = Request::Create { resource: resources::NODES, object: node };
        if let Outcome::Refused { status: refusal } = self.insist(request).await
            && refusal.code == 409
        {
            let key = ObjectKey::new(resources::NODES, "", name);
            let patch = serde_json::json!({ "status": status });
            self.insist(Request::Patch { key, part: Some("status"), patch }).await;
        }
    }

    /// Makes a call until it is known what came of it, for as long as it takes. What is refused because of the server's
    /// state is tried again too.
    pub(crate) async fn insist(&self, request: Request) -> Outcome {
        loop {
            match self.call(request.clone()).await {
                Outcome::Unknown => {}
                Outcome::Refused { status } if is_passing(&status) => {}
                outcome => return outcome,
            }
            Sleep::after(executor::with(|core| {
                core.between(Duration::from_millis(100), Duration::from_secs(2))
            }))
            .await;
        }
    }
}

/// Whether the same request may well be carried out a little later.
pub(crate) fn is_passing(status: &Status) -> bool {
    matches!(status.code, 429 | 500 | 503 | 504 | 507)
}
