//! Whether this node takes a pod that was bound to it.
//!
//! The scheduler has looked already; this is the node's own look, since its bookkeeping is the one that counts and
//! since a pod may name its node without asking the scheduler.

use podium_types::k8s::api::core::v1::{self as core, Pod, PodSpec};

use crate::resources::{Resources, Usage, host_ports, pod_requests};

/// Why a pod failed as a whole: `reason` and `message` of its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// One CamelCase word.
    pub reason: String,
    /// The sentence for people.
    pub message: String,
}

/// What the node has and what its other pods take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeRoom {
    /// What the node offers to pods.
    pub allocatable: Resources,
    /// What all its other pods that are not at their end take.
    pub used: Usage,
}

/// Takes the pod or says why not.
///
/// # Errors
/// The first of: something in the spec that this node cannot do, too little of a resource, a host port that is taken.
pub fn admit(pod: &Pod, room: &NodeRoom) -> Result<(), Refusal> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    supported(spec)?;
    fits(pod, room)?;
    ports_free(spec, room)
}

fn supported(spec: &PodSpec) -> Result<(), Refusal> {
    let refuse =
        |what: String| Err(Refusal { reason: "UnsupportedPodSpec".to_owned(), message: what });
    if spec.share_process_namespace == Some(true) {
        return refuse("spec.shareProcessNamespace: containers that share a process namespace are not supported".to_owned());
    }
    if spec.host_users == Some(false) {
        return refuse("spec.hostUsers: user namespaces are not supported".to_owned());
    }
    for container in spec.init_containers.iter().flatten() {
        if container.restart_policy.is_some() {
            return refuse(format!(
                "spec.initContainers{{{}}}.restartPolicy: restartable init containers are not supported",
                container.name
            ));
        }
    }
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        let name = &container.name;
        if container.restart_policy_rules.is_some() || container.restart_policy.is_some() {
            return refuse(format!(
                "spec.containers{{{name}}}: restart rules per container are not supported"
            ));
        }
        if container.volume_devices.as_ref().is_some_and(|devices| !devices.is_empty()) {
            return refuse(format!(
                "spec.containers{{{name}}}.volumeDevices: block volumes are not supported"
            ));
        }
        if probes(container).any(|probe| probe.grpc.is_some()) {
            return refuse(format!("spec.containers{{{name}}}: gRPC probes are not supported"));
        }
    }
    Ok(())
}

fn probes(container: &core::Container) -> impl Iterator<Item = &core::Probe> {
    [&container.startup_probe, &container.liveness_probe, &container.readiness_probe]
        .into_iter()
        .flatten()
}

fn fits(pod: &Pod, room: &NodeRoom) -> Result<(), Refusal> {
    let most = room.allocatable.get("pods");
    let pods = i64::try_from(room.used.pods).unwrap_or(i64::MAX);
    if most > 0 && pods >= most {
        return Err(out_of("pods", 1, pods, most));
    }
    for (name, requested) in pod_requests(pod).iter() {
        let (used, capacity) = (room.used.requests.get(name), room.allocatable.get(name));
        if requested > 0 && requested > capacity.saturating_sub(used) {
            return Err(out_of(name, requested, used, capacity));
        }
    }
    Ok(())
}

fn out_of(resource: &str, requested: i64, used: i64, capacity: i64) -> Refusal {
    Refusal {
        reason: format!("OutOf{resource}"),
        message: format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        ),
    }
}

fn ports_free(spec: &PodSpec, room: &NodeRoom) -> Result<(), Refusal> {
    let taken = |port: &crate::resources::HostPort| {
        room.used.host_ports.keys().any(|other| other.conflicts(port))
    };
    if host_ports(spec).iter().any(taken) {
        return Err(Refusal {
            reason: "NodePorts".to_owned(),
            message: "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports".to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{NodeRoom, admit};
    use crate::resources::{Resources, Usage};
    use podium_types::k8s::api::core::v1::Pod;
    use podium_types::k8s::apimachinery::pkg::api::resource::Quantity;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).expect("a pod")
    }

    fn room(others: &[Pod]) -> NodeRoom {
        let list = [("cpu", "1"), ("memory", "1Gi"), ("pods", "3")];
        let list: BTreeMap<_, _> = list
            .into_iter()
            .map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())))
            .collect();
        let mut used = Usage::default();
        for other in others {
            used.add(other);
        }
        NodeRoom { allocatable: Resources::from(&list), used }
    }

    #[test]
    fn pod_that_does_not_fit_is_refused_with_the_resource_it_lacks() {
        let half =
            pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "600m"}}}]}));
        assert_eq!(admit(&half, &room(&[])), Ok(()));
        let refusal =
            admit(&half, &room(std::slice::from_ref(&half))).expect_err("two times 600m in 1");
        assert_eq!(refusal.reason, "OutOfcpu");
        assert_eq!(
            refusal.message,
            "Node didn't have enough resource: cpu, requested: 600, used: 600, capacity: 1000"
        );
    }

    #[test]
    fn pod_beyond_the_nodes_number_is_refused() {
        let small = pod(json!({"containers": [{"name": "c"}]}));
        let refusal = admit(&small, &room(&[small.clone(), small.clone(), small.clone()]))
            .expect_err("a fourth pod");
        assert_eq!(refusal.reason, "OutOfpods");
    }

    #[test]
    fn taken_host_port_is_refused() {
        let web = pod(
            json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}),
        );
        assert_eq!(admit(&web, &room(&[])), Ok(()));
        assert_eq!(
            admit(&web, &room(std::slice::from_ref(&web))).expect_err("port 80 twice").reason,
            "NodePorts"
        );
    }

    #[test]
    fn what_is_not_implemented_is_refused_in_words() {
        for spec in [
            json!({"containers": [], "initContainers": [{"name": "side", "restartPolicy": "Always"}]}),
            json!({"containers": [], "shareProcessNamespace": true}),
            json!({"containers": [], "hostUsers": false}),
            json!({"containers": [{"name": "c", "livenessProbe": {"grpc": {"port": 1}}}]}),
            json!({"containers": [{"name": "c", "volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]}]}),
        ] {
            let refusal = admit(&pod(spec), &room(&[])).expect_err("an unsupported spec");
            assert_eq!(refusal.reason, "UnsupportedPodSpec");
            assert!(refusal.message.contains("not supported"), "{}", refusal.message);
        }
    }
}
