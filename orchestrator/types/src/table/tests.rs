use jiff::Timestamp;
use serde_json::{Value, json};

use super::{cells, columns};
use crate::kind::Kind;

fn row(kind: Kind, object: &Value) -> Vec<Value> {
    let now: Timestamp = "2026-11-21T12:00:00Z".parse().expect("a time");
    let row = cells(kind, object, now);
    assert_eq!(row.len(), columns(kind).len(), "a cell for every column");
    row
}

/// The row as text, wide columns included.
fn line(kind: Kind, object: &Value) -> String {
    let print = |cell: &Value| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned);
    row(kind, object).iter().map(print).collect::<Vec<_>>().join(" | ")
}

fn pod(status: &Value) -> Value {
    json!({"metadata": {"name": "p", "creationTimestamp": "2026-11-21T11:00:00Z"}, "spec": {"nodeName": "n1", "containers": [{"name": "a"}, {"name": "b"}]}, "status": status})
}

#[test]
fn every_kind_has_a_cell_for_every_column() {
    for kind in Kind::ALL {
        let row = row(kind, &json!({"metadata": {"name": "x"}}));
        for (cell, column) in row.iter().zip(columns(kind)) {
            assert!(!cell.is_null() && !column.description.is_empty(), "{kind:?} {}", column.name);
        }
    }
}

#[test]
fn a_running_pod_counts_its_ready_containers_and_restarts() {
    let pod = pod(
        &json!({"phase": "Running", "podIP": "10.244.0.5", "podIPs": [{"ip": "10.244.0.5"}], "containerStatuses": [
            {"name": "a", "ready": true, "restartCount": 2, "state": {"running": {}}, "lastState": {"terminated": {"finishedAt": "2026-11-21T11:55:00Z"}}},
            {"name": "b", "ready": false, "restartCount": 0, "state": {"running": {}}},
        ]}),
    );
    assert_eq!(
        line(Kind::Pod, &pod),
        "p | 1/2 | Running | 2 (5m ago) | 60m | 10.244.0.5 | n1 | <none> | <none>"
    );
}

#[test]
fn the_status_of_a_pod_is_what_is_in_its_way() {
    let cases = [
        (json!({"phase": "Pending"}), "Pending"),
        (
            json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]}),
            "ImagePullBackOff",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 3}]}),
            "CrashLoopBackOff",
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}]}),
            "OOMKilled",
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 7}}}]}),
            "ExitCode:7",
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 0, "signal": 9}}}]}),
            "Signal:9",
        ),
        (json!({"phase": "Failed", "reason": "Evicted"}), "Evicted"),
        (
            json!({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"reason": "Completed", "exitCode": 0}}}]}),
            "Completed",
        ),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
            "SchedulingGated",
        ),
    ];
    for (status, word) in cases {
        assert_eq!(row(Kind::Pod, &pod(&status))[2], word, "{status}");
    }
    let mut going = pod(&json!({"phase": "Running"}));
    going["metadata"]["deletionTimestamp"] = json!("2026-11-21T11:59:59Z");
    assert_eq!(row(Kind::Pod, &going)[2], "Terminating");
}

#[test]
fn init_containers_show_how_far_they_are() {
    let with = |status: Value| {
        let mut pod = pod(&json!({"phase": "Pending", "initContainerStatuses": status}));
        pod["spec"]["initContainers"] = json!([{"name": "i"}, {"name": "j"}]);
        row(Kind::Pod, &pod)[2].clone()
    };
    let done = json!({"name": "i", "state": {"terminated": {"exitCode": 0}}});
    assert_eq!(with(json!([{"name": "i", "state": {"running": {}}}])), "Init:0/2");
    assert_eq!(with(json!([done, {"name": "j", "state": {"running": {}}}])), "Init:1/2");
    assert_eq!(
        with(json!([done, {"name": "j", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}])),
        "Init:CrashLoopBackOff"
    );
    assert_eq!(
        with(json!([{"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}])),
        "Init:Error"
    );
}

#[test]
fn sidecars_count_as_containers() {
    let mut pod = pod(&json!({"phase": "Running",
        "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}],
        "containerStatuses": [{"name": "a", "ready": true, "state": {"running": {}}}, {"name": "b", "ready": true, "state": {"running": {}}}]}));
    pod["spec"]["initContainers"] = json!([{"name": "s", "restartPolicy": "Always"}]);
    assert_eq!(row(Kind::Pod, &pod)[1..4], [json!("3/3"), json!("Running"), json!("1")]);
}

#[test]
fn workloads_and_services_show_what_kubectl_shows() {
    let deployment = json!({"metadata": {"name": "d", "creationTimestamp": "2026-11-21T11:59:00Z"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": {"spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:2"}]}}},
        "status": {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1}});
    assert_eq!(
        line(Kind::Deployment, &deployment),
        "d | 1/3 | 2 | 1 | 60s | a,b | x:1,y:2 | app=web"
    );
    let service = json!({"metadata": {"name": "s", "creationTimestamp": "2026-11-21T11:59:00Z"}, "spec": {"type": "NodePort", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
        "selector": {"a": "b", "c": "d"}, "ports": [{"port": 80, "nodePort": 30001, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}});
    assert_eq!(
        line(Kind::Service, &service),
        "s | NodePort | 10.96.0.7 | <none> | 80:30001/TCP,53/UDP | 60s | a=b,c=d"
    );
    let balanced = json!({"metadata": {"name": "s"}, "spec": {"type": "LoadBalancer"}});
    assert_eq!(
        line(Kind::Service, &balanced),
        "s | LoadBalancer | <none> | <pending> | <none> | <unknown> | <none>"
    );
    let slice = json!({"metadata": {"name": "e"}, "addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [
        {"addresses": ["1.1.1.1"]}, {"addresses": ["1.1.1.2"]}, {"addresses": ["1.1.1.3"]}, {"addresses": ["1.1.1.4"]}]});
    assert_eq!(
        line(Kind::EndpointSlice, &slice),
        "e | IPv4 | 80 | 1.1.1.1,1.1.1.2,1.1.1.3 + 1 more... | <unknown>"
    );
}

#[test]
fn nodes_machines_and_events_show_what_they_report() {
    let node = json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/voter": ""}, "creationTimestamp": "2026-11-20T12:00:00Z"}, "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.0.2.15"}], "nodeInfo": {"kubeletVersion": "v1.37.0+podium", "osImage": "Podium 0.1", "kernelVersion": "6.12"}}});
    assert_eq!(
        line(Kind::Node, &node),
        "n | Ready,SchedulingDisabled | voter | 24h | v1.37.0+podium | 10.0.2.15 | <none> | Podium 0.1 | 6.12 | <unknown>"
    );
    let machine = json!({"metadata": {"name": "m"}, "status": {"voter": true, "version": "0.1", "addresses": [{"address": "10.0.2.15"}], "bootedAt": "2026-11-21T11:00:00Z", "phases": [{"name": "a", "durationMilliseconds": 20}, {"name": "b", "durationMilliseconds": 5}]}});
    assert_eq!(
        line(Kind::Machine, &machine),
        "m | Unknown | true | 0.1 | 10.0.2.15 | 60m | <unknown> | 25ms | <unknown>"
    );
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}"}, "reason": "Pulled", "message": "done\n", "type": "Normal", "count": 3,
        "source": {"component": "kubelet", "host": "n"}, "firstTimestamp": "2026-11-21T11:00:00Z", "lastTimestamp": "2026-11-21T11:59:50Z"});
    let text =
        "10s | Normal | Pulled | pod/p | spec.containers{a} | kubelet, n | done | 60m | 3 | e";
    assert_eq!(line(Kind::CoreEvent, &event), text);
    assert_eq!(line(Kind::Event, &crate::event::from_core(&event)), text);
}
