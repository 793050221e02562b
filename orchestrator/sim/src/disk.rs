//! A disk that keeps exactly what it promised, and sometimes less than one hoped.
//!
//! Job: files of one node with the difference between *written* and *durable*. A power cut keeps what was synced; of
//! what was not, each write survives whole, in part, or not at all, independently of the others, and of the changes to
//! the directory (create, rename, remove) a prefix survives, as on a journaled filesystem. Between cuts the disk may be
//! slow or full, and a bit may flip at rest. `seam` gives it the store's `Disk` trait, where each operation takes virtual
//! time and may be the one in whose middle the power goes.
//!
//! Invariants: a rename is atomic; what was durable never changes by a power cut; an open file outlives its name.

mod content;
mod seam;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::executor::Core;
use crate::fault::{Coverage, Fault};
use content::{Change, Content};

/// The disk of one node. It outlives the node's lives; clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    node: u16,
    coverage: Coverage,
}

#[derive(Default)]
struct State {
    /// The directory as programs see it.
    names: BTreeMap<String, u64>,
    /// The directory as a power cut would leave it.
    durable_names: BTreeMap<String, u64>,
    /// Changes between the two, oldest first.
    unsynced_names: Vec<NameChange>,
    files: BTreeMap<u64, File>,
    next_file: u64,
    weather: Weather,
}

enum NameChange {
    Link(String, u64),
    Rename(String, String),
    Unlink(String),
}

#[derive(Default)]
struct File {
    /// As programs read it.
    content: Content,
    durable: Content,
    unsynced: Vec<Change>,
    handles: usize,
}

/// What is wrong with a disk now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Each operation takes up to this long on top of its own time.
    pub slowness: Duration,
    /// Nothing that makes a file longer succeeds.
    pub full: bool,
    /// One changing operation in this many loses power in its middle (0: never).
    pub cut_one_in: u64,
}

impl Weather {
    /// Trouble of one kind, drawn from the seed.
    #[must_use]
    pub fn draw(core: &Core) -> Self {
        match core.below(3) {
            0 => {
                let slowness = core.between(Duration::from_millis(20), Duration::from_millis(800));
                Self { slowness, ..Self::default() }
            }
            1 => Self { full: true, ..Self::default() },
            _ => Self { cut_one_in: 8, ..Self::default() },
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Link(name, file) => {
                names.insert(name.clone(), *file);
            }
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
        }
    }
}

impl SimDisk {
    /// An empty disk for `node`.
    #[must_use]
    pub fn new(node: u16, coverage: Coverage) -> Self {
        Self { state: Arc::default(), node, coverage }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what is wrong with the disk from now on.
    pub fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// Everything gone: a new disk was put in.
    pub fn wipe(&self) {
        *self.state() = State::default();
    }

    /// What a power cut leaves. The node's tasks must be gone.
    pub fn cut_power(&self, core: &Core) {
        let mut state = self.state();
        let pending = std::mem::take(&mut state.unsynced_names);
        let kept = usize::try_from(core.below(pending.len() as u64 + 1)).unwrap_or(0);
        if kept < pending.len() {
            self.coverage.count(Fault::LostRename);
        }
        for change in &pending[..kept] {
            change.apply(&mut state.durable_names);
        }
        state.names = state.durable_names.clone();
        for file in state.files.values_mut() {
            file.cut_power(core, &self.coverage);
        }
        state.drop_nameless();
    }

    /// Flips one bit of what is durable in a file whose name `eligible` accepts, within the first `within` bytes that are
    /// not the zeros of a reservation; false when there is none.
    pub fn flip_bit(&self, core: &Core, eligible: impl Fn(&str) -> bool) -> bool {
        let mut state = self.state();
        let candidates: Vec<u64> = state
            .durable_names
            .iter()
            .filter(|(name, id)| {
                eligible(name) && state.files.get(id).is_some_and(|file| file.durable.stored() > 0)
            })
            .map(|(_, id)| *id)
            .collect();
        let chosen = usize::try_from(core.below(candidates.len() as u64)).unwrap_or(0);
        let Some(file) = candidates.get(chosen).and_then(|id| state.files.get_mut(id)) else {
            return false;
        };
        let bit = usize::try_from(core.below(file.durable.stored() as u64 * 8)).unwrap_or(0);
        file.durable.flip(bit);
        file.content.flip(bit);
        self.coverage.count(Fault::FlippedBit);
        true
    }

    /// Names and lengths of the files, for reports.
    #[must_use]
    pub fn files(&self) -> Vec<(String, usize)> {
        let state = self.state();
        let length = |id: &u64| state.files.get(id).map_or(0, |file| file.content.length());
        state.names.iter().map(|(name, id)| (name.clone(), length(id))).collect()
    }
}

impl File {
    fn cut_power(&mut self, core: &Core, coverage: &Coverage) {
        for change in std::mem::take(&mut self.unsynced) {
            match core.below(3) {
                0 => coverage.count(Fault::LostWrite),
                1 => change.apply(&mut self.durable),
                _ => {
                    if let Some(torn) = change.tear(core) {
                        coverage.count(Fault::TornWrite);
                        torn.apply(&mut self.durable);
                    }
                }
            }
        }
        self.content.clone_from(&self.durable);
        self.handles = 0;
    }
}

impl State {
    fn drop_nameless(&mut self) {
        let mut named: Vec<u64> =
            self.names.values().chain(self.durable_names.values()).copied().collect();
        for change in &self.unsynced_names {
            if let NameChange::Link(_, file) = change {
                named.push(*file);
            }
        }
        self.files.retain(|id, file| file.handles > 0 || named.contains(id));
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    fn file(&mut self, id: u64) -> io::Result<&mut File> {
        self.files
            .get_mut(&id)
            .ok_or_else(|| io::Error::other("the file was on a disk that is gone"))
    }

    fn change_file(&mut self, id: u64, change: Change) -> io::Result<()> {
        let full = self.weather.full;
        let file = self.file(id)?;
        if full && change.end() > file.content.length() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        change.apply(&mut file.content);
        file.unsynced.push(change);
        Ok(())
    }

    fn sync_file(&mut self, id: u64) -> io::Result<()> {
        let file = self.file(id)?;
        for change in std::mem::take(&mut file.unsynced) {
            change.apply(&mut file.durable);
        }
        Ok(())
    }

    fn sync_names(&mut self) {
        for change in std::mem::take(&mut self.unsynced_names) {
            change.apply(&mut self.durable_names);
        }
        self.drop_nameless();
    }
}
