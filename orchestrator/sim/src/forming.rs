//! Machines that form a cluster: the shipped `podium_form` on simulated disks and links, from blank disks on.
//!
//! ```text
//!   story ── nemesis ──► disks · network · power                    (what goes wrong while they form)
//!     │                      ▲
//!     ├── life (per boot) ── podium_form::Former ── meeting ── network
//!     │                      │
//!     └── end ◄── census ◄───┴── all that machines say, accept and make  (the rules of forming)
//!          ▲
//!         live                                                            (then, if not all are members)
//! ```
//!
//! A machine is a disk with an identity. A new disk is another machine at the same place, with the same name. The sessions
//! are simulated: a hello and its answer, a proposal, a request for a place are exchanges on the network.

pub(crate) mod census;
mod end;
mod ground;
pub(crate) mod life;
mod live;
mod meeting;
mod nemesis;
mod story;
mod tenants;

use std::time::Duration;

use podium_control::forming::Machine;

use crate::executor::{self, Core, Life};
use crate::network::seam::member_of;
use crate::pulse::name_of;
use crate::runtime::{Sleep, spawn_in};

pub(crate) use census::Census;
pub(crate) use live::live;
pub(crate) use meeting::Meeting;
pub(crate) use story::form;

/// How many machines form the cluster.
const EXPECT: u32 = 3;

/// With more, two sets of first members could be disjoint.
pub(crate) const MOST_NODES: u16 = 2 * EXPECT as u16 - 1;

/// As `podium_peer::Pace` has them: between two hellos, and how long a silent machine is seen.
const HELLO: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(4);

/// How many new disks a run may use. With fewer than twice the expected number in all, no two sets of first members are
/// disjoint, and two clusters are always a mistake.
fn disks_to_spare(nodes: u16) -> u16 {
    MOST_NODES.saturating_sub(nodes)
}

/// The machine that a disk makes of a node. `generation` counts the node's disks.
pub(crate) fn machine(core: &Core, node: u16, generation: u16) -> Machine {
    let mut public_key = vec![0; 16];
    core.fill(&mut public_key);
    Machine { member: member_of(node, generation).0, name: name_of(node), public_key }
}

/// One of so many.
fn pick(count: usize) -> usize {
    usize::try_from(executor::with(|core| core.below(count as u64))).unwrap_or(0)
}

/// Does something on the harness's time.
fn later(after: Duration, act: impl FnOnce() + Send + 'static) {
    drop(spawn_in(Life::HARNESS, async move {
        Sleep::after(after).await;
        act();
    }));
}
