use std::collections::BTreeMap;

use podium_control::testing::Cluster;
use podium_control::testing::objects::{self, node_key, pod_key};
use podium_control::{Propagation, Step, pods};
use podium_types::k8s::api::core::v1::{Event, Pod};
use serde_json::{Value, json};

use crate::{assert_at_rest, cluster};

fn node_of(cluster: &Cluster, name: &str) -> String {
    let pod: Pod =
        podium_types::from_value(cluster.api.get(&pod_key("default", name)).expect("pod"))
            .expect("a pod");
    pods::node_name(&pod).to_owned()
}

fn per_node(cluster: &Cluster) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (_, pod) in cluster.api.typed::<Pod>() {
        *counts.entry(pods::node_name(&pod).to_owned()).or_default() += 1;
    }
    counts
}

fn refusal(cluster: &Cluster, name: &str) -> String {
    let pod: Pod =
        podium_types::from_value(cluster.api.get(&pod_key("default", name)).expect("pod"))
            .expect("a pod");
    let condition = pods::condition(&pod, "PodScheduled").expect("a condition");
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_deref()),
        ("False", Some("Unschedulable"))
    );
    condition.message.clone().unwrap_or_default()
}

fn failures(cluster: &Cluster) -> Vec<(String, i32)> {
    let events = cluster.api.typed::<Event>().into_iter().map(|(_, event)| event);
    events
        .filter(|event| event.reason.as_deref() == Some("FailedScheduling"))
        .map(|event| (event.message.unwrap_or_default(), event.count.unwrap_or_default()))
        .collect()
}

fn with(mut object: Value, spec: Value) -> Value {
    for (field, value) in spec.as_object().expect("fields") {
        object["spec"][field] = value.clone();
    }
    object
}

#[test]
fn pod_is_bound_to_the_emptiest_node_and_told() {
    let mut cluster = cluster(2);
    cluster.put(with(objects::pod("first", "a", 500), json!({"nodeName": "n1"})));
    cluster.put(objects::pod("second", "b", 500));
    cluster.settle();
    assert_eq!(node_of(&cluster, "second"), "n2");
    let events = cluster.api.typed::<Event>();
    let told = events.iter().find(|(_, event)| event.reason.as_deref() == Some("Scheduled"));
    let told = told.and_then(|(_, event)| event.message.clone());
    assert_eq!(told.as_deref(), Some("Successfully assigned default/second to n2"));
    assert_at_rest(&cluster);
}

#[test]
fn pending_pod_says_why_per_reason_and_node_count() {
    let mut cluster = cluster(3);
    let taint = json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}});
    cluster.patch(&node_key("n1"), None, taint);
    cluster.put(objects::pod("big", "a", 4000));
    cluster.settle();
    let message =
        "0/3 nodes are available: 1 node(s) had untolerated taint {k: v}, 2 Insufficient cpu.";
    assert_eq!(refusal(&cluster, "big"), message);
    assert_eq!(failures(&cluster), [(message.to_owned(), 1)]);
    assert_at_rest(&cluster);
}

#[test]
fn refusal_is_not_repeated_until_it_changes_and_the_pod_is_tried_again() {
    let mut cluster = cluster(1);
    cluster.put(objects::pod("big", "a", 3000));
    cluster.settle();
    cluster.put(objects::pod("small", "b", 100));
    cluster.settle();
    assert_eq!(failures(&cluster).len(), 1);
    cluster.put(objects::node("n2", 500, 20));
    cluster.settle();
    assert_eq!(refusal(&cluster, "big"), "0/2 nodes are available: 2 Insufficient cpu.");
    assert_eq!(failures(&cluster).len(), 2);
    cluster.put(objects::node("n3", 4000, 20));
    cluster.settle();
    assert_eq!(node_of(&cluster, "big"), "n3");
    assert_at_rest(&cluster);
}

#[test]
fn pod_without_any_node_waits_for_the_first() {
    let mut cluster = cluster(0);
    cluster.put(objects::pod("early", "a", 100));
    cluster.settle();
    assert_eq!(refusal(&cluster, "early"), "no nodes available to schedule pods");
    cluster.put(objects::node("n1", 1000, 10));
    cluster.settle();
    assert_eq!(node_of(&cluster, "early"), "n1");
}

#[test]
fn each_filter_explains_itself() {
    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    let cases: [(Value, Value, &str); 8] = [
        (json!({"spec": {"unschedulable": true}}), json!({}), "1 node(s) were unschedulable"),
        (unready, json!({}), "1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }"),
        (
            json!({}),
            json!({"nodeSelector": {"disk": "ssd"}}),
            "1 node(s) didn't match Pod's node affinity/selector",
        ),
        (
            json!({}),
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}],
            }}}}),
            "1 node(s) didn't match Pod's node affinity/selector",
        ),
        (
            json!({}),
            json!({"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "hostPort": 9000}]}]}),
            "1 node(s) didn't have free ports for the requested pod ports",
        ),
        (json!({"status": {"allocatable": {"pods": "1"}}}), json!({}), "1 Too many pods"),
        (
            json!({}),
            json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"example.com/gpu": "1", "memory": "99Gi"}}}]}),
            "1 Insufficient example.com/gpu, 1 Insufficient memory",
        ),
        (
            json!({}),
            json!({"topologySpreadConstraints": [{
                "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"app": "a"}},
            }]}),
            "1 node(s) didn't match pod topology spread constraints (missing required label)",
        ),
    ];
    for (node, spec, reason) in cases {
        let mut cluster = cluster(1);
        let port = json!({"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "hostPort": 9000}]}]});
        cluster.put(with(objects::pod("present", "x", 0), port));
        cluster.settle();
        cluster.patch(&node_key("n1"), None, node.clone());
        cluster.patch(&node_key("n1"), Some("status"), node);
        cluster.put(with(objects::pod("new", "a", 0), spec));
        cluster.settle();
        assert_eq!(refusal(&cluster, "new"), format!("0/1 nodes are available: {reason}."));
        assert_at_rest(&cluster);
    }
}

#[test]
fn tolerations_open_tainted_cordoned_and_unready_nodes() {
    let mut cluster = cluster(1);
    let closed = json!({"spec": {"unschedulable": true, "taints": [
        {"key": "k", "value": "v", "effect": "NoSchedule"}, {"key": "soft", "effect": "PreferNoSchedule"},
    ]}});
    cluster.patch(&node_key("n1"), None, closed);
    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    cluster.patch(&node_key("n1"), Some("status"), unready);
    let everything = json!({"tolerations": [{"operator": "Exists"}]});
    cluster.put(with(objects::pod("daemon", "a", 100), everything));
    cluster.settle();
    assert_eq!(node_of(&cluster, "daemon"), "n1");
}

#[test]
fn init_containers_and_overhead_count_as_kubernetes_counts_them() {
    let container = |name: &str, cpu: &str, restart: Option<&str>| json!({"name": name, "image": "i", "restartPolicy": restart, "resources": {"requests": {"cpu": cpu}}});
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p"},
        "spec": {
            "overhead": {"cpu": "10m"},
            "containers": [container("a", "100m", None), container("b", "150m", None)],
            "initContainers": [
                container("early", "400m", None),
                container("sidecar", "50m", Some("Always")),
                container("late", "500m", None),
            ],
        },
    }))
    .expect("a pod");
    // late (500) beside the sidecar (50) beats the containers (250) beside it.
    assert_eq!(podium_control::resources::pod_requests(&pod).get("cpu"), 560);
}

#[test]
fn replicas_are_spread_over_nodes() {
    let mut cluster = cluster(3);
    cluster.put(objects::replica_set("web", 6));
    cluster.settle();
    assert_eq!(
        per_node(&cluster),
        BTreeMap::from([("n1".into(), 2), ("n2".into(), 2), ("n3".into(), 2)])
    );
    assert_at_rest(&cluster);
}

#[test]
fn hard_spread_is_never_exceeded_and_soft_spread_gives_way() {
    for (when, bound) in [("DoNotSchedule", 3), ("ScheduleAnyway", 4)] {
        let mut cluster = cluster(2);
        cluster.patch(&node_key("n1"), None, json!({"metadata": {"labels": {"zone": "a"}}}));
        cluster.patch(
            &node_key("n2"),
            None,
            json!({"metadata": {"labels": {"zone": "b"}}, "spec": {"unschedulable": true}}),
        );
        let mut web = objects::replica_set("web", 4);
        web["spec"]["template"]["spec"]["topologySpreadConstraints"] = json!([{
            "maxSkew": 3, "topologyKey": "zone", "whenUnsatisfiable": when,
            "labelSelector": {"matchLabels": {"app": "web"}},
        }]);
        cluster.put(web);
        cluster.settle();
        assert_eq!(per_node(&cluster)["n1"], bound, "{when}");
        assert_at_rest(&cluster);
    }
}

#[test]
fn preferred_affinity_and_soft_taints_decide_between_nodes_that_fit() {
    let mut cluster = cluster(2);
    cluster.patch(
        &node_key("n1"),
        None,
        json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}}),
    );
    cluster.put(objects::pod("plain", "a", 100));
    cluster.settle();
    assert_eq!(node_of(&cluster, "plain"), "n2");
    cluster.patch(
        &node_key("n1"),
        None,
        json!({"metadata": {"labels": {"disk": "ssd"}}, "spec": {"taints": null}}),
    );
    let prefers = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 90, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}},
    ]}}});
    for name in ["one", "two", "three"] {
        cluster.put(with(objects::pod(name, name, 100), prefers.clone()));
        cluster.settle();
        assert_eq!(node_of(&cluster, name), "n1");
    }
}

#[test]
fn more_important_pods_are_placed_first() {
    let mut cluster = cluster(1);
    cluster.put(objects::pod("humble", "a", 1500));
    cluster.put(with(objects::pod("grand", "b", 1500), json!({"priority": 1000})));
    cluster.settle();
    assert_eq!(node_of(&cluster, "grand"), "n1");
    assert_eq!(node_of(&cluster, "humble"), "");
}

#[test]
fn room_of_a_terminating_pod_is_taken_until_it_is_gone() {
    let mut cluster = cluster(1);
    cluster.put(objects::pod("old", "a", 1500));
    cluster.settle();
    let key = pod_key("default", "old");
    let uid = cluster.api.uid(&key);
    let step = Step::Delete { key, uid, grace_seconds: None, propagation: Propagation::Background };
    cluster.call(&step).expect("deleted");
    cluster.put(objects::pod("new", "b", 1500));
    cluster.settle();
    assert_eq!(node_of(&cluster, "new"), "n1");
    assert_at_rest(&cluster);
}

#[test]
fn gated_and_foreign_pods_are_left_alone() {
    let mut cluster = cluster(1);
    cluster.put(with(objects::pod("gated", "a", 100), json!({"schedulingGates": [{"name": "g"}]})));
    cluster.put(with(objects::pod("foreign", "b", 100), json!({"schedulerName": "mine"})));
    cluster.settle();
    assert_eq!(
        (node_of(&cluster, "gated"), node_of(&cluster, "foreign")),
        (String::new(), String::new())
    );
    let gated = cluster.api.get(&pod_key("default", "gated")).expect("the pod");
    assert_eq!(gated["status"]["conditions"][0]["reason"], "SchedulingGated");
    cluster.patch(&pod_key("default", "gated"), None, json!({"spec": {"schedulingGates": null}}));
    cluster.settle();
    assert_eq!(node_of(&cluster, "gated"), "n1");
    assert_at_rest(&cluster);
}

#[test]
fn equal_pods_are_bound_in_one_step_per_node() {
    use podium_control::scheduler::Scheduler;
    use podium_control::{Controller as _, ObjectEvent, World};
    let mut api = podium_control::testing::Api::default();
    let cluster = Cluster::new();
    let mut world = World::new();
    let mut put = |object: Value| {
        let key = objects::key_of(&object);
        let step = Step::Create { resource: key.resource.clone(), object };
        api.call(&step, cluster.now).expect("created");
        let stored = podium_types::canonical::encode(api.get(&key).expect("stored"));
        world.apply(&ObjectEvent::put(key, api.revision(), &stored));
    };
    put(objects::namespace("default"));
    put(objects::node("n1", 100_000, 200));
    put(objects::node("n2", 100_000, 200));
    (0..100).for_each(|index| put(objects::pod(&format!("p{index}"), "a", 10)));
    let plan = Scheduler.plan(&world, &Scheduler::key(), cluster.now);
    let binds = plan.steps.iter().filter_map(|step| match step {
        Step::Bind { pods, node } => Some((node.as_str(), pods.len())),
        _ => None,
    });
    assert_eq!(binds.collect::<Vec<_>>(), [("n1", 50), ("n2", 50)]);
}
