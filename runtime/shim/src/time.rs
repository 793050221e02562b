//! The wall clock, and how CRI logs write it.

use podium_shim_protocol::WallTime;
use rustix::time::{ClockId, clock_gettime};

/// The time now.
pub(crate) fn now() -> WallTime {
    let now = clock_gettime(ClockId::Realtime);
    // tv_nsec is below a second, so it fits.
    WallTime { seconds: now.tv_sec, nanoseconds: u32::try_from(now.tv_nsec).unwrap_or(0) }
}

/// Appends RFC 3339 in UTC with nine decimals, `2016-10-06T00:17:09.669794202Z`. The fixed width lets a reader compare stamps as text.
pub(crate) fn append_rfc3339(out: &mut Vec<u8>, time: WallTime) {
    use std::io::Write as _;
    let days = time.seconds.div_euclid(86_400);
    let of_day = time.seconds.rem_euclid(86_400);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    // Writing to a Vec cannot fail.
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z",
        time.nanoseconds
    );
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar. Years are counted from March, so that
/// the leap day is the last of its year, in eras of 400 years, which all have 146,097 days.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468; // days from 0000-03-01 to 1970-01-01
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153; // 0 is March
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year_of_era + era * 400 + carry, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seconds: i64, nanoseconds: u32) -> String {
        let mut out = Vec::new();
        append_rfc3339(&mut out, WallTime { seconds, nanoseconds });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn stamps_are_the_calendar_s() {
        assert_eq!(text(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(text(951_782_399, 5), "2000-02-28T23:59:59.000000005Z");
        assert_eq!(text(951_782_400, 0), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(text(1_795_257_278, 999_999_999), "2026-11-21T10:34:38.999999999Z");
        assert_eq!(text(-1, 0), "1969-12-31T23:59:59.000000000Z");
        assert_eq!(text(4_107_542_400, 0), "2100-03-01T00:00:00.000000000Z");
    }
}
