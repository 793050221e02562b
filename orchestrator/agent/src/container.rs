//! What the shim is told of a pod and of its containers: spec, image and node defaults merged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use podium_control::pod::{Instance, QosClass, qos_class};
use podium_shim_protocol::{
    Capabilities, ContainerConfig, LogLimits, Mount, PodConfig, Propagation, Resources, RunAs,
    Seccomp, Security, Stdio, cpu_quota, cpu_weight,
};
use podium_types::k8s::api::core::v1::{
    Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext, VolumeMount,
};
use podium_types::k8s::apimachinery::pkg::api::resource::Quantity as Text;
use podium_types::quantity::Quantity;

use crate::config::AgentConfig;
use crate::env::Environment;
use crate::seams::{PodRef, PulledImage};
use crate::{dns, env, volumes};

/// Everything that a container's configuration is made from.
pub(crate) struct Ingredients<'a> {
    pub(crate) config: &'a AgentConfig,
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) instance: &'a Instance,
    pub(crate) image: &'a PulledImage,
    pub(crate) environment: Environment,
    pub(crate) volumes: &'a volumes::VolumePaths,
    /// The node's memory, to which a burstable pod's request is compared.
    pub(crate) memory_bytes: u64,
}

/// The folders and files of one instance that outlive its shim.
pub(crate) struct InstancePaths {
    /// `<state>/<uid>/containers/<id>`.
    pub(crate) root: PathBuf,
}

impl InstancePaths {
    pub(crate) fn of(config: &AgentConfig, uid: &str, instance: &Instance) -> Self {
        Self { root: config.pod_dir(uid).join("containers").join(instance.id()) }
    }

    pub(crate) fn upper(&self) -> PathBuf {
        self.root.join("upper")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// What is mounted at the container's `terminationMessagePath`.
    pub(crate) fn termination_message(&self) -> PathBuf {
        self.root.join("termination-message")
    }
}

/// The files of a pod that are mounted into all of its containers: `<run>/<uid>/etc`.
pub(crate) fn etc_dir(config: &AgentConfig, uid: &str) -> PathBuf {
    config.shim_dir(uid).join("etc")
}

/// The log of an instance, relative to the pod's log folder.
pub(crate) fn log_path(instance: &Instance) -> String {
    format!("{}/{}.log", instance.container, instance.attempt)
}

/// What the shim is told of the pod.
pub(crate) fn pod_config(config: &AgentConfig, pod: &Pod) -> PodConfig {
    let name = PodRef::of(pod);
    let spec = pod.spec.as_ref();
    let flag = |flag: Option<bool>| flag == Some(true);
    let context = spec.and_then(|spec| spec.security_context.as_ref());
    let sysctls = context.and_then(|context| context.sysctls.as_deref()).unwrap_or_default();
    let bidirectional =
        |mount: &VolumeMount| mount.mount_propagation.as_deref() == Some("Bidirectional");
    let host_mounts = spec.is_some_and(|spec| {
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        containers.flat_map(|container| container.volume_mounts.iter().flatten()).any(bidirectional)
    });
    PodConfig {
        hostname: dns::hostname(pod, &config.cluster_domain),
        cgroup: config.pod_cgroup(&name.uid),
        resources: pod_resources(pod),
        host_network: flag(spec.and_then(|spec| spec.host_network)),
        host_pid: flag(spec.and_then(|spec| spec.host_pid)),
        host_ipc: flag(spec.and_then(|spec| spec.host_ipc)),
        host_mounts,
        sysctls: sysctls.iter().map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect(),
        shm_bytes: 0,
        log_dir: config
            .pod_log_dir(&name.namespace, &name.name, &name.uid)
            .to_string_lossy()
            .into_owned(),
        log_limits: LogLimits::default(),
        uid: name.uid,
        name: name.name,
        namespace: name.namespace,
    }
}

/// What the shim is told of a container.
///
/// # Errors
/// The text for the status when the spec and the image together cannot make a container.
pub(crate) fn container_config(from: Ingredients<'_>) -> Result<ContainerConfig, String> {
    let Ingredients { config, pod, container, instance, image, environment, volumes, memory_bytes } =
        from;
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let paths = InstancePaths::of(config, uid, instance);
    let args = env::command_line(container, &image.entrypoint, &image.cmd, &environment);
    if args.is_empty() {
        return Err("no command specified".to_owned());
    }
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let context = container.security_context.as_ref();
    let pod_context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let mounts = mounts(config, pod, container, &paths, &environment, volumes)?;
    let working_dir = container.working_dir.clone().filter(|dir| !dir.is_empty());
    Ok(ContainerConfig {
        id: instance.id(),
        name: container.name.clone(),
        attempt: instance.attempt,
        args,
        env: environment.into_pairs(),
        working_dir: working_dir.unwrap_or_else(|| image.working_dir.clone()),
        run_as: run_as(context, pod_context, &image.user)?,
        layers: image.layers.iter().map(|layer| layer.to_string_lossy().into_owned()).collect(),
        upper_dir: text(paths.upper()),
        work_dir: text(paths.work()),
        mounts,
        security: security(context, pod_context)?,
        resources: container_resources(pod, container, memory_bytes),
        stdio: Stdio {
            terminal: container.tty == Some(true),
            stdin: container.stdin == Some(true),
            stdin_once: container.stdin_once == Some(true),
        },
        log_path: log_path(instance),
    })
}

fn mounts(
    config: &AgentConfig,
    pod: &Pod,
    container: &Container,
    paths: &InstancePaths,
    environment: &Environment,
    volumes: &volumes::VolumePaths,
) -> Result<Vec<Mount>, String> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        mounts.push(volume_mount(pod, mount, environment, volumes)?);
    }
    let taken = |path: &str| {
        container.volume_mounts.iter().flatten().any(|mount| same_path(&mount.mount_path, path))
    };
    let etc = etc_dir(config, uid);
    for name in ["hosts", "hostname", "resolv.conf"] {
        let destination = format!("/etc/{name}");
        if !taken(&destination) {
            mounts.push(file_mount(&etc.join(name), destination));
        }
    }
    let message = container
        .termination_message_path
        .clone()
        .unwrap_or_else(|| "/dev/termination-log".to_owned());
    if !message.is_empty() && !taken(&message) {
        mounts.push(file_mount(&paths.termination_message(), message));
    }
    Ok(mounts)
}

fn volume_mount(
    pod: &Pod,
    mount: &VolumeMount,
    environment: &Environment,
    volumes: &volumes::VolumePaths,
) -> Result<Mount, String> {
    let volume = volumes
        .get(&mount.name)
        .ok_or_else(|| format!("cannot find volume \"{}\" to mount", mount.name))?;
    let sub_path = match (&mount.sub_path, &mount.sub_path_expr) {
        (Some(path), _) if !path.is_empty() => Some(path.clone()),
        (_, Some(expression)) if !expression.is_empty() => Some(environment.expand(expression)),
        _ => None,
    };
    let source = match &sub_path {
        Some(path) => volumes::sub_path(volume, path).map_err(|error| {
            format!("failed to prepare subPath for volumeMount \"{}\": {error}", mount.name)
        })?,
        None => volume.clone(),
    };
    let from_objects =
        pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).any(|volume| {
            volume.name == mount.name && volume.empty_dir.is_none() && volume.host_path.is_none()
        });
    Ok(Mount {
        source: source.to_string_lossy().into_owned(),
        destination: absolute(&mount.mount_path),
        read_only: mount.read_only == Some(true) || from_objects,
        propagation: match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => Propagation::HostToContainer,
            Some("Bidirectional") => Propagation::Bidirectional,
            Some(_) | None => Propagation::Private,
        },
    })
}

fn file_mount(source: &Path, destination: String) -> Mount {
    Mount {
        source: source.to_string_lossy().into_owned(),
        destination,
        read_only: false,
        propagation: Propagation::Private,
    }
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn same_path(left: &str, right: &str) -> bool {
    Path::new(&absolute(left)).components().eq(Path::new(right).components())
}

fn run_as(
    context: Option<&SecurityContext>,
    pod: Option<&PodSecurityContext>,
    image_user: &str,
) -> Result<RunAs, String> {
    let id = |what: &str, own: Option<i64>, pods: Option<i64>| match own.or(pods) {
        None => Ok(None),
        Some(id) => u32::try_from(id).map(Some).map_err(|_| format!("{what} {id} is not an id")),
    };
    let mut supplemental_groups = Vec::new();
    let groups = pod.and_then(|pod| pod.supplemental_groups.as_deref()).unwrap_or_default();
    for group in groups.iter().copied().chain(pod.and_then(|pod| pod.fs_group)) {
        supplemental_groups
            .push(u32::try_from(group).map_err(|_| format!("group {group} is not an id"))?);
    }
    let own = |field: fn(&SecurityContext) -> Option<i64>| context.and_then(field);
    let pods = |field: fn(&PodSecurityContext) -> Option<i64>| pod.and_then(field);
    let non_root = context
        .and_then(|context| context.run_as_non_root)
        .or(pod.and_then(|pod| pod.run_as_non_root))
        == Some(true);
    Ok(RunAs {
        image_user: image_user.to_owned(),
        uid: id("runAsUser", own(|context| context.run_as_user), pods(|pod| pod.run_as_user))?,
        gid: id("runAsGroup", own(|context| context.run_as_group), pods(|pod| pod.run_as_group))?,
        supplemental_groups,
        non_root,
    })
}

fn security(
    context: Option<&SecurityContext>,
    pod: Option<&PodSecurityContext>,
) -> Result<Security, String> {
    let capabilities = context.and_then(|context| context.capabilities.as_ref());
    let flag = |field: fn(&SecurityContext) -> Option<bool>| context.and_then(field);
    let profile = context
        .and_then(|context| context.seccomp_profile.as_ref())
        .or(pod.and_then(|pod| pod.seccomp_profile.as_ref()));
    Ok(Security {
        privileged: flag(|context| context.privileged) == Some(true),
        capabilities: Capabilities {
            add: capabilities.and_then(|capabilities| capabilities.add.clone()).unwrap_or_default(),
            drop: capabilities
                .and_then(|capabilities| capabilities.drop.clone())
                .unwrap_or_default(),
        },
        read_only_root: flag(|context| context.read_only_root_filesystem) == Some(true),
        no_new_privileges: flag(|context| context.allow_privilege_escalation) == Some(false),
        seccomp: seccomp(profile)?,
        unmasked_proc: context.and_then(|context| context.proc_mount.as_deref())
            == Some("Unmasked"),
    })
}

/// Without a word from the spec the runtime's filter applies: a node without a shell has nothing to gain from less.
fn seccomp(profile: Option<&SeccompProfile>) -> Result<Seccomp, String> {
    match profile.map(|profile| profile.type_.as_str()) {
        None | Some("RuntimeDefault") => Ok(Seccomp::RuntimeDefault),
        Some("Unconfined") => Ok(Seccomp::Unconfined),
        Some(other) => Err(format!("seccomp profile of type {other} is not supported")),
    }
}

fn amount(list: Option<&BTreeMap<String, Text>>, name: &str) -> Option<Quantity> {
    list?.get(name).and_then(|text| Quantity::parse(&text.0).ok())
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Requests and limits of one container as the numbers of its control group.
fn container_resources(pod: &Pod, container: &Container, memory_bytes: u64) -> Resources {
    let given = container.resources.as_ref();
    let requests = given.and_then(|given| given.requests.as_ref());
    let limits = given.and_then(|given| given.limits.as_ref());
    let cpu_request = amount(requests, "cpu").or_else(|| amount(limits, "cpu"));
    let memory_request = amount(requests, "memory").or_else(|| amount(limits, "memory"));
    Resources {
        cpu_weight: Some(cpu_weight(
            cpu_request.map_or(0, |request| unsigned(request.milli_value())),
        )),
        cpu_quota: amount(limits, "cpu")
            .filter(|limit| !limit.is_zero())
            .map(|limit| cpu_quota(unsigned(limit.milli_value()))),
        memory_max_bytes: amount(limits, "memory")
            .filter(|limit| !limit.is_zero())
            .map(|limit| unsigned(limit.value())),
        pids_max: None,
        oom_score_adj: Some(oom_score_adj(
            qos_class(pod),
            memory_request.map_or(0, |request| unsigned(request.value())),
            memory_bytes,
        )),
    }
}

/// The pod's own group: its share of the processor is its containers' together; limits hold for the whole where every
/// container has one.
fn pod_resources(pod: &Pod) -> Resources {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let limit = |container: &Container, name: &str| {
        amount(container.resources.as_ref().and_then(|given| given.limits.as_ref()), name)
            .filter(|limit| !limit.is_zero())
    };
    let whole = |name: &str, unit: fn(Quantity) -> i64| -> Option<u64> {
        containers
            .iter()
            .map(|container| limit(container, name).map(|limit| unsigned(unit(limit))))
            .sum()
    };
    let init = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.init_containers.as_ref())
        .is_some_and(|init| !init.is_empty());
    let requests = podium_control::resources::pod_requests(pod);
    Resources {
        cpu_weight: Some(cpu_weight(unsigned(requests.get("cpu")))),
        cpu_quota: whole("cpu", Quantity::milli_value)
            .filter(|quota| *quota > 0 && !init)
            .map(cpu_quota),
        memory_max_bytes: whole("memory", Quantity::value).filter(|limit| *limit > 0 && !init),
        pids_max: None,
        // A shim is worth its pod, and takes little: it dies after everything of the pod.
        oom_score_adj: Some(-998),
    }
}

/// How readily the kernel kills a process of this class: a burstable container the less, the more of the node's memory
/// it reserved.
fn oom_score_adj(class: QosClass, memory_request_bytes: u64, memory_bytes: u64) -> i32 {
    match class {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let share = 1000 * u128::from(memory_request_bytes) / u128::from(memory_bytes.max(1));
            1000_i32.saturating_sub(i32::try_from(share).unwrap_or(1000)).clamp(3, 999)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ingredients, container_config, oom_score_adj, pod_config};
    use crate::config::AgentConfig;
    use crate::env::Environment;
    use crate::seams::PulledImage;
    use podium_control::pod::{Instance, QosClass};
    use podium_shim_protocol::{ContainerConfig, CpuQuota, Seccomp};
    use podium_types::k8s::api::core::v1::Pod;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec}),
        )
        .expect("a pod")
    }

    fn config() -> AgentConfig {
        AgentConfig::shipped("n1".to_owned(), Vec::new(), Vec::new())
    }

    fn made(spec: Value) -> Result<ContainerConfig, String> {
        let pod = pod(spec);
        let container = pod.spec.as_ref().expect("a spec").containers.first().expect("a container");
        let image = PulledImage {
            entrypoint: vec!["/run".to_owned()],
            user: "redis".to_owned(),
            working_dir: "/data".to_owned(),
            layers: vec![PathBuf::from("/layers/1")],
            ..PulledImage::default()
        };
        container_config(Ingredients {
            config: &config(),
            pod: &pod,
            container,
            instance: &Instance { container: "c".to_owned(), attempt: 2 },
            image: &image,
            environment: Environment::default(),
            volumes: &BTreeMap::from([("v".to_owned(), PathBuf::from("/vol/v"))]),
            memory_bytes: 1 << 30,
        })
    }

    #[test]
    fn resources_become_the_numbers_of_the_control_group() {
        let resources = json!({"requests": {"cpu": "100m", "memory": "100Mi"}, "limits": {"cpu": "500m", "memory": "200Mi"}});
        let config = made(json!({"containers": [{"name": "c", "resources": resources}]}))
            .expect("a configuration");
        assert_eq!(config.resources.cpu_weight, Some(4));
        assert_eq!(
            config.resources.cpu_quota,
            Some(CpuQuota { quota_us: 50_000, period_us: 100_000 })
        );
        assert_eq!(config.resources.memory_max_bytes, Some(200 << 20));
        assert_eq!(config.resources.oom_score_adj, Some(1000 - 97));
        let bare = made(json!({"containers": [{"name": "c"}]})).expect("a configuration");
        assert_eq!(bare.resources.memory_max_bytes, None);
        assert_eq!(
            (bare.resources.cpu_weight, bare.resources.oom_score_adj),
            (Some(1), Some(1000))
        );
    }

    #[test]
    fn oom_score_follows_the_class_and_the_share_of_memory() {
        assert_eq!(oom_score_adj(QosClass::Guaranteed, 1, 100), -997);
        assert_eq!(oom_score_adj(QosClass::Burstable, 0, 100), 999);
        assert_eq!(oom_score_adj(QosClass::Burstable, 50, 100), 500);
        assert_eq!(oom_score_adj(QosClass::Burstable, 100, 100), 3);
    }

    #[test]
    fn pods_own_files_are_mounted_unless_the_container_brings_them() {
        let spec = json!({"containers": [{"name": "c", "volumeMounts": [
            {"name": "v", "mountPath": "/etc/hosts"}, {"name": "v", "mountPath": "data", "readOnly": true}]}],
            "volumes": [{"name": "v", "emptyDir": {}}]});
        let config = made(spec).expect("a configuration");
        let list: Vec<_> = config
            .mounts
            .iter()
            .map(|mount| (mount.source.as_str(), mount.destination.as_str(), mount.read_only))
            .collect();
        assert_eq!(
            list,
            [
                ("/vol/v", "/etc/hosts", false),
                ("/vol/v", "/data", true),
                ("/run/podium/pods/u/etc/hostname", "/etc/hostname", false),
                ("/run/podium/pods/u/etc/resolv.conf", "/etc/resolv.conf", false),
                (
                    "/var/lib/podium/pods/u/containers/c.2/termination-message",
                    "/dev/termination-log",
                    false
                ),
            ]
        );
    }

    #[test]
    fn volumes_from_objects_are_read_only_and_unknown_ones_are_named() {
        let mounts = json!([{"name": "v", "mountPath": "/v"}]);
        let spec = json!({"containers": [{"name": "c", "volumeMounts": mounts}],
            "volumes": [{"name": "v", "secret": {"secretName": "s"}}]});
        assert!(made(spec).expect("a configuration").mounts.first().expect("a mount").read_only);
        let spec = json!({"containers": [{"name": "c", "volumeMounts": [{"name": "w", "mountPath": "/w"}]}]});
        assert_eq!(made(spec), Err("cannot find volume \"w\" to mount".to_owned()));
    }

    #[test]
    fn containers_security_wins_over_the_pods() {
        let spec = json!({
            "securityContext": {"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4], "runAsNonRoot": true},
            "containers": [{"name": "c", "securityContext": {"runAsUser": 9, "allowPrivilegeEscalation": false,
                "seccompProfile": {"type": "Unconfined"}, "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}}}]
        });
        let config = made(spec).expect("a configuration");
        assert_eq!(
            (config.run_as.uid, config.run_as.gid, config.run_as.non_root),
            (Some(9), Some(2), true)
        );
        assert_eq!(config.run_as.supplemental_groups, [4, 3]);
        assert_eq!(config.run_as.image_user, "redis");
        assert_eq!(config.security.seccomp, Seccomp::Unconfined);
        assert!(config.security.no_new_privileges);
        assert_eq!(config.security.capabilities.drop, ["ALL"]);
        let local = json!({"containers": [{"name": "c", "securityContext": {"seccompProfile": {"type": "Localhost"}}}]});
        assert_eq!(
            made(local),
            Err("seccomp profile of type Localhost is not supported".to_owned())
        );
    }

    #[test]
    fn pods_group_is_limited_only_if_every_container_is() {
        let limited = json!({"name": "a", "resources": {"limits": {"memory": "64Mi", "cpu": "1"}}});
        let both = pod_config(
            &config(),
            &pod(json!({"containers": [limited, limited], "hostNetwork": true})),
        );
        assert_eq!(both.resources.memory_max_bytes, Some(128 << 20));
        assert_eq!(
            both.resources.cpu_quota,
            Some(CpuQuota { quota_us: 200_000, period_us: 100_000 })
        );
        assert!(both.host_network);
        assert_eq!(
            (both.cgroup.as_str(), both.log_dir.as_str()),
            ("/podium/pods/u", "/var/log/pods/ns_p_u")
        );
        let one = pod_config(&config(), &pod(json!({"containers": [limited, {"name": "b"}]})));
        assert_eq!((one.resources.memory_max_bytes, one.resources.cpu_quota), (None, None));
    }
}
