//! The OCI runtime specification (config.json) of one container, made from what the agent asked for. Pure: nothing here touches the
//! machine.
//!
//! The shim itself stands in the pod's network, IPC and host name namespaces, so the specification names none of them and
//! every container inherits them. Limits and the device filter are on the control group already.

use std::collections::BTreeSet;
use std::path::Path;

use podium_shim_protocol::{ContainerConfig, PodConfig, Propagation};
use serde_json::{Value, json};

use crate::devices::Node;
use crate::identity::Identity;
use crate::seccomp;

/// Kernel files that tell about, or reach, other containers and the machine.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];

/// More of them, that hosts of virtual machines have.
const MASKED_HARDWARE: [&str; 2] =
    ["/sys/devices/virtual/powercap", "/sys/devices/system/cpu/cpu0/thermal_throttle"];

/// Kernel files that a container may read, not write.
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Where programs are looked for if the image does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the specification is made of, besides the configuration.
pub(crate) struct Parts<'a> {
    pub(crate) pod: &'a PodConfig,
    pub(crate) container: &'a ContainerConfig,
    /// Where the root filesystem is mounted.
    pub(crate) root: &'a Path,
    /// Where each mount of the container is to be taken from, in its order.
    pub(crate) sources: &'a [String],
    /// The pod's `/dev/shm`.
    pub(crate) shm: &'a Path,
    /// The container's control group, absolute below the cgroup2 mount.
    pub(crate) cgroup: &'a Path,
    pub(crate) identity: &'a Identity,
    pub(crate) capabilities: &'a BTreeSet<&'static str>,
    /// The machine's device nodes; used if the container is privileged.
    pub(crate) nodes: &'a [Node],
}

/// The whole specification.
pub(crate) fn build(parts: &Parts<'_>) -> Value {
    let security = &parts.container.security;
    let mut linux = json!({
        "namespaces": namespaces(parts.pod),
        "cgroupsPath": parts.cgroup,
        "rootfsPropagation": root_propagation(parts.container),
        "maskedPaths": [],
        "readonlyPaths": [],
    });
    if !security.privileged && !security.unmasked_proc {
        linux["maskedPaths"] = json!(MASKED.iter().chain(&MASKED_HARDWARE).collect::<Vec<_>>());
        linux["readonlyPaths"] = json!(READ_ONLY);
    }
    if security.privileged {
        linux["devices"] = parts.nodes.iter().map(device).collect();
    }
    if let Some(filter) = filter(parts.container, parts.capabilities) {
        linux["seccomp"] = filter;
    }
    json!({
        "ociVersion": "1.2.0",
        "root": { "path": parts.root, "readonly": security.read_only_root },
        "process": process(parts),
        "mounts": mounts(parts),
        "linux": linux,
    })
}

/// The container's system call filter, if it has one.
pub(crate) fn filter(
    container: &ContainerConfig,
    capabilities: &BTreeSet<&'static str>,
) -> Option<Value> {
    let wanted = container.security.seccomp == podium_shim_protocol::Seccomp::RuntimeDefault;
    (wanted && !container.security.privileged).then(|| seccomp::runtime_default(capabilities))
}

fn namespaces(pod: &PodConfig) -> Value {
    let mut kinds = vec!["mount", "cgroup"];
    if !pod.host_pid {
        kinds.push("pid");
    }
    kinds.into_iter().map(|kind| json!({ "type": kind })).collect()
}

fn root_propagation(container: &ContainerConfig) -> &'static str {
    let both = container.mounts.iter().any(|mount| mount.propagation == Propagation::Bidirectional);
    if both { "shared" } else { "slave" }
}

fn process(parts: &Parts<'_>) -> Value {
    let container = parts.container;
    let identity = parts.identity;
    let names: Vec<String> = parts.capabilities.iter().map(|name| format!("CAP_{name}")).collect();
    let cwd = if container.working_dir.is_empty() { "/" } else { container.working_dir.as_str() };
    let mut process = json!({
        "terminal": container.stdio.terminal,
        "user": { "uid": identity.uid, "gid": identity.gid, "additionalGids": identity.groups },
        "args": container.args,
        "env": environment(parts),
        "cwd": cwd,
        // Inheritable and ambient stay empty: a program without file capabilities, run by a user other than root, has none.
        "capabilities": { "bounding": names, "effective": names, "permitted": names },
    });
    if let Some(adjustment) = container.resources.oom_score_adj {
        process["oomScoreAdj"] = json!(adjustment);
    }
    if container.security.no_new_privileges {
        // Only ever set to true: libcontainer takes an explicit false as a reason to load the filter too late to be allowed to.
        process["noNewPrivileges"] = json!(true);
    }
    process
}

fn environment(parts: &Parts<'_>) -> Vec<String> {
    let container = parts.container;
    let has = |name: &str| container.env.iter().any(|(known, _)| known == name);
    let mut env = Vec::with_capacity(container.env.len() + 4);
    if !has("PATH") {
        env.push(format!("PATH={DEFAULT_PATH}"));
    }
    if !has("HOSTNAME") && !parts.pod.hostname.is_empty() {
        env.push(format!("HOSTNAME={}", parts.pod.hostname));
    }
    if container.stdio.terminal && !has("TERM") {
        env.push("TERM=xterm".to_owned());
    }
    env.extend(container.env.iter().map(|(name, value)| format!("{name}={value}")));
    if !has("HOME") {
        env.push(format!("HOME={}", parts.identity.home));
    }
    env
}

/// The kernel's filesystems, then the container's own mounts, outer before inner.
fn mounts(parts: &Parts<'_>) -> Vec<Value> {
    let container = parts.container;
    let mut mounts: Vec<Value> = kernel_mounts(parts)
        .into_iter()
        .filter(|mount| {
            !container.mounts.iter().any(|own| mount["destination"] == own.destination.as_str())
        })
        .collect();
    let mut own: Vec<_> = container.mounts.iter().zip(parts.sources).collect();
    own.sort_by_key(|(mount, _)| Path::new(&mount.destination).components().count());
    for (mount, source) in own {
        let access = if mount.read_only { "ro" } else { "rw" };
        let propagation = match mount.propagation {
            Propagation::Private => "rprivate",
            Propagation::HostToContainer => "rslave",
            Propagation::Bidirectional => "rshared",
        };
        mounts.push(json!({
            "destination": mount.destination, "type": "bind", "source": source,
            "options": ["rbind", access, propagation],
        }));
    }
    mounts
}

fn kernel_mounts(parts: &Parts<'_>) -> Vec<Value> {
    let access = if parts.container.security.privileged { "rw" } else { "ro" };
    let one = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    vec![
        one("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        one("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        // Group 5 is tty's in every distribution.
        one(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        json!({ "destination": "/dev/shm", "type": "bind", "source": parts.shm, "options": ["rbind", "rw"] }),
        one("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        one("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
        one(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", access],
        ),
    ]
}

fn device(node: &Node) -> Value {
    json!({
        "path": node.path, "type": node.kind.to_string(), "major": node.major, "minor": node.minor,
        "fileMode": node.mode, "uid": node.uid, "gid": node.gid,
    })
}

#[cfg(test)]
mod tests {
    use podium_shim_protocol::{Mount, Security};

    use super::*;

    fn spec(pod: &PodConfig, container: &ContainerConfig) -> Value {
        let identity = Identity { uid: 7, gid: 8, groups: vec![8, 9], home: "/home/me".to_owned() };
        let sources: Vec<String> =
            container.mounts.iter().map(|mount| mount.source.clone()).collect();
        let value = build(&Parts {
            pod,
            container,
            root: Path::new("/r"),
            sources: &sources,
            shm: Path::new("/shm"),
            cgroup: Path::new("/podium/pods/u/c"),
            identity: &identity,
            capabilities: &BTreeSet::from(["KILL"]),
            nodes: &[],
        });
        let parsed: oci_spec::runtime::Spec = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(
            parsed.linux().as_ref().unwrap().cgroups_path().as_deref(),
            Some(Path::new("/podium/pods/u/c"))
        );
        value
    }

    fn container() -> ContainerConfig {
        ContainerConfig {
            id: "c".to_owned(),
            args: vec!["/bin/true".to_owned()],
            ..ContainerConfig::default()
        }
    }

    #[test]
    fn plain_container_is_filtered_masked_and_unprivileged() {
        let spec =
            spec(&PodConfig { hostname: "web-0".to_owned(), ..PodConfig::default() }, &container());
        assert!(spec["linux"]["seccomp"].is_object());
        assert!(spec["linux"]["maskedPaths"].as_array().unwrap().contains(&json!("/proc/kcore")));
        assert!(spec["linux"]["readonlyPaths"].as_array().unwrap().contains(&json!("/proc/sys")));
        assert_eq!(spec["process"]["capabilities"]["bounding"], json!(["CAP_KILL"]));
        assert!(spec["process"].get("noNewPrivileges").is_none());
        assert_eq!(
            spec["process"]["user"],
            json!({ "uid": 7, "gid": 8, "additionalGids": [8, 9] })
        );
        assert_eq!(
            spec["linux"]["namespaces"],
            json!([{ "type": "mount" }, { "type": "cgroup" }, { "type": "pid" }])
        );
        let env = spec["process"]["env"].as_array().unwrap();
        assert!(env.contains(&json!("HOSTNAME=web-0")) && env.contains(&json!("HOME=/home/me")));
        let sys = spec["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .find(|mount| mount["destination"] == "/sys")
            .unwrap();
        assert!(sys["options"].as_array().unwrap().contains(&json!("ro")));
    }

    #[test]
    fn privileged_container_is_neither_filtered_nor_masked() {
        let security = Security { privileged: true, ..Security::default() };
        let spec = spec(
            &PodConfig { host_pid: true, ..PodConfig::default() },
            &ContainerConfig { security, ..container() },
        );
        assert!(spec["linux"].get("seccomp").is_none());
        assert_eq!(spec["linux"]["maskedPaths"], json!([]));
        assert_eq!(spec["linux"]["namespaces"], json!([{ "type": "mount" }, { "type": "cgroup" }]));
    }

    #[test]
    fn own_mounts_replace_the_kernel_s_and_outer_ones_come_first() {
        let mount = |destination: &str| Mount {
            source: "/s".to_owned(),
            destination: destination.to_owned(),
            ..Mount::default()
        };
        let mounts = vec![mount("/data/inner"), mount("/dev/shm"), mount("/data")];
        let spec = spec(&PodConfig::default(), &ContainerConfig { mounts, ..container() });
        let order: Vec<&str> = spec["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|mount| mount["destination"].as_str().unwrap())
            .collect();
        assert_eq!(order.iter().filter(|destination| **destination == "/dev/shm").count(), 1);
        let at = |name: &str| order.iter().position(|destination| *destination == name).unwrap();
        assert!(at("/data") < at("/data/inner"));
    }
}
