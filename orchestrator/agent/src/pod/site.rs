//! The effects of one pod, one function for each command.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use podium_control::pod::{
    Hook, ImageFacts, Instance, PodCommand, PodEvent, ProbeKind, ProbeOutcome, PullFailure,
    StartStage,
};
use podium_shim_protocol::{self as protocol, FailureKind, paths};
use podium_types::k8s::api::core::v1::{Container, Pod};

use crate::container::{self, Ingredients, InstancePaths};
use crate::host::Host;
use crate::probes::{self, Target};
use crate::sandbox::{self, describe};
use crate::seams::{ImageError, PodRef, PulledImage};
use crate::shim::{Shim, ShimError, Subscription};
use crate::volumes::{self, VolumePaths, VolumeRoots};
use crate::{dns, env, hooks, signals, termination};

/// How long a signal is offered to a shim that does not answer; the machine asks again.
const SIGNAL_LIMIT: Duration = Duration::from_secs(5);

/// How long an instance that is to be forgotten may take to end, and how often that is looked at.
const DISCARD_LIMIT: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// One pod on this node, as far as effects go.
pub(crate) struct Site {
    pub(crate) name: PodRef,
    pub(crate) host: Arc<Host>,
    known: Mutex<Known>,
}

/// What effects leave behind for later ones.
struct Known {
    pod: Arc<Pod>,
    volumes: VolumePaths,
    addresses: Vec<IpAddr>,
    images: BTreeMap<String, PulledImage>,
    shim_pid: Option<i32>,
}

impl Site {
    pub(crate) fn new(
        host: Arc<Host>,
        pod: Arc<Pod>,
        addresses: Vec<IpAddr>,
        shim_pid: Option<i32>,
    ) -> Self {
        let known = Known {
            pod,
            volumes: VolumePaths::new(),
            addresses,
            images: BTreeMap::new(),
            shim_pid,
        };
        Self { name: PodRef::of(&known.pod), host, known: Mutex::new(known) }
    }

    pub(crate) fn pod(&self) -> Arc<Pod> {
        Arc::clone(&self.known(|known| Arc::clone(&known.pod)))
    }

    pub(crate) fn set_pod(&self, pod: Arc<Pod>) {
        self.known(|known| known.pod = pod);
    }

    pub(crate) fn shim(&self) -> Shim {
        Shim::at(&self.dir())
    }

    /// The log of an instance.
    pub(crate) fn log(&self, instance: &Instance) -> PathBuf {
        self.log_dir().join(container::log_path(instance))
    }

    /// Runs a command of the building queue that has no life of its own.
    pub(crate) async fn build(self: &Arc<Self>, command: PodCommand) -> Option<PodEvent> {
        match command {
            PodCommand::PrepareVolumes => Some(match self.prepare_volumes().await {
                Ok(()) => PodEvent::VolumesReady,
                Err(message) => PodEvent::VolumesFailed { message },
            }),
            PodCommand::AttachNetwork => Some(match self.attach_network().await {
                Ok(addresses) => PodEvent::NetworkAttached { addresses },
                Err(message) => PodEvent::NetworkFailed { message },
            }),
            PodCommand::RunInstance(instance) => self.run_instance(instance).await,
            PodCommand::RemoveInstance(instance) => {
                self.remove_instance(&instance).await;
                None
            }
            PodCommand::DetachNetwork => Some(match self.detach_network().await {
                Ok(()) => PodEvent::NetworkDetached,
                Err(message) => PodEvent::TeardownFailed { message },
            }),
            PodCommand::RemoveVolumes => Some(match self.remove_volumes().await {
                Ok(()) => PodEvent::VolumesRemoved,
                Err(message) => PodEvent::TeardownFailed { message },
            }),
            other => {
                tracing::error!(pod = %self.name, command = ?other, "a command is in the wrong queue");
                None
            }
        }
    }

    /// Runs a command that needs no order.
    pub(crate) async fn run_beside(&self, command: PodCommand) -> Option<PodEvent> {
        match command {
            PodCommand::InspectImage { container, image } => {
                Some(self.inspect_image(container, &image).await)
            }
            PodCommand::PullImage { container, image } => {
                Some(self.pull_image(container, &image).await)
            }
            PodCommand::RunHook { instance, hook } => Some(self.run_hook(instance, hook).await),
            PodCommand::RunProbe { instance, probe } => Some(self.run_probe(instance, probe).await),
            PodCommand::StopInstance { instance, force } => {
                self.stop_instance(&instance, force).await;
                None
            }
            PodCommand::WithdrawEndpoint => {
                self.host.seams.network.withdrawn(&self.name).await;
                Some(PodEvent::EndpointWithdrawn)
            }
            other => {
                tracing::error!(pod = %self.name, command = ?other, "a command is in the wrong queue");
                None
            }
        }
    }

    async fn prepare_volumes(self: &Arc<Self>) -> Result<(), String> {
        let site = Arc::clone(self);
        let volumes = self
            .blocking(move || {
                let pod = site.pod();
                site.write_etc(&pod)
                    .map_err(|error| format!("cannot write the pod's own files: {error}"))?;
                let facts = site.host.field_facts(site.known(|known| known.addresses.clone()));
                volumes::prepare(&pod, &site.roots(), site.host.seams.references.as_ref(), &facts)
            })
            .await?;
        self.known(|known| known.volumes = volumes);
        Ok(())
    }

    /// Brings files from objects up to date; what is missing meanwhile keeps its last content.
    pub(crate) async fn refresh_volumes(self: &Arc<Self>) {
        let site = Arc::clone(self);
        let refreshed = self
            .blocking(move || {
                if site.known(|known| known.volumes.is_empty()) {
                    return Ok(());
                }
                let facts = site.host.field_facts(site.known(|known| known.addresses.clone()));
                volumes::refresh(
                    &site.pod(),
                    &site.roots(),
                    site.host.seams.references.as_ref(),
                    &facts,
                )
                .map_err(|error| error.to_string())
            })
            .await;
        if let Err(error) = refreshed {
            tracing::warn!(pod = %self.name, error, "the pod's volumes are not up to date");
        }
    }

    /// Starts the shim, unless it runs. Returns its subscription unless someone listens already.
    pub(crate) async fn start_sandbox(
        self: &Arc<Self>,
        listening: bool,
    ) -> Result<Option<(protocol::PodStatus, Subscription)>, String> {
        let shim = self.shim();
        if let Ok(status) = shim.status().await
            && status.uid == self.name.uid
        {
            self.known(|known| known.shim_pid = Some(status.pid));
            if listening {
                return Ok(None);
            }
            return shim.subscribe().await.map(Some).map_err(|error| describe(&error));
        }
        let _permit = self.host.starts.acquire().await.map_err(|error| error.to_string())?;
        sandbox::clear(&self.dir(), &self.group()).await?;
        let site = Arc::clone(self);
        self.blocking(move || {
            let config = container::pod_config(&site.host.config, &site.pod());
            fs::create_dir_all(site.dir()).map_err(|error| error.to_string())?;
            fs::create_dir_all(site.log_dir()).map_err(|error| error.to_string())?;
            let path = paths::pod_config(&site.dir());
            protocol::record::write(&path, &config).map_err(|error| describe(&error))
        })
        .await?;
        self.host.seams.launcher.launch(&self.dir()).await.map_err(|error| error.to_string())?;
        let (status, subscription) = shim.subscribe().await.map_err(|error| describe(&error))?;
        self.known(|known| known.shim_pid = Some(status.pid));
        Ok(Some((status, subscription)))
    }

    async fn attach_network(self: &Arc<Self>) -> Result<Vec<IpAddr>, String> {
        let on_host = self.pod().spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
        let addresses = if on_host {
            self.host.config.host_addresses.clone()
        } else {
            let pid = self.known(|known| known.shim_pid).ok_or("the pod has no sandbox")?;
            let namespace = PathBuf::from(format!("/proc/{pid}/ns/net"));
            self.host
                .seams
                .network
                .attach(&self.name, &namespace)
                .await
                .map_err(|error| error.to_string())?
        };
        self.known(|known| known.addresses.clone_from(&addresses));
        let site = Arc::clone(self);
        self.blocking(move || site.write_etc(&site.pod()).map_err(|error| error.to_string()))
            .await?;
        self.refresh_volumes().await;
        Ok(addresses)
    }

    async fn inspect_image(&self, container: String, image: &str) -> PodEvent {
        let found = match self.host.seams.images.get(image).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(pod = %self.name, image, %error, "the image store cannot be asked");
                None
            }
        };
        let facts = found.as_ref().map(|found| facts_of(image, found));
        if let Some(found) = found {
            self.known(|known| known.images.insert(container.clone(), found));
        }
        PodEvent::ImageInspected { container, found: facts }
    }

    async fn pull_image(&self, container: String, image: &str) -> PodEvent {
        let started = Instant::now();
        let failed = |failure, message| PodEvent::ImagePullFailed {
            container: container.clone(),
            failure,
            message,
        };
        let Ok(_permit) = self.host.pulls.acquire().await else {
            return failed(PullFailure::Failed, "the node is stopping".to_owned());
        };
        match self.host.seams.images.pull(image, &self.credentials()).await {
            Ok(pulled) => {
                let facts = facts_of(image, &pulled);
                self.known(|known| known.images.insert(container.clone(), pulled));
                PodEvent::ImagePulled {
                    container: container.clone(),
                    image: facts,
                    took: started.elapsed(),
                }
            }
            Err(ImageError::InvalidReference(message)) => failed(PullFailure::InvalidName, message),
            Err(ImageError::Failed(message)) => failed(PullFailure::Failed, message),
        }
    }

    /// The pod's registry credentials, as far as they can be found.
    fn credentials(&self) -> Vec<String> {
        let pod = self.pod();
        let secrets = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.image_pull_secrets.as_deref())
            .unwrap_or_default();
        let documents = secrets.iter().filter_map(|secret| {
            let found = self.host.seams.references.secret(&self.name.namespace, &secret.name)?;
            let document = found.data.as_ref()?.get(".dockerconfigjson")?;
            String::from_utf8(document.0.clone()).ok()
        });
        documents.collect()
    }

    /// Brings an instance to life from wherever its shim has it. Its start is announced by the shim.
    async fn run_instance(self: &Arc<Self>, instance: Instance) -> Option<PodEvent> {
        let Ok(_permit) = self.host.starts.acquire().await else { return None };
        let shim = self.shim();
        let failed = |stage, message| {
            Some(PodEvent::StartFailed { instance: instance.clone(), stage, message })
        };
        let status = match shim.status().await {
            Ok(status) => status,
            Err(error) => return failed(StartStage::Create, describe(&error)),
        };
        let id = instance.id();
        let known = status.containers.into_iter().find(|container| container.id == id);
        match known {
            Some(known) if !matches!(known.state, protocol::ContainerState::Created { .. }) => {
                return Some(self.event_of(&known).await);
            }
            Some(_) => {}
            None => {
                let site = Arc::clone(self);
                let wanted = instance.clone();
                let config = match self.blocking(move || site.container_config(&wanted)).await {
                    Ok(config) => config,
                    Err(message) => return failed(StartStage::Config, message),
                };
                if let Err(error) = shim.create(config).await {
                    return failed(stage_of(&error, StartStage::Create), describe(&error));
                }
            }
        }
        match shim.start(&id).await {
            Ok(()) => None,
            Err(error) => failed(StartStage::Start, describe(&error)),
        }
    }

    fn container_config(&self, instance: &Instance) -> Result<protocol::ContainerConfig, String> {
        let pod = self.pod();
        let spec =
            spec_of(&pod, &instance.container).ok_or("the container is not in the pod's spec")?;
        let (image, volumes, addresses) = self.known(|known| {
            (
                known.images.get(&instance.container).cloned(),
                known.volumes.clone(),
                known.addresses.clone(),
            )
        });
        let image = image.ok_or("the container's image is not here any more")?;
        let facts = self.host.field_facts(addresses);
        let environment =
            env::environment(&pod, spec, &image.env, self.host.seams.references.as_ref(), &facts)?;
        let paths = InstancePaths::of(&self.host.config, &self.name.uid, instance);
        make_instance_folders(&paths)
            .map_err(|error| format!("cannot make {}: {error}", paths.root.display()))?;
        container::container_config(Ingredients {
            config: &self.host.config,
            pod: &pod,
            container: spec,
            instance,
            image: &image,
            environment,
            volumes: &volumes,
            memory_bytes: self.host.capacity.memory_bytes,
        })
    }

    async fn run_hook(&self, instance: Instance, hook: Hook) -> PodEvent {
        let pod = self.pod();
        let spec = spec_of(&pod, &instance.container);
        let lifecycle = spec.and_then(|spec| spec.lifecycle.as_ref());
        let handler = lifecycle.and_then(|lifecycle| match hook {
            Hook::PostStart => lifecycle.post_start.as_ref(),
            Hook::PreStop => lifecycle.pre_stop.as_ref(),
        });
        let result = match (spec, handler) {
            (Some(spec), Some(handler)) => {
                let shim = self.shim();
                hooks::run(handler, &self.target(spec, &shim, &instance)).await
            }
            _ => Ok(()),
        };
        if let Err(error) = &result {
            tracing::warn!(pod = %self.name, %instance, ?hook, error, "a hook failed");
        }
        PodEvent::HookFinished { instance, hook, result }
    }

    async fn run_probe(&self, instance: Instance, probe: ProbeKind) -> PodEvent {
        let pod = self.pod();
        let spec = spec_of(&pod, &instance.container);
        let wanted = spec.and_then(|spec| match probe {
            ProbeKind::Startup => spec.startup_probe.as_ref(),
            ProbeKind::Liveness => spec.liveness_probe.as_ref(),
            ProbeKind::Readiness => spec.readiness_probe.as_ref(),
        });
        let outcome = match (spec, wanted) {
            (Some(spec), Some(wanted)) => {
                let shim = self.shim();
                probes::run(wanted, &self.target(spec, &shim, &instance)).await
            }
            _ => ProbeOutcome::Unknown("the container has no such probe".to_owned()),
        };
        PodEvent::ProbeFinished { instance, probe, outcome }
    }

    fn target<'a>(&self, spec: &'a Container, shim: &'a Shim, instance: &Instance) -> Target<'a> {
        let address = self.known(|known| known.addresses.first().copied());
        Target { container: spec, shim, id: instance.id(), address }
    }

    async fn stop_instance(&self, instance: &Instance, force: bool) {
        let signal =
            if force { signals::KILL } else { self.stop_signal(&instance.container).await };
        let shim = self.shim();
        let id = instance.id();
        let sent = tokio::time::timeout(SIGNAL_LIMIT, shim.signal(&id, signal, force)).await;
        if let Ok(Err(error)) = sent {
            tracing::warn!(pod = %self.name, %instance, signal, error = describe(&error), "a signal was not delivered");
        }
    }

    /// The signal that asks a container to stop: the spec's, the image's, or SIGTERM.
    async fn stop_signal(&self, container: &str) -> i32 {
        let pod = self.pod();
        let spec = spec_of(&pod, container);
        let lifecycle = spec.and_then(|spec| spec.lifecycle.as_ref());
        if let Some(name) = lifecycle.and_then(|lifecycle| lifecycle.stop_signal.as_deref()) {
            return signals::number(name).unwrap_or(signals::TERM);
        }
        let image = match self.known(|known| known.images.get(container).cloned()) {
            Some(image) => Some(image),
            None => {
                let reference = spec.and_then(|spec| spec.image.as_deref()).unwrap_or_default();
                self.host.seams.images.get(reference).await.ok().flatten()
            }
        };
        image
            .and_then(|image| image.stop_signal)
            .and_then(|name| signals::number(&name))
            .unwrap_or(signals::TERM)
    }

    /// What a shim says of a container, in the words of the machine.
    pub(crate) async fn event_of(self: &Arc<Self>, status: &protocol::ContainerStatus) -> PodEvent {
        let instance = Instance { container: status.name.clone(), attempt: status.attempt };
        match &status.state {
            protocol::ContainerState::Created { .. } => PodEvent::InstanceCreated(instance),
            protocol::ContainerState::Running { started_at, .. } => {
                PodEvent::InstanceStarted { instance, started_at: sandbox::timestamp(*started_at) }
            }
            protocol::ContainerState::Exited(record) => {
                let (site, record, of) = (Arc::clone(self), *record, instance.clone());
                let exit = self.blocking(move || Ok::<_, String>(site.exit_of(&of, &record))).await;
                let exit = exit.unwrap_or_else(|_| sandbox::exit_of(&record, None));
                PodEvent::InstanceExited { instance, exit }
            }
        }
    }

    /// How an instance ended, with its termination message.
    pub(crate) fn exit_of(
        &self,
        instance: &Instance,
        record: &protocol::ExitRecord,
    ) -> podium_control::pod::Exit {
        let pod = self.pod();
        let paths = InstancePaths::of(&self.host.config, &self.name.uid, instance);
        let message = spec_of(&pod, &instance.container).and_then(|spec| {
            termination::message(
                spec,
                &paths.termination_message(),
                &self.log(instance),
                record.code != 0,
            )
        });
        sandbox::exit_of(record, message)
    }

    /// Frees what an ended instance holds. Its log stays, and the one before; older ones go.
    async fn remove_instance(self: &Arc<Self>, instance: &Instance) {
        self.discard(&instance.id()).await;
        let (site, instance) = (Arc::clone(self), instance.clone());
        let removed = self
            .blocking(move || {
                let paths = InstancePaths::of(&site.host.config, &site.name.uid, &instance);
                let _absent = fs::remove_dir_all(&paths.root);
                remove_old_logs(
                    &site.log_dir().join(&instance.container),
                    instance.attempt.saturating_sub(1),
                );
                Ok::<_, String>(())
            })
            .await;
        if let Err(error) = removed {
            tracing::warn!(pod = %self.name, error, "an ended container was not cleared away");
        }
    }

    /// Makes the shim forget an instance; one that was created and could not be started is ended for that first.
    async fn discard(&self, id: &str) {
        let shim = self.shim();
        let ended = async {
            loop {
                let Ok(status) = shim.status().await else { return };
                let Some(known) = status.containers.iter().find(|known| known.id == id) else {
                    return;
                };
                match known.state {
                    protocol::ContainerState::Exited(_) => return,
                    protocol::ContainerState::Created { .. }
                    | protocol::ContainerState::Running { .. } => {
                        // Asked again below if it was not heard.
                        let _unheard = shim.signal(id, signals::KILL, true).await;
                    }
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        // What is left after this goes with the sandbox, as it does when the shim is gone.
        let _late = tokio::time::timeout(DISCARD_LIMIT, ended).await;
        let _gone = shim.remove(id).await;
    }

    pub(crate) async fn stop_sandbox(&self) -> Result<(), String> {
        sandbox::end(&self.dir(), &self.group()).await?;
        self.known(|known| known.shim_pid = None);
        Ok(())
    }

    async fn detach_network(&self) -> Result<(), String> {
        self.host.seams.network.detach(&self.name).await.map_err(|error| error.to_string())
    }

    async fn remove_volumes(self: &Arc<Self>) -> Result<(), String> {
        let site = Arc::clone(self);
        self.blocking(move || {
            volumes::remove(&site.roots()).map_err(|error| error.to_string())?;
            remove_folder(&site.host.config.pod_dir(&site.name.uid).join("containers"))?;
            remove_folder(&site.dir())
        })
        .await
    }

    /// Deletes the last traces of the pod.
    pub(crate) async fn forget(self: &Arc<Self>) {
        let site = Arc::clone(self);
        let forgotten = self
            .blocking(move || {
                remove_folder(&site.log_dir())?;
                remove_folder(&site.host.config.pod_dir(&site.name.uid))
            })
            .await;
        if let Err(error) = forgotten {
            tracing::warn!(pod = %self.name, error, "traces of the pod are left");
        }
    }

    /// Writes the files that all containers share in `/etc`.
    fn write_etc(&self, pod: &Pod) -> std::io::Result<()> {
        let config = &self.host.config;
        let addresses = self.known(|known| known.addresses.clone());
        let node = fs::read_to_string(&config.resolv_conf).unwrap_or_default();
        let etc = container::etc_dir(config, &self.name.uid);
        fs::create_dir_all(&etc)?;
        let hostname = dns::hostname(pod, &config.cluster_domain);
        // Written in place: they are mounted as files, and a replaced file would not be seen.
        fs::write(etc.join("hostname"), format!("{hostname}\n"))?;
        fs::write(etc.join("hosts"), dns::hosts(pod, &addresses, &config.cluster_domain))?;
        let resolver = dns::resolv_conf(pod, &config.cluster_dns, &config.cluster_domain, &node);
        fs::write(etc.join("resolv.conf"), resolver)
    }

    pub(crate) fn roots(&self) -> VolumeRoots {
        VolumeRoots {
            disk: self.host.config.pod_dir(&self.name.uid).join("volumes"),
            memory: self.dir().join("volumes"),
        }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.host.config.shim_dir(&self.name.uid)
    }

    pub(crate) fn group(&self) -> PathBuf {
        self.host.config.pod_cgroup_path(&self.name.uid)
    }

    fn log_dir(&self) -> PathBuf {
        self.host.config.pod_log_dir(&self.name.namespace, &self.name.name, &self.name.uid)
    }

    fn known<T>(&self, use_it: impl FnOnce(&mut Known) -> T) -> T {
        // No holder of the lock can leave it half changed.
        use_it(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

fn spec_of<'a>(pod: &'a Pod, container: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .find(|known| known.name == container)
}

fn facts_of(requested: &str, image: &PulledImage) -> ImageFacts {
    let repository = image.reference.split('@').next().unwrap_or_default();
    let repository = match repository.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        Some(_) | None => repository,
    };
    ImageFacts {
        requested: requested.to_owned(),
        name: image.reference.clone(),
        id: format!("{repository}@{}", image.digest),
        size_bytes: image.size_bytes,
    }
}

/// What a refusal means for the status.
fn stage_of(error: &ShimError, otherwise: StartStage) -> StartStage {
    match error.kind() {
        Some(FailureKind::InvalidConfig | FailureKind::WouldRunAsRoot) => StartStage::Config,
        Some(FailureKind::CannotExecute) => StartStage::Start,
        Some(
            FailureKind::NotFound
            | FailureKind::AlreadyExists
            | FailureKind::WrongState
            | FailureKind::System,
        )
        | None => otherwise,
    }
}

/// Makes an instance's folders afresh: an attempt that was broken off must not leave its files to the next.
fn make_instance_folders(paths: &InstancePaths) -> std::io::Result<()> {
    if paths.root.exists() {
        fs::remove_dir_all(&paths.root)?;
    }
    fs::create_dir_all(paths.upper())?;
    fs::create_dir_all(paths.work())?;
    fs::write(paths.termination_message(), "")?;
    // Any user of the container may leave last words.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    fs::set_permissions(paths.termination_message(), open)
}

/// Removes the logs of attempts before this one.
fn remove_old_logs(folder: &Path, keep_from: u32) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let attempt = name
            .to_str()
            .and_then(|name| name.split('.').next())
            .and_then(|text| text.parse::<u32>().ok());
        if attempt.is_some_and(|attempt| attempt < keep_from) {
            let _left = fs::remove_file(entry.path());
        }
    }
}

fn remove_folder(path: &Path) -> Result<(), String> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|error| format!("cannot remove {}: {error}", path.display())),
    }
}
