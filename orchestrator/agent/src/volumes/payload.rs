//! Files from objects, replaced all at once.
//!
//! The files lie in a folder of their own; `..data` is a symbolic link to it, and the names that containers see are
//! links through `..data`. An update makes a new folder and renames a new link over `..data`: a reader sees all old
//! files or all new ones. This is the layout of Kubernetes' atomic writer, which programs know and watch.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use super::{VolumeError, failed};

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) content: Vec<u8>,
    /// Permission bits.
    pub(crate) mode: u32,
}

/// Files by path relative to the volume.
pub(crate) type Files = BTreeMap<String, File>;

/// Makes the volume hold exactly these files.
pub(crate) fn write(volume: &Path, files: &Files, group: Option<u32>) -> Result<(), VolumeError> {
    for path in files.keys() {
        let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if !inside || path.starts_with("..") || path.is_empty() {
            return Err(VolumeError::Invalid(format!(
                "path \"{path}\" is not a file of the volume"
            )));
        }
    }
    let data = volume.join(DATA);
    let old = fs::read_link(&data).ok();
    if old.is_some() && holds(&data, files)? {
        return Ok(());
    }
    let name = fresh_name(volume);
    let folder = volume.join(&name);
    fill(&folder, files, group)?;
    let link = volume.join(NEW_DATA);
    remove_if_there(&link)?;
    symlink(&name, &link).map_err(failed("link", &link))?;
    fs::rename(&link, &data).map_err(failed("replace", &data))?;
    link_names(volume, files)?;
    if let Some(old) = old {
        let old = volume.join(old);
        fs::remove_dir_all(&old).or_else(ignore_absence).map_err(failed("remove", &old))?;
    }
    Ok(())
}

fn fill(folder: &Path, files: &Files, group: Option<u32>) -> Result<(), VolumeError> {
    fs::create_dir_all(folder).map_err(failed("make", folder))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
        .map_err(failed("open", folder))?;
    for (path, file) in files {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed("make", parent))?;
        }
        let mut options = fs::OpenOptions::new();
        let mut out = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("make", &path))?;
        out.write_all(&file.content).map_err(failed("write", &path))?;
        let mut mode = file.mode & 0o777;
        if let Some(group) = group {
            std::os::unix::fs::fchown(&out, None, Some(group))
                .map_err(failed("change the group of", &path))?;
            mode |= 0o440;
        }
        out.set_permissions(fs::Permissions::from_mode(mode))
            .map_err(failed("set the mode of", &path))?;
    }
    Ok(())
}

/// Makes the names at the top of the volume lead to the files, and takes away names that no longer do.
fn link_names(volume: &Path, files: &Files) -> Result<(), VolumeError> {
    let first = |path: &str| path.split('/').next().unwrap_or(path).to_owned();
    let wanted: BTreeSet<String> = files.keys().map(|path| first(path)).collect();
    for name in &wanted {
        let link = volume.join(name);
        let target = Path::new(DATA).join(name);
        if fs::read_link(&link).ok().as_ref() != Some(&target) {
            remove_if_there(&link)?;
            symlink(&target, &link).map_err(failed("link", &link))?;
        }
    }
    for entry in fs::read_dir(volume).map_err(failed("list", volume))? {
        let entry = entry.map_err(failed("list", volume))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(&name) {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

/// Whether the folder holds exactly these files with this content.
fn holds(folder: &Path, files: &Files) -> Result<bool, VolumeError> {
    let mut found = BTreeSet::new();
    list(folder, Path::new(""), &mut found)?;
    if found.len() != files.len() || !files.keys().all(|path| found.contains(Path::new(path))) {
        return Ok(false);
    }
    for (path, file) in files {
        if !fs::read(folder.join(path)).is_ok_and(|content| content == file.content) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn list(folder: &Path, below: &Path, found: &mut BTreeSet<PathBuf>) -> Result<(), VolumeError> {
    let here = folder.join(below);
    let entries = match fs::read_dir(&here) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("list", &here)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(failed("list", &here))?;
        let path = below.join(entry.file_name());
        if entry.file_type().map_err(failed("look at", &here))?.is_dir() {
            list(folder, &path, found)?;
        } else {
            found.insert(path);
        }
    }
    Ok(())
}

/// A name for the next folder that is not taken.
fn fresh_name(volume: &Path) -> String {
    (0_u64..)
        .map(|number| format!("..{number}"))
        .find(|name| !volume.join(name).exists())
        .unwrap_or_default()
}

fn remove_if_there(path: &Path) -> Result<(), VolumeError> {
    fs::remove_file(path).or_else(ignore_absence).map_err(failed("remove", path))
}

fn ignore_absence(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
