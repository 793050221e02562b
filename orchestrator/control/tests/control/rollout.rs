use std::time::Duration;

use podium_control::testing::Cluster;
use podium_control::testing::objects::{self, deployment_key};
use podium_control::{Propagation, Step, pods};
use podium_types::ObjectKey;
use podium_types::k8s::api::apps::v1::{Deployment, DeploymentCondition, ReplicaSet};
use podium_types::k8s::api::core::v1::{Event, Pod};
use podium_types::kind::resources;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{assert_at_rest, cluster};

fn web() -> ObjectKey {
    deployment_key("default", "web")
}

fn deployment(cluster: &Cluster) -> Deployment {
    podium_types::from_value(cluster.api.get(&web()).expect("there")).expect("a deployment")
}

fn condition(cluster: &Cluster, kind: &str) -> DeploymentCondition {
    let status = deployment(cluster).status.expect("a status");
    let conditions = status.conditions.unwrap_or_default();
    let found = conditions.into_iter().find(|c| c.type_.as_deref() == Some(kind));
    found.unwrap_or_else(|| panic!("no condition {kind}"))
}

/// Image, replicas and revision of each ReplicaSet, by revision.
fn sets(cluster: &Cluster) -> Vec<(String, i32, i64)> {
    let mut sets: Vec<_> = cluster
        .api
        .typed::<ReplicaSet>()
        .into_iter()
        .map(|(_, set)| {
            let value = podium_types::to_value(&set).expect("JSON");
            let image = value["spec"]["template"]["spec"]["containers"][0]["image"].as_str();
            let notes = set.metadata.annotations.unwrap_or_default();
            let revision = notes["deployment.kubernetes.io/revision"].parse().expect("a number");
            (image.unwrap_or_default().to_owned(), set.spec.replicas.unwrap_or(1), revision)
        })
        .collect();
    sets.sort_by_key(|(_, _, revision)| *revision);
    sets
}

fn images(cluster: &Cluster) -> Vec<String> {
    let pods = cluster.api.typed::<Pod>().into_iter().filter(|(_, pod)| pods::active(pod));
    let mut images: Vec<String> = pods
        .map(|(_, pod)| {
            let spec = pod.spec.expect("a spec");
            spec.containers[0].image.clone().unwrap_or_default()
        })
        .collect();
    images.sort();
    images
}

fn set_image(cluster: &mut Cluster, image: &str) {
    let spec = objects::pod_spec(image, 100);
    cluster.patch(&web(), None, json!({"spec": {"template": {"spec": spec}}}));
}

fn strategy(surge: i32, unavailable: i32) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

fn rolled_out(replicas: i32, surge: i32, unavailable: i32) -> Cluster {
    let mut cluster = cluster(3);
    let mut web = objects::deployment("web", replicas, "image:1");
    web["spec"]["strategy"] = strategy(surge, unavailable);
    cluster.put(web);
    cluster.settle();
    cluster
}

#[test]
fn first_rollout_reports_what_kubectl_waits_for() {
    let cluster = rolled_out(3, 1, 0);
    let found = deployment(&cluster);
    let status = found.status.clone().expect("a status");
    assert_eq!(status.observed_generation, found.metadata.generation);
    assert_eq!(
        (
            status.replicas,
            status.updated_replicas,
            status.available_replicas,
            status.unavailable_replicas
        ),
        (Some(3), Some(3), Some(3), None)
    );
    let notes = found.metadata.annotations.expect("annotations");
    assert_eq!(notes["deployment.kubernetes.io/revision"], "1");
    let progressing = condition(&cluster, "Progressing");
    assert_eq!(progressing.status.as_deref(), Some("True"));
    assert_eq!(progressing.reason.as_deref(), Some("NewReplicaSetAvailable"));
    assert_eq!(condition(&cluster, "Available").status.as_deref(), Some("True"));
    let events = cluster.api.typed::<Event>();
    let scaled: Vec<_> = events
        .iter()
        .filter_map(|(_, e)| {
            let scaled = e.reason.as_deref() == Some("ScalingReplicaSet");
            e.message.clone().filter(|_| scaled)
        })
        .collect();
    assert_eq!(scaled.len(), 1, "{scaled:?}");
    assert!(scaled[0].starts_with("Scaled up replica set web-"), "{scaled:?}");
    assert!(scaled[0].ends_with("from 0 to 3"), "{scaled:?}");
    assert_at_rest(&cluster);
}

#[test]
fn set_and_pods_carry_the_template_hash() {
    let cluster = rolled_out(1, 1, 0);
    let (key, set) = cluster.api.typed::<ReplicaSet>().remove(0);
    let labels = set.metadata.labels.expect("labels");
    let hash = &labels["pod-template-hash"];
    assert_eq!(key.name, format!("web-{hash}"));
    let selector = set.spec.selector.match_labels.expect("labels");
    assert_eq!(&selector["pod-template-hash"], hash);
    let (_, pod) = cluster.api.typed::<Pod>().remove(0);
    assert_eq!(&pod.metadata.labels.expect("labels")["pod-template-hash"], hash);
}

#[test]
fn new_template_replaces_all_pods_and_keeps_the_old_set() {
    let mut cluster = rolled_out(4, 1, 1);
    set_image(&mut cluster, "image:2");
    cluster.settle();
    assert_eq!(images(&cluster), vec!["image:2"; 4]);
    assert_eq!(sets(&cluster), [("image:1".to_owned(), 0, 1), ("image:2".to_owned(), 4, 2)]);
    assert_at_rest(&cluster);
}

#[test]
fn undo_takes_the_old_set_back_as_a_new_revision() {
    let mut cluster = rolled_out(2, 1, 0);
    set_image(&mut cluster, "image:2");
    cluster.settle();
    set_image(&mut cluster, "image:1");
    cluster.settle();
    assert_eq!(images(&cluster), vec!["image:1"; 2]);
    assert_eq!(sets(&cluster), [("image:2".to_owned(), 0, 2), ("image:1".to_owned(), 2, 3)]);
    let all = cluster.api.typed::<ReplicaSet>();
    let history = all.iter().find_map(|(_, set)| {
        set.metadata.annotations.as_ref()?.get("deployment.kubernetes.io/revision-history").cloned()
    });
    assert_eq!(history.as_deref(), Some("1"));
    let notes = deployment(&cluster).metadata.annotations.expect("annotations");
    assert_eq!(notes["deployment.kubernetes.io/revision"], "3");
    assert_at_rest(&cluster);
}

#[test]
fn recreate_starts_nothing_before_the_last_old_pod_is_gone() {
    let mut cluster = cluster(2);
    let mut web = objects::deployment("web", 3, "image:1");
    web["spec"]["strategy"] = json!({"type": "Recreate"});
    cluster.put(web);
    cluster.settle();
    set_image(&mut cluster, "image:2");
    for choice in 0..2000 {
        cluster.turn(choice * 7 % 64);
        let all = cluster.api.typed::<Pod>();
        let of = |image: &str| {
            all.iter()
                .filter(|(_, pod)| {
                    pod.spec.as_ref().and_then(|spec| spec.containers[0].image.as_deref())
                        == Some(image)
                })
                .count()
        };
        assert!(of("image:1") == 0 || of("image:2") == 0, "old and new pods side by side");
    }
    cluster.settle();
    assert_eq!(images(&cluster), vec!["image:2"; 3]);
    assert_at_rest(&cluster);
}

#[test]
fn recreate_starts_nothing_while_an_old_set_still_asks_for_pods() {
    for start in 0..8 {
        let mut cluster = cluster(2);
        let mut web = objects::deployment("web", 3, "image:1");
        web["spec"]["strategy"] = json!({"type": "Recreate"});
        cluster.put(web);
        cluster.settle();
        set_image(&mut cluster, "image:2");
        // Nobody is left, and the old set would make up for them.
        for (key, pod) in cluster.api.typed::<Pod>() {
            let uid = pod.metadata.uid.unwrap_or_default();
            let propagation = Propagation::Background;
            cluster
                .call(&Step::Delete { key, uid, grace_seconds: Some(0), propagation })
                .expect("deleted");
        }
        // So many of what happened are seen at once: all of it, too.
        cluster.turn(8 * start);
        for choice in 0..500 {
            cluster.turn(choice * 7 % 64);
            let asked: i32 = sets(&cluster).iter().map(|(_, replicas, _)| replicas).sum();
            assert!(asked <= 3, "{:?}", sets(&cluster));
        }
        cluster.settle();
        assert_eq!(images(&cluster), vec!["image:2"; 3]);
        assert_at_rest(&cluster);
    }
}

#[test]
fn rollout_that_cannot_start_stops_at_its_bounds_and_times_out() {
    let mut cluster = rolled_out(4, 1, 1);
    let spec = objects::pod_spec("image:2", 5000);
    cluster.patch(
        &web(),
        None,
        json!({"spec": {"progressDeadlineSeconds": 60, "template": {"spec": spec}}}),
    );
    cluster.settle();
    assert_eq!(images(&cluster).iter().filter(|image| *image == "image:1").count(), 3);
    assert_eq!(images(&cluster).len(), 5);
    cluster.settle_for(Duration::from_secs(61));
    let progressing = condition(&cluster, "Progressing");
    assert_eq!(progressing.status.as_deref(), Some("False"));
    assert_eq!(progressing.reason.as_deref(), Some("ProgressDeadlineExceeded"));
    assert_at_rest(&cluster);
    // Going back is possible and heals it.
    let spec = objects::pod_spec("image:1", 100);
    cluster.patch(&web(), None, json!({"spec": {"template": {"spec": spec}}}));
    cluster.settle();
    assert_eq!(images(&cluster), vec!["image:1"; 4]);
    assert_eq!(
        condition(&cluster, "Progressing").reason.as_deref(),
        Some("NewReplicaSetAvailable")
    );
    assert_at_rest(&cluster);
}

#[test]
fn paused_deployment_scales_but_does_not_roll() {
    let mut cluster = rolled_out(2, 1, 0);
    cluster.patch(&web(), None, json!({"spec": {"paused": true}}));
    set_image(&mut cluster, "image:2");
    cluster.patch(&web(), None, json!({"spec": {"replicas": 5}}));
    cluster.settle();
    assert_eq!(images(&cluster), vec!["image:1"; 5]);
    assert_eq!(condition(&cluster, "Progressing").reason.as_deref(), Some("DeploymentPaused"));
    assert_at_rest(&cluster);
    cluster.patch(&web(), None, json!({"spec": {"paused": null}}));
    cluster.settle();
    assert_eq!(images(&cluster), vec!["image:2"; 5]);
    assert_at_rest(&cluster);
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_shared_out() {
    let mut cluster = rolled_out(8, 2, 2);
    let stuck = objects::pod_spec("image:2", 5000);
    cluster.patch(&web(), None, json!({"spec": {"template": {"spec": stuck}}}));
    cluster.settle();
    let before = sets(&cluster);
    assert_eq!(before.iter().map(|(_, replicas, _)| replicas).sum::<i32>(), 10);
    cluster.patch(&web(), None, json!({"spec": {"replicas": 4}}));
    cluster.settle();
    let after = sets(&cluster);
    assert!(after.iter().map(|(_, replicas, _)| replicas).sum::<i32>() <= 6, "{after:?}");
    assert!(after.iter().all(|(_, replicas, _)| *replicas > 0), "both run on: {after:?}");
    assert_at_rest(&cluster);
}

#[test]
fn old_revisions_beyond_the_limit_are_removed_oldest_first() {
    let mut cluster = rolled_out(1, 1, 0);
    cluster.patch(&web(), None, json!({"spec": {"revisionHistoryLimit": 2}}));
    for image in ["image:2", "image:3", "image:4", "image:5"] {
        set_image(&mut cluster, image);
        cluster.settle();
    }
    let left: Vec<i64> = sets(&cluster).into_iter().map(|(_, _, revision)| revision).collect();
    assert_eq!(left, [3, 4, 5]);
    assert_at_rest(&cluster);
}

#[test]
fn name_taken_by_a_stranger_is_avoided() {
    let mut first = rolled_out(1, 1, 0);
    let name = first.api.typed::<ReplicaSet>().remove(0).0.name;
    first.settle();
    let mut cluster = cluster(1);
    let mut stranger = objects::replica_set(&name, 0);
    stranger["spec"]["selector"] = json!({"matchLabels": {"app": "other"}});
    stranger["spec"]["template"]["metadata"]["labels"] = json!({"app": "other"});
    cluster.put(stranger);
    cluster.put(objects::deployment("web", 1, "image:1"));
    cluster.settle();
    assert_eq!(images(&cluster), ["image:1"]);
    assert_eq!(deployment(&cluster).status.expect("a status").collision_count, Some(1));
    assert_at_rest(&cluster);
}

#[test]
fn deleting_a_deployment_takes_sets_and_pods_along() {
    for propagation in [Propagation::Background, Propagation::Foreground] {
        let mut cluster = rolled_out(3, 1, 0);
        let uid = cluster.api.uid(&web());
        let step = Step::Delete { key: web(), uid, grace_seconds: None, propagation };
        cluster.call(&step).expect("deleted");
        cluster.settle();
        assert!(cluster.api.get(&web()).is_none(), "{propagation:?}");
        assert_eq!(cluster.api.list(&resources::REPLICA_SETS).count(), 0, "{propagation:?}");
        assert_eq!(cluster.api.typed::<Pod>().len(), 0, "{propagation:?}");
        assert_at_rest(&cluster);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever the order of events, calls and nodes' work, and however templates change meanwhile: never more pods than size
    /// and surge, never an available pod taken that has to stay, and in the end exactly the last template.
    #[test]
    fn rollout_stays_within_its_bounds_in_any_order(
        replicas in 1..6_i32, surge in 0..3_i32, unavailable in 0..3_i32,
        turns in prop::collection::vec((0..512_usize, 0..40_u8), 1..400),
    ) {
        prop_assume!(surge + unavailable > 0);
        let mut cluster = rolled_out(replicas, surge, unavailable);
        cluster.check_availability();
        set_image(&mut cluster, "image:2");
        for (choice, change) in turns {
            match change {
                0 => set_image(&mut cluster, "image:3"),
                1 => set_image(&mut cluster, "image:1"),
                2 => set_image(&mut cluster, "image:2"),
                _ => cluster.turn(choice),
            }
            prop_assert_eq!(cluster.broken(), []);
        }
        set_image(&mut cluster, "image:9");
        cluster.settle();
        prop_assert_eq!(cluster.broken(), []);
        assert_at_rest(&cluster);
        prop_assert_eq!(images(&cluster), vec!["image:9"; usize::try_from(replicas).unwrap_or_default()]);
        assert_at_rest(&cluster);
    }
}
