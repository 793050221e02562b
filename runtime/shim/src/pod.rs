//! What the shim makes for the pod as a whole before it serves: namespaces, loopback, host name, sysctls, shared memory, control group.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use podium_shim_protocol::record::RecordError;
use podium_shim_protocol::{PodConfig, paths, record};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use thiserror::Error;

use crate::cgroup::{CgroupError, Group};
use crate::loopback;

/// The usual size of a pod's `/dev/shm`, Docker's since ever.
const SHM_BYTES_DEFAULT: u64 = 64 << 20;

/// Lets containers bind low ports and send pings without capabilities, as containerd does for pods with a network of their own.
const NETWORK_SYSCTLS: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];

/// Why the pod could not be set up.
#[derive(Debug, Error)]
pub enum SetUpError {
    /// The pod's configuration cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The agent has not written it.
    #[error("{} does not exist", .0.display())]
    NoConfig(PathBuf),
    /// The kernel refused.
    #[error("cannot {action}")]
    Io {
        /// What was being done.
        action: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A control group could not be made or limited.
    #[error("cannot prepare the pod's control group: {0}")]
    Cgroup(String),
    /// A sysctl that is not the pod's alone.
    #[error("sysctl {0:?} is not allowed: it is not the pod's own")]
    Sysctl(String),
}

impl From<CgroupError> for SetUpError {
    fn from(error: CgroupError) -> Self {
        Self::Cgroup(crate::failure::chain(&error))
    }
}

/// The pod, set up.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) dir: PathBuf,
    pub(crate) config: PodConfig,
    pub(crate) group: Group,
    /// What containers get as `/dev/shm`.
    pub(crate) shm: PathBuf,
}

/// Sets the pod up in this process, which must be single-threaded.
pub(crate) fn set_up(dir: &Path) -> Result<Pod, SetUpError> {
    let path = paths::pod_config(dir);
    let config: PodConfig = record::read(&path)?.ok_or(SetUpError::NoConfig(path))?;
    let group = Group::pod(&config.cgroup)?;
    group.limit(&config.resources, false)?;
    group.child("shim")?.enter()?;
    if let Some(adjustment) = config.resources.oom_score_adj {
        set_oom_score(adjustment);
    }
    enter_namespaces(&config)?;
    if !config.host_network {
        loopback::bring_up().map_err(failed("bring the loopback link up"))?;
        if !config.hostname.is_empty() {
            nix::unistd::sethostname(&config.hostname)
                .map_err(|error| failed("set the host name")(error.into()))?;
        }
    }
    set_sysctls(&config)?;
    let shm = share_memory(dir, &config)?;
    Ok(Pod { dir: dir.to_owned(), config, group, shm })
}

fn failed(action: impl Into<String>) -> impl FnOnce(io::Error) -> SetUpError {
    let action = action.into();
    move |source| SetUpError::Io { action, source }
}

/// How likely the kernel is to kill this process for memory. Only a wish: lowering it needs a capability that tests lack.
pub(crate) fn set_oom_score(adjustment: i32) {
    let _ = fs::write("/proc/self/oom_score_adj", adjustment.to_string());
}

fn enter_namespaces(config: &PodConfig) -> Result<(), SetUpError> {
    let mut flags = CloneFlags::empty();
    if !config.host_mounts {
        flags |= CloneFlags::CLONE_NEWNS;
    }
    if !config.host_network {
        flags |= CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS;
    }
    if !config.host_ipc {
        flags |= CloneFlags::CLONE_NEWIPC;
    }
    unshare(flags).map_err(|error| failed("make the pod's namespaces")(error.into()))?;
    if !config.host_mounts {
        // Volumes that the agent mounts later arrive; what the shim mounts stays here.
        let receive = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change("/", receive)
            .map_err(|error| failed("separate the pod's mounts")(error.into()))?;
    }
    Ok(())
}

fn set_sysctls(config: &PodConfig) -> Result<(), SetUpError> {
    let own: &[(&str, &str)] = if config.host_network { &[] } else { &NETWORK_SYSCTLS };
    for (name, value) in own {
        // Absent where the kernel has no IPv4.
        let _ = fs::write(sysctl_path(name), value);
    }
    for (name, value) in &config.sysctls {
        if !is_own_sysctl(config, name) {
            return Err(SetUpError::Sysctl(name.clone()));
        }
        fs::write(sysctl_path(name), value).map_err(failed(format!("set sysctl {name}")))?;
    }
    Ok(())
}

fn sysctl_path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name.replace('.', "/"))
}

/// Whether a sysctl belongs to a namespace that the pod has for itself.
fn is_own_sysctl(config: &PodConfig, name: &str) -> bool {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if !plain || name.split('.').any(str::is_empty) {
        return false;
    }
    let ipc = name.starts_with("kernel.shm")
        || name.starts_with("kernel.msg")
        || name == "kernel.sem"
        || name.starts_with("fs.mqueue.");
    (name.starts_with("net.") && !config.host_network) || (ipc && !config.host_ipc)
}

fn share_memory(dir: &Path, config: &PodConfig) -> Result<PathBuf, SetUpError> {
    if config.host_ipc {
        return Ok(PathBuf::from("/dev/shm"));
    }
    let shm = dir.join("shm");
    fs::create_dir_all(&shm).map_err(failed("make the pod's shared memory folder"))?;
    let size = if config.shm_bytes == 0 { SHM_BYTES_DEFAULT } else { config.shm_bytes };
    let options = std::ffi::CString::new(format!("mode=1777,size={size}")).unwrap_or_default();
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("shm", &shm, "tmpfs", flags, options.as_c_str())
        .map_err(|error| failed("mount the pod's shared memory")(error.into()))?;
    Ok(shm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctls_of_the_machine_are_refused() {
        let own = PodConfig::default();
        let host = PodConfig { host_network: true, host_ipc: true, ..PodConfig::default() };
        for (name, allowed, allowed_with_host) in [
            ("net.core.somaxconn", true, false),
            ("kernel.shmmax", true, false),
            ("fs.mqueue.msg_max", true, false),
            ("kernel.core_pattern", false, false),
            ("vm.swappiness", false, false),
            ("net..ipv4", false, false),
            ("net.ipv4/../../kernel.core_pattern", false, false),
        ] {
            assert_eq!(is_own_sysctl(&own, name), allowed, "{name}");
            assert_eq!(is_own_sysctl(&host, name), allowed_with_host, "{name}");
        }
    }
}
