//! Where things are on the node, and how much the agent may do at once.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What of the node is not for pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserved {
    /// Processor time, in thousandths of a core.
    pub cpu_milli: u64,
    /// Memory, in bytes.
    pub memory_bytes: u64,
}

impl Default for Reserved {
    /// What the system itself takes when idle, with room for page tables and bursts: figures of `docs/benchmarks.md`.
    fn default() -> Self {
        Self { cpu_milli: 100, memory_bytes: 96 << 20 }
    }
}

/// The agent's settings.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The name of this node's object.
    pub node_name: String,
    /// The node's addresses, the primary first.
    pub host_addresses: Vec<IpAddr>,
    /// The shim's executable.
    pub shim: PathBuf,
    /// Pods' folders that end with the boot: sockets, exit records, tmpfs volumes.
    pub run_dir: PathBuf,
    /// Pods' folders that stay: records, volumes, what containers write.
    pub state_dir: PathBuf,
    /// Pods' logs.
    pub log_dir: PathBuf,
    /// Where cgroup2 is mounted.
    pub cgroup_root: PathBuf,
    /// The control group of all pods below that, absolute.
    pub cgroup_parent: String,
    /// The addresses of the cluster's DNS.
    pub cluster_dns: Vec<IpAddr>,
    /// The domain of the cluster's names.
    pub cluster_domain: String,
    /// The node's own resolver configuration.
    pub resolv_conf: PathBuf,
    /// What is not for pods.
    pub reserved: Reserved,
    /// The most pods that this node takes.
    pub pods_max: u32,
    /// How many containers and sandboxes are started side by side: starting is bound by processors and disk, and more
    /// at once only makes each slower.
    pub starts_at_once: usize,
    /// How many images are pulled side by side.
    pub pulls_at_once: usize,
    /// The longest time that a stop signal waits for the pod to be out of every Service; zero does not wait.
    pub withdraw_limit: Duration,
}

impl AgentConfig {
    /// The settings of a node that runs the shipped image.
    #[must_use]
    pub fn shipped(
        node_name: String,
        host_addresses: Vec<IpAddr>,
        cluster_dns: Vec<IpAddr>,
    ) -> Self {
        Self {
            node_name,
            host_addresses,
            shim: PathBuf::from("/shim"),
            run_dir: PathBuf::from("/run/podium/pods"),
            state_dir: PathBuf::from("/var/lib/podium/pods"),
            log_dir: PathBuf::from("/var/log/pods"),
            cgroup_root: PathBuf::from("/sys/fs/cgroup"),
            cgroup_parent: "/podium/pods".to_owned(),
            cluster_dns,
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            reserved: Reserved::default(),
            pods_max: 110,
            starts_at_once: 8,
            pulls_at_once: 4,
            withdraw_limit: Duration::ZERO,
        }
    }

    /// The folder of a pod's shim.
    #[must_use]
    pub fn shim_dir(&self, uid: &str) -> PathBuf {
        self.run_dir.join(uid)
    }

    /// The folder of a pod that outlives the boot.
    #[must_use]
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.state_dir.join(uid)
    }

    /// The folder of a pod's logs.
    #[must_use]
    pub fn pod_log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.log_dir.join(format!("{namespace}_{name}_{uid}"))
    }

    /// A pod's control group as the shim wants it: below the cgroup2 mount, absolute.
    #[must_use]
    pub fn pod_cgroup(&self, uid: &str) -> String {
        format!("{}/{uid}", self.cgroup_parent)
    }

    /// The same as a path of the file system.
    #[must_use]
    pub fn pod_cgroup_path(&self, uid: &str) -> PathBuf {
        self.cgroup_root
            .join(Path::new(&self.pod_cgroup(uid)).strip_prefix("/").unwrap_or(Path::new(uid)))
    }
}
