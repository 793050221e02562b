//! The row of a pod. Its status is one word for the whole: the first thing that is in the way, if anything is.

use jiff::Timestamp;
use serde_json::Value;

use super::{NONE, condition, name, or_none, since, since_creation, text};
use crate::object::{self, bool_at, i64_at, list_at, str_at};
use crate::time;

pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = Summary::of(pod);
    let restarts = match (summary.restarts, summary.last_restart) {
        (restarts @ 1.., Some(last)) => format!("{restarts} ({} ago)", since(Some(last), now)),
        (restarts, _) => restarts.to_string(),
    };
    vec![
        name(pod),
        Value::from(format!("{}/{}", summary.ready, summary.total)),
        Value::from(summary.status),
        Value::from(restarts),
        since_creation(pod, now),
        Value::from(or_none(address(pod))),
        text(pod, &["spec", "nodeName"], NONE),
        text(pod, &["status", "nominatedNodeName"], NONE),
        Value::from(readiness_gates(pod)),
    ]
}

#[derive(Default)]
struct Summary {
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
    status: String,
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let status = str_at(pod, &["status", "reason"]).filter(|reason| !reason.is_empty());
        let phase = str_at(pod, &["status", "phase"]).unwrap_or_default();
        let mut summary = Self {
            total: list_at(pod, &["spec", "containers"]).len(),
            status: status.unwrap_or(phase).to_owned(),
            ..Self::default()
        };
        if scheduling_gated(pod) {
            "SchedulingGated".clone_into(&mut summary.status);
        }
        let initializing = summary.add_init_containers(pod);
        if !initializing || condition(pod, "Initialized") == Some(true) {
            summary.add_containers(pod);
        }
        if object::deletion_timestamp(pod).is_some() {
            if status == Some("NodeLost") {
                "Unknown".clone_into(&mut summary.status);
            } else if !matches!(phase, "Succeeded" | "Failed") {
                "Terminating".clone_into(&mut summary.status);
            }
        }
        summary
    }

    /// Says whether init containers are still at work, and at which.
    fn add_init_containers(&mut self, pod: &Value) -> bool {
        let containers = list_at(pod, &["spec", "initContainers"]);
        let sidecar = |name: Option<&str>| {
            let container =
                containers.iter().find(|container| str_at(container, &["name"]) == name);
            container
                .is_some_and(|container| str_at(container, &["restartPolicy"]) == Some("Always"))
        };
        self.total +=
            containers.iter().filter(|container| sidecar(str_at(container, &["name"]))).count();
        let mut sidecar_restarts = 0;
        let mut initializing = false;
        for (index, status) in list_at(pod, &["status", "initContainerStatuses"]).iter().enumerate()
        {
            let is_sidecar = sidecar(str_at(status, &["name"]));
            self.count_restarts(status);
            if is_sidecar {
                sidecar_restarts += i64_at(status, &["restartCount"]).unwrap_or_default();
            }
            let terminated = status.get("state").and_then(|state| state.get("terminated"));
            if terminated.is_some_and(|end| i64_at(end, &["exitCode"]) == Some(0)) {
                continue;
            }
            if is_sidecar && bool_at(status, &["started"]) {
                self.ready += usize::from(bool_at(status, &["ready"]));
                continue;
            }
            let waiting = str_at(status, &["state", "waiting", "reason"]).unwrap_or_default();
            self.status = match terminated {
                Some(end) => format!("Init:{}", end_reason(end)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => {
                    format!("Init:{waiting}")
                }
                None => format!("Init:{index}/{}", containers.len()),
            };
            initializing = true;
            break;
        }
        if !initializing {
            // Those of init containers that are done are of no interest any more.
            self.restarts = sidecar_restarts;
        }
        initializing
    }

    fn add_containers(&mut self, pod: &Value) {
        let mut any_running = false;
        for status in list_at(pod, &["status", "containerStatuses"]).iter().rev() {
            self.count_restarts(status);
            let state = status.get("state");
            let waiting = str_at(status, &["state", "waiting", "reason"]).unwrap_or_default();
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.status);
            } else if let Some(end) = state.and_then(|state| state.get("terminated")) {
                self.status = end_reason(end);
            } else if bool_at(status, &["ready"])
                && state.is_some_and(|state| state.get("running").is_some())
            {
                any_running = true;
                self.ready += 1;
            }
        }
        if self.status == "Completed" && any_running {
            let ready = condition(pod, "Ready") == Some(true);
            if ready { "Running" } else { "NotReady" }.clone_into(&mut self.status);
        }
    }

    fn count_restarts(&mut self, status: &Value) {
        self.restarts += i64_at(status, &["restartCount"]).unwrap_or_default();
        let ended =
            str_at(status, &["lastState", "terminated", "finishedAt"]).and_then(time::parse_time);
        self.last_restart = self.last_restart.max(ended);
    }
}

fn end_reason(end: &Value) -> String {
    if let Some(reason) = str_at(end, &["reason"]).filter(|reason| !reason.is_empty()) {
        return reason.to_owned();
    }
    match i64_at(end, &["signal"]).unwrap_or_default() {
        0 => format!("ExitCode:{}", i64_at(end, &["exitCode"]).unwrap_or_default()),
        signal => format!("Signal:{signal}"),
    }
}

fn scheduling_gated(pod: &Value) -> bool {
    list_at(pod, &["status", "conditions"]).iter().any(|condition| {
        str_at(condition, &["type"]) == Some("PodScheduled")
            && str_at(condition, &["reason"]) == Some("SchedulingGated")
    })
}

fn address(pod: &Value) -> &str {
    let first =
        list_at(pod, &["status", "podIPs"]).first().and_then(|address| str_at(address, &["ip"]));
    first.or_else(|| str_at(pod, &["status", "podIP"])).unwrap_or_default()
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list_at(pod, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let open = |gate: &&Value| {
        condition(pod, str_at(gate, &["conditionType"]).unwrap_or_default()) == Some(true)
    };
    format!("{}/{}", gates.iter().filter(open).count(), gates.len())
}
