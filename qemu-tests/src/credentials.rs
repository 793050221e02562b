//! What a person keeps of a cluster: its token and the administrator's key.
//!
//! The token goes into the machine config; of the administrator's key only the public half does. Nothing here is ever made
//! by a machine of the cluster, and nothing of it can be got back from one.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use podium_init::config::document;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData as _};

/// Twice the 128 bits that the machine config asks for.
const TOKEN_BYTES: usize = 32;

/// A cluster's secrets, as files of one folder: `token`, `admin.key` and `admin.crt`, readable by their owner alone.
#[derive(Clone, Debug)]
pub struct Credentials {
    folder: PathBuf,
    token: Vec<u8>,
}

impl Credentials {
    /// Makes new secrets in `folder`.
    ///
    /// # Errors
    /// The folder holds a cluster's secrets already (they are never overwritten), or cannot be written.
    pub fn create(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let credentials = Self { folder: folder.to_owned(), token: random_bytes()? };
        if credentials.key_file().exists() {
            bail!(
                "{} exists: a cluster's key is never overwritten",
                credentials.key_file().display()
            );
        }
        let key = KeyPair::generate().context("make the administrator's key")?;
        let certificate = self_signed(&key).context("make the administrator's certificate")?;
        secret_file(
            &credentials.token_file(),
            URL_SAFE_NO_PAD.encode(&credentials.token).as_bytes(),
        )?;
        secret_file(&credentials.certificate_file(), certificate.as_bytes())?;
        // Last: the key's file says that the others are whole.
        secret_file(&credentials.key_file(), key.serialize_pem().as_bytes())?;
        Ok(credentials)
    }

    /// The secrets in `folder`.
    ///
    /// # Errors
    /// They are not all there.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let mut credentials = Self { folder: folder.to_owned(), token: Vec::new() };
        let path = credentials.token_file();
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        credentials.token =
            URL_SAFE_NO_PAD.decode(text.trim()).with_context(|| path.display().to_string())?;
        for path in [credentials.key_file(), credentials.certificate_file()] {
            std::fs::metadata(&path).with_context(|| path.display().to_string())?;
        }
        Ok(credentials)
    }

    /// Opens the secrets in `folder`, or makes them.
    ///
    /// # Errors
    /// See [`Self::open`] and [`Self::create`].
    pub fn open_or_create(folder: &Path) -> anyhow::Result<Self> {
        let exists = Self { folder: folder.to_owned(), token: Vec::new() }.key_file().exists();
        if exists { Self::open(folder) } else { Self::create(folder) }
    }

    /// The token's bytes.
    #[must_use]
    pub fn token(&self) -> &[u8] {
        &self.token
    }

    /// PEM of the administrator's private key.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn key_pem(&self) -> anyhow::Result<String> {
        read(&self.key_file())
    }

    /// PEM of the administrator's certificate, signed by the key itself.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn certificate_pem(&self) -> anyhow::Result<String> {
        read(&self.certificate_file())
    }

    /// The machine config that every machine of the cluster shares. `expect`: how many machines form it.
    ///
    /// # Errors
    /// The key's file cannot be read.
    pub fn machine_config(&self, name: &str, expect: u32) -> anyhow::Result<document::Document> {
        let key = KeyPair::from_pem(&self.key_pem()?).context("read the administrator's key")?;
        Ok(document::Document {
            api_version: podium_init::config::API_VERSION.to_owned(),
            kind: podium_init::config::KIND.to_owned(),
            cluster: document::Cluster {
                name: name.to_owned(),
                token: URL_SAFE_NO_PAD.encode(&self.token),
                admin_key: STANDARD.encode(key.subject_public_key_info()),
                expect: Some(expect),
                ..document::Cluster::default()
            },
            ..document::Document::default()
        })
    }

    fn key_file(&self) -> PathBuf {
        self.folder.join("admin.key")
    }

    fn certificate_file(&self) -> PathBuf {
        self.folder.join("admin.crt")
    }

    fn token_file(&self) -> PathBuf {
        self.folder.join("token")
    }
}

fn random_bytes() -> anyhow::Result<Vec<u8>> {
    let mut bytes = vec![0; TOKEN_BYTES];
    getrandom::fill(&mut bytes).context("read random bytes")?;
    Ok(bytes)
}

/// The certificate only carries the key through TLS: the cluster pins the key, so the dates bind nobody.
fn self_signed(key: &KeyPair) -> anyhow::Result<String> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "admin");
    name.push(DnType::OrganizationName, "system:masters");
    parameters.distinguished_name = name;
    parameters.not_before = rcgen::date_time_ymd(1970, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(9999, 12, 31);
    Ok(parameters.self_signed(key)?.pem())
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn secret_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn secrets_are_kept_and_never_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let made = Credentials::create(folder.path()).expect("create");
        let opened = Credentials::open(folder.path()).expect("open");
        assert_eq!(made.token(), opened.token());
        let error = Credentials::create(folder.path()).expect_err("a second creation");
        assert!(error.to_string().contains("never overwritten"), "{error}");
    }

    #[test]
    fn only_their_owner_reads_them() {
        let folder = tempfile::tempdir().expect("a folder");
        Credentials::create(folder.path()).expect("create");
        for name in ["token", "admin.key", "admin.crt"] {
            let mode =
                std::fs::metadata(folder.path().join(name)).expect(name).permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn the_machine_config_passes_its_own_check_and_holds_no_private_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let credentials = Credentials::create(folder.path()).expect("create");
        let yaml =
            credentials.machine_config("demo", 1).expect("a config").to_yaml().expect("YAML");
        let decoded = podium_init::config::decode(&yaml).expect("a config that machines take");
        assert_eq!(decoded.cluster.token.as_bytes(), credentials.token());
        assert!(!yaml.contains("PRIVATE KEY"));
    }
}
