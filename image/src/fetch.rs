//! Locked packages as verified files: from the cache, or else from the archive that apt knows.
//!
//! apt finds, downloads and authenticates; the lock's sha256 is checked on every use, so the cache need not be trusted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bytes::sha256_hex;
use crate::lock::{Input, Role};

/// Why an input is not there.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The archive has moved on.
    #[error(
        "{package} {version} has left the archive; the newest of its series is {newest}. \
         Renew the lock with `podium image pin`, or allow newer inputs"
    )]
    Gone {
        /// The package of the lock.
        package: String,
        /// Its version in the lock.
        version: String,
        /// What there is now, as `package version`; or that nothing is known.
        newest: String,
    },
    /// The file is not the one that was locked.
    #[error("{package} {version} has sha256 {found}, the lock says {locked}")]
    Checksum {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// Of the file.
        found: String,
        /// Of the lock.
        locked: String,
    },
    /// A tool of this machine has another version than the lock.
    #[error(
        "this machine has {package} {found}, the lock says {locked}: the image would differ. \
         Install that version, renew the lock with `podium image pin`, or allow newer inputs"
    )]
    Tool {
        /// The package.
        package: String,
        /// What is installed.
        found: String,
        /// What the lock wants.
        locked: String,
    },
    /// apt or dpkg could not be run, or failed.
    #[error("running {command}: {reason}")]
    Apt {
        /// The command.
        command: String,
        /// What it said.
        reason: String,
    },
    /// The cache could not be used.
    #[error("using the cache file {path}")]
    Cache {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The file of a locked package, verified.
///
/// # Errors
/// [`FetchError::Gone`] when neither cache nor archive has it, and all others but [`FetchError::Tool`].
pub fn locked(role: Role, input: &Input, cache: &Path) -> Result<Vec<u8>, FetchError> {
    let path = cache.join(format!("{}.deb", input.sha256));
    if let Ok(bytes) = fs::read(&path)
        && sha256_hex(&bytes) == input.sha256
    {
        return Ok(bytes);
    }
    let Input { package, version, .. } = input;
    let Ok(bytes) = download(package, version, cache) else {
        let newest = newest(role).map_or_else(
            |_| "not known".to_owned(),
            |(package, version)| format!("{package} {version}"),
        );
        return Err(FetchError::Gone {
            package: package.clone(),
            version: version.clone(),
            newest,
        });
    };
    let found = sha256_hex(&bytes);
    if found != input.sha256 {
        let (package, version) = (package.clone(), version.clone());
        return Err(FetchError::Checksum { package, version, found, locked: input.sha256.clone() });
    }
    keep(&path, &bytes)?;
    Ok(bytes)
}

/// The newest input for `role` that the archive has, ready to be locked.
///
/// # Errors
/// [`FetchError::Apt`] and [`FetchError::Cache`].
pub fn latest(role: Role, cache: &Path) -> Result<Input, FetchError> {
    if !role.is_downloaded() {
        let package = role.series().to_owned();
        return Ok(Input {
            version: installed(&package)?,
            package,
            sha256: String::new(),
            size_bytes: 0,
        });
    }
    let (package, version) = newest(role)?;
    let bytes = download(&package, &version, cache)?;
    let sha256 = sha256_hex(&bytes);
    keep(&cache.join(format!("{sha256}.deb")), &bytes)?;
    Ok(Input {
        package,
        version,
        sha256,
        size_bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
    })
}

/// Refuses a tool whose version is not the locked one.
///
/// # Errors
/// [`FetchError::Tool`] and [`FetchError::Apt`].
pub fn check_tool(input: &Input) -> Result<(), FetchError> {
    let found = installed(&input.package)?;
    if found == input.version {
        return Ok(());
    }
    Err(FetchError::Tool { package: input.package.clone(), found, locked: input.version.clone() })
}

fn keep(path: &Path, bytes: &[u8]) -> Result<(), FetchError> {
    let failed = |source| FetchError::Cache { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    fs::write(&partial, bytes).map_err(failed)?;
    fs::rename(&partial, path).map_err(failed)
}

/// apt names the file by its own rules, so it downloads into an empty folder.
fn download(package: &str, version: &str, cache: &Path) -> Result<Vec<u8>, FetchError> {
    let folder = cache.join(format!("download-{package}-{}", std::process::id()));
    let failed = |source| FetchError::Cache { path: folder.clone(), source };
    fs::create_dir_all(&folder).map_err(failed)?;
    let outcome = run(Command::new("apt-get")
        .arg("download")
        .arg(format!("{package}={version}"))
        .current_dir(&folder));
    let file = fs::read_dir(&folder)
        .map_err(failed)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.is_file());
    let bytes = match (outcome, file) {
        (Ok(_), Some(path)) => fs::read(path).map_err(failed),
        (Ok(_), None) => Err(FetchError::Apt {
            command: "apt-get download".to_owned(),
            reason: "it left no file".to_owned(),
        }),
        (Err(error), _) => Err(error),
    };
    fs::remove_dir_all(&folder).map_err(failed)?;
    bytes
}

/// The newest package of a role's series, and its version. The kernel's series is a meta-package, whose only
/// dependency is the package of the newest kernel; the other series are the packages themselves.
fn newest(role: Role) -> Result<(String, String), FetchError> {
    let series = role.series();
    let text = run(Command::new("apt-cache").args(["--no-all-versions", "show", series]))?;
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    let missing = || FetchError::Apt {
        command: "apt-cache show".to_owned(),
        reason: format!("{series} is not in the archive"),
    };
    let version = field("Version:").ok_or_else(missing)?;
    if role != Role::Kernel {
        return Ok((series.to_owned(), version));
    }
    let depends = field("Depends:").ok_or_else(missing)?;
    let package = depends.split([' ', ',']).next().unwrap_or_default().to_owned();
    let locked = depends
        .split_once("(= ")
        .and_then(|(_, rest)| rest.split_once(')'))
        .map(|(version, _)| version.to_owned());
    Ok((package, locked.unwrap_or(version)))
}

fn installed(package: &str) -> Result<String, FetchError> {
    run(Command::new("dpkg-query").args(["--show", "--showformat=${Version}", package]))
}

fn run(command: &mut Command) -> Result<String, FetchError> {
    let shown = format!("{command:?}").replace('"', "");
    let output = command
        .env("LC_ALL", "C")
        .output()
        .map_err(|error| FetchError::Apt { command: shown.clone(), reason: error.to_string() })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let reason = said
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("it failed without a word")
        .to_owned();
    Err(FetchError::Apt { command: shown, reason })
}
