use podium_control::testing::Cluster;
use podium_control::testing::objects::{self, pod_key, service_key};
use podium_control::{Propagation, Step};
use podium_types::ObjectKey;
use podium_types::k8s::api::discovery::v1::{Endpoint, EndpointSlice};
use serde_json::json;

use crate::{assert_at_rest, cluster};

fn slices(cluster: &Cluster) -> Vec<EndpointSlice> {
    cluster.api.typed::<EndpointSlice>().into_iter().map(|(_, slice)| slice).collect()
}

fn endpoints(cluster: &Cluster) -> Vec<Endpoint> {
    slices(cluster).into_iter().flat_map(|slice| slice.endpoints.unwrap_or_default()).collect()
}

fn conditions(endpoint: &Endpoint) -> (bool, bool, bool) {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let is = |condition: Option<bool>| condition == Some(true);
    (is(conditions.ready), is(conditions.serving), is(conditions.terminating))
}

fn delete(cluster: &mut Cluster, key: ObjectKey) {
    let uid = cluster.api.uid(&key);
    let propagation = Propagation::Background;
    cluster.call(&Step::Delete { key, uid, grace_seconds: None, propagation }).expect("deleted");
}

#[test]
fn ready_pods_of_a_service_are_its_endpoints() {
    let mut cluster = cluster(1);
    cluster.put(objects::service("web", "web"));
    cluster.put(objects::replica_set("web", 2));
    cluster.put(objects::pod("other", "other", 10));
    cluster.settle();
    let slice = slices(&cluster).remove(0);
    let labels = slice.metadata.labels.expect("labels");
    assert_eq!(labels["kubernetes.io/service-name"], "web");
    assert_eq!(labels["endpointslice.kubernetes.io/managed-by"], "endpointslice-controller.k8s.io");
    assert_eq!(slice.address_type, "IPv4");
    let port = slice.ports.expect("ports").remove(0);
    assert_eq!(
        (port.name.as_deref(), port.port, port.protocol.as_deref()),
        (Some("http"), Some(8080), Some("TCP"))
    );
    let all = endpoints(&cluster);
    assert_eq!(all.len(), 2);
    for endpoint in &all {
        assert_eq!(conditions(endpoint), (true, true, false));
        assert_eq!(endpoint.node_name.as_deref(), Some("n1"));
        assert_eq!(
            endpoint.target_ref.as_ref().and_then(|target| target.kind.as_deref()),
            Some("Pod")
        );
    }
    assert_at_rest(&cluster);
}

#[test]
fn terminating_pod_stays_listed_as_not_ready_until_it_is_gone() {
    let mut cluster = cluster(1);
    cluster.put(objects::service("web", "web"));
    cluster.put(objects::pod("a", "web", 10));
    cluster.settle();
    delete(&mut cluster, pod_key("default", "a"));
    cluster.settle_controllers();
    assert_eq!(
        endpoints(&cluster).iter().map(conditions).collect::<Vec<_>>(),
        [(false, true, true)]
    );
    cluster.settle();
    assert_eq!(endpoints(&cluster), []);
    assert_eq!(slices(&cluster).len(), 1, "an empty slice says that there are none");
    assert_at_rest(&cluster);
}

#[test]
fn unready_pods_are_published_only_when_asked_for() {
    let mut cluster = cluster(1);
    let mut eager = objects::service("eager", "web");
    eager["spec"]["publishNotReadyAddresses"] = json!(true);
    cluster.put(eager);
    cluster.put(objects::service("web", "web"));
    cluster.put(objects::pod("a", "web", 10));
    cluster.settle();
    let unready = json!({"status": objects::readiness(false, cluster.now)});
    cluster.patch(&pod_key("default", "a"), Some("status"), unready);
    cluster.settle();
    let all: Vec<_> = endpoints(&cluster).iter().map(conditions).collect();
    assert_eq!(all, [(true, false, false), (false, false, false)]);
    assert_at_rest(&cluster);
}

#[test]
fn named_port_with_two_numbers_makes_two_slices() {
    let mut cluster = cluster(1);
    cluster.put(objects::service("web", "web"));
    cluster.put(objects::pod("a", "web", 10));
    let mut other = objects::pod("b", "web", 10);
    other["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(9090);
    cluster.put(other);
    cluster.settle();
    let mut ports: Vec<_> = slices(&cluster)
        .into_iter()
        .map(|slice| (slice.ports.expect("ports")[0].port, slice.endpoints.map(|e| e.len())))
        .collect();
    ports.sort();
    assert_eq!(ports, [(Some(8080), Some(1)), (Some(9090), Some(1))]);
    assert_at_rest(&cluster);
}

#[test]
fn headless_service_marks_its_slices_and_names_hosts() {
    let mut cluster = cluster(1);
    let mut headless = objects::service("db", "db");
    headless["spec"]["clusterIP"] = json!("None");
    cluster.put(headless);
    let mut pod = objects::pod("db-0", "db", 10);
    pod["spec"]["hostname"] = json!("db-0");
    pod["spec"]["subdomain"] = json!("db");
    cluster.put(pod);
    cluster.settle();
    let slice = slices(&cluster).remove(0);
    assert!(slice.metadata.labels.expect("labels").contains_key("service.kubernetes.io/headless"));
    assert_eq!(endpoints(&cluster)[0].hostname.as_deref(), Some("db-0"));
}

#[test]
fn slices_hold_at_most_a_hundred_and_one_change_rewrites_one() {
    let mut cluster = Cluster::new();
    cluster.put(objects::namespace("default"));
    cluster.put(objects::node("big", 100_000, 1000));
    cluster.put(objects::service("web", "web"));
    cluster.put(objects::replica_set("web", 250));
    cluster.settle();
    let sizes = |cluster: &Cluster| {
        let mut sizes: Vec<_> = slices(cluster)
            .iter()
            .map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len))
            .collect();
        sizes.sort_unstable();
        sizes
    };
    assert!(sizes(&cluster).iter().all(|size| *size <= 100));
    assert_eq!(sizes(&cluster).iter().sum::<usize>(), 250);
    assert_eq!(sizes(&cluster).len(), 3);
    let versions = |cluster: &Cluster| -> Vec<_> {
        slices(cluster).into_iter().map(|slice| slice.metadata.resource_version).collect()
    };
    let before = versions(&cluster);
    let name = cluster.api.typed::<podium_types::k8s::api::core::v1::Pod>().remove(17).0;
    let unready = json!({"status": objects::readiness(false, cluster.now)});
    cluster.patch(&name, Some("status"), unready);
    cluster.settle();
    let changed = before.iter().zip(versions(&cluster)).filter(|(a, b)| *a != b).count();
    assert_eq!(changed, 1);
    assert_at_rest(&cluster);
}

#[test]
fn slices_go_with_their_service_and_come_back_when_deleted() {
    let mut cluster = cluster(1);
    cluster.put(objects::service("web", "web"));
    cluster.put(objects::pod("a", "web", 10));
    cluster.settle();
    let slice = cluster.api.typed::<EndpointSlice>().remove(0).0;
    delete(&mut cluster, slice);
    cluster.settle();
    assert_eq!(endpoints(&cluster).len(), 1);
    delete(&mut cluster, service_key("default", "web"));
    cluster.settle();
    assert_eq!(slices(&cluster), []);
    assert_at_rest(&cluster);
}

#[test]
fn service_without_selector_is_left_to_its_owner() {
    let mut cluster = cluster(1);
    let mut manual = objects::service("manual", "web");
    manual["spec"]["selector"] = serde_json::Value::Null;
    cluster.put(manual);
    cluster.put(objects::pod("a", "web", 10));
    cluster.settle();
    assert_eq!(slices(&cluster), []);
}
