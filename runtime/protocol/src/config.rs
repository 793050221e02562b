//! What a pod and its containers should be: the agent decides all of it, the shim only carries it out.

use serde::{Deserialize, Serialize};

/// One pod, as its shim needs to know it. Written to [`crate::paths::pod_config`] before the shim starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodConfig {
    /// The pod's `metadata.uid`.
    pub uid: String,
    /// The pod's name.
    pub name: String,
    /// The pod's namespace.
    pub namespace: String,
    /// Host name inside the pod, at most 64 bytes. Not used with `host_network`, which keeps the node's name.
    pub hostname: String,
    /// The pod's control group below the cgroup2 mount: absolute, for instance `/podium/pods/<uid>`.
    pub cgroup: String,
    /// Limits of the pod as a whole, on its control group.
    pub resources: Resources,
    /// Use the node's network and host name.
    pub host_network: bool,
    /// See the node's processes.
    pub host_pid: bool,
    /// Use the node's System V IPC, message queues and `/dev/shm`.
    pub host_ipc: bool,
    /// Keep the node's mount namespace, so that [`Propagation::Bidirectional`] can reach it. Only for pods that ask for that:
    /// what such a shim mounts is left behind when it is killed.
    pub host_mounts: bool,
    /// Namespaced sysctls, dotted names (`net.ipv4.ip_unprivileged_port_start`).
    pub sysctls: Vec<(String, String)>,
    /// Size of the `/dev/shm` that the pod's containers share. 0 means the usual 64 MiB.
    pub shm_bytes: u64,
    /// Folder of the pod's logs, made if missing: `/var/log/pods/<namespace>_<name>_<uid>`.
    pub log_dir: String,
    /// When logs are rotated.
    pub log_limits: LogLimits,
}

/// When a container's log is rotated, and how many files are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// A file that would grow past this is renamed to `<name>.1` (older ones to `.2`, …) and begun anew.
    pub file_bytes: u64,
    /// Files kept per container attempt, the current one included; at least 1.
    pub files: u32,
}

impl Default for LogLimits {
    /// The kubelet's own defaults, which is what users' disks and log collectors are sized for.
    fn default() -> Self {
        Self { file_bytes: 10 << 20, files: 5 }
    }
}

/// One container of the pod, complete: image, pod spec and node defaults are merged already.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Unique in the pod over its whole life; letters, digits, `-`, `_` and `.`, at most 64 bytes.
    pub id: String,
    /// The container's name in the pod spec.
    pub name: String,
    /// How often this container was started before.
    pub attempt: u32,
    /// Program and arguments; the program is looked up in the container's `PATH`. Never empty.
    pub args: Vec<String>,
    /// Environment in order. `PATH`, `HOME`, `HOSTNAME` and (with a terminal) `TERM` are added where missing.
    pub env: Vec<(String, String)>,
    /// Working directory, made if missing. Empty means `/`.
    pub working_dir: String,
    /// Who it runs as.
    pub run_as: RunAs,
    /// The image's unpacked layers, top first. At least one.
    pub layers: Vec<String>,
    /// Empty folder for what the container writes; same filesystem as `work_dir`. Never used by two attempts.
    pub upper_dir: String,
    /// Empty folder that overlayfs works in.
    pub work_dir: String,
    /// Mounts in order, each destination made if missing. `/proc`, `/dev`, `/dev/shm`, `/sys` and the like need not be named.
    pub mounts: Vec<Mount>,
    /// What it may do.
    pub security: Security,
    /// What it may use.
    pub resources: Resources,
    /// Terminal and standard input.
    pub stdio: Stdio,
    /// Log file relative to [`PodConfig::log_dir`]: `<container>/<attempt>.log`.
    pub log_path: String,
}

/// Who a container's first process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    /// The image's user: empty, `uid`, `uid:gid`, or names that are looked up in the container's `/etc/passwd` and `/etc/group`.
    pub image_user: String,
    /// Overrides the user (`securityContext.runAsUser`).
    pub uid: Option<u32>,
    /// Overrides the group (`securityContext.runAsGroup`).
    pub gid: Option<u32>,
    /// Groups besides those that `/etc/group` gives the user (`supplementalGroups`, `fsGroup`).
    pub supplemental_groups: Vec<u32>,
    /// Refuse to create a container that would run as user 0 ([`crate::FailureKind::WouldRunAsRoot`]).
    pub non_root: bool,
}

/// A bind mount from the node into the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path on the node; a folder or a file, which must exist.
    pub source: String,
    /// Absolute path in the container. Symbolic links of the image are followed inside the container only.
    pub destination: String,
    /// Mount read-only.
    pub read_only: bool,
    /// Who sees mounts made later on the other side.
    pub propagation: Propagation,
}

/// Who sees mounts made later below a bind mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// Nobody (`None` in the API).
    #[default]
    Private,
    /// The container sees the node's.
    HostToContainer,
    /// Both see each other's. Needs [`PodConfig::host_mounts`] and a privileged container.
    Bidirectional,
}

/// What a container may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// All capabilities and devices, nothing masked, no system call filter.
    pub privileged: bool,
    /// Changes to the default set of capabilities.
    pub capabilities: Capabilities,
    /// Mount the container's root read-only.
    pub read_only_root: bool,
    /// Set-user-id programs gain nothing (`allowPrivilegeEscalation: false`).
    pub no_new_privileges: bool,
    /// The system call filter.
    pub seccomp: Seccomp,
    /// Leave `/proc` unmasked (`procMount: Unmasked`).
    pub unmasked_proc: bool,
}

/// Changes to the default set of capabilities. Names with or without `CAP_`, any case; `ALL` is understood. Drops come first,
/// so that "drop ALL, add NET_BIND_SERVICE" leaves one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Added.
    pub add: Vec<String>,
    /// Taken away.
    pub drop: Vec<String>,
}

/// The system call filter of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// The shim's allow-list.
    #[default]
    RuntimeDefault,
    /// No filter.
    Unconfined,
}

/// Limits and shares of a container or a whole pod. `None` sets nothing; a value that the kernel has no controller for fails
/// the request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// `cpu.weight`, 1 to 10,000; see [`cpu_weight`].
    pub cpu_weight: Option<u64>,
    /// `cpu.max`; see [`cpu_quota`].
    pub cpu_quota: Option<CpuQuota>,
    /// `memory.max`. Swap is never allowed on top.
    pub memory_max_bytes: Option<u64>,
    /// `pids.max`.
    pub pids_max: Option<u64>,
    /// The first process's `oom_score_adj`, -1000 to 1000. Of a pod, the shim's own.
    pub oom_score_adj: Option<i32>,
}

/// How much processor time a group gets in each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuQuota {
    /// Processor time per period, in microseconds.
    pub quota_us: u64,
    /// The period, in microseconds.
    pub period_us: u64,
}

/// `cpu.weight` for a CPU request in thousandths of a core: the request as cgroup v1 shares (1024 per core, at least 2),
/// then mapped linearly from 2–262,144 to 1–10,000 as the field does, so that two pods keep the ratio of their requests.
#[must_use]
pub fn cpu_weight(request_millicores: u64) -> u64 {
    let shares = (request_millicores.saturating_mul(1024) / 1000).clamp(2, 262_144);
    1 + (shares - 2) * 9_999 / 262_142
}

/// `cpu.max` for a CPU limit in thousandths of a core. The period is the kernel's own 100 ms; the quota is at least 1 ms,
/// the smallest that the kernel takes.
#[must_use]
pub fn cpu_quota(limit_millicores: u64) -> CpuQuota {
    const PERIOD_US: u64 = 100_000;
    CpuQuota {
        quota_us: (limit_millicores.saturating_mul(PERIOD_US) / 1000).max(1_000),
        period_us: PERIOD_US,
    }
}

/// A container's terminal and standard input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stdio {
    /// Give it a terminal; its output is logged as `stdout`.
    pub terminal: bool,
    /// Keep standard input open for [`crate::Request::Attach`]; otherwise it reads end-of-file.
    pub stdin: bool,
    /// Close standard input when the first attached client that wrote to it goes away.
    pub stdin_once: bool,
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Columns.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

/// A process to run inside a container that runs already. It has the container's user, groups, capabilities, filter, limits
/// and environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecConfig {
    /// The container.
    pub container: String,
    /// Program and arguments. Never empty.
    pub args: Vec<String>,
    /// Give it a terminal of this size, whose master side comes back with [`crate::Reply::ExecStarted`]. Without one the request
    /// carries three descriptors: standard input, output and error.
    pub terminal: Option<TerminalSize>,
}
