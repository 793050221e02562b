//! A reading of the calling node's monotonic clock.

use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

use crate::executor;

/// Monotonic time of one node. Readings of two nodes have no common origin, as on real machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SimInstant(pub(super) Duration);

impl openraft::rt::Instant for SimInstant {
    fn now() -> Self {
        executor::with(|core| {
            let now = core.now();
            Self(core.clock(core.current().node, |clock| clock.monotonic(now)))
        })
    }
}

impl Add<Duration> for SimInstant {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

impl AddAssign<Duration> for SimInstant {
    fn add_assign(&mut self, span: Duration) {
        self.0 = self.0.saturating_add(span);
    }
}

impl Sub<Duration> for SimInstant {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span))
    }
}

impl Sub for SimInstant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl SubAssign<Duration> for SimInstant {
    fn sub_assign(&mut self, span: Duration) {
        self.0 = self.0.saturating_sub(span);
    }
}
