use podium_control::testing::Cluster;
use podium_control::testing::objects::{self, deployment_key, node_key, pod_key};
use podium_control::{Propagation, Step};
use podium_types::ObjectKey;
use podium_types::k8s::api::core::v1::Pod;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::json;

use crate::{assert_at_rest, cluster};

/// What users and machines may do to a cluster at any moment.
#[derive(Debug, Clone)]
enum Deed {
    Turn(usize),
    Deploy { name: u8, replicas: i32, cpu: u32 },
    Scale { name: u8, replicas: i32 },
    Undeploy { name: u8, propagation: u8 },
    AddNode(u8),
    RemoveNode(u8),
    Cordon(u8, bool),
    KillPod { which: usize, force: bool },
    FailPod(usize),
    LonePod(u8),
    Relabel(usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        30 => (0..4096_usize).prop_map(Deed::Turn),
        2 => (0..3_u8, 0..6_i32, 1..900_u32).prop_map(|(name, replicas, cpu)| Deed::Deploy { name, replicas, cpu }),
        1 => (0..3_u8, 0..6_i32).prop_map(|(name, replicas)| Deed::Scale { name, replicas }),
        1 => (0..3_u8, 0..3_u8).prop_map(|(name, propagation)| Deed::Undeploy { name, propagation }),
        1 => (0..4_u8).prop_map(Deed::AddNode),
        1 => (0..4_u8).prop_map(Deed::RemoveNode),
        1 => (0..4_u8, any::<bool>()).prop_map(|(node, on)| Deed::Cordon(node, on)),
        1 => (0..64_usize, any::<bool>()).prop_map(|(which, force)| Deed::KillPod { which, force }),
        1 => (0..64_usize).prop_map(Deed::FailPod),
        1 => (0..8_u8).prop_map(Deed::LonePod),
        1 => (0..64_usize).prop_map(Deed::Relabel),
    ]
}

fn delete(
    cluster: &mut Cluster,
    key: ObjectKey,
    grace_seconds: Option<i64>,
    propagation: Propagation,
) {
    let uid = cluster.api.uid(&key);
    // What is not there cannot be deleted; that is no failure of the test.
    let _ = cluster.call(&Step::Delete { key, uid, grace_seconds, propagation });
}

fn some_pod(cluster: &Cluster, which: usize) -> Option<ObjectKey> {
    let pods = cluster.api.typed::<Pod>();
    pods.get(which % pods.len().max(1)).map(|(key, _)| key.clone())
}

/// Each of the same size. A machine that comes back smaller under its name may get a pod that was placed on the larger one; its
/// agent then refuses it (`OutOfcpu`), as no scheduler can know in time.
fn machine(number: u8) -> serde_json::Value {
    objects::node(&format!("n{number}"), 1000, 5)
}

fn act(cluster: &mut Cluster, deed: Deed) {
    let web = |name: u8| deployment_key("default", &format!("web{name}"));
    match deed {
        Deed::Turn(choice) => cluster.turn(choice),
        Deed::Deploy { name, replicas, cpu } => {
            let mut object = objects::deployment(&format!("web{name}"), replicas, "image:1");
            object["spec"]["template"]["spec"] = objects::pod_spec("image:1", cpu);
            cluster.put(object);
        }
        Deed::Scale { name, replicas } => {
            let patch = json!({"spec": {"replicas": replicas}});
            let _ = cluster.call(&Step::Patch { key: web(name), subresource: None, patch });
        }
        Deed::Undeploy { name, propagation } => {
            let all = [Propagation::Background, Propagation::Foreground, Propagation::Orphan];
            delete(cluster, web(name), None, all[usize::from(propagation)]);
        }
        Deed::AddNode(node) => cluster.put(machine(node)),
        Deed::RemoveNode(node) => {
            delete(cluster, node_key(&format!("n{node}")), None, Propagation::Background);
        }
        Deed::Cordon(node, on) => {
            let patch = json!({"spec": {"unschedulable": on}});
            let key = node_key(&format!("n{node}"));
            let _ = cluster.call(&Step::Patch { key, subresource: None, patch });
        }
        Deed::KillPod { which, force } => {
            if let Some(key) = some_pod(cluster, which) {
                delete(cluster, key, force.then_some(0), Propagation::Background);
            }
        }
        Deed::FailPod(which) => {
            if let Some(key) = some_pod(cluster, which) {
                cluster.patch(&key, Some("status"), json!({"status": {"phase": "Failed"}}));
            }
        }
        Deed::LonePod(name) => {
            let name = format!("lone{name}");
            if cluster.api.get(&pod_key("default", &name)).is_none() {
                cluster.put(objects::pod(&name, "web1", 300));
            }
        }
        Deed::Relabel(which) => {
            if let Some(key) = some_pod(cluster, which) {
                cluster.patch(&key, None, json!({"metadata": {"labels": {"app": "web2"}}}));
            }
        }
    }
}

proptest! {
    // One seed, so that a failure is everybody's.
    #![proptest_config(ProptestConfig { cases: 64, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    /// Whatever happens, in whatever order: no pod bound twice, no node overfull, no object taken from its owner; and once it
    /// stops, everything comes to rest, and a fresh look at every object finds nothing to do.
    #[test]
    fn cluster_keeps_its_promises_and_comes_to_rest(deeds in prop::collection::vec(deed(), 1..250)) {
        let mut cluster = cluster(0);
        cluster.put(machine(1));
        cluster.put(machine(2));
        cluster.put(objects::service("web", "web1"));
        for deed in deeds {
            act(&mut cluster, deed);
            let broken: Vec<_> = cluster.broken().iter().filter(|promise| {
                // Users change sizes here, so the surge is another test's.
                !matches!(promise, podium_control::testing::Promise::WithinSurge(_))
            }).collect();
            prop_assert!(broken.is_empty(), "{:?}", broken);
        }
        cluster.settle_for(std::time::Duration::from_secs(100));
        let settings = podium_control::Settings { root_ca_pem: "PEM".to_owned(), ..podium_control::Settings::default() };
        let unfinished = cluster.unfinished(&podium_control::controllers(&settings));
        prop_assert!(unfinished.is_empty(), "{:#?}", unfinished);
    }
}

#[test]
fn same_inputs_give_the_same_cluster() {
    let run = || {
        let mut cluster = cluster(3);
        cluster.put(objects::deployment("web", 5, "image:1"));
        for choice in 0..500 {
            cluster.turn(choice * 11 % 4096);
        }
        cluster.settle();
        assert_at_rest(&cluster);
        let pods = cluster.api.typed::<Pod>().into_iter();
        pods.map(|(key, pod)| (key, pod.metadata.resource_version)).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}
