//! Known-bad behaviours, to prove that tests and the simulator would find them.
//!
//! Without the feature `planted-bugs` nothing here can be turned on and every check is a constant. The switch is per thread,
//! so tests that run side by side do not see each other's.

/// Whether this build can be made to misbehave.
pub const PLANTED_BUGS: bool = cfg!(feature = "planted-bugs");

/// A mistake that can be turned on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// The scheduler binds a pod that it has already bound.
    DoubleBind,
    /// A Deployment's new ReplicaSet is scaled up without looking at the surge.
    ExceedSurge,
    /// A controller takes over objects that another one owns.
    AdoptForeignPod,
    /// The scheduler counts a terminating pod's share of a node as free.
    ForgetTerminatingPods,
    /// A machine lets go of the set that it has accepted when it does not see somebody of it.
    ReleaseUnseen,
    /// What a machine has accepted is not synced before it says so.
    AcceptUnsynced,
    /// A machine proposes a set that the others of it do not choose.
    ProposeUnchosen,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::DoubleBind,
        Self::ExceedSurge,
        Self::AdoptForeignPod,
        Self::ForgetTerminatingPods,
        Self::ReleaseUnseen,
        Self::AcceptUnsynced,
        Self::ProposeUnchosen,
    ];
}

#[cfg(feature = "planted-bugs")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static ACTIVE: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Turns one mistake on, or all off, for this thread.
    pub fn plant(bug: Option<Bug>) {
        ACTIVE.set(bug);
    }

    /// Whether this one is on.
    #[must_use]
    pub fn active(bug: Bug) -> bool {
        ACTIVE.get() == Some(bug)
    }
}

#[cfg(feature = "planted-bugs")]
pub use switch::{active, plant};

/// Whether this one is on: never.
#[cfg(not(feature = "planted-bugs"))]
#[must_use]
pub const fn active(_: Bug) -> bool {
    false
}
