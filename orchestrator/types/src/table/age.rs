//! Durations for people, as kubectl writes them: two units at most, the finer one only while it matters.

use std::time::Duration;

use jiff::Timestamp;

/// Writes a duration: `45s`, `3m20s`, `75m`, `5h10m`, `30h`, `4d2h`, `400d`, `3y10d`.
#[must_use]
pub fn age(duration: Duration) -> String {
    seconds_in_words(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX))
}

/// The time from one moment to another. A moment slightly ahead (clocks differ) is no time ago.
pub(super) fn between(from: Timestamp, to: Timestamp) -> String {
    let milliseconds = to.as_millisecond() - from.as_millisecond();
    if milliseconds < -1999 {
        return "<invalid>".to_owned();
    }
    seconds_in_words((milliseconds / 1000).max(0))
}

fn seconds_in_words(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        two(minutes, 'm', seconds % 60, 's')
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        two(hours, 'h', minutes % 60, 'm')
    } else if hours < 48 {
        format!("{hours}h")
    } else if days < 8 {
        two(days, 'd', hours % 24, 'h')
    } else if days < 730 {
        format!("{days}d")
    } else if days < 2920 {
        two(days / 365, 'y', days % 365, 'd')
    } else {
        format!("{}y", days / 365)
    }
}

fn two(large: i64, large_unit: char, small: i64, small_unit: char) -> String {
    if small == 0 {
        format!("{large}{large_unit}")
    } else {
        format!("{large}{large_unit}{small}{small_unit}")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::{SignedDuration, Timestamp};

    use super::{age, between};

    #[test]
    fn ages_have_the_form_of_kubectl() {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 3600;
        const DAY: u64 = 86_400;
        let cases = [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (10 * MINUTE - 1, "9m59s"),
            (10 * MINUTE, "10m"),
            (179 * MINUTE, "179m"),
            (180 * MINUTE, "3h"),
            (190 * MINUTE, "3h10m"),
            (8 * HOUR, "8h"),
            (47 * HOUR, "47h"),
            (48 * HOUR, "2d"),
            (50 * HOUR, "2d2h"),
            (8 * DAY, "8d"),
            (729 * DAY, "729d"),
            (730 * DAY, "2y"),
            (740 * DAY, "2y10d"),
            (2920 * DAY, "8y"),
        ];
        for (seconds, text) in cases {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_moment_ahead_is_no_age_or_none() {
        let now = Timestamp::UNIX_EPOCH;
        let ahead = |milliseconds| {
            now.checked_add(SignedDuration::from_millis(milliseconds)).expect("in range")
        };
        assert_eq!(between(ahead(1500), now), "0s");
        assert_eq!(between(ahead(5000), now), "<invalid>");
    }
}
