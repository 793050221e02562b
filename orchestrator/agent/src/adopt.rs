//! What an earlier run of the node program, or an earlier boot, left on this node.
//!
//! Found before the first change is taken: records on disk, and shims that still run. A shim that does not answer is
//! dead or as good as dead; its pod is killed whole here, once, so that nothing of it runs twice later.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use podium_control::pod::{ContainerRecord, Instance, InstanceState, PodRecord, Sandbox};
use podium_shim_protocol::{self as protocol};

use crate::cgroup;
use crate::config::AgentConfig;
use crate::pod::site::Site;
use crate::records;
use crate::sandbox::{self, describe};
use crate::seams::{PodNetwork, PodRef};
use crate::shim::{Shim, Subscription};
use crate::volumes::{self, VolumeRoots};

/// One pod as it was found.
pub(crate) struct Found {
    pub(crate) record: Option<PodRecord>,
    /// How its shim is, and its changes from then on; `None` if there is none that answers.
    pub(crate) shim: Option<(protocol::PodStatus, Subscription)>,
    /// The shim's folder is there: it ran in this boot.
    pub(crate) this_boot: bool,
}

/// Looks for everything that is left of pods.
pub(crate) async fn scan(config: &AgentConfig) -> io::Result<BTreeMap<String, Found>> {
    let mut records: BTreeMap<_, _> = records::scan(&config.state_dir)?.into_iter().collect();
    let shims = folders(&config.run_dir)?;
    let uids: BTreeSet<String> = records.keys().chain(&shims).cloned().collect();
    let mut found = BTreeMap::new();
    for uid in uids {
        let dir = config.shim_dir(&uid);
        let this_boot = shims.contains(&uid) && dir.join("containers").exists();
        let shim = match Shim::at(&dir).subscribe().await {
            Ok(answer) if answer.0.uid == uid => Some(answer),
            Ok(_) | Err(_) => {
                kill_remains(config, &uid);
                None
            }
        };
        let record = records.remove(&uid).flatten();
        found.insert(uid, Found { record, shim, this_boot });
    }
    Ok(found)
}

fn kill_remains(config: &AgentConfig, uid: &str) {
    if let Err(error) = cgroup::kill(&config.pod_cgroup_path(uid)) {
        tracing::warn!(
            pod = uid,
            error = describe(&error),
            "what a dead shim left cannot be killed"
        );
    }
}

/// The sandbox in the words of the pod's machine; `None` means that its boot is over.
pub(crate) fn sandbox_of(site: &Site, found: &Found) -> Option<Sandbox> {
    if let Some((status, _)) = &found.shim {
        let instances = status.containers.iter().map(|container| {
            let instance =
                Instance { container: container.name.clone(), attempt: container.attempt };
            let state = match &container.state {
                protocol::ContainerState::Created { .. } => InstanceState::Created,
                protocol::ContainerState::Running { started_at, .. } => {
                    InstanceState::Running { started_at: sandbox::timestamp(*started_at) }
                }
                protocol::ContainerState::Exited(record) => {
                    InstanceState::Exited(site.exit_of(&instance, record))
                }
            };
            (instance, state)
        });
        return Some(Sandbox { alive: true, instances: instances.collect() });
    }
    if !found.this_boot {
        return None;
    }
    let record = found.record.clone()?.into_latest();
    let recorded = |(container, record): (&String, &ContainerRecord)| {
        let instance = Instance { container: container.clone(), attempt: record.running? };
        let exit = sandbox::recorded_exit(&site.dir(), &instance.id())?;
        let exit = site.exit_of(&instance, &exit);
        Some((instance, InstanceState::Exited(exit)))
    };
    Some(Sandbox {
        alive: false,
        instances: record.containers.iter().filter_map(recorded).collect(),
    })
}

/// Clears away a pod that the API does not have any more.
pub(crate) async fn clear_orphan(
    config: &AgentConfig,
    network: &Arc<dyn PodNetwork>,
    uid: String,
    record: Option<PodRecord>,
) -> Result<(), String> {
    let (dir, group) = (config.shim_dir(&uid), config.pod_cgroup_path(&uid));
    sandbox::end(&dir, &group).await?;
    if let Some(record) = record.map(PodRecord::into_latest) {
        let name = PodRef { namespace: record.namespace, name: record.name, uid: uid.clone() };
        network.detach(&name).await.map_err(|error| error.to_string())?;
        remove(&config.pod_log_dir(&name.namespace, &name.name, &uid))?;
    }
    let roots =
        VolumeRoots { disk: config.pod_dir(&uid).join("volumes"), memory: dir.join("volumes") };
    volumes::remove(&roots).map_err(|error| error.to_string())?;
    remove(&dir)?;
    remove(&config.pod_dir(&uid))
}

fn remove(path: &Path) -> Result<(), String> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|error| format!("cannot remove {}: {error}", path.display())),
    }
}

fn folders(path: &Path) -> io::Result<BTreeSet<String>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error),
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}
