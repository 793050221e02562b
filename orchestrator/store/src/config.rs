//! What a member is told when it starts.

use std::time::Duration;

use crate::bugs::Bugs;
use crate::history::HistoryLimits;
use crate::member::{FeatureLevel, MemberId};

/// One member's settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who this is. Belongs to the disk: another id on the same disk is an error.
    pub member: MemberId,
    /// How long things may take.
    pub timings: Timings,
    /// How much past is kept for watches and views.
    pub history: HistoryLimits,
    /// How the log is kept.
    pub log: LogLimits,
    /// What this program understands. Only tests set another than [`FeatureLevel::SUPPORTED`].
    pub supports: FeatureLevel,
    /// Mistakes to make, for the simulator.
    pub bugs: Bugs,
}

impl Config {
    /// The settings that ship.
    #[must_use]
    pub fn new(member: MemberId) -> Self {
        Self {
            member,
            timings: Timings::default(),
            history: HistoryLimits::default(),
            log: LogLimits::default(),
            supports: FeatureLevel::SUPPORTED,
            bugs: Bugs::NONE,
        }
    }
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Timings {
    /// How often a leader is heard.
    pub heartbeat: Duration,
    /// A member that has not heard a leader for `election_max`, which is the leader's lease, and for a random time between this…
    pub election_min: Duration,
    /// …and this asks for votes.
    pub election_max: Duration,
    /// How long one part of a snapshot may take to arrive.
    pub snapshot_part: Duration,
    /// How long a read or a write may take before its caller is told that it is unknown.
    pub request: Duration,
    /// How long the history is kept at least…
    pub history: Duration,
    /// …and how often the leader says what has become older. Together under 10 minutes.
    pub compaction: Duration,
    /// How often a member looks after itself: snapshots, a full disk, damage.
    pub maintenance: Duration,
}

impl Default for Timings {
    /// etcd's defaults: a leader is missed after ten heartbeats, and within 2 s somebody asks for votes. Kubernetes' for
    /// compaction (5 minutes).
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(500),
            election_max: Duration::from_millis(1000),
            snapshot_part: Duration::from_secs(5),
            request: Duration::from_secs(10),
            history: Duration::from_secs(300),
            compaction: Duration::from_secs(60),
            maintenance: Duration::from_secs(1),
        }
    }
}

/// How the log is kept.
#[derive(Debug, Clone, Copy)]
pub struct LogLimits {
    /// The size of one file of the log. All of it is reserved at once, so it is also how much of
    /// the disk an idle log takes.
    pub segment_bytes: u64,
    /// A snapshot is made when the log has grown by this much…
    pub snapshot_bytes: u64,
    /// …or by so many records since the last. The log is kept in memory too, so these also bound
    /// that.
    pub snapshot_records: u64,
    /// How many records behind a snapshot are kept, for members that are only a little behind.
    pub keep_records: u64,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            segment_bytes: 2 * 1024 * 1024,
            snapshot_bytes: 4 * 1024 * 1024,
            snapshot_records: 10_000,
            keep_records: 500,
        }
    }
}
