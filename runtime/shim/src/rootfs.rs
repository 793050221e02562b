//! A container's root filesystem: overlayfs over the image's layers, mounted in the shim's own mount namespace, so that it
//! disappears with the pod however that ends.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use podium_shim_protocol::{ContainerConfig, Mount, Propagation};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_bind_recursive,
    mount_change, move_mount, unmount,
};
use thiserror::Error;

/// Why a root filesystem could not be put together.
#[derive(Debug, Error)]
pub(crate) enum RootError {
    /// The kernel refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// There is nothing to mount.
    #[error("the container has no layers")]
    NoLayers,
    /// A mount's source is not there.
    #[error("{0:?}, to be mounted into the container, does not exist")]
    NoSource(String),
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> RootError {
    let path = path.to_owned();
    move |error| RootError::Io { action, path, source: error.into() }
}

/// Mounts the container's layers at `root`, which must be an empty folder.
///
/// Layers are added one by one (`lowerdir+`, Linux 6.8): a single option string is limited to a page, which some forty layers fill.
/// `volatile` leaves out syncing, since what a container writes outside its volumes never outlives it.
pub(crate) fn mount(config: &ContainerConfig, root: &Path) -> Result<(), RootError> {
    if config.layers.is_empty() {
        return Err(RootError::NoLayers);
    }
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(io_error("open overlayfs for", root))?;
    fsconfig_set_string(&overlay, "source", "overlay")
        .map_err(io_error("name the overlay of", root))?;
    for layer in &config.layers {
        fsconfig_set_string(&overlay, "lowerdir+", layer.as_str())
            .map_err(io_error("add the layer", Path::new(layer)))?;
    }
    for (option, folder) in [("upperdir", &config.upper_dir), ("workdir", &config.work_dir)] {
        fsconfig_set_string(&overlay, option, folder.as_str())
            .map_err(io_error("use the folder", Path::new(folder)))?;
    }
    fsconfig_set_flag(&overlay, "volatile")
        .map_err(io_error("make volatile the overlay of", root))?;
    fsconfig_create(&overlay).map_err(io_error("make the overlay of", root))?;
    let mount = fsmount(&overlay, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(io_error("make a mount of the overlay of", root))?;
    move_mount(&mount, "", CWD, root, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(io_error("mount the overlay at", root))
}

/// Takes a container's mounts away again. Nothing is left to do if they are gone.
pub(crate) fn unmount_all(root: &Path, staged: &Path) {
    let _ = unmount(root, UnmountFlags::DETACH);
    if let Ok(entries) = fs::read_dir(staged) {
        for entry in entries.flatten() {
            let _ = unmount(entry.path(), UnmountFlags::DETACH);
        }
    }
}

/// Lets a container that could not be made be tried again with the same folders: overlayfs marks those of a volatile mount as unfit for
/// another one.
pub(crate) fn let_reuse(config: &ContainerConfig) {
    let _ = fs::remove_dir_all(Path::new(&config.work_dir).join("work/incompat"));
}

/// Prepares where a container's mounts are taken from, and returns the paths in their order. The shim's namespace receives what is
/// mounted on the node later, and a bind mount would pass that on: one that is to be private is first bound apart.
pub(crate) fn stage(mounts: &[Mount], staged: &Path) -> Result<Vec<String>, RootError> {
    let mut sources = Vec::with_capacity(mounts.len());
    for (number, mount) in mounts.iter().enumerate() {
        let source = Path::new(&mount.source);
        let Ok(metadata) = fs::metadata(source) else {
            return Err(RootError::NoSource(mount.source.clone()));
        };
        if mount.propagation != Propagation::Private {
            sources.push(mount.source.clone());
            continue;
        }
        let point = staged.join(number.to_string());
        let made =
            if metadata.is_dir() { fs::create_dir_all(&point) } else { fs::write(&point, "") };
        made.map_err(|source| RootError::Io { action: "make", path: point.clone(), source })?;
        mount_bind_recursive(source, &point).map_err(io_error("bind", source))?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change(&point, private).map_err(io_error("make private", &point))?;
        sources.push(point.display().to_string());
    }
    Ok(sources)
}
