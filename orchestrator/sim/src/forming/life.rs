//! What a machine does when it gets power, as the node program does: read the disk, meet the others, become a part of the
//! cluster, take a place in it.

use std::sync::Arc;
use std::time::Duration;

use podium_control::forming::{Joined, Machine, Standing};
use podium_form::client::{SharedClient, Voter};
use podium_form::{Applicant, FormError, Former, Founding, NoPlace, StandingFiles};
use podium_store::{Role, StoreHandle};

use super::ground::SimGround;
use super::meeting::Meeting;
use super::{EXPECT, HELLO, PATIENCE};
use crate::access;
use crate::cluster::{Cluster, SimStore};
use crate::executor::Life;
use crate::follow;
use crate::ledger::Violation;
use crate::runtime::{Sleep, spawn};

/// How long the program is off that has failed.
const AGAIN: Duration = Duration::from_secs(1);
/// As the node waits for its place: while there is no leader, and while somebody has to act.
const RETRY: Duration = Duration::from_millis(200);
const TAKEN: Duration = Duration::from_secs(5);

/// Becomes a part of the cluster. Returns `true` as a member; as a worker, never.
pub(crate) async fn run(cluster: &Cluster, life: Life, store: &SimStore) -> bool {
    let node = life.node;
    let (meeting, standing) = loop {
        match form(cluster, node, store).await {
            Ok(formed) => break formed,
            Err(FormError::Contradiction(what)) => {
                cluster.ledger().accuse(Violation::Rule(format!("node {node}: {what}")));
                return false;
            }
            Err(error) => {
                tracing::info!(node, ?error, "forming failed");
                Sleep::after(AGAIN).await;
            }
        }
    };
    match standing {
        Standing::Member(_) => {
            drop(spawn(greet(meeting)));
            true
        }
        Standing::Worker(_) | Standing::Blank { .. } => {
            store.shutdown().await;
            drop(spawn(follow::follow(cluster.clone(), node)));
            meeting.former().greet(&meeting).await
        }
    }
}

async fn greet(meeting: Meeting) {
    meeting.former().greet(&meeting).await;
}

/// One run of the program.
async fn form(
    cluster: &Cluster,
    node: u16,
    store: &SimStore,
) -> Result<(Meeting, Standing), FormError> {
    let nothing = || FormError::Contradiction("there is no machine".to_owned());
    let disk = cluster.identity(node).ok_or_else(nothing)?;
    let me = cluster.census().machine(node).cloned().ok_or_else(nothing)?;
    let files = StandingFiles::new(Arc::new(disk));
    let standing = files.read(store.status().role != Role::Blank).await?;
    let ground = SimGround { cluster: cluster.clone(), node, store: store.clone() };
    let founding = Founding {
        me,
        expect: EXPECT,
        patience: PATIENCE,
        interval: HELLO,
        files,
        standing,
        ground: Arc::new(ground),
    };
    let meeting = Meeting::new(cluster.clone(), node, Former::new(founding));
    cluster.meet_with(node, &meeting);
    meeting.begin();
    let standing = meeting.former().form(&meeting).await?;
    Ok((meeting, standing))
}

/// Takes a member's own place, as soon as there is one to be had.
pub(crate) async fn take_place(cluster: Cluster, node: u16, store: SimStore) {
    let Some(machine) = cluster.census().machine(node).cloned() else { return };
    let handle: Arc<dyn StoreHandle> = store.clone();
    let pipeline = access::pipeline(&cluster, node, handle);
    let client: SharedClient = Arc::new(Voter::new(pipeline, &machine.name));
    let applicant = Applicant { name: machine.name, key: machine.public_key, voter: true };
    while applicant.settled(&store.local()).is_none() {
        match applicant.attempt(&client).await {
            Ok(_) => return,
            Err(NoPlace::Refused(refusal)) if refusal.may_pass() => Sleep::after(RETRY).await,
            Err(_) => Sleep::after(TAKEN).await,
        }
    }
}

/// A member gives another machine a place in the cluster.
pub(super) async fn give_place(
    cluster: Cluster,
    node: u16,
    machine: Machine,
) -> Result<Joined, String> {
    let store = cluster.store(node).ok_or("this machine gives no places; ask a voter")?;
    let id = cluster.census().standing(node).and_then(Standing::cluster);
    let id = id.ok_or("this machine gives no places; ask a voter")?;
    let handle: Arc<dyn StoreHandle> = store;
    let pipeline = access::pipeline(&cluster, node, handle);
    let client: SharedClient = Arc::new(Voter::new(pipeline, &machine.name));
    let applicant = Applicant { name: machine.name, key: machine.public_key, voter: false };
    let pods = applicant.attempt(&client).await.map_err(|error| error.to_string())?;
    let (authority_pem, voters) = (String::new(), Vec::new());
    Ok(Joined { cluster: id, authority_pem, pods, voters })
}
