//! The agent: a table of pods, kept as the changes say.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use podium_control::pod::{
    self as machine, Instance, NodeRoom, PodEvent, PodMachine, PodRecord, PodRecordV1,
};
use podium_control::resources::Usage;
use podium_types::k8s::api::core::v1::Pod;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::adopt::{self, Found};
use crate::cgroup;
use crate::config::AgentConfig;
use crate::host::{Host, Seams};
use crate::logs::{self, LogError, LogOptions, LogStream};
use crate::node::{self, Capacity, NodeFacts};
use crate::pod::site::Site;
use crate::pod::{self, Input, PodHandle, Rest};
use crate::references;
use crate::sandbox::describe;
use crate::seams::{Change, PodRef};
use crate::streams::{self, ExecOptions, ExecSession, StreamError};

/// Why the agent cannot work on this node.
#[derive(Debug, Error)]
pub enum AgentError {
    /// A folder cannot be used.
    #[error("cannot {action} {}", path.display())]
    Folder {
        /// What was being done.
        action: &'static str,
        /// To which folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The control groups cannot be used.
    #[error("cannot prepare the control groups of pods: {0}")]
    ControlGroups(String),
}

/// The agent of one node. Clones are handles to the same agent.
#[derive(Clone)]
pub struct Agent {
    inner: Arc<Inner>,
}

struct Inner {
    host: Arc<Host>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    pods: BTreeMap<String, PodHandle>,
    /// What was found at the start and is not claimed yet; taken by the first list of pods.
    found: Option<BTreeMap<String, Found>>,
    /// The node is going down; no pod is taken any more.
    stopping: bool,
}

impl Agent {
    /// Prepares the node and finds what earlier runs left. Pods that run go on running; nothing is started yet.
    ///
    /// # Errors
    /// When the node cannot run pods at all.
    pub async fn start(config: AgentConfig, seams: Seams) -> Result<Self, AgentError> {
        for path in [&config.run_dir, &config.state_dir, &config.log_dir] {
            std::fs::create_dir_all(path).map_err(|source| AgentError::Folder {
                action: "make",
                path: path.clone(),
                source,
            })?;
        }
        let lacks = cgroup::delegate(&config.cgroup_root, &config.cgroup_parent)
            .map_err(|error| AgentError::ControlGroups(describe(&error)))?;
        if !lacks.is_empty() {
            tracing::warn!(controllers = ?lacks, "the kernel lacks controllers, so their limits do not hold");
        }
        let found = adopt::scan(&config).await.map_err(|source| AgentError::Folder {
            action: "look through",
            path: config.state_dir.clone(),
            source,
        })?;
        let capacity = Capacity::observe(&config.state_dir);
        let host = Arc::new(Host::new(config, seams, capacity));
        let table = Table { found: Some(found), ..Table::default() };
        Ok(Self { inner: Arc::new(Inner { host, table: Mutex::new(table) }) })
    }

    /// Takes changes until there are no more. The first one has to be [`Change::AllPods`].
    pub async fn run(&self, mut changes: mpsc::Receiver<Change>) {
        while let Some(change) = changes.recv().await {
            self.take(change).await;
        }
    }

    /// Takes one change.
    pub async fn take(&self, change: Change) {
        match change {
            Change::AllPods(pods) => self.take_all(pods).await,
            Change::Pod(pod) => self.take_pod(pod, None),
            Change::PodRemoved { uid } => {
                if let Some(handle) = self.handle(&uid) {
                    handle.send(PodEvent::Removed);
                }
            }
            Change::ConfigMap { namespace, name } => {
                self.tell_users(|pod| references::uses_config_map(pod, &namespace, &name));
            }
            Change::Secret { namespace, name } => {
                self.tell_users(|pod| references::uses_secret(pod, &namespace, &name));
            }
        }
    }

    /// Stops all pods in order, each with its grace but none longer than the limit, and returns how many are still not
    /// at rest a little after it. Pods keep their objects and run again when the node does.
    pub async fn shutdown(&self, limit: Duration) -> usize {
        const SLACK: Duration = Duration::from_secs(10);
        let handles: Vec<PodHandle> = self.with_table(|table| {
            table.stopping = true;
            table.pods.values().cloned().collect()
        });
        for handle in &handles {
            handle.send(PodEvent::NodeStopping { limit });
        }
        let deadline = tokio::time::Instant::now() + limit + SLACK;
        let mut restless = 0;
        for mut handle in handles {
            // A task that has ended is at rest too.
            let resting = handle.rest.wait_for(|rest| *rest != Rest::Busy);
            let late = tokio::time::timeout_at(deadline, resting).await.is_err();
            if late {
                tracing::warn!(pod = %handle.name(), "the pod did not stop in time");
                restless += 1;
            }
        }
        restless
    }

    /// What the node's status says of the machine.
    pub async fn node_facts(&self) -> NodeFacts {
        let host = &self.inner.host;
        let images = host.seams.images.list().await;
        node::facts(&host.capacity, &host.config, images)
    }

    /// The pods that this node has, whatever their state.
    #[must_use]
    pub fn pods(&self) -> Vec<PodRef> {
        self.with_table(|table| table.pods.values().map(|handle| handle.name().clone()).collect())
    }

    /// Opens a container's log.
    ///
    /// # Errors
    /// When there is no such log, in the words of the API.
    pub async fn logs(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        options: LogOptions,
    ) -> Result<LogStream, LogError> {
        let handle = self.find(namespace, pod).ok_or(LogError::NoPod)?;
        if !references::has_container(&handle.site.pod(), container) {
            return Err(LogError::NoContainer(container.to_owned(), pod.to_owned()));
        }
        let answer = handle.ask(container).await.ok_or(LogError::NoPod)?;
        let Some(newest) = answer.newest else {
            let reason = references::waiting_reason(&handle.site.pod(), container);
            return Err(LogError::NotStarted(container.to_owned(), pod.to_owned(), reason));
        };
        let attempt = if options.previous { newest.checked_sub(1) } else { Some(newest) };
        let gone = || LogError::NoPrevious(container.to_owned(), pod.to_owned());
        let instance =
            Instance { container: container.to_owned(), attempt: attempt.ok_or_else(gone)? };
        let log = handle.site.log(&instance);
        if options.previous && !log.exists() {
            return Err(gone());
        }
        let running = answer.running.as_ref() == Some(&instance);
        let ended = if running { Self::watch_end(&handle, instance) } else { Arc::new(|| true) };
        Ok(logs::open(log, options, ended))
    }

    /// Runs a command in a container.
    ///
    /// # Errors
    /// When the container does not run, or the command cannot be run in it.
    pub async fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        command: Vec<String>,
        options: ExecOptions,
    ) -> Result<ExecSession, StreamError> {
        let (handle, instance) = self.running(namespace, pod, container).await?;
        streams::exec(&handle.site.shim(), &instance.id(), command, options).await
    }

    /// Joins the standard streams of a container.
    ///
    /// # Errors
    /// When the container does not run.
    pub async fn attach(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        options: ExecOptions,
    ) -> Result<ExecSession, StreamError> {
        let (handle, instance) = self.running(namespace, pod, container).await?;
        streams::attach(&handle.site.shim(), &instance.id(), options).await
    }

    async fn running(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
    ) -> Result<(PodHandle, Instance), StreamError> {
        let handle = self.find(namespace, pod).ok_or(StreamError::NoPod)?;
        if !references::has_container(&handle.site.pod(), container) {
            return Err(StreamError::NoContainer(container.to_owned(), pod.to_owned()));
        }
        let answer = handle.ask(container).await.ok_or(StreamError::NoPod)?;
        let instance =
            answer.running.ok_or_else(|| StreamError::NotRunning(container.to_owned()))?;
        Ok((handle, instance))
    }

    /// A flag that turns when an instance has ended.
    fn watch_end(handle: &PodHandle, instance: Instance) -> Arc<dyn Fn() -> bool + Send + Sync> {
        const LOOK_AGAIN: Duration = Duration::from_millis(100);
        let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (watched, handle) = (Arc::downgrade(&over), handle.clone());
        tokio::spawn(async move {
            // Ends with the instance, or when nobody looks at the flag any more.
            while let Some(flag) = watched.upgrade() {
                let answer = handle.ask(&instance.container).await;
                if answer.is_none_or(|answer| answer.running.as_ref() != Some(&instance)) {
                    flag.store(true, std::sync::atomic::Ordering::SeqCst);
                    return;
                }
                drop(flag);
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        });
        Arc::new(move || over.load(std::sync::atomic::Ordering::SeqCst))
    }

    async fn take_all(&self, pods: Vec<Arc<Pod>>) {
        let mut found = self.with_table(|table| table.found.take());
        if let Some(found) = &found {
            self.reconcile_network(&pods, found).await;
        }
        let listed: BTreeSet<String> = pods.iter().map(|pod| PodRef::of(pod).uid).collect();
        let absent: Vec<PodHandle> = self.with_table(|table| {
            let absent = table.pods.iter().filter(|(uid, _)| !listed.contains(*uid));
            absent.map(|(_, handle)| handle.clone()).collect()
        });
        for handle in absent {
            handle.send(PodEvent::Removed);
        }
        let claim = |found: &mut Option<BTreeMap<String, Found>>, pod: &Pod| {
            found.as_mut().and_then(|found| found.remove(&PodRef::of(pod).uid))
        };
        // Pods that are here already hold what they hold; new ones are measured against that.
        let mut claimed: Vec<_> =
            pods.into_iter().map(|pod| (claim(&mut found, &pod), pod)).collect();
        claimed.sort_by_key(|(found, _)| found.is_none());
        for (found, pod) in claimed {
            self.take_pod(pod, found);
        }
        for (uid, found) in found.into_iter().flatten() {
            self.clear_orphan(uid, found.record);
        }
    }

    async fn reconcile_network(&self, pods: &[Arc<Pod>], found: &BTreeMap<String, Found>) {
        let known =
            |name: &PodRef| found.get(&name.uid).is_some_and(|found| found.record.is_some());
        let keep: Vec<PodRef> = pods.iter().map(|pod| PodRef::of(pod)).filter(known).collect();
        if let Err(error) = self.inner.host.seams.network.reconcile(&keep).await {
            tracing::error!(%error, "the pod network is not reconciled");
        }
    }

    fn clear_orphan(&self, uid: String, record: Option<PodRecord>) {
        let host = Arc::clone(&self.inner.host);
        tokio::spawn(async move {
            let network = Arc::clone(&host.seams.network);
            if let Err(error) =
                adopt::clear_orphan(&host.config, &network, uid.clone(), record).await
            {
                tracing::warn!(
                    pod = uid,
                    error,
                    "what is left of a deleted pod cannot be cleared away"
                );
            }
        });
    }

    fn take_pod(&self, pod: Arc<Pod>, found: Option<Found>) {
        let name = PodRef::of(&pod);
        if let Some(handle) = self.handle(&name.uid) {
            handle.send(PodEvent::Desired(pod));
            return;
        }
        self.with_table(|table| table.pods.retain(|_, handle| *handle.rest.borrow() != Rest::Gone));
        if self.with_table(|table| table.stopping) {
            return;
        }
        let handle = match found {
            Some(found) => self.adopt(pod, found),
            None => self.begin(pod),
        };
        self.with_table(|table| table.pods.insert(name.uid, handle));
    }

    fn begin(&self, pod: Arc<Pod>) -> PodHandle {
        let host = &self.inner.host;
        let admission = machine::admit(&pod, &self.room());
        let site = Arc::new(Site::new(Arc::clone(host), Arc::clone(&pod), Vec::new(), None));
        let (now, settings) = (host.now(), self.settings());
        pod::start(host, site, None, move |out| PodMachine::new(pod, settings, admission, now, out))
    }

    fn adopt(&self, pod: Arc<Pod>, mut found: Found) -> PodHandle {
        let host = &self.inner.host;
        let name = PodRef::of(&pod);
        let record = found.record.take().unwrap_or_else(|| blank_record(&name));
        let addresses = record.clone().into_latest().addresses;
        let pid = found.shim.as_ref().map(|(status, _)| status.pid);
        let site = Arc::new(Site::new(Arc::clone(host), Arc::clone(&pod), addresses, pid));
        let found = Found { record: Some(record.clone()), ..found };
        let sandbox = adopt::sandbox_of(&site, &found);
        let subscription = found.shim.map(|(_, subscription)| subscription);
        let (now, settings) = (host.now(), self.settings());
        tracing::info!(pod = %name, alive = subscription.is_some(), "the pod is adopted");
        pod::start(host, site, subscription, move |out| {
            PodMachine::adopt(pod, settings, (record, sandbox), now, out)
        })
    }

    fn settings(&self) -> machine::Settings {
        let config = &self.inner.host.config;
        machine::Settings {
            host_addresses: config.host_addresses.clone(),
            withdraw_limit: config.withdraw_limit,
        }
    }

    /// What the node has for one more pod.
    fn room(&self) -> NodeRoom {
        let host = &self.inner.host;
        let mut used = Usage::default();
        self.with_table(|table| {
            for handle in table.pods.values().filter(|handle| *handle.rest.borrow() == Rest::Busy) {
                used.add(&handle.site.pod());
            }
        });
        NodeRoom { allocatable: host.capacity.allocatable(&host.config), used }
    }

    fn tell_users(&self, uses: impl Fn(&Pod) -> bool) {
        let handles: Vec<PodHandle> =
            self.with_table(|table| table.pods.values().cloned().collect());
        for handle in handles.iter().filter(|handle| uses(&handle.site.pod())) {
            // A task that has ended needs no news.
            let _ended = handle.inbox.send(Input::References);
        }
    }

    fn handle(&self, uid: &str) -> Option<PodHandle> {
        self.with_table(|table| {
            table.pods.get(uid).filter(|handle| *handle.rest.borrow() != Rest::Gone).cloned()
        })
    }

    fn find(&self, namespace: &str, name: &str) -> Option<PodHandle> {
        self.with_table(|table| {
            let mut named = table.pods.values().filter(|handle| {
                let known = handle.name();
                known.namespace == namespace
                    && known.name == name
                    && *handle.rest.borrow() != Rest::Gone
            });
            named.next().cloned()
        })
    }

    fn with_table<T>(&self, use_it: impl FnOnce(&mut Table) -> T) -> T {
        // No holder of the lock can leave it half changed.
        use_it(&mut self.inner.table.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The record of a pod whose own was damaged: nothing is known, so its sandbox is made anew.
fn blank_record(name: &PodRef) -> PodRecord {
    PodRecord::V1(PodRecordV1 {
        uid: name.uid.clone(),
        namespace: name.namespace.clone(),
        name: name.name.clone(),
        ..PodRecordV1::default()
    })
}
