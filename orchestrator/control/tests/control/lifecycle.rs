//! Nodes that die, return, are drained and removed.

use std::time::Duration;

use podium_control::testing::Cluster;
use podium_control::testing::objects::{self, deployment_key, node_key};
use podium_control::{Propagation, Step, pods};
use podium_types::ObjectKey;
use podium_types::k8s::api::core::v1::{Node, Pod};
use podium_types::k8s::api::discovery::v1::EndpointSlice;
use podium_types::kind::resources;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{assert_at_rest, cluster};

const FIVE: Duration = Duration::from_secs(5);

/// A cluster led from `n1` that has run for a while.
fn led(nodes: usize) -> Cluster {
    let mut cluster = cluster(nodes);
    cluster.lead("n1");
    cluster.settle_for(Duration::from_secs(10));
    cluster
}

fn node(cluster: &Cluster, name: &str) -> Node {
    let nodes = cluster.api.typed::<Node>();
    nodes.into_iter().find(|(key, _)| key.name == name).map(|(_, node)| node).expect("a node")
}

fn ready(cluster: &Cluster, name: &str) -> (String, String, String) {
    let node = node(cluster, name);
    let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
    let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
    let ready = ready.expect("a condition");
    (ready.status, ready.reason.unwrap_or_default(), ready.message.unwrap_or_default())
}

fn taints(cluster: &Cluster, name: &str) -> Vec<String> {
    let taints = node(cluster, name).spec.and_then(|spec| spec.taints).unwrap_or_default();
    let print = |taint: &podium_types::k8s::api::core::v1::Taint| {
        format!("{}:{}", taint.key.trim_start_matches("node.kubernetes.io/"), taint.effect)
    };
    taints.iter().map(print).collect()
}

#[test]
fn node_has_a_lease_as_long_as_it_is_there() {
    let mut cluster = cluster(2);
    let key = |name: &str| ObjectKey::new(resources::LEASES, "kube-node-lease", name);
    assert!(cluster.api.get(&key("n1")).is_none(), "there is no namespace for it");
    cluster.put(objects::namespace("kube-node-lease"));
    cluster.settle();
    let lease = cluster.api.get(&key("n1")).expect("a lease").clone();
    assert_eq!(lease["spec"]["holderIdentity"], "n1");
    assert_eq!(
        lease["metadata"]["ownerReferences"][0]["uid"],
        json!(cluster.api.uid(&node_key("n1")))
    );
    let uid = cluster.api.uid(&key("n1"));
    let delete = |key: ObjectKey, uid: String| Step::Delete {
        key,
        uid,
        grace_seconds: None,
        propagation: Propagation::Background,
    };
    cluster.call(&delete(key("n1"), uid.clone())).expect("deleted");
    cluster.settle();
    assert_ne!(cluster.api.uid(&key("n1")), uid, "made again");
    let node = cluster.api.uid(&node_key("n1"));
    cluster.call(&delete(node_key("n1"), node)).expect("deleted");
    cluster.settle();
    assert!(cluster.api.get(&key("n1")).is_none() && cluster.api.get(&key("n2")).is_some());
    cluster.put(objects::node("n1", 1000, 5));
    cluster.settle();
    assert!(cluster.api.get(&key("n1")).is_some(), "the machine is back");
    assert_at_rest(&cluster);
}

fn pods_on<'a>(cluster: &'a Cluster, node: &'a str) -> Vec<(ObjectKey, Pod)> {
    let all = cluster.api.typed::<Pod>().into_iter();
    all.filter(|(_, pod)| pods::node_name(pod) == node).collect()
}

/// A node with at least one pod that is not the leader's.
fn busy(cluster: &Cluster) -> String {
    let names = ["n2", "n3", "n4", "n5"];
    let busy = names.into_iter().find(|name| !pods_on(cluster, name).is_empty());
    busy.expect("a busy node").to_owned()
}

fn serving(cluster: &Cluster) -> usize {
    cluster
        .api
        .typed::<Pod>()
        .iter()
        .filter(|(_, pod)| pods::active(pod) && pods::ready(pod))
        .count()
}

fn tolerating(seconds: Option<i64>) -> Value {
    let mut pod = objects::pod_spec("image:1", 100);
    let mut toleration = json!({"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"});
    if let Some(seconds) = seconds {
        toleration["tolerationSeconds"] = json!(seconds);
    }
    pod["tolerations"] = json!([toleration]);
    pod["nodeName"] = json!("n2");
    let labels = json!({"app": "lone"});
    json!({"apiVersion": "v1", "kind": "Pod", "spec": pod,
        "metadata": {"name": "lone", "namespace": "default", "labels": labels}})
}

#[test]
fn pods_of_a_dead_node_are_replaced_within_five_seconds() {
    for phase in (0..300).step_by(50) {
        let mut cluster = led(3);
        cluster.put(objects::deployment("web", 6, "image:1"));
        cluster.settle_for(Duration::from_secs(2) + Duration::from_millis(phase));
        assert_eq!(serving(&cluster), 6);
        let dead = busy(&cluster);
        let lost = pods_on(&cluster, &dead).len();
        cluster.silence(&dead, true);
        cluster.settle_for(FIVE);
        let old = pods_on(&cluster, &dead);
        assert_eq!(old.len(), lost, "they stay until their node confirms");
        assert!(old.iter().all(|(_, pod)| pods::terminating(pod) && !pods::ready(pod)));
        assert_eq!(serving(&cluster), 6);
        assert_eq!(cluster.broken(), []);
    }
}

#[test]
fn dead_node_is_shown_as_kubernetes_shows_it() {
    let mut cluster = led(3);
    cluster.silence("n3", true);
    cluster.settle_for(FIVE);
    let (status, reason, message) = ready(&cluster, "n3");
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "NodeStatusUnknown"));
    assert_eq!(message, "Kubelet stopped posting node status.");
    assert_eq!(taints(&cluster, "n3"), ["unreachable:NoSchedule", "unreachable:NoExecute"]);
    assert_at_rest(&cluster);
    let told = cluster.api.list(&resources::EVENTS).any(|(_, event)| {
        event["reason"] == "NodeNotReady"
            && event["message"] == "Node n3 status is now: NodeNotReady"
    });
    assert!(told);
}

#[test]
fn machine_that_is_silent_is_not_said_to_be_ready() {
    let mut cluster = led(3);
    cluster.put(json!({
        "apiVersion": "podium.dev/v1", "kind": "Machine", "metadata": {"name": "n3"}, "spec": {},
        "status": {"voter": true, "conditions": [{"type": "Ready", "status": "True", "reason": "NodeRegistered",
            "message": "", "lastTransitionTime": "2026-11-21T11:00:00Z"}]},
    }));
    let key = ObjectKey::new(resources::MACHINES, "", "n3");
    let ready = |cluster: &Cluster| {
        let machine = cluster.api.get(&key).expect("the machine");
        assert_eq!(machine["status"]["voter"], true);
        machine["status"]["conditions"][0]["status"].clone()
    };
    cluster.settle_for(FIVE);
    assert_eq!(ready(&cluster), "True");
    cluster.silence("n3", true);
    cluster.settle_for(FIVE);
    assert_eq!(ready(&cluster), "Unknown");
    assert_at_rest(&cluster);
}

#[test]
fn endpoints_of_a_dead_node_leave_the_service() {
    let mut cluster = led(3);
    cluster.put(objects::service("web", "web"));
    cluster.put(objects::deployment("web", 6, "image:1"));
    cluster.settle_for(FIVE);
    let dead = busy(&cluster);
    cluster.silence(&dead, true);
    cluster.settle_for(FIVE);
    for (_, slice) in cluster.api.typed::<EndpointSlice>() {
        for endpoint in
            slice.endpoints.iter().flatten().filter(|it| it.node_name.as_ref() == Some(&dead))
        {
            let conditions = endpoint.conditions.as_ref().expect("conditions");
            assert_eq!((conditions.ready, conditions.serving), (Some(false), Some(false)));
        }
    }
}

#[test]
fn node_that_returns_ends_its_old_pods_and_gets_new_ones() {
    let mut cluster = led(3);
    cluster.put(objects::deployment("web", 6, "image:1"));
    cluster.settle_for(FIVE);
    let dead = busy(&cluster);
    cluster.silence(&dead, true);
    cluster.settle_for(Duration::from_secs(60));
    cluster.silence(&dead, false);
    cluster.settle_for(Duration::from_secs(1));
    assert!(pods_on(&cluster, &dead).is_empty(), "its old pods have ended");
    assert_eq!(ready(&cluster, &dead).0, "True");
    assert_eq!(taints(&cluster, &dead).len(), 2, "on probation");
    cluster.settle_for(Duration::from_secs(3));
    assert_eq!(taints(&cluster, &dead), <[&str; 0]>::default());
    assert_eq!(cluster.api.typed::<Pod>().len(), 6, "no duplicates");
    cluster.patch(&deployment_key("default", "web"), None, json!({"spec": {"replicas": 12}}));
    cluster.settle_for(FIVE);
    assert!(!pods_on(&cluster, &dead).is_empty());
    assert_at_rest(&cluster);
}

#[test]
fn more_than_half_silent_at_once_loses_no_pod() {
    let mut cluster = led(5);
    cluster.put(objects::deployment("web", 10, "image:1"));
    cluster.settle_for(FIVE);
    let before = cluster.api.typed::<Pod>();
    for name in ["n2", "n3", "n4"] {
        cluster.silence(name, true);
    }
    cluster.settle_for(Duration::from_secs(600));
    let left = cluster.api.typed::<Pod>();
    assert!(left.iter().all(|(_, pod)| pods::ready(pod) && !pods::terminating(pod)));
    assert_eq!(left.len(), before.len());
    assert_eq!(ready(&cluster, "n2").0, "Unknown");
    assert_eq!(taints(&cluster, "n2"), ["unreachable:NoSchedule"]);
    for name in ["n2", "n3", "n4"] {
        cluster.silence(name, false);
    }
    cluster.settle_for(FIVE);
    assert_eq!((ready(&cluster, "n2").0, taints(&cluster, "n2").len()), ("True".to_owned(), 0));
    assert_at_rest(&cluster);
}

#[test]
fn new_leader_sends_nothing_to_a_node_that_the_last_one_found_dead() {
    let mut cluster = led(3);
    cluster.silence("n3", true);
    cluster.settle_for(FIVE);
    cluster.lead("n2");
    cluster.put(objects::deployment("web", 6, "image:1"));
    cluster.settle_for(Duration::from_secs(30));
    assert!(pods_on(&cluster, "n3").is_empty());
    assert_eq!(taints(&cluster, "n3").len(), 2);
    assert_eq!(serving(&cluster), 6);
}

#[test]
fn clocks_that_are_set_evict_nobody() {
    let mut cluster = led(3);
    cluster.put(tolerating(Some(300)));
    cluster.put(objects::deployment("web", 6, "image:1"));
    cluster.settle_for(FIVE);
    for jump in [86_400 * 30, -86_400 * 365, 86_400 * 400] {
        cluster.now.wall += jiff::SignedDuration::from_secs(jump);
        cluster.settle_for(FIVE);
        assert_eq!(serving(&cluster), 7);
        assert_eq!(ready(&cluster, "n2").0, "True");
    }
    cluster.silence("n2", true);
    cluster.settle_for(FIVE);
    cluster.now.wall += jiff::SignedDuration::from_secs(3_600);
    cluster.settle_for(FIVE);
    let lone = objects::pod_key("default", "lone");
    let stays = |cluster: &Cluster| {
        let pods = cluster.api.typed::<Pod>();
        pods.iter().any(|(key, pod)| *key == lone && !pods::terminating(pod))
    };
    assert!(stays(&cluster), "an hour of wall time is no hour");
    cluster.settle_for(Duration::from_secs(285));
    assert!(stays(&cluster));
    cluster.settle_for(Duration::from_secs(15));
    assert!(!stays(&cluster));
}

#[test]
fn pod_that_tolerates_silence_stays_and_is_not_ready_meanwhile() {
    let mut cluster = led(3);
    cluster.put(tolerating(None));
    cluster.settle_for(FIVE);
    cluster.silence("n2", true);
    cluster.settle_for(Duration::from_secs(3_600));
    let [(_, pod)] = &pods_on(&cluster, "n2")[..] else { panic!("one pod") };
    assert!(!pods::terminating(pod) && !pods::ready(pod));
    let ready = pods::condition(pod, "Ready").expect("a condition");
    assert_eq!(ready.reason.as_deref(), Some(pods::NODE_NOT_READY));
    assert_at_rest(&cluster);
}

#[test]
fn pod_that_came_to_a_tainted_node_knowingly_gets_its_time() {
    let mut cluster = led(3);
    let taint = json!({"key": "maintenance", "effect": "NoExecute"});
    cluster.patch(&node_key("n2"), None, json!({"spec": {"taints": [taint]}}));
    cluster.settle_for(Duration::from_secs(1_000));
    let mut pod = tolerating(None);
    pod["spec"]["tolerations"] =
        json!([{"key": "maintenance", "operator": "Exists", "tolerationSeconds": 60}]);
    cluster.put(pod);
    cluster.settle_for(Duration::from_secs(55));
    assert_eq!(pods_on(&cluster, "n2").len(), 1);
    cluster.settle_for(Duration::from_secs(10));
    assert_eq!(pods_on(&cluster, "n2").len(), 0);
    assert_eq!(taints(&cluster, "n2"), ["maintenance:NoExecute"], "a user's taint is left alone");
}

#[test]
fn node_says_itself_that_it_is_not_ready_and_keeps_its_pods_for_a_while() {
    let mut cluster = led(3);
    cluster.put(objects::deployment("web", 6, "image:1"));
    cluster.settle_for(FIVE);
    let node = busy(&cluster);
    let conditions = json!([{"type": "Ready", "status": "False", "reason": "KubeletNotReady"}]);
    cluster.patch(&node_key(&node), Some("status"), json!({"status": {"conditions": conditions}}));
    cluster.settle_for(Duration::from_secs(290));
    assert_eq!(taints(&cluster, &node), ["not-ready:NoSchedule"]);
    assert_eq!(serving(&cluster), 6);
    cluster.settle_for(Duration::from_secs(20));
    assert_eq!(taints(&cluster, &node), ["not-ready:NoSchedule", "not-ready:NoExecute"]);
    assert!(pods_on(&cluster, &node).is_empty());
    assert_eq!(serving(&cluster), 6);
}

#[test]
fn cordoned_node_and_one_under_pressure_have_taints_and_get_no_pods() {
    let mut cluster = led(3);
    cluster.patch(&node_key("n2"), None, json!({"spec": {"unschedulable": true}}));
    let conditions =
        json!([{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True"}]);
    cluster.patch(&node_key("n3"), Some("status"), json!({"status": {"conditions": conditions}}));
    cluster.settle();
    assert_eq!(taints(&cluster, "n2"), ["unschedulable:NoSchedule"]);
    assert_eq!(taints(&cluster, "n3"), ["disk-pressure:NoSchedule"]);
    cluster.put(objects::deployment("web", 6, "image:1"));
    cluster.settle();
    assert_eq!(pods_on(&cluster, "n1").len(), 6);
    cluster.patch(&node_key("n2"), None, json!({"spec": {"unschedulable": null}}));
    cluster.settle();
    assert_eq!(taints(&cluster, "n2"), <[&str; 0]>::default());
}

#[test]
fn pods_of_a_removed_node_are_removed() {
    let mut cluster = led(3);
    cluster.put(objects::deployment("web", 6, "image:1"));
    cluster.settle_for(Duration::from_secs(60));
    let dead = busy(&cluster);
    cluster.silence(&dead, true);
    cluster.settle_for(FIVE);
    assert!(!pods_on(&cluster, &dead).is_empty());
    let uid = cluster.api.uid(&node_key(&dead));
    let propagation = Propagation::Background;
    let step = Step::Delete { key: node_key(&dead), uid, grace_seconds: None, propagation };
    cluster.call(&step).expect("removed");
    cluster.settle_for(FIVE);
    assert!(pods_on(&cluster, &dead).is_empty());
    assert_eq!(cluster.api.typed::<Pod>().len(), 6);
    assert_at_rest(&cluster);
}

#[test]
fn rollout_during_a_death_keeps_its_surge() {
    for delay in (0..6_000).step_by(400) {
        let mut cluster = led(4);
        cluster.put(objects::deployment("web", 8, "image:1"));
        cluster.settle_for(FIVE);
        let dead = busy(&cluster);
        cluster.silence(&dead, true);
        cluster.settle_for(Duration::from_millis(delay));
        cluster.put(objects::deployment("web", 8, "image:2"));
        cluster.settle_for(Duration::from_secs(20));
        cluster.silence(&dead, false);
        cluster.settle_for(Duration::from_secs(20));
        assert_eq!(cluster.broken(), [], "the rollout began {delay} ms after the death");
        assert_eq!((serving(&cluster), cluster.api.typed::<Pod>().len()), (8, 8));
        assert_at_rest(&cluster);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever falls silent and returns when, under whichever leader: no promise is broken, and in the end all replicas serve.
    #[test]
    fn storms_pass(deeds in prop::collection::vec((1..6_usize, 0..6_000_u64, 0..12_u8), 1..40)) {
        let mut cluster = led(5);
        cluster.put(objects::service("web", "web"));
        cluster.put(objects::deployment("web", 7, "image:1"));
        let mut silent = std::collections::BTreeSet::new();
        let mut leader = 1;
        for (which, pause, what) in deeds {
            let name = format!("n{which}");
            match what {
                0 if !silent.contains(&name) => {
                    leader = which;
                    cluster.lead(&name);
                }
                1 => cluster.put(objects::deployment("web", 7, &format!("image:{pause}"))),
                2 => cluster.now.wall += jiff::SignedDuration::from_secs(60),
                _ if which != leader => {
                    let goes = !silent.remove(&name);
                    cluster.silence(&name, goes);
                    if goes {
                        silent.insert(name);
                    }
                }
                _ => {}
            }
            cluster.settle_for(Duration::from_millis(pause));
            prop_assert_eq!(cluster.broken(), []);
        }
        silent.iter().for_each(|name| cluster.silence(name, false));
        cluster.settle_for(Duration::from_secs(300));
        assert_at_rest(&cluster);
        prop_assert_eq!((serving(&cluster), cluster.api.typed::<Pod>().len()), (7, 7));
        for (key, _) in cluster.api.typed::<Node>() {
            prop_assert_eq!(ready(&cluster, &key.name).0, "True");
            prop_assert_eq!(taints(&cluster, &key.name).len(), 0);
        }
    }
}
