//! Delays that double: before a crashed container starts again, before an image is pulled again, before a setup step
//! is tried again.
//!
//! The rule is kubelet's: the first failure has no history and so no delay of its own kind; each further one within
//! the memory of the last doubles the delay up to a limit; a long time without failure forgets it.

use std::time::Duration;

/// The bounds of a back-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// The first delay.
    pub(super) first: Duration,
    /// The longest delay.
    pub(super) longest: Duration,
}

/// Restart of a crashed container and pull of an image: ten seconds spare a registry and a node, five minutes is as
/// long as a person will wait for a repair to be noticed. Both are what users of Kubernetes know.
pub(super) const RESTART: Bounds =
    Bounds { first: Duration::from_secs(10), longest: Duration::from_secs(300) };

/// Steps of the pod's setup and teardown: mostly waiting for something local that is about to be there.
pub(super) const SETUP: Bounds =
    Bounds { first: Duration::from_millis(500), longest: Duration::from_secs(60) };

/// The delay that applies now, if there was a failure that is not forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BackOff {
    bounds: Bounds,
    current: Option<(Duration, Duration)>,
}

impl BackOff {
    /// A back-off without history.
    #[must_use]
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, current: None }
    }

    /// A back-off whose delay was last raised `age` ago.
    #[must_use]
    pub(super) fn resume(bounds: Bounds, delay: Duration, raised_at: Duration) -> Self {
        Self { bounds, current: Some((delay.min(bounds.longest), raised_at)) }
    }

    /// Until when to wait after a failure at `failed_at`; `None` means not at all.
    #[must_use]
    pub(super) fn wait_until(&self, failed_at: Duration) -> Option<Duration> {
        let (delay, raised_at) = self.current?;
        if self.forgotten(failed_at, raised_at) {
            None
        } else {
            Some(failed_at.saturating_add(delay))
        }
    }

    /// Notes that the next attempt begins now: the delay after it is one step longer.
    pub(super) fn raise(&mut self, failed_at: Duration, now: Duration) {
        let delay = match self.current {
            Some((delay, raised_at)) if !self.forgotten(failed_at, raised_at) => {
                delay.saturating_mul(2).min(self.bounds.longest)
            }
            Some(_) | None => self.bounds.first,
        };
        self.current = Some((delay, now));
    }

    /// Forgets all failures.
    pub(super) fn reset(&mut self) {
        self.current = None;
    }

    /// The delay that applies and when it was last raised.
    #[must_use]
    pub(super) fn current(&self) -> Option<(Duration, Duration)> {
        self.current
    }

    /// A failure counts as a first one when the last was longer ago than twice the longest delay.
    fn forgotten(&self, failed_at: Duration, raised_at: Duration) -> bool {
        failed_at.saturating_sub(raised_at) > self.bounds.longest.saturating_mul(2)
    }
}

/// Prints a delay as Go prints durations of whole seconds: `10s`, `1m20s`, `5m0s`.
#[must_use]
pub(super) fn print_delay(delay: Duration) -> String {
    let seconds = delay.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::{BackOff, RESTART, print_delay};
    use std::time::Duration;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn restart_delays_are_none_then_ten_seconds_doubling_to_five_minutes() {
        let mut back_off = BackOff::new(RESTART);
        let mut now = seconds(1000);
        let mut delays = Vec::new();
        for _ in 0..8 {
            let start = back_off.wait_until(now).unwrap_or(now);
            delays.push((start - now).as_secs());
            back_off.raise(now, start);
            now = start;
        }
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_minutes_without_a_crash_forget_the_delay() {
        let mut back_off = BackOff::new(RESTART);
        back_off.raise(seconds(0), seconds(0));
        back_off.raise(seconds(0), seconds(10));
        assert_eq!(back_off.wait_until(seconds(610)), Some(seconds(630)));
        assert_eq!(back_off.wait_until(seconds(611)), None);
        back_off.raise(seconds(611), seconds(611));
        assert_eq!(back_off.wait_until(seconds(612)), Some(seconds(622)));
    }

    #[test]
    fn delays_print_as_go_durations() {
        assert_eq!(print_delay(seconds(10)), "10s");
        assert_eq!(print_delay(seconds(80)), "1m20s");
        assert_eq!(print_delay(seconds(300)), "5m0s");
    }
}
