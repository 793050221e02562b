//! Time, randomness and who was heard, as the pipeline gets them. The simulator has its own of the first two.

use std::time::{Instant, SystemTime};

use jiff::Timestamp;
use podium_types::Now;

/// A source of both clocks.
pub trait Clock: Send + Sync {
    /// One reading.
    fn now(&self) -> Now;
}

/// A source of numbers that nobody can guess and that never repeat: uids, name suffixes, transaction ids.
pub trait Ids: Send + Sync {
    /// 128 random bits.
    fn random(&self) -> u128;
}

/// When nodes were heard. It is in no log, so every server knows its own.
pub trait Beats: Send + Sync {
    /// When this server heard the node of this name last, if it has since it began.
    fn last(&self, node: &str) -> Option<Timestamp>;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let wall = Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH);
        Now { monotonic: self.origin.elapsed(), wall }
    }
}

/// The kernel's randomness.
#[derive(Debug, Default)]
pub struct SystemIds;

impl Ids for SystemIds {
    fn random(&self) -> u128 {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)
            .expect("the kernel gives random numbers at any time after boot");
        u128::from_le_bytes(bytes)
    }
}

/// A version 4 UUID of 128 random bits.
pub(crate) fn uid(random: u128) -> String {
    const VERSION: u128 = 0xf << 76;
    const VARIANT: u128 = 0b11 << 62;
    let bits = (random & !VERSION & !VARIANT) | (0x4 << 76) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The five characters that `generateName` gets: no vowels, so that they spell nothing.
pub(crate) fn suffix(random: u128) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let radix = ALPHABET.len() as u128;
    let mut rest = random;
    (0..5)
        .map(|_| {
            let digit = (rest % radix) as usize;
            rest /= radix;
            char::from(ALPHABET[digit])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{suffix, uid};

    #[test]
    fn uids_are_version_4_uuids() {
        assert_eq!(uid(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn suffixes_have_five_characters_without_vowels() {
        for random in [0, 1, 12_345_678_901_234_567_890, u128::MAX] {
            let suffix = suffix(random);
            assert_eq!(suffix.len(), 5);
            assert!(suffix.chars().all(|c| "bcdfghjklmnpqrstvwxz2456789".contains(c)), "{suffix}");
        }
    }
}
