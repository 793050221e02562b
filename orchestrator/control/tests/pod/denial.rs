//! What a pod's node says after the cluster has denied that the pod is ready, because the node was not heard.

use std::time::Duration;

use podium_control::pod::merge_status;
use podium_control::pods::{NODE_LOST, NODE_NOT_READY};
use podium_types::k8s::api::core::v1::{Pod, PodStatus};

use super::runtime::{Node, Script, pod};

fn running() -> Node {
    let mut node = Node::new(pod(&[], &["c"], "Always"), Script::default());
    node.bind(Ok(()));
    node.run_until("ready", |node| node.condition("Ready").0 == "True");
    node
}

/// The pod as the cluster leaves it.
fn denied(node: &Node, reason: &str) -> Pod {
    let mut pod = (*node.pod).clone();
    let conditions = pod.status.as_mut().and_then(|status| status.conditions.as_mut());
    for condition in conditions.into_iter().flatten().filter(|it| it.type_ == "Ready") {
        condition.status = "False".to_owned();
        condition.reason = Some(reason.to_owned());
    }
    pod
}

fn ready(status: &PodStatus) -> (String, Option<String>) {
    let mut conditions = status.conditions.iter().flatten();
    let ready = conditions.find(|condition| condition.type_ == "Ready").expect("a condition");
    (ready.status.clone(), ready.reason.clone())
}

#[test]
fn node_that_is_back_says_again_that_its_pod_is_ready() {
    let mut node = running();
    let reports = node.statuses.len();
    node.update(denied(&node, NODE_NOT_READY));
    assert_eq!(node.statuses.len(), reports + 1);
    assert_eq!(ready(node.pod.status.as_ref().expect("a status")), ("True".to_owned(), None));
}

#[test]
fn node_argues_with_the_cluster_once_in_ten_seconds() {
    let mut node = running();
    let reports = node.statuses.len();
    for _ in 0..20 {
        node.update(denied(&node, NODE_NOT_READY));
        node.run_for(Duration::from_secs(1));
    }
    let argued = node.statuses.len() - reports;
    assert!((2..=3).contains(&argued), "{argued} reports in 20 s");
}

#[test]
fn pod_that_was_replaced_is_never_ready_again_whatever_its_node_says() {
    let node = running();
    let lost = denied(&node, NODE_LOST).status.expect("a status");
    let merged = merge_status(&lost, node.status());
    assert_eq!(ready(&merged), ("False".to_owned(), Some(NODE_LOST.to_owned())));
    let merged = merge_status(&denied(&node, NODE_NOT_READY).status.expect("one"), node.status());
    assert_eq!(ready(&merged), ("True".to_owned(), None));
}
