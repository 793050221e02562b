//! Time as it is handed into decisions, and as it stands in objects.
//!
//! Pure code never reads a clock. It gets a [`Now`], and knows two clocks by it: the monotonic one, which measures
//! time-outs and cannot jump, and the wall clock, which may jump and is only shown to people and compared with what
//! objects say. Text forms follow RFC 3339 as Kubernetes narrows it: `Time` has whole seconds and `Z`, `MicroTime` has
//! exactly six digits of fraction.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

/// One reading of both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since an arbitrary origin of this process; never goes back.
    pub monotonic: Duration,
    /// The calendar time; may jump either way between two readings.
    pub wall: Timestamp,
}

impl Now {
    /// The wall clock in the form of `metav1.Time`: whole seconds, UTC.
    #[must_use]
    pub fn time(&self) -> String {
        print_time(self.wall)
    }

    /// The wall clock in the form of `metav1.MicroTime`: six digits of fraction, UTC.
    #[must_use]
    pub fn micro_time(&self) -> String {
        print_micro_time(self.wall)
    }
}

/// Prints `metav1.Time`: `2026-11-21T10:34:26Z`. The fraction is cut off, not rounded.
#[must_use]
pub fn print_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Prints `metav1.MicroTime`: `2026-11-21T10:34:26.000000Z`.
#[must_use]
pub fn print_micro_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Reads any RFC 3339 time, with whatever fraction and offset it has.
#[must_use]
pub fn parse_time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// Reads the time that stands in a field; `None` when it is absent, null or not a time.
#[must_use]
pub fn time_of(value: &Value) -> Option<Timestamp> {
    value.as_str().and_then(parse_time)
}

#[cfg(test)]
mod tests {
    use super::{parse_time, print_micro_time, print_time};

    #[test]
    fn printed_times_have_the_digits_that_clients_expect() {
        let time = parse_time("2026-11-21T12:34:26.9876543+02:00").expect("a time");
        assert_eq!(print_time(time), "2026-11-21T10:34:26Z");
        assert_eq!(print_micro_time(time), "2026-11-21T10:34:26.987654Z");
    }
}
