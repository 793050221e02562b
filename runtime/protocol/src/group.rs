//! A pod's control group, for whoever has to end it: the shim for its containers, the agent for a pod whose shim is dead.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the kernel shows control groups.
pub const ROOT: &str = "/sys/fs/cgroup";

/// A control group (cgroup v2), which may or may not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlGroup {
    path: PathBuf,
}

impl ControlGroup {
    /// The group at `cgroup`, absolute below the cgroup2 mount, as in [`crate::PodConfig::cgroup`].
    #[must_use]
    pub fn at(cgroup: &str) -> Self {
        Self { path: Path::new(ROOT).join(cgroup.trim_start_matches('/')) }
    }

    /// The group `name` below this one.
    #[must_use]
    pub fn below(&self, name: &str) -> Self {
        Self { path: self.path.join(name) }
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sends SIGKILL to every process in the group and below it, at once and without a race. A group that is gone counts as killed.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn kill(&self) -> io::Result<()> {
        match fs::write(self.path.join("cgroup.kill"), "1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Whether any process is left in the group or below it. A group that is gone has none.
    #[must_use]
    pub fn is_populated(&self) -> bool {
        fs::read_to_string(self.path.join("cgroup.events"))
            .is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
    }

    /// Removes the group and every group below it. True once it is gone; false while processes are in it, or the kernel still lets go of
    /// the last one: ask again.
    #[must_use]
    pub fn remove(&self) -> bool {
        remove_tree(&self.path)
    }
}

fn remove_tree(path: &Path) -> bool {
    if let Ok(entries) = fs::read_dir(path) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_tree(&entry.path());
            }
        }
    }
    match fs::remove_dir(path) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}
