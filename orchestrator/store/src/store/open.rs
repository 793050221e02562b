//! From a disk to a running member.
//!
//! What is read: the vote, the snapshot, the log; and whether they fit together. If something is
//! missing that had been promised, then either other members can make up for it, and this one
//! starts as damaged ([`super::repair`]), or nobody can, and it does not start.

use std::sync::{Arc, Mutex};

use openraft::{AsyncRuntime, Config as RaftConfig, EntryPayload, Raft, SnapshotPolicy};

use super::maintain::maintain;
use super::repair::Repair;
use super::ticking::tick_when_needed;
use super::{Core, Store};
use crate::config::Config;
use crate::consensus::machine::Machine;
use crate::consensus::network::Network;
use crate::consensus::{TypeConfig, membership, position};
use crate::disk::Disk;
use crate::error::StoreError;
use crate::log::Log;
use crate::log::recover::{self, Recovered, recover};
use crate::log::vote::VoteFile;
use crate::log::writer::Writer;
use crate::member::Membership;
use crate::replica::Replica;
use crate::snapshot::Snapshots;
use crate::state::State;
use crate::transport::Transport;

/// What a disk holds, made to fit together.
struct Loaded {
    vote: VoteFile,
    snapshots: Snapshots,
    state: Option<State>,
    recovered: Recovered,
    damaged: bool,
}

pub(super) async fn open<R: AsyncRuntime>(
    config: Config,
    disk: Arc<dyn Disk>,
    transport: Arc<dyn Transport>,
) -> Result<Store<R>, StoreError> {
    let loaded = load(&config, &disk).await?;
    if let Some(level) = loaded.state.as_ref().map(|state| state.level)
        && level > config.supports
    {
        return Err(StoreError::TooNew { required: level, supported: config.supports });
    }
    let replica = Replica::new(config.history, config.bugs);
    if let Some(state) = loaded.state {
        replica.install(state);
    }
    let members = last_membership(Some(&replica.state()), &loaded.recovered);
    let Loaded { vote, snapshots, mut recovered, damaged, .. } = loaded;
    let memory = std::mem::take(&mut recovered.memory);
    let (log, queue) = Log::<R>::new(memory, vote);
    let shared = (log.shared.clone(), queue);
    let segment_bytes = config.log.segment_bytes;
    let writer = Writer::<R>::new(
        disk.clone(),
        config.member,
        segment_bytes,
        shared,
        recovered,
        config.bugs,
    );
    // A task that is not joined runs on.
    drop(R::spawn(writer.run()));
    let snapshots = Arc::new(snapshots);
    let network = Network {
        transport: transport.clone(),
        timings: config.timings,
        snapshots: snapshots.clone(),
    };
    let machine = Machine::new(replica.clone(), snapshots.clone(), config.supports);
    let raft_config = Arc::new(raft_config(&config, damaged)?);
    let raft = Raft::new(config.member, raft_config, network, log.clone(), machine).await.map_err(
        |fatal| StoreError::Damaged { what: format!("the consensus does not start: {fatal}") },
    )?;
    if let Some(members) = members {
        settle(&raft, &config, &members, damaged).await;
    }
    let repair = Mutex::new(Repair::new(damaged));
    let incoming = futures::lock::Mutex::new(None);
    let core = Core { config, disk, transport, log, replica, snapshots, raft, repair, incoming };
    let core = Arc::new(core);
    drop(R::spawn(maintain(Arc::downgrade(&core), core.config.timings.maintenance)));
    drop(R::spawn(tick_when_needed(Arc::downgrade(&core))));
    Ok(Store { core })
}

/// A member that has a cluster says so from the first moment; and one that is alone need not wait
/// for a leader that cannot come.
async fn settle<R: AsyncRuntime>(
    raft: &Raft<TypeConfig<R>, Machine>,
    config: &Config,
    members: &Membership,
    damaged: bool,
) {
    if members.is_alone(config.member)
        && !damaged
        && let Err(fatal) = raft.trigger().elect(false).await
    {
        tracing::error!(%fatal, "the consensus stopped at once");
    }
    let knows = raft
        .wait(Some(config.timings.election_max))
        .metrics(
            |metrics| metrics.membership_config.voter_ids().next().is_some(),
            "the members are known",
        )
        .await;
    if let Err(error) = knows {
        tracing::warn!(%error, "the consensus is slow to start");
    }
}

async fn load(config: &Config, disk: &Arc<dyn Disk>) -> Result<Loaded, StoreError> {
    let (member, bugs) = (config.member, config.bugs);
    let (vote_file, vote) = VoteFile::open(&**disk, member, bugs).await?;
    let opened = Snapshots::open(disk.clone(), member, bugs).await;
    let mut recovered = recover(&**disk, member, bugs).await?;
    let already = recover::is_marked(&**disk).await?;
    let voted = recovered.memory.last().is_none_or(|last| last.term == 0) || vote.is_some();
    if !voted {
        let what = "the vote is gone and the log is not; this member must be removed from the \
                    cluster and its disk made blank";
        return Err(StoreError::Damaged { what: what.into() });
    }
    let (snapshots, state, lost) = match opened {
        Ok((snapshots, state)) => (snapshots, state, None),
        Err(StoreError::Damaged { what }) => {
            (Snapshots::damaged(disk.clone(), member, bugs), None, Some(what))
        }
        Err(error) => return Err(error),
    };
    let base =
        state.as_ref().and_then(|state| state.applied).map_or(0, |applied| applied.index + 1);
    let hole = recovered.memory.previous.is_some_and(|previous| previous.index >= base);
    let damage = lost
        .or_else(|| hole.then(|| "the log does not reach back to the snapshot".to_owned()))
        .or_else(|| {
            recovered.damage.map(|damage| format!("the log from entry {} on", damage.from))
        });
    if let Some(what) = &damage {
        let mut members = last_membership(state.as_ref(), &recovered);
        if members.is_none() {
            members = Snapshots::peek_membership(&**disk).await?;
        }
        // If not even that is left, then a leader will say who the members are, or there is none
        // and this one stays damaged, which its status says.
        if members.is_some_and(|members| members.is_alone(member)) {
            return Err(StoreError::Damaged {
                what: format!("{what}, and no other member has a copy"),
            });
        }
        tracing::error!(
            what,
            "damaged; following without a vote until a leader has made up for it"
        );
        let from = recovered.damage.map_or(0, |damage| damage.from);
        recover::mark(&**disk, from).await?;
        recover::cut(&**disk, &recovered).await?;
        if hole || state.is_none() && recovered.memory.previous.is_some() {
            recover::discard(&**disk).await?;
        }
        recovered = recover(&**disk, member, bugs).await?;
    }
    fit(&mut recovered, state.as_ref());
    recovered.memory.vote = vote;
    let damaged = already || damage.is_some();
    Ok(Loaded { vote: vote_file, snapshots, state, recovered, damaged })
}

/// Drops what a snapshot, installed just before a power cut, has overruled; and never claims that
/// something is committed which is not there.
fn fit(recovered: &mut Recovered, state: Option<&State>) {
    let memory = &mut recovered.memory;
    if let Some(applied) = state.and_then(|state| state.applied)
        && memory.contradicts(applied)
    {
        memory.truncate(applied.index);
    }
    memory.committed = memory.committed.filter(|committed| memory.holds(*committed));
}

/// The members, as far as the disk tells.
fn last_membership(state: Option<&State>, recovered: &Recovered) -> Option<Membership> {
    let entries = recovered.memory.entries.iter().rev();
    let in_log = entries.filter_map(|entry| match &entry.payload {
        EntryPayload::Membership(members) => Some((position(&entry.log_id), membership(members))),
        EntryPayload::Blank | EntryPayload::Normal(_) => None,
    });
    let in_state = state.map(|state| (state.membership_position, (*state.membership).clone()));
    in_log
        .map(|(position, members)| (Some(position), members))
        .chain(in_state)
        .max_by_key(|(position, _)| *position)
        .map(|(_, members)| members)
        .filter(|members| !members.voters.is_empty())
}

fn raft_config(config: &Config, damaged: bool) -> Result<RaftConfig, StoreError> {
    let millis = |duration: std::time::Duration| duration.as_millis() as u64;
    let timings = &config.timings;
    RaftConfig {
        cluster_name: "podium".into(),
        heartbeat_interval: millis(timings.heartbeat),
        election_timeout_min: millis(timings.election_min),
        election_timeout_max: millis(timings.election_max),
        install_snapshot_timeout: millis(timings.snapshot_part),
        max_payload_entries: 512,
        snapshot_policy: SnapshotPolicy::Never,
        // One place decides what of the log goes: `maintain`. Two would take each other's decision back.
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 1,
        // Memory of the channels is taken as messages come, these are only limits.
        api_channel_size: Some(4096),
        notification_channel_size: Some(4096),
        enable_elect: !damaged,
        enable_pre_vote: Some(true),
        // A damaged member comes back with less than it had, and says so by not voting.
        allow_log_reversion: Some(true),
        // Entries go to the followers while they are being synced here. A leader that came back in
        // the same term without the last of them would give their places to others.
        enable_leader_restore: Some(false),
        backoff: format!("{}ms", millis(timings.heartbeat) * 2),
        ..RaftConfig::default()
    }
    .validate()
    .map_err(|error| StoreError::Invalid { reason: format!("timings: {error}") })
}
