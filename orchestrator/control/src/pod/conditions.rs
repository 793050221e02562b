//! The conditions of a pod that its node owns.

use std::collections::BTreeMap;

use jiff::Timestamp;
use podium_types::Now;
use podium_types::k8s::api::core::v1::{PodCondition, PodStatus};
use podium_types::k8s::apimachinery::pkg::apis::meta::v1::Time;

use super::PodMachine;
use super::container::Role;
use super::status::{Phase, whole_seconds};

/// The types of condition that a node writes; all others belong to someone else.
pub(super) const OWNED: [&str; 4] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"];

/// Since when each condition is what it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Transitions(BTreeMap<String, (String, Timestamp)>);

impl Transitions {
    pub(super) fn of(status: Option<&PodStatus>) -> Self {
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let known = conditions.iter().filter_map(|condition| {
            let since = condition.last_transition_time.as_ref()?.0;
            Some((condition.type_.clone(), (condition.status.clone(), since)))
        });
        Self(known.collect())
    }

    /// The time of the last change, which is now if the status differs from what is noted.
    fn since(&mut self, type_: &str, status: &str, now: Now) -> Timestamp {
        match self.0.get(type_) {
            Some((known, since)) if known == status => *since,
            Some(_) | None => {
                self.0.insert(type_.to_owned(), (status.to_owned(), now.wall));
                now.wall
            }
        }
    }
}

/// What a condition says.
struct Finding {
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Finding {
    fn yes() -> Self {
        Self { holds: true, reason: None, message: None }
    }

    fn no(reason: &'static str, message: Option<String>) -> Self {
        Self { holds: false, reason: Some(reason), message }
    }
}

impl PodMachine {
    /// The owned conditions, in the order in which kubelet lists them.
    pub(super) fn conditions(&mut self, now: Now) -> Vec<PodCondition> {
        let sandbox = Finding { holds: self.sandbox_ready, reason: None, message: None };
        let findings =
            [sandbox, self.find_initialized(), self.find_ready(), self.find_containers_ready()];
        let generation = self.pod.metadata.generation;
        OWNED
            .into_iter()
            .zip(findings)
            .map(|(type_, finding)| {
                let status = if finding.holds { "True" } else { "False" };
                let since = self.transitions.since(type_, status, now);
                PodCondition {
                    type_: type_.to_owned(),
                    status: status.to_owned(),
                    reason: finding.reason.map(str::to_owned),
                    message: finding.message,
                    last_transition_time: Some(Time(whole_seconds(since))),
                    last_probe_time: None,
                    observed_generation: generation,
                }
            })
            .collect()
    }

    /// The pod serves, as its `Ready` condition says.
    pub(super) fn is_ready(&self) -> bool {
        self.find_ready().holds
    }

    fn find_initialized(&self) -> Finding {
        if self.phase == Phase::Succeeded {
            return Finding { holds: true, reason: Some("PodCompleted"), message: None };
        }
        let incomplete = self.not_ready(Role::Init);
        if incomplete.is_empty() {
            Finding::yes()
        } else {
            let text = format!("containers with incomplete status: [{}]", incomplete.join(" "));
            Finding::no("ContainersNotInitialized", Some(text))
        }
    }

    fn find_containers_ready(&self) -> Finding {
        match self.phase {
            Phase::Succeeded => return Finding::no("PodCompleted", None),
            Phase::Failed => return Finding::no("PodFailed", None),
            Phase::Pending | Phase::Running => {}
        }
        let unready = self.not_ready(Role::Main);
        if unready.is_empty() {
            Finding::yes()
        } else {
            let text = format!("containers with unready status: [{}]", unready.join(" "));
            Finding::no("ContainersNotReady", Some(text))
        }
    }

    fn find_ready(&self) -> Finding {
        let containers = self.find_containers_ready();
        if !containers.holds {
            return containers;
        }
        let texts: Vec<_> = self.open_gates().collect();
        if texts.is_empty() {
            Finding::yes()
        } else {
            Finding::no("ReadinessGatesNotReady", Some(texts.join(", ")))
        }
    }

    /// The readiness gates that do not let the pod be ready, in words.
    fn open_gates(&self) -> impl Iterator<Item = String> {
        let gates =
            self.spec().and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
        let conditions = self
            .pod
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_deref())
            .unwrap_or_default();
        gates.iter().filter_map(|gate| {
            let type_ = &gate.condition_type;
            match conditions.iter().find(|condition| condition.type_ == *type_) {
                None => Some(format!(
                    "corresponding condition of pod readiness gate \"{type_}\" does not exist."
                )),
                Some(found) if found.status == "True" => None,
                Some(found) => Some(format!(
                    "the status of pod readiness gate \"{type_}\" is not \"True\", but {}",
                    found.status
                )),
            }
        })
    }

    fn not_ready(&self, role: Role) -> Vec<&str> {
        self.containers
            .iter()
            .filter(|known| known.role == role && !known.readiness().ready)
            .map(|known| known.name.as_str())
            .collect()
    }
}
