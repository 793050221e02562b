//! Gets one layer: download with checking and taking up again, then unpacking into its final place.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use super::{Pull, PullError, blocking};
use crate::manifest::Descriptor;
use crate::reference::Digest;
use crate::registry::{Endpoint, RegistryError};
use crate::store::StoreError;
use crate::unpack::{self, UnpackError, Unpacked};

/// How an attempt at a download ended otherwise than well.
enum Broken {
    /// The registry's fault; what has arrived stays.
    Registry(RegistryError),
    Disk(StoreError),
    /// All has arrived, and it is something else.
    Content {
        actual: Digest,
    },
    TooLong,
}

impl Pull<'_> {
    /// Makes sure that the layer is unpacked.
    pub(super) async fn layer(
        &self,
        endpoint: &Endpoint,
        layer: &Descriptor,
        diff_id: &Digest,
    ) -> Result<(), PullError> {
        let _alone = self.getting.hold(&layer.digest).await;
        if self.store.layer(diff_id).is_dir() {
            return Ok(());
        }
        let path = self.store.download(&layer.digest);
        self.download(endpoint, layer, &path).await?;
        let target = self.store.unpacking().map_err(|source| self.disk(source))?;
        let (limits, size) = (self.config.limits, layer.size);
        let unpacked = {
            let (path, target) = (path.clone(), target.clone());
            blocking(move || unpack_file(&path, size, &target, &limits)).await
        };
        let result = unpacked
            .map_err(|source| PullError::Unpack {
                reference: self.reference.to_string(),
                layer: layer.digest.clone(),
                source,
            })
            .and_then(|unpacked| {
                self.verify("layer content (diff id)", diff_id, &unpacked.diff_id)
            });
        if result.is_ok() {
            self.store.adopt_layer(&target, diff_id).map_err(|source| self.disk(source))?;
        }
        // Either the folder has its final name now, or nobody wants it. The download is of no use any more in both cases.
        blocking(move || {
            let _ = std::fs::remove_dir_all(&target);
            let _ = std::fs::remove_file(&path);
        })
        .await;
        result
    }

    /// Downloads a blob to `path`, going on where an earlier attempt broke off.
    async fn download(
        &self,
        endpoint: &Endpoint,
        layer: &Descriptor,
        path: &Path,
    ) -> Result<(), PullError> {
        let retries = self.config.retries;
        let mut wait = retries.wait;
        for attempt in 0..=retries.count {
            match self.attempt(endpoint, layer, path).await {
                Ok(()) => return Ok(()),
                Err(Broken::Registry(error)) if error.is_passing() && attempt < retries.count => {
                    tracing::debug!(layer = %layer.digest, %error, "will go on with the download");
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                Err(broken) => return Err(self.broken(broken, layer, path)),
            }
        }
        Ok(())
    }

    fn broken(&self, broken: Broken, layer: &Descriptor, path: &Path) -> PullError {
        match broken {
            Broken::Registry(error) => self.registry(error),
            Broken::Disk(error) => self.disk(error),
            Broken::Content { actual } => {
                // Going on from wrong bytes would never give the right ones.
                let _ = std::fs::remove_file(path);
                let reference = self.reference.to_string();
                PullError::Digest {
                    reference,
                    what: "layer",
                    expected: layer.digest.clone(),
                    actual,
                }
            }
            Broken::TooLong => {
                let _ = std::fs::remove_file(path);
                self.invalid(format!(
                    "layer {} is longer than the {} bytes its manifest says",
                    layer.digest, layer.size
                ))
            }
        }
    }

    async fn attempt(
        &self,
        endpoint: &Endpoint,
        layer: &Descriptor,
        path: &Path,
    ) -> Result<(), Broken> {
        let disk = |source| Broken::Disk(StoreError::of("write the download", path)(source));
        let begun = path.to_owned();
        let (mut hash, mut length) = blocking(move || read_begun(&begun)).await.map_err(disk)?;
        if length < layer.size {
            let repository = self.reference.repository();
            let fetched = endpoint
                .blob_from(repository, layer.digest.as_str(), length)
                .await
                .map_err(Broken::Registry)?;
            if fetched.offset != length {
                (hash, length) = (Sha256::new(), 0);
            }
            let file = open_at(path.to_owned(), length).await.map_err(disk)?;
            // Pieces of the network's size would each be a trip to another thread.
            let mut file = tokio::io::BufWriter::with_capacity(256 << 10, file);
            let mut body = fetched.body;
            let mut failure = None;
            while let Some(piece) = body.next().await {
                let piece = match piece {
                    Ok(piece) => piece,
                    Err(error) => {
                        failure = Some(error);
                        break;
                    }
                };
                length += piece.len() as u64;
                if length > layer.size {
                    return Err(Broken::TooLong);
                }
                hash.update(&piece);
                file.write_all(&piece).await.map_err(disk)?;
            }
            file.flush().await.map_err(disk)?;
            if let Some(error) = failure {
                return Err(Broken::Registry(error));
            }
        }
        if length < layer.size {
            let (place, what) = (endpoint.place(), format!("blob {}", layer.digest));
            let reason = format!("it broke off after {length} of {} bytes", layer.size);
            return Err(Broken::Registry(RegistryError::Connection { place, what, reason }));
        }
        let actual = Digest::from_bytes(&hash.finalize());
        if actual == layer.digest { Ok(()) } else { Err(Broken::Content { actual }) }
    }
}

async fn open_at(path: PathBuf, length: u64) -> io::Result<tokio::fs::File> {
    let file = tokio::fs::OpenOptions::new().append(true).create(true).open(path).await?;
    file.set_len(length).await?;
    Ok(file)
}

/// Hash and length of what an earlier attempt left.
fn read_begun(path: &Path) -> io::Result<(Sha256, u64)> {
    let mut hash = Sha256::new();
    let mut length = 0;
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((hash, 0)),
        Err(error) => return Err(error),
    };
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hash, length)),
            read => {
                hash.update(buffer.get(..read).unwrap_or_default());
                length += read as u64;
            }
        }
    }
}

fn unpack_file(
    path: &Path,
    size: u64,
    target: &Path,
    limits: &crate::Limits,
) -> Result<Unpacked, UnpackError> {
    let file = File::open(path).map_err(UnpackError::Read)?;
    unpack::unpack(file, size, target, limits)
}
