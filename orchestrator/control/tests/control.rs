//! Whole behaviours: all controllers and the driver against an API in memory.

mod control {
    mod collection;
    mod endpoints;
    mod leader;
    mod lifecycle;
    mod namespaces;
    #[cfg(feature = "planted-bugs")]
    mod planted;
    mod random;
    mod replicas;
    mod rollout;
    mod scheduling;
}

use podium_control::testing::Cluster;
use podium_control::testing::objects;
use podium_control::{Settings, controllers};

/// A cluster with the namespace `default` and nodes of 2 CPUs and room for 20 pods.
fn cluster(nodes: usize) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.put(objects::namespace("default"));
    for index in 1..=nodes {
        cluster.put(objects::node(&format!("n{index}"), 2000, 20));
    }
    cluster.settle();
    cluster
}

/// Nothing is left to do, and no promise was broken.
#[track_caller]
fn assert_at_rest(cluster: &Cluster) {
    let settings = Settings { root_ca_pem: "PEM".to_owned(), ..Settings::default() };
    let unfinished = cluster.unfinished(&controllers(&settings));
    assert!(unfinished.is_empty(), "plans at rest: {unfinished:#?}");
    assert_eq!(cluster.broken(), []);
}
