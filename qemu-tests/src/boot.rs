//! What a machine boots: an image's files, found by the manifest that `podium image build` leaves beside them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

/// The manifest's file name.
pub const MANIFEST: &str = "image.json";

/// The firmware path: UEFI from a disk, as on metal, or QEMU's own loader, which is faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// QEMU loads kernel and initramfs itself.
    Direct,
    /// OVMF, systemd-boot and the UKI on the machine's first disk.
    Uefi,
}

/// An image's files, by name in its folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The unified kernel image.
    pub uki: String,
    /// The kernel alone.
    pub kernel: String,
    /// The initramfs alone.
    pub initramfs: String,
    /// The raw disk image.
    pub disk: String,
    /// The kernel command line that the UKI carries.
    pub command_line: String,
}

impl Manifest {
    /// Writes the manifest into the image's folder.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let path = folder.join(MANIFEST);
        std::fs::write(&path, serde_json::to_string_pretty(self)?)
            .with_context(|| path.display().to_string())
    }
}

/// An image on the host.
#[derive(Clone, Debug)]
pub struct OsImage {
    folder: PathBuf,
    manifest: Manifest,
}

impl OsImage {
    /// The image in `folder`.
    ///
    /// # Errors
    /// There is none, or a file of it is missing; the message names it and the command that makes it.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(MANIFEST);
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!("{}: make an image with `podium image build`", path.display())
        })?;
        let manifest = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        let image = Self { folder: folder.canonicalize()?, manifest };
        for path in [image.uki(), image.kernel(), image.initramfs(), image.disk()] {
            ensure!(
                path.is_file(),
                "{} is missing: make it with `podium image build`",
                path.display()
            );
        }
        Ok(image)
    }

    /// The kernel alone.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.folder.join(&self.manifest.kernel)
    }

    /// The initramfs alone.
    #[must_use]
    pub fn initramfs(&self) -> PathBuf {
        self.folder.join(&self.manifest.initramfs)
    }

    /// The unified kernel image.
    #[must_use]
    pub fn uki(&self) -> PathBuf {
        self.folder.join(&self.manifest.uki)
    }

    /// The raw disk image.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.folder.join(&self.manifest.disk)
    }

    /// The kernel command line that the UKI carries.
    #[must_use]
    pub fn command_line(&self) -> &str {
        &self.manifest.command_line
    }
}
