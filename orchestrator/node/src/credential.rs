//! The credential of a machine without an API of its own: by it, its node is a client of the API like any other, as
//! `system:node:<name>`.
//!
//! ```text
//!  identity key ── proves the node ──► voter ── signs ──► certificate ─┐
//!  a key made here, for one certificate ── PKCS#10 request ────────────┴─► identity/api on STATE
//! ```
//!
//! The key never leaves the machine, and goes with its certificate: each renewal makes another. What is on the disk is whole,
//! and of one pair, because it is one file. The machine's own parts do not need it: their calls go over sessions by the
//! identity key ([`crate::worker`]), which no date ends, and by which an expired credential is renewed as well.
//!
//! In the folder, readable by root alone: `node.pem` has the certificate and the key, `authority.pem` by whom the API's
//! servers are certified, and `kubeconfig` names both.

mod held;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::authority::NODE_LIFE;
use crate::authority::renewal::Renewal;
use crate::files;
use crate::worker::{Dial, NoCertificate, certify};

pub(crate) use held::{Held, Unfit};

/// Below the folder of the identity.
const FOLDER: &str = "api";
const PAIR: &str = "node.pem";
const AUTHORITY: &str = "authority.pem";
const KUBECONFIG: &str = "kubeconfig";

/// How often a keeper looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// At a certificate that is fine; clocks jump, and looking costs nothing.
    pub(crate) look: Duration,
    /// After an attempt that failed.
    pub(crate) retry: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { look: Duration::from_secs(60), retry: Duration::from_secs(5) }
    }
}

/// Keeps the credential: on the disk, and renewed.
pub(crate) struct Keeper {
    folder: PathBuf,
    node: String,
    authority_pem: String,
    dial: Arc<dyn Dial>,
    now: Box<dyn Fn() -> OffsetDateTime + Send + Sync>,
    pace: Pace,
}

/// Why there is no new credential.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoCredential {
    #[error("make a key")]
    Key(#[source] rcgen::Error),
    #[error(transparent)]
    Certificate(#[from] NoCertificate),
    #[error("the voter's certificate")]
    Unfit(#[from] Unfit),
    #[error("write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Keeper {
    /// For the node of this name; `identity`: the folder of the machine's identity; `dial`: the way to voters.
    pub(crate) fn new(
        identity: &Path,
        node: &str,
        authority_pem: &str,
        dial: Arc<dyn Dial>,
    ) -> Self {
        Self {
            folder: identity.join(FOLDER),
            node: node.to_owned(),
            authority_pem: authority_pem.to_owned(),
            dial,
            now: Box::new(OffsetDateTime::now_utc),
            pace: Pace::default(),
        }
    }

    /// Keeps it for ever; `held` has the end of the certificate that is on the disk.
    pub(crate) async fn run(self, held: watch::Sender<Option<OffsetDateTime>>) -> ! {
        let renewal = Renewal::of(NODE_LIFE);
        let mut until = self.read().map(|held| held.until);
        let mut issued: Option<Instant> = None;
        loop {
            held.send_if_modified(|known| std::mem::replace(known, until) != until);
            let age = issued.map(|issued| issued.elapsed());
            let due = until.is_none_or(|until| renewal.is_due_of_another(until, (self.now)(), age));
            let wait = match due {
                false => self.pace.look,
                true => match self.renew().await {
                    Ok(new) => {
                        tracing::info!(until = %new.until.date(), "this node has a new certificate");
                        (until, issued) = (Some(new.until), Some(Instant::now()));
                        continue;
                    }
                    Err(error @ NoCredential::Certificate(NoCertificate::Unreachable(_))) => {
                        tracing::debug!("{:#}", anyhow::Error::from(error));
                        self.pace.retry
                    }
                    Err(error) => {
                        let error = anyhow::Error::from(error);
                        tracing::warn!("this node's certificate is not renewed: {error:#}");
                        self.pace.look
                    }
                },
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// What is on the disk, if it is a credential of this node.
    pub(crate) fn read(&self) -> Option<Held> {
        let path = self.folder.join(PAIR);
        let read = files::read(&path).map_err(|error| error.to_string());
        let held = read.and_then(|bytes| {
            let pem = bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            let held = pem.map(|pem| Held::parse(&pem, &self.node, &self.authority_pem));
            held.transpose().map_err(|error| error.to_string())
        });
        held.unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), error, "the credential is made anew");
            None
        })
    }

    /// Makes a key, has it certified, and keeps both.
    pub(crate) async fn renew(&self) -> Result<Held, NoCredential> {
        let key = KeyPair::generate().map_err(NoCredential::Key)?;
        let request = CertificateParams::default().serialize_request(&key);
        let request = request.map_err(NoCredential::Key)?.der().to_vec();
        let certificate = certify(&*self.dial, request).await?;
        let pem = format!("{}\n{}", certificate.trim_end(), key.serialize_pem());
        let held = Held::parse(&pem, &self.node, &self.authority_pem)?;
        std::fs::create_dir_all(&self.folder)
            .map_err(|source| NoCredential::Write { path: self.folder.clone(), source })?;
        let kubeconfig = held::kubeconfig(&self.node);
        let rest = [(AUTHORITY, self.authority_pem.as_str()), (KUBECONFIG, kubeconfig.as_str())];
        for (file, contents) in rest.into_iter().chain([(PAIR, pem.as_str())]) {
            let path = self.folder.join(file);
            files::replace(&path, contents.as_bytes())
                .map_err(|source| NoCredential::Write { path, source })?;
        }
        Ok(held)
    }
}

#[cfg(test)]
mod tests;
