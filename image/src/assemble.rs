//! The whole build, step by step.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::bytes::sha256_hex;
use crate::deb::{self, Tree};
use crate::fetch::{self, FetchError};
use crate::initramfs::{self, Contents};
use crate::lock::{Lock, Role};
use crate::{disk, modules, template, uki};

/// What to build from, and where to.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// The folder with the static programs `init`, `node` and `shim`.
    pub programs: PathBuf,
    /// The lock file.
    pub lock: PathBuf,
    /// Where verified packages are kept between builds.
    pub cache: PathBuf,
    /// Where the artifacts go; made if need be.
    pub out: PathBuf,
    /// The version that the image calls itself, as `0.1.0`.
    pub version: String,
    /// Go on with the newest input when a locked one has left the archive. Such a build says so in
    /// [`Artifacts::notes`] and is not reproducible from the lock.
    pub allow_newer: bool,
}

/// The finished files.
#[derive(Clone, Debug)]
pub struct Artifacts {
    /// `podium-VERSION.efi`.
    pub uki: PathBuf,
    /// `vmlinuz`, for booting without firmware.
    pub kernel: PathBuf,
    /// `initramfs.zst`, for booting without firmware.
    pub initramfs: PathBuf,
    /// `podium-VERSION.raw`, sparse.
    pub disk: PathBuf,
    /// The command line that the UKI carries, to be given with kernel and initramfs.
    pub cmdline: String,
    /// What a person should know about this build: inputs that differ from the lock.
    pub notes: Vec<String>,
}

/// Builds the image. Equal inputs give equal bytes.
///
/// # Errors
/// A program that is missing or not static, a [`FetchError`] (also as the cause, to be told apart), and files that
/// cannot be written.
pub fn build(options: &BuildOptions) -> Result<Artifacts> {
    let text = fs::read_to_string(&options.lock)
        .with_context(|| format!("reading {}", options.lock.display()))?;
    let lock = Lock::parse(&text).with_context(|| format!("reading {}", options.lock.display()))?;
    fs::create_dir_all(&options.out)
        .with_context(|| format!("making {}", options.out.display()))?;
    let mut notes = Vec::new();
    let kernel_package = input(options, &lock, Role::Kernel, &mut notes)?;
    let boot_package = input(options, &lock, Role::Boot, &mut notes)?;
    let certificate_package = input(options, &lock, Role::Certificates, &mut notes)?;
    check_mke2fs(options, &lock, &mut notes)?;

    let kernel_contents = deb::files(&kernel_package, |path| {
        path.starts_with("boot/vmlinuz-") || path.ends_with(".ko.xz")
    })?;
    let kernel_tree = &kernel_contents.files;
    let (kernel_path, kernel) = only(kernel_tree, |path| path.starts_with("boot/vmlinuz-"))?;
    let uname = kernel_path.trim_start_matches("boot/vmlinuz-");
    let boot_tree = deb::files(&boot_package, |path| path.contains("/boot/efi/"))?.files;
    let (_, stub) = only(&boot_tree, |path| path.ends_with("/linuxx64.efi.stub"))?;
    let (_, boot_manager) = only(&boot_tree, |path| path.ends_with("/systemd-bootx64.efi"))?;

    let version = &options.version;
    let os_release = os_release(version);
    let modules = modules::select(kernel_tree, modules::WANTED)?;
    let tree = initramfs::tree(&Contents {
        init: &program(options, "init")?,
        node: &program(options, "node")?,
        shim: &program(options, "shim")?,
        modules: &modules,
        template: &template::make(&options.out)?,
        certificates: &certificates(&certificate_package)?,
        os_release: &os_release,
        podium_release: &format!(
            "version={version}\nkernel={uname}\nbuilt={}\n",
            kernel_contents.modified_seconds
        ),
    });
    let initramfs = initramfs::pack(&tree).context("compressing the initramfs")?;
    let uki = uki::assemble(&uki::Parts {
        stub,
        os_release: &os_release,
        uname,
        kernel,
        initramfs: &initramfs,
    })?;

    let artifacts = Artifacts {
        uki: options.out.join(format!("podium-{version}.efi")),
        kernel: options.out.join("vmlinuz"),
        initramfs: options.out.join("initramfs.zst"),
        disk: options.out.join(format!("podium-{version}.raw")),
        cmdline: uki::CMDLINE.to_owned(),
        notes,
    };
    for (path, bytes) in
        [(&artifacts.uki, &uki), (&artifacts.kernel, kernel), (&artifacts.initramfs, &initramfs)]
    {
        fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))?;
    }
    disk::write(&artifacts.disk, &disk::esp_files(version, &uki, boot_manager))?;
    Ok(artifacts)
}

/// Renews the lock from the archive that apt knows.
///
/// # Errors
/// [`FetchError`], and a lock file that cannot be written.
pub fn pin(lock: &Path, cache: &Path) -> Result<Lock> {
    let mut renewed = Lock::default();
    for role in Role::ALL {
        renewed.inputs.insert(role, fetch::latest(role, cache)?);
    }
    fs::write(lock, renewed.to_string()).with_context(|| format!("writing {}", lock.display()))?;
    Ok(renewed)
}

/// A locked package's bytes, or the newest one's where that is allowed.
fn input(
    options: &BuildOptions,
    lock: &Lock,
    role: Role,
    notes: &mut Vec<String>,
) -> Result<Vec<u8>> {
    let locked = lock.input(role)?;
    let gone = match fetch::locked(role, locked, &options.cache) {
        Ok(bytes) => return Ok(bytes),
        Err(gone @ FetchError::Gone { .. }) if options.allow_newer => gone,
        Err(error) => return Err(error.into()),
    };
    let newest = fetch::latest(role, &options.cache).with_context(|| gone.to_string())?;
    notes.push(format!(
        "{} {} has left the archive; built with {} {} instead",
        locked.package, locked.version, newest.package, newest.version
    ));
    Ok(fetch::locked(role, &newest, &options.cache)?)
}

fn check_mke2fs(options: &BuildOptions, lock: &Lock, notes: &mut Vec<String>) -> Result<()> {
    match fetch::check_tool(lock.input(Role::Mke2fs)?) {
        Ok(()) => Ok(()),
        Err(FetchError::Tool { package, found, locked }) if options.allow_newer => {
            notes.push(format!("built with {package} {found} instead of {locked}"));
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// A program, which must be static: nothing in the image could load a library.
fn program(options: &BuildOptions, name: &str) -> Result<Vec<u8>> {
    let path = options.programs.join(name);
    let bytes =
        fs::read(&path).with_context(|| format!("reading the program {}", path.display()))?;
    if crate::elf::section(&bytes, ".interp").is_ok() {
        bail!("{} needs a dynamic linker; the image has none", path.display());
    }
    Ok(bytes)
}

fn only(tree: &Tree, wanted: impl Fn(&str) -> bool) -> Result<(&str, &Vec<u8>)> {
    let mut found = tree.iter().filter(|(path, _)| wanted(path));
    match (found.next(), found.next()) {
        (Some((path, bytes)), None) => Ok((path, bytes)),
        (None, _) => bail!("a file that the image needs is not in its package"),
        (Some((first, _)), Some((second, _))) => {
            bail!("{first} and {second} are in one package; one was expected")
        }
    }
}

/// All authorities that Debian takes from Mozilla, in order of their file names.
fn certificates(package: &[u8]) -> Result<Vec<u8>> {
    let tree = deb::files(package, |path| {
        path.starts_with("usr/share/ca-certificates/mozilla/") && path.ends_with(".crt")
    })?
    .files;
    let mut bundle = Vec::new();
    for pem in tree.values() {
        bundle.extend_from_slice(pem);
        if !pem.ends_with(b"\n") {
            bundle.push(b'\n');
        }
    }
    Ok(bundle)
}

fn os_release(version: &str) -> String {
    format!(
        "ID=podium\nNAME=Podium\nPRETTY_NAME=\"Podium {version}\"\nVERSION_ID={version}\nIMAGE_ID=podium\n\
         IMAGE_VERSION={version}\n"
    )
}

/// The sha256 of a file, as the build's summary prints it.
///
/// # Errors
/// When the file cannot be read.
pub fn checksum(path: &Path) -> Result<String> {
    Ok(sha256_hex(&fs::read(path).with_context(|| format!("reading {}", path.display()))?))
}
