//! The wall clock: never earlier than the image, and corrected when a time server is heard.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use podium_init::protocol::{ClockSource, ClockStatus};
use rustix::time::{ClockId, Timespec, clock_settime};

/// Smaller differences are left: a step that nobody notices is not worth the surprise.
const TOLERATED: Duration = Duration::from_millis(100);

/// Sets the clock to the image's build time if it is earlier: a machine without a clock wakes in 1970, and nothing
/// can be valid before its software was made.
pub(crate) fn at_least(built: Duration) -> ClockStatus {
    let source =
        if now() < built && set(built) { ClockSource::BuildTime } else { ClockSource::Hardware };
    ClockStatus { source, stepped_milliseconds: 0 }
}

/// Steps the clock by what a time server said. A time before the image's build is no answer.
pub(crate) fn correct(
    server: std::net::IpAddr,
    offset_milliseconds: i64,
    built: Duration,
) -> Option<ClockStatus> {
    let offset = Duration::from_millis(offset_milliseconds.unsigned_abs());
    let wanted =
        if offset_milliseconds < 0 { now().saturating_sub(offset) } else { now() + offset };
    if wanted < built {
        return None;
    }
    if offset > TOLERATED && !set(wanted) {
        return None;
    }
    Some(ClockStatus {
        source: ClockSource::Sntp { server },
        stepped_milliseconds: offset_milliseconds,
    })
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn set(time: Duration) -> bool {
    let Ok(tv_sec) = i64::try_from(time.as_secs()) else { return false };
    clock_settime(ClockId::Realtime, Timespec { tv_sec, tv_nsec: i64::from(time.subsec_nanos()) })
        .is_ok()
}
