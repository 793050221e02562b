//! How a member that lost a part of its log becomes whole again.
//!
//! It must not vote, because it may have helped to commit what it lost, and a vote of its could
//! elect a leader that lacks it too. It does follow: what a leader sends it is kept and
//! acknowledged honestly. It is whole when it durably holds the last entry that a leader, which a
//! quorum had just confirmed, had in its log when asked. Everything that this member ever
//! acknowledged to that leader is up to there; and what was acknowledged to earlier leaders, and
//! committed, that leader has, because it was elected without this member's vote since the loss.
//!
//! The mark on the disk outlives restarts; the leader is asked anew after each.

use std::sync::PoisonError;

use openraft::AsyncRuntime;

use super::Core;
use crate::log::recover;
use crate::state::Position;

/// After so many looks without success the leader is asked again: what it had then may have been
/// overruled by another leader.
const LOOKS: u32 = 10;

/// Whether this member is whole.
#[derive(Debug)]
pub(super) struct Repair {
    damaged: bool,
    /// What it must hold to be whole, and how often that was looked for.
    wanted: Option<(Position, u32)>,
}

impl Repair {
    pub(super) fn new(damaged: bool) -> Self {
        Self { damaged, wanted: None }
    }
}

impl<R: AsyncRuntime> Core<R> {
    pub(super) fn is_damaged(&self) -> bool {
        self.repair.lock().unwrap_or_else(PoisonError::into_inner).damaged
    }

    /// One look at whether this member is whole again.
    pub(super) async fn repair(&self) {
        if !self.is_damaged() {
            return;
        }
        let wanted = self.repair.lock().unwrap_or_else(PoisonError::into_inner).wanted;
        match wanted {
            Some((position, _)) if self.log.holds(position) => self.declare_whole().await,
            Some((position, looks)) if looks < LOOKS => self.want(Some((position, looks + 1))),
            Some(_) | None => {
                let asked = self.ask_what_to_hold().await;
                self.want(asked.map(|position| (position, 0)));
            }
        }
    }

    fn want(&self, wanted: Option<(Position, u32)>) {
        self.repair.lock().unwrap_or_else(PoisonError::into_inner).wanted = wanted;
    }

    async fn ask_what_to_hold(&self) -> Option<Position> {
        let leader = self.leader().filter(|leader| *leader != self.member())?;
        let (_, last) = self.ask_read_index(leader).await.ok()?;
        last.map(Into::into)
    }

    async fn declare_whole(&self) {
        if let Err(error) = recover::unmark(&*self.disk).await {
            tracing::warn!(%error, "the log is whole again, and the disk cannot note it");
            return;
        }
        self.repair.lock().unwrap_or_else(PoisonError::into_inner).damaged = false;
        self.raft.runtime_config().elect(true);
        tracing::info!("the log is whole again; this member votes");
    }
}
