//! Container images: gets them from registries, keeps them by content, and unpacks their layers for overlayfs.
//!
//! Elsewhere: when to pull (the agent, by pull policy and back-off), and mounting (the shim).
//!
//! # Invariants
//!
//! - Nothing is unpacked or believed before it matches the digest that led to it; a layer's unpacked content matches its diff id.
//! - A file or folder under its final name is whole, whatever happened to the machine; see [`Images::open`].
//! - Layers are shared between images and never change once they have their name.
//! - Nothing in an image reaches outside its layer's folder, is a device, or takes more than [`Limits`] allow.
//!
//! Specifications: OCI image and distribution; Docker's schema 2, which says the same in other words.

mod config;
mod locks;
mod manifest;
mod pull;
mod reference;
mod registry;
mod store;
mod unpack;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

pub use config::{Config, Credential, Limits, Mirror, Platform, Registry, Retries};
pub use manifest::ImageDefaults;
pub use pull::PullError;
pub use reference::{Digest, Reference, ReferenceError};
pub use registry::RegistryError;
pub use store::{Collected, StoreError};
pub use unpack::UnpackError;

use locks::Locks;
use pull::Pull;
use store::{ImageRecord, Store};

/// An image that is on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerImage {
    /// How it was asked for, in full.
    pub reference: Reference,
    /// What the reference led to: the digest of a manifest, or of an index of several. `<repository>@<digest>` is a pod's `imageID`.
    pub digest: Digest,
    /// The digest of its configuration, which other runtimes call the image's id.
    pub config_digest: Digest,
    /// What it wants for its containers.
    pub defaults: ImageDefaults,
    /// Its unpacked layers, top first, ready for overlayfs.
    pub layers: Vec<PathBuf>,
    /// What was downloaded for it, in bytes, as registries count.
    pub size_bytes: u64,
}

/// The images of this machine. Cheap to clone.
#[derive(Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    config: Config,
    /// Held for reading by pulls and for writing by collections: a pull's layers belong to no image until it is done.
    collecting: tokio::sync::RwLock<()>,
    /// Who gets a layer at the moment, by its digest: pulls wait for each other's layers instead of getting them twice.
    getting: Locks,
}

impl Images {
    /// Opens the images in `dir`, made if missing, and clears what an earlier process left half done. One process at a time.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the folder cannot be used.
    pub fn open(dir: impl Into<PathBuf>, config: Config) -> Result<Self, StoreError> {
        let inner = Inner {
            store: Store::open(dir.into())?,
            config,
            collecting: tokio::sync::RwLock::new(()),
            getting: Locks::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Gets an image from its registry, or the registry's mirrors, and remembers it under `reference`. The registry is asked what a
    /// tag means now even if the image is here; content that is here is not fetched again. `credential` is for the registry itself;
    /// mirrors have their own. Runs to the end of a layer's unpacking even if dropped.
    ///
    /// # Errors
    ///
    /// [`PullError`], whose text is what a pod's events show.
    pub async fn pull(
        &self,
        reference: &Reference,
        platform: &Platform,
        credential: Option<&Credential>,
    ) -> Result<ContainerImage, PullError> {
        let _shared = self.inner.collecting.read().await;
        let inner = &self.inner;
        let (store, config, getting) = (&inner.store, &inner.config, &inner.getting);
        let pull = Pull { store, config, getting, reference, platform };
        let record = pull.run(credential).await?;
        Ok(self.image(reference.clone(), record))
    }

    /// The image that `reference` led to last, if all of it is here. Asks no registry.
    #[must_use]
    pub fn get(&self, reference: &Reference) -> Option<ContainerImage> {
        let record = match (self.inner.store.find(reference), reference.digest()) {
            (Some(record), _) => record,
            // By digest, the same content under another name will do.
            (None, Some(digest)) => self.inner.store.image(digest)?,
            (None, None) => return None,
        };
        Some(self.image(reference.clone(), record))
    }

    /// Every name with its image, in the names' order.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the disk cannot be read.
    pub fn list(&self) -> Result<Vec<ContainerImage>, StoreError> {
        let mut names = self.inner.store.names()?;
        names.sort_by(|left, right| left.reference.cmp(&right.reference));
        let found = names.into_iter().filter_map(|name| {
            let record = self.inner.store.image(&name.digest)?;
            Some(self.image(name.reference, record))
        });
        Ok(found.collect())
    }

    /// Forgets a name. The content stays until [`Images::collect`].
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the disk refuses.
    pub fn remove(&self, reference: &Reference) -> Result<(), StoreError> {
        self.inner.store.remove_name(reference)
    }

    /// Deletes every image whose digest is not in `in_use`, with the layers that no other image needs. Waits for running pulls. What
    /// containers run on must be in `in_use`, also images that no name leads to any more.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the disk refuses; what was deleted until then stays deleted.
    pub async fn collect(&self, in_use: BTreeSet<Digest>) -> Result<Collected, StoreError> {
        let alone = self.inner.collecting.write().await;
        let store = self.inner.store.clone();
        let result = pull::blocking(move || store.collect(&in_use)).await;
        drop(alone);
        result
    }

    fn image(&self, reference: Reference, record: ImageRecord) -> ContainerImage {
        ContainerImage {
            reference,
            layers: record
                .diff_ids
                .iter()
                .rev()
                .map(|diff_id| self.inner.store.layer(diff_id))
                .collect(),
            digest: record.digest,
            config_digest: record.config,
            defaults: record.defaults,
            size_bytes: record.size_bytes,
        }
    }
}
