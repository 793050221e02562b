//! The two clocks of a node: monotonic (drifts, starts anywhere, never jumps) and wall (may jump both ways).

use std::time::Duration;

use podium_types::Now;

/// 2026-01-01T00:00:00Z in seconds: where wall clocks begin when nothing is wrong with them.
const WALL_EPOCH_SECONDS: i64 = 1_767_225_600;

/// What a node reads as time, as a function of virtual time.
#[derive(Clone, Debug)]
pub struct NodeClock {
    /// Virtual instant of the boot.
    booted: Duration,
    /// Parts per million that the monotonic clock is fast (or slow).
    drift_ppm: i32,
    /// What is added to virtual time to make the wall clock, in milliseconds.
    wall_offset_ms: i64,
}

impl NodeClock {
    /// The harness's clock: virtual time itself.
    #[must_use]
    pub fn perfect() -> Self {
        Self { booted: Duration::ZERO, drift_ppm: 0, wall_offset_ms: 0 }
    }

    /// A clock of a node that boots at `booted`.
    #[must_use]
    pub fn new(booted: Duration, drift_ppm: i32, wall_offset_ms: i64) -> Self {
        Self { booted, drift_ppm: drift_ppm.clamp(-500_000, 500_000), wall_offset_ms }
    }

    /// Monotonic time of the node at virtual time `now`: since its boot, one hour in, so that nothing takes zero for the
    /// beginning of time.
    #[must_use]
    pub fn monotonic(&self, now: Duration) -> Duration {
        Duration::from_secs(3_600) + self.scale(now.saturating_sub(self.booted))
    }

    /// Virtual time that passes while the node's clock moves by `span`.
    #[must_use]
    pub fn virtual_span(&self, span: Duration) -> Duration {
        let nanos = i128::try_from(span.as_nanos()).unwrap_or(i128::MAX / 2_000_000);
        let scale = 1_000_000 + i128::from(self.drift_ppm);
        let nanos =
            nanos.saturating_mul(1_000_000).div_euclid(scale) + i128::from(self.drift_ppm != 0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn scale(&self, span: Duration) -> Duration {
        let nanos = i128::try_from(span.as_nanos()).unwrap_or(0);
        let nanos = nanos * (1_000_000 + i128::from(self.drift_ppm)) / 1_000_000;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Moves the wall clock by `milliseconds`.
    pub fn jump(&mut self, milliseconds: i64) {
        self.wall_offset_ms = self.wall_offset_ms.saturating_add(milliseconds);
    }

    /// Sets the wall clock right.
    pub fn correct(&mut self) {
        self.wall_offset_ms = 0;
    }

    /// Both clocks at virtual time `now`.
    #[must_use]
    pub fn read(&self, now: Duration) -> Now {
        let since_epoch = i64::try_from(now.as_millis()).unwrap_or(i64::MAX / 4);
        let milliseconds = WALL_EPOCH_SECONDS * 1_000 + since_epoch + self.wall_offset_ms;
        let wall =
            jiff::Timestamp::from_millisecond(milliseconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        Now { monotonic: self.monotonic(now), wall }
    }
}
