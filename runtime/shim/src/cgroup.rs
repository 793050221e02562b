//! Control groups (cgroup v2): one for the pod, below it `shim` for this process and one per container.
//!
//! The shim writes every limit itself and hands libcontainer a group that exists already: an absent controller is then an error exactly
//! when something is asked of it, and the message names it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use podium_shim_protocol::Resources;
use podium_shim_protocol::group::{self, ControlGroup};
use thiserror::Error;

/// What pods' limits need.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Why a control group could not be used.
#[derive(Debug, Error)]
pub(crate) enum CgroupError {
    /// The path is not absolute or climbs.
    #[error("{0:?} is not a path below the cgroup2 mount")]
    Path(String),
    /// The kernel refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A limit is asked for that nothing here enforces.
    #[error("{file} is not available: the kernel has no {controller} controller here")]
    NoController { file: &'static str, controller: &'static str },
    /// The kernel does not accept the value.
    #[error("the kernel does not take {value:?} as {file}")]
    Value {
        file: &'static str,
        value: String,
        #[source]
        source: io::Error,
    },
}

/// A control group that exists.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    group: ControlGroup,
}

impl Group {
    /// Makes the pod's group and its parents, and passes on every controller that is there.
    pub(crate) fn pod(cgroup: &str) -> Result<Self, CgroupError> {
        let names = cgroup.strip_prefix('/').ok_or_else(|| CgroupError::Path(cgroup.to_owned()))?;
        let mut path = PathBuf::from(group::ROOT);
        for name in names.split('/') {
            if name.is_empty() || name == "." || name == ".." {
                return Err(CgroupError::Path(cgroup.to_owned()));
            }
            pass_controllers(&path);
            path.push(name);
            make(&path)?;
        }
        pass_controllers(&path);
        Ok(Self { group: ControlGroup::at(cgroup) })
    }

    /// Makes a group below this one.
    pub(crate) fn child(&self, name: &str) -> Result<Self, CgroupError> {
        let group = self.group.below(name);
        make(group.path())?;
        Ok(Self { group })
    }

    /// Its folder.
    pub(crate) fn path(&self) -> &Path {
        self.group.path()
    }

    /// The path as the OCI specification wants it: absolute below the mount.
    pub(crate) fn oci_path(&self) -> PathBuf {
        Path::new("/").join(self.path().strip_prefix(group::ROOT).unwrap_or(self.path()))
    }

    /// Moves the calling process here.
    pub(crate) fn enter(&self) -> Result<(), CgroupError> {
        let path = self.path().join("cgroup.procs");
        fs::write(&path, "0").map_err(|source| CgroupError::Io { action: "enter", path, source })
    }

    /// Sends SIGKILL to every process in the group and below it.
    pub(crate) fn kill(&self) -> Result<(), CgroupError> {
        let path = || self.path().to_owned();
        self.group.kill().map_err(|source| CgroupError::Io {
            action: "kill what is in",
            path: path(),
            source,
        })
    }

    /// Whether any process is left.
    pub(crate) fn is_populated(&self) -> bool {
        self.group.is_populated()
    }

    /// Removes the group; false while the kernel still lets go of its last process.
    pub(crate) fn remove(&self) -> bool {
        self.group.remove()
    }

    /// How many processes of the group the kernel killed for memory; 0 without a memory controller.
    pub(crate) fn oom_kills(&self) -> u64 {
        fs::read_to_string(self.path().join("memory.events"))
            .ok()
            .and_then(|events| {
                events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
            })
            .unwrap_or(0)
    }

    /// Sets limits. Swap is never allowed on top of memory, and a container that runs out of memory is killed as a whole.
    pub(crate) fn limit(
        &self,
        resources: &Resources,
        whole_on_oom: bool,
    ) -> Result<(), CgroupError> {
        if let Some(weight) = resources.cpu_weight {
            self.set("cpu", "cpu.weight", weight.to_string())?;
        }
        if let Some(quota) = resources.cpu_quota {
            self.set("cpu", "cpu.max", format!("{} {}", quota.quota_us, quota.period_us))?;
        }
        if let Some(max) = resources.memory_max_bytes {
            self.set("memory", "memory.max", max.to_string())?;
            self.set_if_there("memory.swap.max", "0")?;
        }
        if whole_on_oom {
            self.set_if_there("memory.oom.group", "1")?;
        }
        if let Some(max) = resources.pids_max {
            self.set("pids", "pids.max", max.to_string())?;
        }
        Ok(())
    }

    fn set(
        &self,
        controller: &'static str,
        file: &'static str,
        value: String,
    ) -> Result<(), CgroupError> {
        let path = self.path().join(file);
        if !path.exists() {
            return Err(CgroupError::NoController { file, controller });
        }
        fs::write(&path, &value).map_err(|source| CgroupError::Value { file, value, source })
    }

    fn set_if_there(&self, file: &'static str, value: &str) -> Result<(), CgroupError> {
        let path = self.path().join(file);
        if !path.exists() {
            return Ok(());
        }
        fs::write(&path, value).map_err(|source| CgroupError::Value {
            file,
            value: value.to_owned(),
            source,
        })
    }
}

fn make(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(CgroupError::Io { action: "make the control group", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Lets the groups below `path` have controllers. What is not available is met when a limit needs it.
fn pass_controllers(path: &Path) {
    for controller in CONTROLLERS {
        let _ = fs::write(path.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}
