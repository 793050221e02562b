//! The volumes of a pod: where each is, how it is made, kept up to date, and removed.
//!
//! emptyDir lies on the node's disk or is a tmpfs; ConfigMaps and the downward API are files on disk, Secrets and
//! projections (which may hold secrets) are files below the run folder, which is a tmpfs. Files from objects are
//! replaced in one step ([`payload`]). What this node does not implement is refused by name.

mod payload;
mod sources;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use podium_types::k8s::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, Pod, Volume};
use podium_types::quantity::Quantity;
use rustix::mount::{MountFlags, UnmountFlags};
use thiserror::Error;

use crate::fields::FieldFacts;
use crate::seams::References;

/// Why a volume could not be made.
#[derive(Debug, Error)]
pub(crate) enum VolumeError {
    /// It refers to something that is not there.
    #[error("{0}")]
    Missing(String),
    /// This node has no such kind of volume.
    #[error("volumes of type {0} are not supported")]
    Unsupported(&'static str),
    /// What the spec says of it cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The folders below which a pod's volumes are.
#[derive(Debug, Clone)]
pub(crate) struct VolumeRoots {
    /// On disk: `<state>/<uid>/volumes`.
    pub(crate) disk: PathBuf,
    /// In memory: `<run>/<uid>/volumes`.
    pub(crate) memory: PathBuf,
}

/// Volumes by name: the folder or file that is mounted into containers.
pub(crate) type VolumePaths = BTreeMap<String, PathBuf>;

/// Makes all volumes of a pod, or brings them up to date; the error names the volume as kubelet's event does.
pub(crate) fn prepare(
    pod: &Pod,
    roots: &VolumeRoots,
    references: &dyn References,
    facts: &FieldFacts,
) -> Result<VolumePaths, String> {
    let mut paths = VolumePaths::new();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let path = make(pod, volume, roots, references, facts).map_err(|error| {
            format!("MountVolume.SetUp failed for volume \"{}\" : {error}", volume.name)
        })?;
        paths.insert(volume.name.clone(), path);
    }
    Ok(paths)
}

/// Brings the files that come from objects up to date; volumes of other kinds are left alone.
pub(crate) fn refresh(
    pod: &Pod,
    roots: &VolumeRoots,
    references: &dyn References,
    facts: &FieldFacts,
) -> Result<(), VolumeError> {
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        if volume.empty_dir.is_none() && volume.host_path.is_none() {
            make(pod, volume, roots, references, facts)?;
        }
    }
    Ok(())
}

/// Unmounts and deletes all volumes of a pod.
pub(crate) fn remove(roots: &VolumeRoots) -> Result<(), VolumeError> {
    unmount_below(&roots.memory)?;
    for root in [&roots.memory, &roots.disk] {
        match fs::remove_dir_all(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.map_err(failed("remove", root))?,
        }
    }
    Ok(())
}

/// Where in a volume a mount's `subPath` leads, which is made if missing. Links are followed, but not out of the volume.
pub(crate) fn sub_path(volume: &Path, sub_path: &str) -> Result<PathBuf, VolumeError> {
    let relative = Path::new(sub_path);
    if !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(VolumeError::Invalid(format!("subPath \"{sub_path}\" leaves the volume")));
    }
    let root = volume.canonicalize().map_err(failed("find", volume))?;
    let mut reached = root.clone();
    for part in relative.components().filter(|part| matches!(part, Component::Normal(_))) {
        let next = reached.join(part);
        if !next.exists() {
            fs::create_dir(&next).map_err(failed("make", &next))?;
            fs::set_permissions(&next, fs::Permissions::from_mode(0o750))
                .map_err(failed("open", &next))?;
        }
        reached = next.canonicalize().map_err(failed("find", &next))?;
        if !reached.starts_with(&root) {
            return Err(VolumeError::Invalid(format!(
                "subPath \"{sub_path}\" leads out of the volume"
            )));
        }
    }
    Ok(reached)
}

fn make(
    pod: &Pod,
    volume: &Volume,
    roots: &VolumeRoots,
    references: &dyn References,
    facts: &FieldFacts,
) -> Result<PathBuf, VolumeError> {
    let fs_group = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.as_ref())
        .and_then(|context| context.fs_group)
        .and_then(|group| u32::try_from(group).ok());
    if let Some(source) = &volume.empty_dir {
        return empty_dir(&volume.name, source, roots, fs_group);
    }
    if let Some(source) = &volume.host_path {
        return host_path(source);
    }
    let source = sources::read(pod, volume, references, facts)?;
    let root = if source.in_memory { &roots.memory } else { &roots.disk };
    let path = root.join(&volume.name);
    fs::create_dir_all(&path).map_err(failed("make", &path))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(failed("open", &path))?;
    payload::write(&path, &source.files, fs_group)?;
    Ok(path)
}

fn empty_dir(
    name: &str,
    source: &EmptyDirVolumeSource,
    roots: &VolumeRoots,
    fs_group: Option<u32>,
) -> Result<PathBuf, VolumeError> {
    let medium = source.medium.as_deref().unwrap_or_default();
    let path = match medium {
        "" => roots.disk.join(name),
        "Memory" => roots.memory.join(name),
        other => {
            return Err(VolumeError::Invalid(format!("emptyDir medium {other} is not supported")));
        }
    };
    fs::create_dir_all(&path).map_err(failed("make", &path))?;
    if medium == "Memory" && !is_mount_point(&path)? {
        let limit = source.size_limit.as_ref().and_then(|limit| Quantity::parse(&limit.0).ok());
        let options = limit.filter(|limit| !limit.is_zero()).map_or_else(
            || "mode=0777".to_owned(),
            |limit| format!("mode=0777,size={}", limit.value()),
        );
        let options = std::ffi::CString::new(options).unwrap_or_default();
        rustix::mount::mount(
            "tmpfs",
            &path,
            "tmpfs",
            MountFlags::NOSUID | MountFlags::NODEV,
            options.as_c_str(),
        )
        .map_err(|error| failed("mount a tmpfs on", &path)(error.into()))?;
    }
    let setgid = if fs_group.is_some() { 0o2000 } else { 0 };
    let mode = fs::Permissions::from_mode(0o777 | setgid);
    if let Some(group) = fs_group {
        std::os::unix::fs::chown(&path, None, Some(group))
            .map_err(failed("change the group of", &path))?;
    }
    fs::set_permissions(&path, mode).map_err(failed("open", &path))?;
    Ok(path)
}

fn host_path(source: &HostPathVolumeSource) -> Result<PathBuf, VolumeError> {
    let path = PathBuf::from(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    match kind {
        "DirectoryOrCreate" if !path.exists() => {
            fs::create_dir_all(&path).map_err(failed("make", &path))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .map_err(failed("open", &path))?;
        }
        "FileOrCreate" if !path.exists() => {
            fs::File::create(&path).map_err(failed("make", &path))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))
                .map_err(failed("open", &path))?;
        }
        _ => {}
    }
    let found = fs::metadata(&path)
        .map_err(|_| {
            VolumeError::Missing(format!(
                "hostPath type check failed: {} does not exist",
                source.path
            ))
        })?
        .file_type();
    let fits = match kind {
        "" => true,
        "Directory" | "DirectoryOrCreate" => found.is_dir(),
        "File" | "FileOrCreate" => found.is_file(),
        "Socket" => found.is_socket(),
        "CharDevice" => found.is_char_device(),
        "BlockDevice" => found.is_block_device(),
        other => return Err(VolumeError::Invalid(format!("hostPath type {other} is not known"))),
    };
    if fits {
        Ok(path)
    } else {
        Err(VolumeError::Invalid(format!(
            "hostPath type check failed: {} is not a {kind}",
            source.path
        )))
    }
}

/// Takes away every file system that is mounted directly in this folder.
fn unmount_below(root: &Path) -> Result<(), VolumeError> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("list", root)(error)),
    };
    for entry in entries {
        let path = entry.map_err(failed("list", root))?.path();
        if path.is_dir() && is_mount_point(&path)? {
            rustix::mount::unmount(&path, UnmountFlags::DETACH)
                .map_err(|error| failed("unmount", &path)(error.into()))?;
        }
    }
    Ok(())
}

/// A folder on another file system than its parent.
fn is_mount_point(path: &Path) -> Result<bool, VolumeError> {
    let device = |path: &Path| {
        fs::symlink_metadata(path).map(|metadata| metadata.dev()).map_err(failed("look at", path))
    };
    let parent = path.parent().unwrap_or(Path::new("/"));
    Ok(device(path)? != device(parent)?)
}

pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    let path = path.to_owned();
    move |source| VolumeError::Io { action, path, source }
}

#[cfg(test)]
mod tests;
