//! When a certificate is renewed. Pure.
//!
//! It is decided by the end that the certificate names and a clock that may be wrong, as may the clock have been by which the
//! end was set. Renewing too often only costs a signature, renewing too late locks a client out; so whatever cannot be by
//! right clocks is renewed.
//!
//! ```text
//!   now ─►  | more than life + slack left: a clock is wrong | fine | a third of its life left: due ... over |
//! ```
//!
//! The slack lets a renewer's clock be behind the issuer's: by less than it, the renewal comes while a sixth of the life is
//! left, and by more, at once and again and again.

use std::time::Duration;

/// After so long another is worth asking for, when the last one looked wrong at once: the issuer's clock or one's own has to
/// be set, or another issuer asked, and until then nothing gets better.
const AGAIN: Duration = Duration::from_secs(600);

/// The rule for one sort of certificate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Renewal {
    life: time::Duration,
}

impl Renewal {
    /// For certificates that are issued for so long.
    pub(crate) fn of(life: time::Duration) -> Self {
        Self { life }
    }

    /// Whether it is time for another than the one that is valid until then.
    pub(crate) fn is_due(self, until: time::OffsetDateTime, now: time::OffsetDateTime) -> bool {
        let left = until - now;
        left < self.life / 3 || left > self.life + self.life / 6
    }

    /// The same for one that somebody else issued; `age`: how long ago on the monotonic clock, if it was since the start.
    pub(crate) fn is_due_of_another(
        self,
        until: time::OffsetDateTime,
        now: time::OffsetDateTime,
        age: Option<Duration>,
    ) -> bool {
        self.is_due(until, now) && age.is_none_or(|age| age >= AGAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::OffsetDateTime;

    const DAY: time::Duration = time::Duration::DAY;
    const RULE: Renewal = Renewal { life: time::Duration::days(30) };

    #[test]
    fn a_certificate_is_renewed_when_a_third_is_left_or_a_clock_was_wrong() {
        let issued = OffsetDateTime::UNIX_EPOCH + DAY * 20_000;
        let until = issued + DAY * 30;
        for (day, due) in [(0, false), (19, false), (21, true), (31, true), (9_000, true)] {
            assert_eq!(RULE.is_due(until, issued + DAY * day), due, "{day}");
        }
        for (behind, due) in [(0, false), (4, false), (6, true), (20_000, true)] {
            assert_eq!(RULE.is_due(until, issued - DAY * behind), due, "{behind} behind");
        }
    }

    /// Lives with a certificate for as long as `days`, looking twice a day; gives how often it was renewed, and whether it was
    /// ever over by right clocks.
    fn live(days: i32, own: time::Duration, issuer: time::Duration) -> (u32, bool) {
        let start = OffsetDateTime::UNIX_EPOCH + DAY * 20_000;
        let (mut renewed, mut over) = (0, false);
        let mut until = start + issuer + DAY * 30;
        for half in 0..days * 2 {
            let now = start + DAY * half / 2;
            if RULE.is_due(until, now + own) {
                renewed += 1;
                until = now + issuer + DAY * 30;
            }
            over |= until < now;
        }
        (renewed, over)
    }

    #[test]
    fn no_clock_of_the_renewer_lets_a_certificate_end() {
        for days in [-20_000, -400, -30, -6, -5, -1, 0, 1, 5, 11, 30, 400, 20_000] {
            let (renewed, over) = live(365, DAY * days, time::Duration::ZERO);
            assert!(!over && renewed >= 12, "{days}: {renewed}");
        }
        assert!(live(365, time::Duration::ZERO, time::Duration::ZERO).0 <= 20);
    }

    #[test]
    fn an_issuer_that_is_ahead_makes_none_that_end() {
        for days in [1, 4, 30, 400] {
            assert!(!live(365, time::Duration::ZERO, DAY * days).1, "{days}");
        }
    }

    #[test]
    fn what_looks_wrong_at_once_is_not_asked_for_again_at_once() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let until = now + DAY * 20_000;
        let due =
            |age: Option<u64>| RULE.is_due_of_another(until, now, age.map(Duration::from_secs));
        assert!(due(None) && due(Some(600)));
        assert!(!due(Some(0)) && !due(Some(599)));
        assert!(!RULE.is_due_of_another(now + DAY * 30, now, None));
    }
}
