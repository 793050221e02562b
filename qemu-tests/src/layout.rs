//! Where a rig keeps what it makes.
//!
//! ```text
//! .podium/image/              the image, if no other is named
//! .podium/cache/              Debian packages, kernels, container images: safe to delete
//! .podium/registry/           certificates and data of the rig's registry, shared by its clusters
//! .podium/clusters/<name>/    token, admin.key, admin.crt, kubeconfig, machine.yaml
//!   machines/<name>/          disk.raw, console.log, qemu.log; n1 is the first machine
//! ```
//!
//! Unix sockets live in a short folder of their own: their paths may have 107 bytes (unix(7)), and a checkout's may be
//! longer.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::links::machine_name;

/// The folders of one cluster.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    name: String,
}

impl Layout {
    /// The cluster `name` under `root` (usually `.podium`).
    ///
    /// # Errors
    /// `root` cannot be made.
    pub fn new(root: &Path, name: &str) -> anyhow::Result<Self> {
        std::fs::create_dir_all(root).with_context(|| root.display().to_string())?;
        Ok(Self { root: root.canonicalize()?, name: name.to_owned() })
    }

    /// The cluster's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The image that is booted if no other is named.
    #[must_use]
    pub fn default_image(&self) -> PathBuf {
        self.root.join("image")
    }

    /// Downloads, kept between clusters.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// All that belongs to the cluster.
    #[must_use]
    pub fn cluster(&self) -> PathBuf {
        self.root.join("clusters").join(&self.name)
    }

    /// One machine's folder.
    #[must_use]
    pub fn machine(&self, index: u16) -> PathBuf {
        self.cluster().join("machines").join(machine_name(index))
    }

    /// The registry's folder: one for all clusters under this root, so that images are loaded once.
    #[must_use]
    pub fn registry(&self) -> PathBuf {
        self.root.join("registry")
    }

    /// The machine config that all machines share.
    #[must_use]
    pub fn machine_config(&self) -> PathBuf {
        self.cluster().join("machine.yaml")
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.cluster().join("kubeconfig")
    }
}
