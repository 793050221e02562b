//! What goes wrong between machines, said once in a while and not a thousand times.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The same complaint is logged again after so long.
const REPEAT: Duration = Duration::from_secs(60);
/// A complaint that was not repeated for so long is over.
const LAST: Duration = Duration::from_secs(120);
/// Whoever invents more is not worth the memory.
const KINDS_MAX: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Complaints(Mutex<BTreeMap<String, Times>>);

#[derive(Debug, Clone, Copy)]
struct Times {
    logged: Instant,
    seen: Instant,
}

impl Complaints {
    /// Takes note, and logs if it is news, and now and then as long as it goes on.
    pub(crate) fn note(&self, text: String) {
        self.take(text, Some(REPEAT));
    }

    /// The same for what may well be as it should: it is logged once.
    pub(crate) fn note_once(&self, text: String) {
        self.take(text, None);
    }

    fn take(&self, text: String, repeat: Option<Duration>) {
        let now = Instant::now();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, times| now.duration_since(times.seen) < LAST);
        if let Some(times) = known.get_mut(&text) {
            times.seen = now;
            if repeat.is_none_or(|repeat| now.duration_since(times.logged) < repeat) {
                return;
            }
            times.logged = now;
        } else if known.len() < KINDS_MAX {
            known.insert(text.clone(), Times { logged: now, seen: now });
        } else {
            return;
        }
        drop(known);
        tracing::warn!("{text}");
    }

    /// The last one that still matters.
    pub(crate) fn last(&self) -> Option<String> {
        let now = Instant::now();
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let live = known.iter().filter(|(_, times)| now.duration_since(times.seen) < LAST);
        live.max_by_key(|(_, times)| times.seen).map(|(text, _)| text.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_bounded_and_the_last_is_known() {
        let complaints = Complaints::default();
        assert_eq!(complaints.last(), None);
        for number in 0..1000 {
            complaints.note(format!("n{number}: proves another token"));
        }
        assert_eq!(complaints.0.lock().expect("it").len(), KINDS_MAX);
        complaints.note("n5: proves another token".to_owned());
        assert_eq!(complaints.last().as_deref(), Some("n5: proves another token"));
    }
}
