//! Gets an image: reference → manifest → configuration → layers, each checked against the digest that led to it before anything is
//! done with it.

mod layer;

use std::sync::Arc;

use futures::{TryStreamExt as _, stream};
use thiserror::Error;

use crate::config::{Config, Credential, Platform};
use crate::locks::Locks;
use crate::manifest::{ACCEPT, Configuration, Descriptor, Document, Manifest};
use crate::reference::{Digest, Reference};
use crate::registry::{Endpoint, RegistryError, endpoints};
use crate::store::{ImageRecord, NameRecord, Store, StoreError};
use crate::unpack::UnpackError;

/// Manifests and indexes; the distribution specification asks registries to take 4 MiB.
const MANIFEST_BYTES_MAX: usize = 4 << 20;

/// Configurations carry the image's whole history.
const CONFIGURATION_BYTES_MAX: usize = 8 << 20;

/// Layers of one image; overlayfs mounts no more than 500.
const LAYERS_MAX: usize = 400;

/// Why an image could not be got (`ErrImagePull`). The messages name what was asked, where, and what is wrong with the answer.
#[derive(Debug, Error)]
pub enum PullError {
    /// No place had it, or could be asked. Each place's reason, in the order they were asked.
    #[error("failed to pull image {reference:?}: {}", join(places))]
    Registry {
        /// What was asked for.
        reference: String,
        /// Why each place did not give it.
        places: Vec<RegistryError>,
    },
    /// What arrived is not what its digest says.
    #[error(
        "failed to pull image {reference:?}: {what} digest mismatch: expected {expected}, got {actual}"
    )]
    Digest {
        /// What was asked for.
        reference: String,
        /// `manifest`, `config` or `layer`.
        what: &'static str,
        /// What it should be.
        expected: Digest,
        /// What it is.
        actual: Digest,
    },
    /// The image's documents make no sense.
    #[error("failed to pull image {reference:?}: {reason}")]
    Invalid {
        /// What was asked for.
        reference: String,
        /// What is wrong.
        reason: String,
    },
    /// The image is not made for this machine.
    #[error("failed to pull image {reference:?}: no match for platform {platform} in manifest: it has {}", available.join(", "))]
    Platform {
        /// What was asked for.
        reference: String,
        /// What was looked for.
        platform: Platform,
        /// What there is.
        available: Vec<String>,
    },
    /// A layer cannot be unpacked.
    #[error("failed to pull image {reference:?}: layer {layer}: {}", chain(source))]
    Unpack {
        /// What was asked for.
        reference: String,
        /// Which layer.
        layer: Digest,
        /// The cause.
        source: UnpackError,
    },
    /// The disk refused.
    #[error("failed to pull image {reference:?}: {}", chain(source))]
    Disk {
        /// What was asked for.
        reference: String,
        /// The cause.
        source: StoreError,
    },
}

fn join(places: &[RegistryError]) -> String {
    places.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// An error with its causes: these messages are shown without their sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// One pull.
pub(crate) struct Pull<'a> {
    pub(crate) store: &'a Store,
    pub(crate) config: &'a Config,
    pub(crate) getting: &'a Locks,
    pub(crate) reference: &'a Reference,
    pub(crate) platform: &'a Platform,
}

/// What a reference led to.
struct Resolved {
    /// Who had it; asked for the rest too.
    endpoint: Arc<Endpoint>,
    /// The digest of what the reference names itself, index or manifest.
    digest: Digest,
    manifest_digest: Digest,
    manifest: Manifest,
}

impl Pull<'_> {
    /// Pulls. Content that is here already is not fetched again.
    pub(crate) async fn run(
        &self,
        credential: Option<&Credential>,
    ) -> Result<ImageRecord, PullError> {
        let resolved = self.resolve(credential).await?;
        if let Some(record) = self.store.image(&resolved.digest)
            && record.manifest == resolved.manifest_digest
        {
            self.name(&record)?;
            return Ok(record);
        }
        let configuration = self.configuration(&resolved).await?;
        let layers = &resolved.manifest.layers;
        let diff_ids = configuration.rootfs.diff_ids;
        self.check(layers, &diff_ids)?;
        stream::iter(layers.iter().zip(&diff_ids).map(Ok))
            .try_for_each_concurrent(self.config.parallel_layers.max(1), |(layer, diff_id)| {
                self.layer(&resolved.endpoint, layer, diff_id)
            })
            .await?;
        let record = ImageRecord {
            digest: resolved.digest,
            manifest: resolved.manifest_digest,
            config: resolved.manifest.config.digest.clone(),
            size_bytes: resolved.manifest.config.size
                + layers.iter().map(|layer| layer.size).sum::<u64>(),
            diff_ids,
            defaults: configuration.config.unwrap_or_default(),
        };
        self.store.put_image(&record).map_err(|source| self.disk(source))?;
        self.name(&record)?;
        Ok(record)
    }

    fn name(&self, record: &ImageRecord) -> Result<(), PullError> {
        let name = NameRecord { reference: self.reference.clone(), digest: record.digest.clone() };
        self.store.put_name(&name).map_err(|source| self.disk(source))
    }

    /// Asks one place after the other.
    async fn resolve(&self, credential: Option<&Credential>) -> Result<Resolved, PullError> {
        let failed = |places| PullError::Registry { reference: self.reference.to_string(), places };
        let endpoints = endpoints(self.config, self.reference, credential)
            .map_err(|error| failed(vec![error]))?;
        let mut places = Vec::new();
        for endpoint in endpoints {
            match self.resolve_at(&endpoint).await {
                Ok(resolved) => return Ok(resolved),
                Err(PullError::Registry { places: more, .. }) => places.extend(more),
                // A place that answers with something wrong is not made right by another one.
                Err(error) => return Err(error),
            }
        }
        Err(failed(places))
    }

    async fn resolve_at(&self, endpoint: &Arc<Endpoint>) -> Result<Resolved, PullError> {
        let bytes = self.fetch_manifest(endpoint, self.reference.selector()).await?;
        let digest = Digest::of(&bytes);
        if let Some(expected) = self.reference.digest() {
            self.verify("manifest", expected, &digest)?;
        }
        let (manifest_digest, manifest) = match self.document(&bytes)? {
            Document::Manifest(manifest) => (digest.clone(), manifest),
            Document::Index(index) => {
                let Some(chosen) = index.select(self.platform) else {
                    let (reference, platform) = (self.reference.to_string(), self.platform.clone());
                    return Err(PullError::Platform {
                        reference,
                        platform,
                        available: index.platforms(),
                    });
                };
                self.keep(&digest, &bytes)?;
                let bytes = self.fetch_manifest(endpoint, chosen.as_str()).await?;
                self.verify("manifest", chosen, &Digest::of(&bytes))?;
                match self.document(&bytes)? {
                    Document::Manifest(manifest) => {
                        self.keep(chosen, &bytes)?;
                        (chosen.clone(), manifest)
                    }
                    Document::Index(_) => {
                        return Err(self.invalid("an index leads to another index"));
                    }
                }
            }
        };
        self.keep(&digest, &bytes)?;
        Ok(Resolved { endpoint: Arc::clone(endpoint), digest, manifest_digest, manifest })
    }

    /// A manifest, from the store if it is known by digest.
    async fn fetch_manifest(
        &self,
        endpoint: &Endpoint,
        selector: &str,
    ) -> Result<Vec<u8>, PullError> {
        if let Some(bytes) = selector.parse().ok().and_then(|digest| self.store.blob(&digest)) {
            return Ok(bytes);
        }
        let fetch =
            || endpoint.manifest(self.reference.repository(), selector, ACCEPT, MANIFEST_BYTES_MAX);
        Ok(self.patiently(fetch).await?.to_vec())
    }

    async fn configuration(&self, resolved: &Resolved) -> Result<Configuration, PullError> {
        let expected = &resolved.manifest.config.digest;
        let bytes = match self.store.blob(expected) {
            Some(bytes) => bytes,
            None => {
                let fetch = || {
                    resolved.endpoint.blob(
                        self.reference.repository(),
                        expected.as_str(),
                        CONFIGURATION_BYTES_MAX,
                    )
                };
                self.patiently(fetch).await?.to_vec()
            }
        };
        self.verify("config", expected, &Digest::of(&bytes))?;
        self.keep(expected, &bytes)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| self.invalid(format!("its configuration cannot be read: {error}")))
    }

    /// Tries again while the reason is one that may pass.
    async fn patiently<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, PullError>
    where
        F: Future<Output = Result<T, RegistryError>>,
    {
        let mut wait = self.config.retries.wait;
        for _ in 0..self.config.retries.count {
            match attempt().await {
                Err(error) if error.is_passing() => {
                    tracing::debug!(reference = %self.reference, %error, "will ask again");
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                result => return result.map_err(|error| self.registry(error)),
            }
        }
        attempt().await.map_err(|error| self.registry(error))
    }

    fn check(&self, layers: &[Descriptor], diff_ids: &[Digest]) -> Result<(), PullError> {
        if layers.len() != diff_ids.len() {
            let (layers, ids) = (layers.len(), diff_ids.len());
            return Err(
                self.invalid(format!("its manifest has {layers} layers, its configuration {ids}"))
            );
        }
        if layers.is_empty() || layers.len() > LAYERS_MAX {
            return Err(self.invalid(format!(
                "it has {} layers, 1 to {LAYERS_MAX} are possible",
                layers.len()
            )));
        }
        let most = self.config.limits.layer_download_bytes;
        for layer in layers {
            if layer.media_type.contains("foreign") || layer.media_type.contains("nondistributable")
            {
                return Err(self.invalid(format!(
                    "layer {} is not distributed by the registry",
                    layer.digest
                )));
            }
            if layer.size > most {
                let (digest, size) = (&layer.digest, layer.size);
                return Err(self.invalid(format!(
                    "layer {digest} has {size} bytes, more than the {most} allowed"
                )));
            }
        }
        Ok(())
    }

    fn document(&self, bytes: &[u8]) -> Result<Document, PullError> {
        Document::read(bytes).map_err(|reason| self.invalid(format!("manifest: {reason}")))
    }

    fn keep(&self, digest: &Digest, bytes: &[u8]) -> Result<(), PullError> {
        self.store.put_blob(digest, bytes).map_err(|source| self.disk(source))
    }

    fn verify(
        &self,
        what: &'static str,
        expected: &Digest,
        actual: &Digest,
    ) -> Result<(), PullError> {
        if expected == actual {
            return Ok(());
        }
        let (expected, actual) = (expected.clone(), actual.clone());
        Err(PullError::Digest { reference: self.reference.to_string(), what, expected, actual })
    }

    fn invalid(&self, reason: impl Into<String>) -> PullError {
        PullError::Invalid { reference: self.reference.to_string(), reason: reason.into() }
    }

    fn registry(&self, error: RegistryError) -> PullError {
        PullError::Registry { reference: self.reference.to_string(), places: vec![error] }
    }

    fn disk(&self, source: StoreError) -> PullError {
        PullError::Disk { reference: self.reference.to_string(), source }
    }
}

/// Runs what blocks where it may.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down, and with it whoever waits here.
            Err(_) => std::future::pending().await,
        },
    }
}
