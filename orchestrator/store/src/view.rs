//! A state of the store at one revision: immutable, cheap to take, cheap to keep.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;

use crate::record::{Record, Revision};

pub(crate) type Records = OrdMap<Arc<str>, Arc<Record>>;

/// All records at one revision. Cloning shares everything.
#[derive(Clone, Default)]
pub struct View {
    pub(crate) revision: Revision,
    pub(crate) records: Records,
}

impl View {
    /// The revision this is the state of.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What the key holds.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Arc<Record>> {
        self.records.get(key)
    }

    /// All records whose key starts with `prefix`, in the order of their keys.
    pub fn range<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Arc<Record>> + 'a {
        self.bounded(prefix, Bound::Included(prefix))
    }

    /// Like [`View::range`], only what comes after the key `start_after`. This is how a page
    /// goes on after the last.
    pub fn range_after<'a>(
        &'a self,
        prefix: &'a str,
        start_after: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Record>> + 'a {
        let start = if start_after < prefix {
            Bound::Included(prefix)
        } else {
            Bound::Excluded(start_after)
        };
        self.bounded(prefix, start)
    }

    fn bounded<'a>(
        &'a self,
        prefix: &'a str,
        start: Bound<&'a str>,
    ) -> impl Iterator<Item = &'a Arc<Record>> + 'a {
        self.records
            .range::<_, str>((start, Bound::Unbounded))
            .map(|(_, record)| record)
            .take_while(move |record| record.key.starts_with(prefix))
    }
}

impl fmt::Debug for View {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "View({} keys at {})", self.len(), self.revision)
    }
}
