//! When the consensus needs its clock, and when it does not.
//!
//! Openraft looks at its clock five times per heartbeat, for two things: whether another member must be told that its leader lives,
//! and whether a leader has been silent for too long. A leader that is all of its cluster has nobody to tell and nobody to wait
//! for: it is a quorum by itself, always. Its ticks are stopped, and an idle machine of a cluster of one stays idle. They
//! begin again as soon as the membership that counts names another member, which is before that member can hear of it.

use std::sync::Weak;

use openraft::AsyncRuntime;
use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftServerMetrics;

use super::Core;
use crate::consensus::TypeConfig;
use crate::member::MemberId;

/// Runs for as long as the consensus does.
pub(super) async fn tick_when_needed<R: AsyncRuntime>(core: Weak<Core<R>>) {
    let Some(mut metrics) = core.upgrade().map(|core| core.raft.server_metrics()) else { return };
    loop {
        let needed = needs_ticks(&metrics.borrow_watched());
        let Some(core) = core.upgrade() else { return };
        core.raft.runtime_config().tick(needed);
        drop(core);
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

fn needs_ticks<R: AsyncRuntime>(metrics: &RaftServerMetrics<TypeConfig<R>>) -> bool {
    let alone = |own: MemberId| {
        let mut members = metrics.membership_config.nodes().map(|(id, _)| *id);
        members.next() == Some(own) && members.next().is_none()
    };
    !(metrics.state.is_leader() && alone(metrics.id))
}
