//! Asking a time server (SNTPv4, RFC 4330): 48 bytes out, 48 bytes back, one offset.
//!
//! Forty lines of format and a handful of sanity rules are less than any crate's surface. Nothing here reads a clock:
//! the caller says when the packet left and came back.

use std::time::Duration;

/// Between NTP's epoch (1900) and Unix's (1970).
const EPOCH_SECONDS: u64 = 2_208_988_800;
/// The length of a packet without extensions.
pub const PACKET_BYTES: usize = 48;
/// Where servers listen.
pub const PORT: u16 = 123;

/// An answer that is not to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SntpError {
    /// Too short, or no answer of a server.
    #[error("the packet is no answer of a time server")]
    Malformed,
    /// It does not belong to our question: forged or late.
    #[error("the answer belongs to another question")]
    Foreign,
    /// The server says that its own clock is not set, or asks to be left alone.
    #[error("the server's clock is not synchronised")]
    Unsynchronised,
}

/// A question: the packet, and the number that the answer must repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// A random number in the place of our time, which the server need not know.
    nonce: u64,
}

impl Question {
    /// A question with a random number.
    pub fn new(nonce: u64) -> Self {
        Self { nonce }
    }

    /// What to send to the server's port 123.
    pub fn packet(self) -> [u8; PACKET_BYTES] {
        let mut packet = [0; PACKET_BYTES];
        // No leap warning, version 4, mode client.
        let [first, ..] = &mut packet;
        *first = 0b00_100_011;
        packet.iter_mut().skip(40).zip(self.nonce.to_be_bytes()).for_each(|(to, from)| *to = from);
        packet
    }

    /// The server's time since 1970 at the moment when the answer arrived, `round_trip` after the question left.
    ///
    /// # Errors
    /// [`SntpError`].
    pub fn answered(self, packet: &[u8], round_trip: Duration) -> Result<Duration, SntpError> {
        let [first, stratum, ..] = packet else { return Err(SntpError::Malformed) };
        let number = |at: usize| -> Result<u64, SntpError> {
            let bytes = packet
                .get(at..at + 8)
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or(SntpError::Malformed)?;
            Ok(u64::from_be_bytes(bytes))
        };
        let (originate, receive, transmit) = (number(24)?, number(32)?, number(40)?);
        if first & 0b111 != 4 {
            return Err(SntpError::Malformed);
        }
        if originate != self.nonce {
            return Err(SntpError::Foreign);
        }
        if first >> 6 == 3 || *stratum == 0 || *stratum > 15 || transmit == 0 {
            return Err(SntpError::Unsynchronised);
        }
        // What the server took to think is no time on the wire.
        let thinking = since_epoch(transmit).saturating_sub(since_epoch(receive)).min(round_trip);
        Ok(since_epoch(transmit) + (round_trip - thinking) / 2)
    }
}

/// NTP's 32.32 seconds as a time since 1970. Counting began anew in 2036: small numbers are of that era.
fn since_epoch(timestamp: u64) -> Duration {
    let (seconds, fraction) = (timestamp >> 32, timestamp & u64::from(u32::MAX));
    let seconds = if seconds < 1 << 31 { seconds + (1 << 32) } else { seconds };
    let nanos = u32::try_from((fraction * 1_000_000_000) >> 32).unwrap_or_default();
    Duration::new(seconds.saturating_sub(EPOCH_SECONDS), nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(question: Question, receive: u64, transmit: u64) -> Vec<u8> {
        let mut packet = question.packet().to_vec();
        packet[0] = 0b00_100_100;
        packet[1] = 2;
        packet[24..32].copy_from_slice(&question.nonce.to_be_bytes());
        packet[32..40].copy_from_slice(&receive.to_be_bytes());
        packet[40..48].copy_from_slice(&transmit.to_be_bytes());
        packet
    }

    fn ntp(unix: f64) -> u64 {
        ((unix + EPOCH_SECONDS as f64) * 4_294_967_296.0) as u64
    }

    #[test]
    fn half_the_round_trip_is_added() {
        let question = Question::new(7);
        let packet = answer(question, ntp(1_700_000_000.0), ntp(1_700_000_000.1));
        let time = question.answered(&packet, Duration::from_millis(300)).expect("a good answer");
        let expected = Duration::from_millis(1_700_000_000_200);
        assert!(time.abs_diff(expected) < Duration::from_millis(1), "{time:?}");
    }

    #[test]
    fn the_year_2040_is_understood() {
        let question = Question::new(7);
        let wrapped = (2_208_988_800u64 + 2_220_000_000 - (1 << 32)) << 32;
        let time = question
            .answered(&answer(question, wrapped, wrapped), Duration::ZERO)
            .expect("a good answer");
        assert_eq!(time.as_secs(), 2_220_000_000);
    }

    #[test]
    fn a_foreign_answer_is_refused() {
        let packet = answer(Question::new(7), ntp(1.7e9), ntp(1.7e9));
        assert_eq!(Question::new(8).answered(&packet, Duration::ZERO), Err(SntpError::Foreign));
    }

    #[test]
    fn a_server_without_time_is_refused() {
        let question = Question::new(7);
        let mut packet = answer(question, ntp(1.7e9), ntp(1.7e9));
        packet[0] |= 0b1100_0000;
        assert_eq!(question.answered(&packet, Duration::ZERO), Err(SntpError::Unsynchronised));
        assert_eq!(question.answered(&packet[..47], Duration::ZERO), Err(SntpError::Malformed));
    }
}
