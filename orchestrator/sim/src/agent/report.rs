//! What the agent tells the API: statuses in order and only the newest, events, and the end of a pod.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use podium_control::pod::{Occurrence, merge_status};
use podium_types::ObjectKey;
use podium_types::k8s::api::core::v1::PodStatus;
use serde_json::json;

use crate::access::{Access, Outcome, Request};
use crate::runtime::spawn;

type Waiting = Arc<Mutex<BTreeMap<String, Option<PodStatus>>>>;

/// The agent's way to report.
pub(super) struct Reports {
    access: Access,
    /// By uid: the newest status that has not been sent; an entry without one means that a task is sending.
    waiting: Waiting,
}

impl Reports {
    pub(super) fn new(access: Access) -> Self {
        Self { access, waiting: Arc::default() }
    }

    /// Writes the status, unless a newer one comes before its turn.
    pub(super) fn status(&self, key: &ObjectKey, uid: &str, status: PodStatus) {
        let sending = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.insert(uid.to_owned(), Some(status)).is_some()
        };
        if sending {
            return;
        }
        let (access, waiting, key, uid) =
            (self.access.clone(), self.waiting.clone(), key.clone(), uid.to_owned());
        drop(spawn(async move {
            while let Some(status) = newest(&waiting, &uid) {
                write(&access, &key, &uid, &status).await;
            }
        }));
    }

    /// Records an event, once and without care.
    pub(super) fn occurrence(&self, key: &ObjectKey, uid: &str, occurrence: Occurrence) {
        let access = self.access.clone();
        let name = format!("{}.{:016x}", key.name, crate::executor::with(|core| core.random()));
        let object = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": { "name": name, "namespace": key.namespace },
            "involvedObject": {
                "apiVersion": "v1", "kind": "Pod", "name": key.name, "namespace": key.namespace, "uid": uid,
            },
            "type": format!("{:?}", occurrence.severity),
            "reason": occurrence.reason, "message": occurrence.message,
            "source": { "component": "kubelet" }, "count": 1,
            "firstTimestamp": access.now().time(), "lastTimestamp": access.now().time(),
        });
        let resource = podium_types::kind::resources::EVENTS;
        drop(spawn(async move { access.call(Request::Create { resource, object }).await }));
    }

    /// Removes the pod's object for good.
    pub(super) fn delete(&self, key: &ObjectKey, uid: &str) {
        let (access, key, uid) = (self.access.clone(), key.clone(), uid.to_owned());
        let request =
            Request::Delete { key, uid: Some(uid), grace_seconds: Some(0), propagation: None };
        drop(spawn(async move { access.insist(request).await }));
    }
}

fn newest(waiting: &Waiting, uid: &str) -> Option<PodStatus> {
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    let status = waiting.get_mut(uid)?.take();
    if status.is_none() {
        waiting.remove(uid);
    }
    status
}

/// Reads the pod, puts our part of the status into it, and writes it back, until that works or the pod is another.
async fn write(access: &Access, key: &ObjectKey, uid: &str, status: &PodStatus) {
    loop {
        let Outcome::Done { mut object, .. } =
            access.insist(Request::Get { key: key.clone() }).await
        else {
            return;
        };
        if object["metadata"]["uid"] != uid {
            return;
        }
        let current: PodStatus =
            serde_json::from_value(object["status"].clone()).unwrap_or_default();
        object["status"] = json!(merge_status(&current, status));
        let request = Request::Update { key: key.clone(), part: Some("status"), object };
        match access.insist(request).await {
            Outcome::Refused { status } if status.code == 409 => {}
            _ => return,
        }
    }
}
