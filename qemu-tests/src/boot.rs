//! What a machine boots: the image's files, as `podium image build` leaves them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

/// The firmware path: UEFI from a disk, as on metal, or QEMU's own loader, which is faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Firmware {
    /// QEMU loads kernel and initramfs itself.
    Direct,
    /// OVMF, systemd-boot and the UKI on the machine's first disk.
    Uefi,
}

/// Where an image's files are.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OsImage {
    folder: PathBuf,
}

impl OsImage {
    /// The image in `folder`.
    ///
    /// # Errors
    /// A file is missing; the message names it and the command that makes it.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let folder = folder.canonicalize().with_context(|| {
            format!("no image in {}: make one with `podium image build`", folder.display())
        })?;
        let image = Self { folder };
        for path in [image.kernel(), image.initramfs(), image.command_line_file(), image.disk()] {
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
        self.folder.join("vmlinuz")
    }

    /// The initramfs alone.
    #[must_use]
    pub fn initramfs(&self) -> PathBuf {
        self.folder.join("initramfs.cpio.zst")
    }

    /// The unified kernel image.
    #[must_use]
    pub fn uki(&self) -> PathBuf {
        self.folder.join("podium.efi")
    }

    /// The raw disk image.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.folder.join("disk.raw")
    }

    /// The kernel command line that the UKI carries.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn command_line(&self) -> anyhow::Result<String> {
        let path = self.command_line_file();
        let line = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(line.trim_end().to_owned())
    }

    fn command_line_file(&self) -> PathBuf {
        self.folder.join("cmdline")
    }
}
