//! Addresses: whom to try where, and when again.
//!
//! They come from the config (kept for ever), from announcements, from other machines' hellos, from whoever connected, and
//! from the last run. None is believed before its key was seen. The book is bounded: the address that has not worked for
//! the longest makes room.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use podium_control::forming::Fingerprint;

/// Machines times addresses, with room; whoever floods it pushes out only what does not work.
const ADDRESSES_MAX: usize = 256;
/// How many addresses of one machine are tried and told.
pub(crate) const PER_MACHINE_MAX: usize = 8;

/// One address.
#[derive(Clone, Debug)]
struct Entry {
    /// Stands in the config.
    listed: bool,
    /// The key that was seen there last, or that somebody says is there.
    key: Option<Fingerprint>,
    /// When that key was seen or told, on the monotonic clock.
    at: Duration,
    /// Somebody is trying it, or speaks through it.
    busy: bool,
    /// Not before.
    next: Duration,
    failures: u32,
}

/// All addresses.
#[derive(Debug)]
pub(crate) struct Book {
    me: Fingerprint,
    retry: (Duration, Duration),
    entries: BTreeMap<SocketAddr, Entry>,
}

impl Book {
    pub(crate) fn new(me: Fingerprint, retry: (Duration, Duration)) -> Self {
        Self { me, retry, entries: BTreeMap::new() }
    }

    /// Takes an address; `true` if it is new, or is somebody else's now.
    pub(crate) fn learn(
        &mut self,
        address: SocketAddr,
        key: Option<Fingerprint>,
        listed: bool,
        now: Duration,
    ) -> bool {
        if key == Some(self.me) && !listed || address.port() == 0 || address.ip().is_unspecified() {
            return false;
        }
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.listed |= listed;
            let news = key.is_some() && entry.key != key;
            if news && !entry.busy {
                (entry.key, entry.failures, entry.next) = (key, 0, now);
            }
            if key.is_some() && entry.key == key {
                entry.at = now;
            }
            return news;
        }
        if self.entries.len() >= ADDRESSES_MAX && !self.forget_one() {
            return false;
        }
        let entry = Entry { listed, key, at: now, busy: false, next: now, failures: 0 };
        self.entries.insert(address, entry);
        true
    }

    /// The worst address that may go.
    fn forget_one(&mut self) -> bool {
        let may_go = self.entries.iter().filter(|(_, entry)| !entry.listed && !entry.busy);
        let worst = may_go
            .max_by_key(|(_, entry)| (entry.failures, std::cmp::Reverse(entry.at)))
            .map(|(address, _)| *address);
        worst.is_some_and(|address| self.entries.remove(&address).is_some())
    }

    /// The addresses to try now; each is busy until [`Book::done`]. Machines for which `has` holds are spoken to already.
    pub(crate) fn due(
        &mut self,
        now: Duration,
        has: impl Fn(&Fingerprint) -> bool,
    ) -> Vec<SocketAddr> {
        let me = self.me;
        let due = self.entries.iter_mut().filter(|(_, entry)| {
            let known = entry.key.is_some_and(|key| key == me || has(&key));
            !entry.busy && entry.next <= now && !known
        });
        due.map(|(address, entry)| {
            entry.busy = true;
            *address
        })
        .collect()
    }

    /// When the next address is due.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.entries.values().filter(|entry| !entry.busy).map(|entry| entry.next).min()
    }

    /// Whose address it is.
    pub(crate) fn found(&mut self, address: SocketAddr, key: Fingerprint, now: Duration) {
        if let Some(entry) = self.entries.get_mut(&address) {
            (entry.key, entry.at, entry.failures) = (Some(key), now, 0);
        }
    }

    /// An attempt or a session is over; `wait` at least so long before the next.
    pub(crate) fn done(
        &mut self,
        address: SocketAddr,
        worked: bool,
        wait: Duration,
        now: Duration,
    ) {
        let (least, most) = self.retry;
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.busy = false;
            entry.failures = if worked { 0 } else { entry.failures.saturating_add(1) };
            let doubled = least.saturating_mul(1 << entry.failures.min(16)).min(most);
            entry.next = now + doubled.max(wait);
        }
    }

    /// Where a machine may be reached, the best first.
    pub(crate) fn of(&self, key: &Fingerprint) -> Vec<SocketAddr> {
        let mut known: Vec<_> =
            self.entries.iter().filter(|(_, entry)| entry.key.as_ref() == Some(key)).collect();
        known.sort_by_key(|(_, entry)| (!entry.busy, entry.failures, std::cmp::Reverse(entry.at)));
        known.into_iter().map(|(address, _)| *address).take(PER_MACHINE_MAX).collect()
    }

    /// Every machine and where it was seen: for others, and for the next run.
    pub(crate) fn known(&self) -> BTreeMap<Fingerprint, Vec<SocketAddr>> {
        let mut known: BTreeMap<Fingerprint, Vec<SocketAddr>> = BTreeMap::new();
        for (address, entry) in &self.entries {
            if let Some(key) = entry.key.filter(|key| *key != self.me && entry.failures < 3) {
                let addresses = known.entry(key).or_default();
                if addresses.len() < PER_MACHINE_MAX {
                    addresses.push(*address);
                }
            }
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

    fn address(number: u16) -> SocketAddr {
        SocketAddr::from(([10, 77, (number >> 8) as u8, number as u8], 6444))
    }

    fn key(byte: u8) -> Fingerprint {
        Fingerprint([byte; 32])
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn an_address_that_fails_is_tried_less_and_less_often() {
        let mut book = Book::new(key(0), RETRY);
        assert!(book.learn(address(1), None, false, seconds(0)));
        let mut now = seconds(0);
        let mut tries = 0;
        while now < seconds(60) {
            for due in book.due(now, |_| false) {
                tries += 1;
                book.done(due, false, Duration::ZERO, now);
            }
            now += Duration::from_millis(50);
        }
        assert!((12..30).contains(&tries), "{tries}");
    }

    #[test]
    fn a_machine_that_is_spoken_to_is_not_tried_elsewhere_and_oneself_never() {
        let mut book = Book::new(key(0), RETRY);
        book.learn(address(1), Some(key(1)), false, seconds(0));
        book.learn(address(2), Some(key(1)), false, seconds(0));
        book.learn(address(3), None, true, seconds(0));
        assert_eq!(book.due(seconds(1), |it| *it == key(1)), [address(3)]);
        book.found(address(3), key(0), seconds(1));
        book.done(address(3), true, Duration::ZERO, seconds(1));
        assert_eq!(book.due(seconds(9), |_| false), [address(1), address(2)]);
        assert!(!book.known().contains_key(&key(0)));
    }

    #[test]
    fn an_address_that_changes_hands_is_tried_at_once() {
        let mut book = Book::new(key(0), RETRY);
        book.learn(address(1), Some(key(1)), false, seconds(0));
        for _ in 0..9 {
            book.due(seconds(90), |_| false);
            book.done(address(1), false, seconds(100), seconds(90));
        }
        assert!(book.due(seconds(91), |_| false).is_empty());
        assert!(book.learn(address(1), Some(key(2)), false, seconds(91)));
        assert_eq!(book.due(seconds(91), |_| false), [address(1)]);
        assert_eq!(book.of(&key(2)), [address(1)]);
        assert!(book.of(&key(1)).is_empty());
    }

    #[test]
    fn a_flood_of_addresses_pushes_out_neither_the_listed_nor_those_in_use() {
        let mut book = Book::new(key(0), RETRY);
        book.learn(address(1), None, true, seconds(0));
        book.learn(address(2), Some(key(2)), false, seconds(0));
        assert_eq!(book.due(seconds(0), |_| false).len(), 2);
        for number in 3..2000 {
            book.learn(address(number), None, false, seconds(1));
        }
        assert_eq!(book.entries.len(), ADDRESSES_MAX);
        assert!(book.entries.contains_key(&address(1)) && book.entries.contains_key(&address(2)));
    }
}
