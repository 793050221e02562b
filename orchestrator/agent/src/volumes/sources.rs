//! What stands in volumes that are made from objects: ConfigMaps, Secrets, the downward API, and projections of these.

use podium_types::k8s::api::core::v1::{
    ConfigMap, Container, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Secret,
    Volume,
};

use super::VolumeError;
use super::payload::{File, Files};
use crate::fields::{self, FieldFacts};
use crate::seams::References;

/// The files of a volume.
pub(super) struct Source {
    pub(super) files: Files,
    /// They may be secret, so they must not reach a disk.
    pub(super) in_memory: bool,
}

/// Reads what a volume's source says it holds.
pub(super) fn read(
    pod: &Pod,
    volume: &Volume,
    references: &dyn References,
    facts: &FieldFacts,
) -> Result<Source, VolumeError> {
    let reader = Reader { pod, references, facts };
    if let Some(source) = &volume.config_map {
        let files = reader.config_map(
            &source.name,
            source.items.as_deref(),
            source.default_mode,
            source.optional == Some(true),
        )?;
        return Ok(Source { files, in_memory: false });
    }
    if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let files = reader.secret(
            name,
            source.items.as_deref(),
            source.default_mode,
            source.optional == Some(true),
        )?;
        return Ok(Source { files, in_memory: true });
    }
    if let Some(source) = &volume.downward_api {
        let files =
            reader.downward(source.items.as_deref().unwrap_or_default(), source.default_mode)?;
        return Ok(Source { files, in_memory: false });
    }
    if let Some(source) = &volume.projected {
        return Ok(Source { files: reader.projected(source)?, in_memory: true });
    }
    Err(VolumeError::Unsupported(type_of(volume)))
}

struct Reader<'a> {
    pod: &'a Pod,
    references: &'a dyn References,
    facts: &'a FieldFacts,
}

impl Reader<'_> {
    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn config_map(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        mode: Option<i32>,
        optional: bool,
    ) -> Result<Files, VolumeError> {
        match self.references.config_map(self.namespace(), name) {
            Some(found) => {
                chosen(config_map_entries(&found), items, mode, optional, "ConfigMap", name)
            }
            None if optional => Ok(Files::new()),
            None => Err(VolumeError::Missing(format!("configmap \"{name}\" not found"))),
        }
    }

    fn secret(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        mode: Option<i32>,
        optional: bool,
    ) -> Result<Files, VolumeError> {
        match self.references.secret(self.namespace(), name) {
            Some(found) => chosen(secret_entries(&found), items, mode, optional, "Secret", name),
            None if optional => Ok(Files::new()),
            None => Err(VolumeError::Missing(format!("secret \"{name}\" not found"))),
        }
    }

    fn downward(
        &self,
        items: &[DownwardAPIVolumeFile],
        mode: Option<i32>,
    ) -> Result<Files, VolumeError> {
        let mut files = Files::new();
        for item in items {
            let text = if let Some(selector) = &item.field_ref {
                fields::field(self.pod, selector, self.facts)
            } else if let Some(selector) = &item.resource_field_ref {
                let name = selector.container_name.as_deref().unwrap_or_default();
                match self.container(name) {
                    Some(container) => fields::resource(container, selector, self.facts),
                    None => Err(format!("container {name} not found")),
                }
            } else {
                Err(format!("item {} has no source", item.path))
            };
            let content = text.map_err(VolumeError::Invalid)?.into_bytes();
            files.insert(item.path.clone(), File { content, mode: mode_of(item.mode.or(mode)) });
        }
        Ok(files)
    }

    fn projected(&self, source: &ProjectedVolumeSource) -> Result<Files, VolumeError> {
        let mode = source.default_mode;
        let mut files = Files::new();
        for part in source.sources.iter().flatten() {
            if let Some(part) = &part.config_map {
                files.extend(self.config_map(
                    &part.name,
                    part.items.as_deref(),
                    mode,
                    part.optional == Some(true),
                )?);
            } else if let Some(part) = &part.secret {
                files.extend(self.secret(
                    &part.name,
                    part.items.as_deref(),
                    mode,
                    part.optional == Some(true),
                )?);
            } else if let Some(part) = &part.downward_api {
                files.extend(self.downward(part.items.as_deref().unwrap_or_default(), mode)?);
            } else if part.service_account_token.is_some() {
                return Err(VolumeError::Unsupported("projected serviceAccountToken"));
            } else if part.cluster_trust_bundle.is_some() {
                return Err(VolumeError::Unsupported("projected clusterTrustBundle"));
            } else {
                return Err(VolumeError::Unsupported("projected"));
            }
        }
        Ok(files)
    }

    fn container(&self, name: &str) -> Option<&Container> {
        let spec = self.pod.spec.as_ref()?;
        spec.init_containers
            .iter()
            .flatten()
            .chain(&spec.containers)
            .find(|container| container.name == name)
    }
}

fn config_map_entries(map: &ConfigMap) -> Vec<(String, Vec<u8>)> {
    let texts =
        map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    texts
        .chain(map.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())))
        .collect()
}

fn secret_entries(secret: &Secret) -> Vec<(String, Vec<u8>)> {
    secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect()
}

/// All entries, or those that are chosen under the paths that are chosen.
fn chosen(
    entries: Vec<(String, Vec<u8>)>,
    items: Option<&[KeyToPath]>,
    mode: Option<i32>,
    optional: bool,
    kind: &str,
    name: &str,
) -> Result<Files, VolumeError> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(entries
            .into_iter()
            .map(|(key, content)| (key, File { content, mode: mode_of(mode) }))
            .collect());
    };
    let mut files = Files::new();
    for item in items {
        match entries.iter().find(|(key, _)| *key == item.key) {
            Some((_, content)) => {
                let mode = mode_of(item.mode.or(mode));
                files.insert(item.path.clone(), File { content: content.clone(), mode });
            }
            None if optional => {}
            None => {
                return Err(VolumeError::Missing(format!(
                    "references non-existent {kind} key: {name}/{}",
                    item.key
                )));
            }
        }
    }
    Ok(files)
}

fn mode_of(mode: Option<i32>) -> u32 {
    mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644)
}

/// The name of a volume's source, for refusing it.
fn type_of(volume: &Volume) -> &'static str {
    let kinds: [(bool, &'static str); 7] = [
        (volume.persistent_volume_claim.is_some(), "persistentVolumeClaim"),
        (volume.nfs.is_some(), "nfs"),
        (volume.csi.is_some(), "csi"),
        (volume.ephemeral.is_some(), "ephemeral"),
        (volume.image.is_some(), "image"),
        (volume.iscsi.is_some(), "iscsi"),
        (volume.fc.is_some(), "fc"),
    ];
    kinds.into_iter().find(|(present, _)| *present).map_or("of an unknown plugin", |(_, name)| name)
}
