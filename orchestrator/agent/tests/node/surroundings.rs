//! Everything around the agent: an API that remembers what it is told, images, a network, objects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use podium_agent::{
    Agent, AgentConfig, BoxFuture, Change, EventSink, ImageError, ImageStore, NetworkError,
    PodNetwork, PodRef, PulledImage, References, Seams, ServiceAddress, SinkError, StatusSink,
};
use podium_control::pod::{Occurrence, merge_status};
use podium_types::k8s::api::core::v1::{ConfigMap, ContainerStatus, Pod, PodStatus, Secret};
use serde_json::{Value, json};

use super::shims::Shims;

/// What the API and the node's parts know.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) pods: BTreeMap<String, Pod>,
    pub(crate) events: Vec<String>,
    pub(crate) deleted: BTreeSet<String>,
    pub(crate) attached: BTreeSet<String>,
    pub(crate) config_maps: BTreeMap<String, Value>,
    pub(crate) images: BTreeSet<String>,
    pub(crate) pull_error: Option<String>,
    pub(crate) api_is_down: bool,
    pub(crate) writes: usize,
}

/// One node: its folders, its shims, and what is around it. Agents come and go.
#[derive(Clone)]
pub(crate) struct Machine {
    dir: Arc<tempfile::TempDir>,
    pub(crate) shims: Shims,
    known: Arc<Mutex<Known>>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let groups = dir.path().join("cgroup");
        std::fs::create_dir(&groups).expect("a folder");
        std::fs::write(groups.join("cgroup.controllers"), "cpu memory pids io\n").expect("a file");
        Self { dir: Arc::new(dir), shims: Shims::default(), known: Arc::default() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn shim_dir(&self, uid: &str) -> PathBuf {
        self.path("run").join(uid)
    }

    pub(crate) fn known<T>(&self, use_it: impl FnOnce(&mut Known) -> T) -> T {
        use_it(&mut self.known.lock().expect("a lock"))
    }

    /// Starts an agent on this node and tells it of all pods.
    pub(crate) async fn agent(&self) -> Agent {
        let host: IpAddr = "10.0.2.15".parse().expect("an address");
        let mut config = AgentConfig::shipped("n1".to_owned(), vec![host], Vec::new());
        config.run_dir = self.path("run");
        config.state_dir = self.path("state");
        config.log_dir = self.path("logs");
        config.cgroup_root = self.path("cgroup");
        let around = Arc::new(self.clone());
        let seams = Seams {
            references: around.clone(),
            statuses: around.clone(),
            events: around.clone(),
            network: around.clone(),
            images: around,
            launcher: Arc::new(self.shims.clone()),
        };
        let agent = Agent::start(config, seams).await.expect("an agent");
        let pods = self.known(|known| known.pods.values().cloned().map(Arc::new).collect());
        agent.take(Change::AllPods(pods)).await;
        agent
    }

    /// Makes a pod in the API.
    pub(crate) fn create(&self, uid: &str, spec: Value) -> Arc<Pod> {
        let metadata = json!({"name": uid, "namespace": "ns", "uid": uid});
        let pod: Pod =
            serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a pod");
        self.known(|known| known.pods.insert(uid.to_owned(), pod.clone()));
        Arc::new(pod)
    }

    /// Marks a pod for deletion.
    pub(crate) fn delete(&self, uid: &str) -> Arc<Pod> {
        self.known(|known| {
            let pod = known.pods.get_mut(uid).expect("the pod");
            pod.metadata.deletion_timestamp =
                serde_json::from_value(json!("2026-11-21T10:00:00Z")).expect("a time");
            pod.metadata.deletion_grace_period_seconds = Some(30);
            Arc::new(pod.clone())
        })
    }

    /// Waits until the API shows what is wanted.
    pub(crate) async fn wait(&self, what: &str, condition: impl Fn(&Known) -> bool) {
        let holds = async {
            while !self.known(|known| condition(known)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(30), holds).await.is_err() {
            let state = self.known(|known| format!("{:#?}\n{:#?}", known.events, known.pods));
            panic!("{what}: not in time\n{state}");
        }
    }

    /// Waits until a container runs with so many restarts behind it.
    pub(crate) async fn wait_running(&self, uid: &str, container: &str, restarts: i32) {
        self.wait("running", |known| {
            known.container(uid, container).is_some_and(|status| {
                status.restart_count == restarts
                    && status.state.is_some_and(|state| state.running.is_some())
            })
        })
        .await;
    }
}

impl Known {
    pub(crate) fn status(&self, uid: &str) -> Option<&PodStatus> {
        self.pods.get(uid)?.status.as_ref()
    }

    pub(crate) fn phase(&self, uid: &str) -> &str {
        self.status(uid).and_then(|status| status.phase.as_deref()).unwrap_or("")
    }

    pub(crate) fn container(&self, uid: &str, name: &str) -> Option<ContainerStatus> {
        self.status(uid)?
            .container_statuses
            .as_ref()?
            .iter()
            .find(|known| known.name == name)
            .cloned()
    }

    pub(crate) fn waiting_reason(&self, uid: &str, name: &str) -> Option<String> {
        self.container(uid, name)?.state?.waiting?.reason
    }
}

impl References for Machine {
    fn config_map(&self, _namespace: &str, name: &str) -> Option<Arc<ConfigMap>> {
        let data = self.known(|known| known.config_maps.get(name).cloned())?;
        Some(Arc::new(serde_json::from_value(json!({"data": data})).expect("a ConfigMap")))
    }

    fn secret(&self, _namespace: &str, _name: &str) -> Option<Arc<Secret>> {
        None
    }

    fn services(&self, _namespace: &str) -> Vec<ServiceAddress> {
        Vec::new()
    }
}

impl StatusSink for Machine {
    fn write<'a>(
        &'a self,
        pod: &'a PodRef,
        status: &'a PodStatus,
    ) -> BoxFuture<'a, Result<(), SinkError>> {
        let result = self.known(|known| {
            if known.api_is_down {
                return Err(SinkError::Unavailable("no leader".to_owned()));
            }
            let found = known.pods.get_mut(&pod.uid).ok_or(SinkError::Gone)?;
            let merged = merge_status(&found.status.clone().unwrap_or_default(), status);
            found.status = Some(merged);
            known.writes += 1;
            Ok(())
        });
        Box::pin(std::future::ready(result))
    }

    fn delete<'a>(&'a self, pod: &'a PodRef) -> BoxFuture<'a, Result<(), SinkError>> {
        let result = self.known(|known| {
            known.pods.remove(&pod.uid).ok_or(SinkError::Gone)?;
            known.deleted.insert(pod.uid.clone());
            Ok(())
        });
        Box::pin(std::future::ready(result))
    }
}

impl EventSink for Machine {
    fn record(&self, _pod: &PodRef, occurrence: &Occurrence) {
        self.known(|known| {
            known.events.push(format!("{}: {}", occurrence.reason, occurrence.message));
        });
    }
}

impl PodNetwork for Machine {
    fn attach<'a>(
        &'a self,
        pod: &'a PodRef,
        _namespace: &'a Path,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, NetworkError>> {
        self.known(|known| known.attached.insert(pod.uid.clone()));
        Box::pin(std::future::ready(Ok(vec!["10.244.0.7".parse().expect("an address")])))
    }

    fn detach<'a>(&'a self, pod: &'a PodRef) -> BoxFuture<'a, Result<(), NetworkError>> {
        self.known(|known| known.attached.remove(&pod.uid));
        Box::pin(std::future::ready(Ok(())))
    }

    fn reconcile<'a>(&'a self, pods: &'a [PodRef]) -> BoxFuture<'a, Result<(), NetworkError>> {
        let keep: BTreeSet<&str> = pods.iter().map(|pod| pod.uid.as_str()).collect();
        self.known(|known| known.attached.retain(|uid| keep.contains(uid.as_str())));
        Box::pin(std::future::ready(Ok(())))
    }

    fn withdrawn<'a>(&'a self, _pod: &'a PodRef) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}

impl ImageStore for Machine {
    fn get<'a>(
        &'a self,
        reference: &'a str,
    ) -> BoxFuture<'a, Result<Option<PulledImage>, ImageError>> {
        let found = self.known(|known| known.images.contains(reference)).then(|| image(reference));
        Box::pin(std::future::ready(Ok(found)))
    }

    fn pull<'a>(
        &'a self,
        reference: &'a str,
        _credentials: &'a [String],
    ) -> BoxFuture<'a, Result<PulledImage, ImageError>> {
        let result = self.known(|known| match &known.pull_error {
            Some(error) => Err(ImageError::Failed(error.clone())),
            None => {
                known.images.insert(reference.to_owned());
                Ok(image(reference))
            }
        });
        Box::pin(std::future::ready(result))
    }

    fn list(&self) -> BoxFuture<'_, Vec<(Vec<String>, u64)>> {
        Box::pin(std::future::ready(Vec::new()))
    }
}

fn image(reference: &str) -> PulledImage {
    PulledImage {
        reference: format!("docker.io/library/{reference}"),
        digest: "sha256:00".to_owned(),
        entrypoint: vec!["/run".to_owned()],
        env: vec!["PATH=/bin".to_owned()],
        stop_signal: Some("SIGQUIT".to_owned()),
        layers: vec![PathBuf::from("/layers/1")],
        size_bytes: 1,
        ..PulledImage::default()
    }
}
