//! Programs and libraries out of Debian packages, without installing them.
//!
//! The rig needs a registry to run and programs to put into test images, but a person's machine should not get a Redis
//! service and a registry service because they tried a cluster. So packages are downloaded and unpacked into a cache.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use rustix::fs::FlockOperation;

/// Unpacks `packages` (and nothing that they depend on) and returns the folder with their files. A folder that is complete
/// is used again.
///
/// # Errors
/// A package cannot be downloaded or unpacked; the tools' words are in the error.
pub fn unpack(cache: &Path, name: &str, packages: &[&str]) -> anyhow::Result<PathBuf> {
    let _alone = alone(cache)?;
    let folder = cache.join(name);
    let complete = cache.join(format!("{name}.complete"));
    let wanted = packages.join("\n");
    if std::fs::read_to_string(&complete).is_ok_and(|had| had == wanted) {
        return Ok(folder);
    }
    remove_all(&folder)?;
    let downloads = tempfile::tempdir_in(make(cache)?)?;
    // apt downloads as an unprivileged user, which must be able to reach the folder; or warns that it cannot.
    let mut download = Command::new("apt-get");
    download
        .args(["-qq", "-o", "APT::Sandbox::User=root", "download"])
        .args(packages)
        .current_dir(&downloads);
    run(download).context("download Debian packages (does `apt-get update` work?)")?;
    make(&folder)?;
    for entry in std::fs::read_dir(&downloads)? {
        let mut extract = Command::new("dpkg-deb");
        extract.arg("--extract").arg(entry?.path()).arg(&folder);
        run(extract)?;
    }
    std::fs::write(&complete, wanted)?;
    Ok(folder)
}

/// Waits until nobody else, in this process or another, changes what rigs share in `folder`, and keeps others waiting until the
/// value is dropped. Not to be asked for twice at a time.
///
/// # Errors
/// The folder cannot be made or written to.
pub(crate) fn alone(folder: &Path) -> anyhow::Result<File> {
    let path = make(folder)?.join(".lock");
    let lock = File::create(&path).with_context(|| path.display().to_string())?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
    Ok(lock)
}

fn make(folder: &Path) -> anyhow::Result<&Path> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

fn remove_all(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| folder.display().to_string())
        }
        _ => Ok(()),
    }
}

/// Runs a command to its end and returns what it printed.
///
/// # Errors
/// It cannot be started, or fails; its standard error is in the error.
pub fn run(mut command: Command) -> anyhow::Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("start {name}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{name} failed ({}): {}", output.status, said.trim());
    }
    Ok(output.stdout)
}

/// The file that `folder/path` really is, following links inside the unpacked tree only.
///
/// # Errors
/// There is no such file, or its links leave the tree.
pub fn resolve(folder: &Path, path: &str) -> anyhow::Result<PathBuf> {
    let file = folder
        .join(path)
        .canonicalize()
        .with_context(|| format!("{path} in {}", folder.display()))?;
    ensure!(file.starts_with(folder.canonicalize()?), "{path} leads out of {}", folder.display());
    Ok(file)
}
