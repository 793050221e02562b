//! Where the files of a pod's folder are.

use std::path::{Path, PathBuf};

/// The pod's configuration.
#[must_use]
pub fn pod_config(dir: &Path) -> PathBuf {
    dir.join("pod.bin")
}

/// The shim's socket.
#[must_use]
pub fn socket(dir: &Path) -> PathBuf {
    dir.join("shim.sock")
}

/// The shim's process id in decimal, written before the socket accepts connections. The id alone proves nothing once the shim is
/// gone: ask the socket.
#[must_use]
pub fn pid_file(dir: &Path) -> PathBuf {
    dir.join("shim.pid")
}

/// What the shim complained about.
#[must_use]
pub fn shim_log(dir: &Path) -> PathBuf {
    dir.join("shim.log")
}

/// One container's folder.
#[must_use]
pub fn container(dir: &Path, id: &str) -> PathBuf {
    dir.join("containers").join(id)
}

/// One container's exit record.
#[must_use]
pub fn exit_record(dir: &Path, id: &str) -> PathBuf {
    container(dir, id).join("exit")
}
