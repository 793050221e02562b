//! The kinds of fault, and the count of each that really happened.
//!
//! A fault is counted where it takes effect (a message that was delivered out of order, a write that was torn), not where
//! it was asked for. A run of many seeds in which any kind stays at zero has not tested what it claims, and fails.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Everything that can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A node lost power between two polls.
    Crash,
    /// A node lost power inside a disk operation.
    CrashInDisk,
    /// A node came back with what its disk kept.
    Restart,
    /// A node did not run for a while, and then went on.
    Freeze,
    /// A message met a cut between two groups of nodes.
    Partition,
    /// A message met a cut that lets the other direction through.
    OneWayCut,
    /// A message was late by more than a heartbeat.
    Delay,
    /// A message overtook another on the same link.
    Reordering,
    /// A request arrived twice.
    Duplication,
    /// A request was lost.
    LostRequest,
    /// A reply was lost.
    LostReply,
    /// A disk operation took long.
    SlowDisk,
    /// A write found the disk full.
    FullDisk,
    /// A power cut kept a part of a write.
    TornWrite,
    /// A power cut kept nothing of a write.
    LostWrite,
    /// A power cut undid a change of names in the directory.
    LostRename,
    /// A bit at rest changed.
    FlippedBit,
    /// A wall clock jumped ahead.
    ClockJumpAhead,
    /// A wall clock jumped back.
    ClockJumpBack,
    /// A monotonic clock ran fast or slow.
    ClockDrift,
    /// A node came back with an empty disk.
    ReplacedDisk,
    /// A node that is to form the cluster was switched on after others.
    LateBoot,
    /// Some had accepted the first members of a cluster, and who had proposed them was off.
    HalfAccepted,
    /// A machine that forms the cluster was seen by some of the others only.
    SeenBySome,
    /// A node that follows the cluster had to ask a voter anew.
    BrokenStream,
    /// Who watches a mirror had to begin anew.
    ForgottenHistory,
}

impl Fault {
    /// Every kind, for the coverage table.
    pub const ALL: [Self; 26] = [
        Self::Crash,
        Self::CrashInDisk,
        Self::Restart,
        Self::Freeze,
        Self::Partition,
        Self::OneWayCut,
        Self::Delay,
        Self::Reordering,
        Self::Duplication,
        Self::LostRequest,
        Self::LostReply,
        Self::SlowDisk,
        Self::FullDisk,
        Self::TornWrite,
        Self::LostWrite,
        Self::LostRename,
        Self::FlippedBit,
        Self::ClockJumpAhead,
        Self::ClockJumpBack,
        Self::ClockDrift,
        Self::ReplacedDisk,
        Self::LateBoot,
        Self::HalfAccepted,
        Self::SeenBySome,
        Self::BrokenStream,
        Self::ForgottenHistory,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Crash => "crash",
            Self::CrashInDisk => "crash inside a disk operation",
            Self::Restart => "restart",
            Self::Freeze => "freeze",
            Self::Partition => "partition",
            Self::OneWayCut => "one-way cut",
            Self::Delay => "delay",
            Self::Reordering => "reordering",
            Self::Duplication => "duplication",
            Self::LostRequest => "lost request",
            Self::LostReply => "lost reply",
            Self::SlowDisk => "slow disk",
            Self::FullDisk => "full disk",
            Self::TornWrite => "torn write",
            Self::LostWrite => "lost write",
            Self::LostRename => "lost rename",
            Self::FlippedBit => "flipped bit",
            Self::ClockJumpAhead => "clock jump ahead",
            Self::ClockJumpBack => "clock jump back",
            Self::ClockDrift => "clock drift",
            Self::ReplacedDisk => "replaced disk",
            Self::LateBoot => "late boot",
            Self::HalfAccepted => "proposer off, set half accepted",
            Self::SeenBySome => "seen by some only",
            Self::BrokenStream => "broken stream to a worker",
            Self::ForgottenHistory => "mirror forgot its history",
        };
        f.pad(name)
    }
}

/// How often each kind took effect. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    counts: Arc<Mutex<BTreeMap<Fault, u64>>>,
}

impl Coverage {
    /// Counts one.
    pub fn count(&self, fault: Fault) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(fault).or_default() += 1;
    }

    /// How often `fault` took effect.
    #[must_use]
    pub fn of(&self, fault: Fault) -> u64 {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).get(&fault).copied().unwrap_or(0)
    }

    /// Adds another run's counts.
    pub fn add(&self, other: &Self) {
        for fault in Fault::ALL {
            let count = other.of(fault);
            *self
                .counts
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(fault)
                .or_default() += count;
        }
    }

    /// The kinds that never took effect.
    #[must_use]
    pub fn missing(&self) -> Vec<Fault> {
        Fault::ALL.into_iter().filter(|fault| self.of(*fault) == 0).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in Fault::ALL {
            writeln!(f, "  {fault:<32} {:>12}", self.of(fault))?;
        }
        Ok(())
    }
}
