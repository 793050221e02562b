//! The control groups of pods: delegation of controllers, and killing what a dead shim left.
//!
//! The tree is `<cgroup2>/podium/pods/<uid>/…`. The kernel lets a child use a controller only if every group above it
//! passes it on, and a group that passes controllers on must not hold processes itself; so the agent writes
//! `cgroup.subtree_control` from the root down before the first shim starts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// What pods' groups use. A kernel without one of them gives no limits of that kind, which is said once.
const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "io"];

/// Why a control group could not be used.
#[derive(Debug, Error)]
#[error("cannot {action} {}", path.display())]
pub(crate) struct CgroupError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Makes the parent of all pods' groups and passes the controllers down to it; returns those the kernel does not have.
pub(crate) fn delegate(root: &Path, parent: &str) -> Result<Vec<&'static str>, CgroupError> {
    let parent = Path::new(parent);
    let mut group = root.to_owned();
    let offered = read(&group.join("cgroup.controllers"))?;
    let (has, lacks): (Vec<_>, Vec<_>) = CONTROLLERS
        .into_iter()
        .partition(|name| offered.split_whitespace().any(|offered| offered == *name));
    let wanted: Vec<_> = has.iter().map(|name| format!("+{name}")).collect();
    let wanted = wanted.join(" ");
    write(&group.join("cgroup.subtree_control"), &wanted)?;
    for part in parent.components().filter(|part| matches!(part, std::path::Component::Normal(_))) {
        group.push(part);
        fs::create_dir_all(&group).map_err(error("make", &group))?;
        write(&group.join("cgroup.subtree_control"), &wanted)?;
    }
    Ok(lacks)
}

/// Kills every process in a group and those below it. A group that is not there is empty.
pub(crate) fn kill(group: &Path) -> Result<(), CgroupError> {
    match fs::write(group.join("cgroup.kill"), "1") {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(error("kill the processes of", group)),
    }
}

/// Whether any process is left in a group or below it.
pub(crate) fn is_populated(group: &Path) -> bool {
    fs::read_to_string(group.join("cgroup.events"))
        .is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
}

/// Removes an empty group and those below it.
pub(crate) fn remove(group: &Path) -> Result<(), CgroupError> {
    let children = match fs::read_dir(group) {
        Ok(children) => children,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(error("list", group)(cause)),
    };
    for child in children {
        let child = child.map_err(error("list", group))?;
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&child.path())?;
        }
    }
    match fs::remove_dir(group) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(error("remove", group)),
    }
}

fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(error("read", path))
}

fn write(path: &Path, text: &str) -> Result<(), CgroupError> {
    fs::write(path, text).map_err(error("write", path))
}

fn error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.to_owned();
    move |source| CgroupError { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::{delegate, remove};
    use std::fs;

    #[test]
    fn controllers_are_passed_down_to_the_pods_parent() {
        let root = tempfile::tempdir().expect("a folder");
        fs::write(root.path().join("cgroup.controllers"), "cpuset cpu io memory\n")
            .expect("a file");
        let lacks = delegate(root.path(), "/podium/pods").expect("delegation");
        assert_eq!(lacks, ["pids"]);
        for group in ["", "podium", "podium/pods"] {
            let written =
                fs::read_to_string(root.path().join(group).join("cgroup.subtree_control"))
                    .expect("written");
            assert_eq!(written, "+cpu +memory +io", "{group}");
        }
    }

    #[test]
    fn removal_takes_the_groups_below_too_and_tolerates_absence() {
        let root = tempfile::tempdir().expect("a folder");
        let pod = root.path().join("uid");
        fs::create_dir_all(pod.join("redis.0")).expect("folders");
        remove(&pod).expect("removal");
        assert!(!pod.exists());
        remove(&pod).expect("removal again");
    }
}
