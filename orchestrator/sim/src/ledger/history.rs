//! The canonical history: what each revision changed, and what each key held at each revision.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::{Violation, shown};

/// One change of one key, as a watcher delivers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The key.
    pub key: Arc<str>,
    /// What it holds now; `None` when it was removed.
    pub value: Option<Bytes>,
}

/// What a key held at some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) value: Bytes,
    pub(crate) created: u64,
    pub(crate) modified: u64,
    pub(crate) version: u64,
}

/// What happened, revision by revision.
#[derive(Default)]
pub struct History {
    revisions: Vec<Vec<Fact>>,
    keys: BTreeMap<Arc<str>, BTreeMap<u64, Option<Known>>>,
    /// Where each unique value was put; values are unique to a transaction.
    puts: BTreeMap<Bytes, u64>,
    /// Told by a watcher that began behind the end, from a snapshot: they count once what lies between is known.
    early: BTreeMap<u64, (String, Vec<Fact>)>,
}

impl History {
    /// The last revision that is established.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.revisions.len() as u64
    }

    /// What a revision changed, in order.
    #[must_use]
    pub fn changes(&self, revision: u64) -> &[Fact] {
        let index = usize::try_from(revision).unwrap_or(usize::MAX).wrapping_sub(1);
        self.revisions.get(index).map_or(&[], Vec::as_slice)
    }

    pub(super) fn deliver(
        &mut self,
        who: &str,
        revision: u64,
        facts: Vec<Fact>,
    ) -> Result<(), Violation> {
        if revision <= self.end() {
            let known = self.changes(revision);
            if known == facts {
                return Ok(());
            }
            return Err(Violation::Contradiction {
                revision,
                who: who.to_owned(),
                claimed: describe(&facts),
                known: describe(known),
            });
        }
        if revision != self.end() + 1 {
            self.early.entry(revision).or_insert_with(|| (who.to_owned(), facts));
            return Ok(());
        }
        let mut verdict = self.establish(revision, facts);
        while let Some((_, facts)) = self.early.remove(&(self.end() + 1)) {
            verdict = verdict.and(self.establish(self.end() + 1, facts));
        }
        verdict
    }

    fn establish(&mut self, revision: u64, facts: Vec<Fact>) -> Result<(), Violation> {
        let mut verdict = Ok(());
        for fact in &facts {
            if let Some(value) = &fact.value
                && let Some(first) = self.puts.insert(value.clone(), revision)
                && first != revision
                && is_unique(value)
            {
                verdict = Err(Violation::Repeated { tag: shown(value), first, second: revision });
            }
            let before = self.at(&fact.key, revision - 1).cloned();
            let known = fact.value.clone().map(|value| match before {
                Some(before) => Known {
                    value,
                    created: before.created,
                    modified: revision,
                    version: before.version + 1,
                },
                None => Known { value, created: revision, modified: revision, version: 1 },
            });
            self.keys.entry(fact.key.clone()).or_default().insert(revision, known);
        }
        self.revisions.push(facts);
        verdict
    }

    /// What `key` held at `revision`.
    pub(crate) fn at(&self, key: &str, revision: u64) -> Option<&Known> {
        as_of(self.keys.get(key)?, revision)
    }

    /// The revisions in `from..=to` at which `key` may have changed, plus `from` itself.
    pub(crate) fn moments(&self, key: &str, from: u64, to: u64) -> Vec<u64> {
        let mut moments = vec![from];
        if let Some(versions) = self.keys.get(key) {
            moments.extend(
                versions
                    .range((Bound::Excluded(from), Bound::Included(to.max(from))))
                    .map(|(at, _)| *at),
            );
        }
        moments
    }

    /// Every key that held something at `revision`, in order, with what it held.
    pub(crate) fn state(&self, revision: u64) -> impl Iterator<Item = (&Arc<str>, &Known)> {
        self.keys
            .iter()
            .filter_map(move |(key, versions)| as_of(versions, revision).map(|known| (key, known)))
    }
}

fn as_of(versions: &BTreeMap<u64, Option<Known>>, revision: u64) -> Option<&Known> {
    versions
        .range((Bound::Unbounded, Bound::Included(revision)))
        .next_back()
        .and_then(|(_, known)| known.as_ref())
}

/// Values that the store's workload makes name their transaction and are put once; objects of the API may repeat.
fn is_unique(value: &Bytes) -> bool {
    value.starts_with(b"#")
}

pub(super) fn describe(facts: &[Fact]) -> String {
    let parts: Vec<String> = facts
        .iter()
        .map(|fact| match &fact.value {
            Some(value) => format!("{}={}", fact.key, shown(value)),
            None => format!("{} removed", fact.key),
        })
        .collect();
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
}
