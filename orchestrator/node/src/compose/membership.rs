//! A machine's way into its cluster: with a replica and the API, or following some voter.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use podium_api::Pipeline;
use podium_api::seams::{Clock, SystemIds};
use podium_control::forming::Joined;
use podium_form::Applicant;
use podium_form::client::{SharedClient, Voter};
use podium_init::config::MachineConfig;
use podium_link::Cidr;
use podium_store::{HistoryLimits, Mirror, Store, StoreHandle, TokioRuntime};
use tokio::sync::watch;

use super::STATE;
use super::ranges::pipeline_config;
use crate::admit::Admission;
use crate::authority::Authority;
use crate::cluster::Cluster;
use crate::credential::Keeper;
use crate::directory::{self, Directory};
use crate::place;
use crate::voters::Hearsay;
use crate::worker::{self, AnyVoter, Remote};

/// What a machine is of the cluster.
pub(super) struct Membership {
    pub(super) state: Arc<dyn StoreHandle>,
    pub(super) client: SharedClient,
    pub(super) directory: watch::Receiver<Directory>,
    pub(super) voter: Option<VoterParts>,
    pub(super) node_pods: Cidr,
}

/// What only a machine with a replica has.
pub(super) struct VoterParts {
    pub(super) store: Arc<Store<TokioRuntime>>,
    pub(super) pipeline: Pipeline,
    pub(super) authority: Arc<Authority>,
}

/// A machine with a replica: it has the API, and gives itself its place.
pub(super) async fn voter(
    config: &MachineConfig,
    name: &str,
    cluster: &Cluster,
    clock: &Arc<dyn Clock>,
    no_place: &watch::Sender<Option<String>>,
) -> anyhow::Result<Membership> {
    let store = Arc::clone(&cluster.store);
    let state: Arc<dyn StoreHandle> = store.clone();
    let (clock, ids) = (Arc::clone(clock), Arc::new(SystemIds));
    let pipeline = Pipeline::new(Arc::clone(&state), clock, ids, pipeline_config(config)?);
    let client: SharedClient = Arc::new(Voter::new(pipeline.clone(), name));
    let key = cluster.identity.key.public().to_vec();
    let applicant = Applicant { name: name.to_owned(), key, voter: true };
    let authority = Arc::new(Authority::obtain(&*state).await?);
    let node_pods = place::take(&applicant, &client, || state.local(), no_place).await;
    let directory = directory::follow(Arc::clone(&state), &cluster.voters);
    let admission = Admission {
        pipeline: pipeline.clone(),
        cluster: cluster.id,
        authority_pem: authority.pem().to_owned(),
        voters: cluster.voters.clone(),
    };
    // Nobody else sets it.
    let _ = cluster.former.places.set(Arc::new(admission));
    let voter = Some(VoterParts { store, pipeline, authority });
    Ok(Membership { state, client, directory, voter, node_pods })
}

/// A machine without: it follows its share of the state from some voter, and calls some voter.
pub(super) fn worker(name: &str, cluster: &Cluster, joined: &Joined) -> anyhow::Result<Membership> {
    let mirror = Mirror::new(cluster.identity.member, HistoryLimits::default());
    let state: Arc<dyn StoreHandle> = Arc::new(mirror.clone());
    let directory = directory::follow(Arc::clone(&state), &cluster.voters);
    let dial = Arc::new(AnyVoter {
        peers: Arc::clone(&cluster.peers),
        voters: cluster.voters.clone(),
        turn: AtomicUsize::new(0),
    });
    let client: SharedClient = Arc::new(Remote::new(dial.clone()));
    let identity = Path::new(STATE).join("identity");
    let keeper = Keeper::new(&identity, name, &joined.authority_pem, dial.clone());
    tokio::spawn(async move { keeper.run(watch::Sender::new(None)).await });
    let mut hearsay = Hearsay::new(cluster.voters.clone(), joined.clone(), cluster.files.clone());
    tokio::spawn(async move { worker::follow(dial, mirror, move |keys| hearsay.told(keys)).await });
    let pods: Cidr = joined.pods.parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(Membership { state, client, directory, voter: None, node_pods: pods })
}
