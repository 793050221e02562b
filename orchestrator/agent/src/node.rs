//! The node's own numbers: what it has, what it offers to pods, and how it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use podium_control::resources::Resources;
use podium_types::k8s::apimachinery::pkg::api::resource::Quantity as Text;
use podium_types::quantity::Quantity;

use crate::config::AgentConfig;

/// Below this much free, pods are told to stay away: the kernel needs room to reclaim, and a log line must find room.
/// Both are kubelet's thresholds, scaled down on machines for which they would be most of what there is.
const MEMORY_LOW_BYTES: u64 = 100 << 20;
const DISK_LOW_PERCENT: u64 = 10;

/// What the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub(crate) cpus: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) storage_bytes: u64,
}

/// What a node's status says of the machine, in the forms of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// `status.capacity`.
    pub capacity: BTreeMap<String, String>,
    /// `status.allocatable`.
    pub allocatable: BTreeMap<String, String>,
    /// `status.nodeInfo.kernelVersion`.
    pub kernel_version: String,
    /// `status.nodeInfo.bootID`.
    pub boot_id: String,
    /// Since the machine booted.
    pub uptime: Duration,
    /// `status.nodeInfo.architecture`, as Go names it.
    pub architecture: String,
    /// `status.images`: names and bytes.
    pub images: Vec<(Vec<String>, u64)>,
    /// What the pressure conditions are made from.
    pub pressure: NodePressure,
}

/// What the node is short of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodePressure {
    /// Memory.
    pub memory: bool,
    /// Room on the file system of pods and images.
    pub disk: bool,
    /// Process ids.
    pub pids: bool,
}

impl Capacity {
    /// Looks at the machine.
    pub(crate) fn observe(state_dir: &Path) -> Self {
        Self {
            cpus: std::thread::available_parallelism().map_or(1, |count| count.get() as u64),
            memory_bytes: memory_field("MemTotal:").unwrap_or(0),
            storage_bytes: rustix::fs::statvfs(state_dir)
                .map_or(0, |stat| stat.f_blocks.saturating_mul(stat.f_frsize)),
        }
    }

    pub(crate) fn allocatable_cpu_milli(&self, config: &AgentConfig) -> u64 {
        (self.cpus * 1000).saturating_sub(config.reserved.cpu_milli)
    }

    pub(crate) fn allocatable_memory_bytes(&self, config: &AgentConfig) -> u64 {
        self.memory_bytes.saturating_sub(config.reserved.memory_bytes)
    }

    /// `status.capacity` and `status.allocatable`.
    pub(crate) fn lists(&self, config: &AgentConfig) -> [BTreeMap<String, String>; 2] {
        let bytes = |amount: u64| amount.to_string();
        let list = |cpu_milli: u64, memory: u64, storage: u64| {
            BTreeMap::from([
                ("cpu".to_owned(), print_cpu(cpu_milli)),
                ("memory".to_owned(), format!("{}Ki", memory >> 10)),
                ("ephemeral-storage".to_owned(), bytes(storage)),
                ("pods".to_owned(), config.pods_max.to_string()),
            ])
        };
        [
            list(self.cpus * 1000, self.memory_bytes, self.storage_bytes),
            list(
                self.allocatable_cpu_milli(config),
                self.allocatable_memory_bytes(config),
                self.storage_bytes / 10 * 9,
            ),
        ]
    }

    /// What admission counts with.
    pub(crate) fn allocatable(&self, config: &AgentConfig) -> Resources {
        let [_, list] = self.lists(config);
        let list: BTreeMap<_, _> =
            list.into_iter().map(|(name, amount)| (name, Text(amount))).collect();
        Resources::from(&list)
    }
}

/// Looks at the machine as it is now.
pub(crate) fn facts(
    capacity: &Capacity,
    config: &AgentConfig,
    images: Vec<(Vec<String>, u64)>,
) -> NodeFacts {
    let [all, allocatable] = capacity.lists(config);
    let line = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let uptime = line("/proc/uptime");
    let seconds = uptime.split_whitespace().next().and_then(|seconds| seconds.parse().ok());
    NodeFacts {
        capacity: all,
        allocatable,
        kernel_version: line("/proc/sys/kernel/osrelease"),
        boot_id: line("/proc/sys/kernel/random/boot_id"),
        uptime: Duration::try_from_secs_f64(seconds.unwrap_or_default()).unwrap_or_default(),
        architecture: architecture().to_owned(),
        images,
        pressure: pressure(capacity, config),
    }
}

fn pressure(capacity: &Capacity, config: &AgentConfig) -> NodePressure {
    let low = MEMORY_LOW_BYTES.min(capacity.memory_bytes / 20);
    let disk = rustix::fs::statvfs(&config.state_dir).is_ok_and(|stat| {
        stat.f_bavail.saturating_mul(100) < stat.f_blocks.saturating_mul(DISK_LOW_PERCENT)
    });
    let pids = || -> Option<bool> {
        let most: u64 = fs::read_to_string("/proc/sys/kernel/pid_max").ok()?.trim().parse().ok()?;
        let load = fs::read_to_string("/proc/loadavg").ok()?;
        let now: u64 = load.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
        Some(now.saturating_mul(10) > most.saturating_mul(9))
    };
    NodePressure {
        memory: memory_field("MemAvailable:").is_some_and(|available| available < low),
        disk,
        pids: pids().unwrap_or(false),
    }
}

fn memory_field(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes << 10)
}

fn print_cpu(milli: u64) -> String {
    Quantity::from_milli(i64::try_from(milli).unwrap_or(i64::MAX)).to_string()
}

/// The architecture by the name that images and Go use.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::Capacity;
    use crate::config::AgentConfig;

    #[test]
    fn allocatable_is_capacity_less_the_reserve() {
        let config = AgentConfig::shipped("n".to_owned(), Vec::new(), Vec::new());
        let capacity = Capacity { cpus: 2, memory_bytes: 1 << 30, storage_bytes: 10 << 30 };
        let [all, allocatable] = capacity.lists(&config);
        assert_eq!(
            (all["cpu"].as_str(), all["memory"].as_str(), all["pods"].as_str()),
            ("2", "1048576Ki", "110")
        );
        assert_eq!(
            (allocatable["cpu"].as_str(), allocatable["memory"].as_str()),
            ("1900m", "950272Ki")
        );
        assert_eq!(capacity.allocatable(&config).get("cpu"), 1900);
    }
}
