//! Images on disk. Content is known by digest, names point to images, and everything appears in one step: a file or folder under its final
//! name is whole.
//!
//! ```text
//! blobs/sha256/<digest>     manifests and configurations, as the registry sent them
//! layers/<diff id>/         unpacked layers
//! images/<digest>           ImageRecord, by the digest of what the reference led to
//! names/<hash>              NameRecord: a reference and the digest it led to last
//! ingest/                   downloads (kept, to be taken up again) and layers being unpacked (worthless after a restart)
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::manifest::ImageDefaults;
use crate::reference::{Digest, Reference};

/// Why the store cannot be used.
#[derive(Debug, Error)]
#[error("cannot {action} {}", path.display())]
pub struct StoreError {
    action: &'static str,
    path: PathBuf,
    /// The cause.
    #[source]
    source: io::Error,
}

impl StoreError {
    pub(crate) fn of(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { action, path, source }
    }

    /// Whether the disk is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.source.kind() == io::ErrorKind::StorageFull
    }
}

/// One image as the store remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    pub(crate) digest: Digest,
    pub(crate) manifest: Digest,
    pub(crate) config: Digest,
    /// Bottom first, as in the configuration.
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) size_bytes: u64,
    pub(crate) defaults: ImageDefaults,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NameRecord {
    pub(crate) reference: Reference,
    pub(crate) digest: Digest,
}

/// What a collection took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Images forgotten.
    pub images: usize,
    /// Layers deleted.
    pub layers: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Store {
    root: PathBuf,
    /// Makes temporary names.
    count: Arc<AtomicU64>,
}

impl Store {
    /// Opens the store, and clears what a crash left half done.
    pub(crate) fn open(root: PathBuf) -> Result<Self, StoreError> {
        let store = Self { root, count: Arc::default() };
        for folder in ["blobs/sha256", "layers", "images", "names", "ingest"] {
            let path = store.root.join(folder);
            fs::create_dir_all(&path).map_err(StoreError::of("make", &path))?;
        }
        for path in store.paths("ingest")? {
            // A download goes by its digest; everything else is half done.
            if path.is_dir() || path.extension().is_some() {
                remove_all(&path)?;
            }
        }
        Ok(store)
    }

    pub(crate) fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }

    /// Where a blob is downloaded to.
    pub(crate) fn download(&self, digest: &Digest) -> PathBuf {
        self.root.join("ingest").join(digest.hex())
    }

    /// An empty folder to unpack a layer in.
    pub(crate) fn unpacking(&self) -> Result<PathBuf, StoreError> {
        let path = self.temporary("layer");
        fs::create_dir(&path).map_err(StoreError::of("make", &path))?;
        Ok(path)
    }

    /// A name that nothing else has while this process runs.
    fn temporary(&self, kind: &str) -> PathBuf {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        self.root.join("ingest").join(format!("{number}.{kind}"))
    }

    /// Gives an unpacked layer, already durable, its name. If the content has that name already, nothing is to be done.
    pub(crate) fn adopt_layer(&self, unpacked: &Path, diff_id: &Digest) -> Result<(), StoreError> {
        let path = self.layer(diff_id);
        match fs::rename(unpacked, &path) {
            Err(error) if !path.is_dir() => Err(StoreError::of("name the layer", &path)(error)),
            _ => sync_folder(&self.root.join("layers")),
        }
    }

    pub(crate) fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.root.join("blobs/sha256").join(digest.hex());
        if path.exists() { Ok(()) } else { self.put(&path, bytes) }
    }

    /// A blob by digest, unless it is missing or damaged.
    pub(crate) fn blob(&self, digest: &Digest) -> Option<Vec<u8>> {
        let bytes = fs::read(self.root.join("blobs/sha256").join(digest.hex())).ok()?;
        (Digest::of(&bytes) == *digest).then_some(bytes)
    }

    pub(crate) fn put_image(&self, record: &ImageRecord) -> Result<(), StoreError> {
        self.put_record(&self.root.join("images").join(record.digest.hex()), record)
    }

    pub(crate) fn put_name(&self, record: &NameRecord) -> Result<(), StoreError> {
        self.put_record(&self.name(&record.reference), record)
    }

    /// The image that a reference led to last, if all of it is here.
    pub(crate) fn find(&self, reference: &Reference) -> Option<ImageRecord> {
        let name: NameRecord = read_record(&self.name(reference))?;
        if name.reference != *reference {
            return None;
        }
        self.image(&name.digest)
    }

    /// An image by digest, if all of it is here.
    pub(crate) fn image(&self, digest: &Digest) -> Option<ImageRecord> {
        let record: ImageRecord = read_record(&self.root.join("images").join(digest.hex()))?;
        record.diff_ids.iter().all(|diff_id| self.layer(diff_id).is_dir()).then_some(record)
    }

    pub(crate) fn names(&self) -> Result<Vec<NameRecord>, StoreError> {
        self.records("names")
    }

    pub(crate) fn remove_name(&self, reference: &Reference) -> Result<(), StoreError> {
        remove(&self.name(reference))
    }

    /// Deletes every image whose digest is not in `in_use`, and whatever no remaining image needs. Names go before images and
    /// images before layers, so that a crash leaves no name without an image and no image without its layers.
    pub(crate) fn collect(&self, in_use: &BTreeSet<Digest>) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        for name in self.names()? {
            if !in_use.contains(&name.digest) {
                remove(&self.name(&name.reference))?;
            }
        }
        let mut kept = BTreeSet::new();
        for image in self.records::<ImageRecord>("images")? {
            if in_use.contains(&image.digest) {
                kept.extend([image.digest.clone(), image.manifest, image.config]);
                kept.extend(image.diff_ids);
            } else {
                remove(&self.root.join("images").join(image.digest.hex()))?;
                collected.images += 1;
            }
        }
        let needless = |path: &Path| {
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            !kept.iter().any(|digest| digest.hex() == name)
        };
        for path in self.paths("blobs/sha256")?.into_iter().filter(|path| needless(path)) {
            remove(&path)?;
        }
        for path in self.paths("layers")?.into_iter().filter(|path| needless(path)) {
            // Under another name first: half a layer must not look like a whole one.
            let doomed = self.temporary("doomed");
            fs::rename(&path, &doomed).map_err(StoreError::of("delete", &path))?;
            remove_all(&doomed)?;
            collected.layers += 1;
        }
        for path in self.paths("ingest")? {
            remove_all(&path)?;
        }
        Ok(collected)
    }

    fn name(&self, reference: &Reference) -> PathBuf {
        self.root.join("names").join(Digest::of(reference.to_string().as_bytes()).hex())
    }

    fn paths(&self, folder: &str) -> Result<Vec<PathBuf>, StoreError> {
        let path = self.root.join(folder);
        let entries = fs::read_dir(&path).map_err(StoreError::of("read", &path))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        Ok(paths)
    }

    /// Every readable record of a folder. A damaged one is as good as none: its image is pulled again.
    fn records<T: DeserializeOwned>(&self, folder: &str) -> Result<Vec<T>, StoreError> {
        Ok(self.paths(folder)?.iter().filter_map(|path| read_record(path)).collect())
    }

    fn put_record<T: Serialize>(&self, path: &Path, record: &T) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(record)
            .map_err(|error| StoreError::of("encode", path)(error.into()))?;
        self.put(path, &bytes)
    }

    /// Writes a file in one durable step.
    fn put(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let temporary = self.temporary("new");
        let written = File::create(&temporary).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        written.map_err(StoreError::of("write", &temporary))?;
        fs::rename(&temporary, path).map_err(StoreError::of("write", path))?;
        sync_folder(path.parent().unwrap_or(&self.root))
    }
}

fn read_record<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::of("delete", path)(error))
        }
        _ => Ok(()),
    }
}

fn remove_all(path: &Path) -> Result<(), StoreError> {
    if !path.is_dir() {
        return remove(path);
    }
    fs::remove_dir_all(path).map_err(StoreError::of("delete", path))
}

fn sync_folder(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(StoreError::of("sync", path))
}
