//! The rig's registry: Debian's docker-registry behind TLS, with a certificate of its own authority, loaded with the images
//! that the examples and scenarios name. The machines reach it through the mirror setting of their config.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use podium_init::config::document;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

use crate::debian;
use crate::node_api::Https;
use crate::process::Child;

pub mod content;

/// The port on the gateway by which the machines reach the registry.
pub const GATEWAY_PORT: u16 = 5000;
/// The registries whose images the rig's registry serves.
const MIRRORED: [&str; 3] = ["docker.io", "k8s.gcr.io", "registry.k8s.io"];
const START_DEADLINE: Duration = Duration::from_secs(30);

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    cache: PathBuf,
    folder: PathBuf,
    gateway: Ipv4Addr,
    address: SocketAddr,
    ca_pem: String,
    process: Option<Child>,
}

impl Registry {
    /// Starts a registry with its certificates and data in `folder`, and loads it with the rig's images. Packages are kept in `cache`.
    /// Its certificate names `gateway`.
    ///
    /// # Errors
    /// A Debian package cannot be had, or the registry does not start; its words are in the error.
    pub fn start(cache: &Path, folder: &Path, gateway: Ipv4Addr) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let ca_pem = certificates(folder, gateway)?;
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut registry = Self {
            cache: cache.to_owned(),
            folder: folder.to_owned(),
            gateway,
            address,
            ca_pem,
            process: None,
        };
        registry.switch_on()?;
        registry.load()?;
        Ok(registry)
    }

    /// Where it listens on the host.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// PEM of the authority that signed its certificate.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The `registries` of a machine config that leads here.
    #[must_use]
    pub fn mirrors(&self) -> Vec<document::Registry> {
        let mirror = document::Mirror {
            url: format!("https://{}:{GATEWAY_PORT}", self.gateway),
            ca: Some(self.ca_pem.clone()),
            ..document::Mirror::default()
        };
        let registry = |host: &str| document::Registry {
            host: host.to_owned(),
            mirrors: vec![mirror.clone()],
        };
        MIRRORED.map(registry).into()
    }

    /// Kills it, as a fault: its port then refuses connections.
    pub fn switch_off(&mut self) {
        self.process = None;
    }

    /// Starts it again on the same port with the same data.
    ///
    /// # Errors
    /// It does not start.
    pub fn switch_on(&mut self) -> anyhow::Result<()> {
        let program = debian::unpack(&self.cache, "docker-registry", &["docker-registry"])?;
        let config = self.own_file("yml");
        std::fs::write(&config, self.configuration())?;
        let said = self.own_file("log");
        let mut command = Command::new(debian::resolve(&program, "usr/bin/docker-registry")?);
        command
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&said)?);
        let mut process = Child::spawn(command)?;
        let https = Https::new(self.address, "127.0.0.1", &self.ca_pem)?;
        let deadline = Instant::now() + START_DEADLINE;
        while !https.get("/v2/").is_ok_and(|answer| answer.status == 200) {
            if process.wait_for(Duration::from_millis(20))?.is_some() || Instant::now() > deadline {
                let said = std::fs::read_to_string(&said).unwrap_or_default();
                bail!("the registry does not start: {}", said.trim());
            }
        }
        self.process = Some(process);
        Ok(())
    }

    /// A file of this registry alone: others may run on the same data, under other ports.
    fn own_file(&self, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{extension}", self.address.port()))
    }

    fn configuration(&self) -> String {
        let path = |name: &str| self.folder.join(name).display().to_string();
        // JSON is YAML, and quotes paths rightly.
        serde_json::json!({
            "version": 0.1,
            "log": { "level": "warn" },
            "storage": { "filesystem": { "rootdirectory": path("data") } },
            "http": {
                "addr": self.address.to_string(),
                "tls": { "certificate": path("registry.crt"), "key": path("registry.key") },
            },
        })
        .to_string()
    }

    /// Loads an image, whatever its tags have meant before.
    ///
    /// # Errors
    /// It cannot be made, or the registry does not take it.
    pub fn push(&self, image: &content::Image) -> anyhow::Result<()> {
        let layouts = self.cache.join("images");
        // Layouts are shared by all registries of a cache, the data by all of a folder.
        let _alone = (debian::alone(&self.folder)?, debian::alone(&layouts)?);
        let layout = layouts.join(image.name);
        image.write_layout(&layout)?;
        for tag in image.tags {
            let mut push = Command::new("skopeo");
            push.args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"])
                .arg(format!("oci:{}:{}", layout.display(), content::LAYOUT_TAG))
                .arg(format!("docker://{}/{}:{tag}", self.address, image.name));
            debian::run(push).with_context(|| format!("push {}:{tag}", image.name))?;
        }
        Ok(())
    }

    /// The files of a repository's blobs, by digest: what a fault may damage.
    ///
    /// # Errors
    /// There is no such repository.
    pub fn blobs(&self, repository: &str) -> anyhow::Result<BTreeMap<String, PathBuf>> {
        let root = self.folder.join("data/docker/registry/v2");
        let links = root.join("repositories").join(repository).join("_layers/sha256");
        let mut blobs = BTreeMap::new();
        for entry in std::fs::read_dir(&links).with_context(|| links.display().to_string())? {
            let digits = entry?.file_name().to_string_lossy().into_owned();
            let start = digits.get(..2).context("a digest is longer than that")?;
            let file = root.join("blobs/sha256").join(start).join(&digits).join("data");
            blobs.insert(format!("sha256:{digits}"), file);
        }
        Ok(blobs)
    }

    fn load(&self) -> anyhow::Result<()> {
        for image in content::images(&self.cache)? {
            let marker = self.folder.join(format!("{}.loaded", image.name.replace('/', "_")));
            if marker.exists() {
                continue;
            }
            self.push(&image)?;
            std::fs::write(marker, "")?;
        }
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process = None;
        for extension in ["yml", "log"] {
            let _ = std::fs::remove_file(self.own_file(extension));
        }
    }
}

/// The registry's certificate and key, made once per folder; returns PEM of their authority.
fn certificates(folder: &Path, gateway: Ipv4Addr) -> anyhow::Result<String> {
    let _alone = debian::alone(folder)?;
    let authority_file = folder.join("ca.crt");
    if let Ok(pem) = std::fs::read_to_string(&authority_file) {
        return Ok(pem);
    }
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, "Podium rig registry CA");
    let authority_pem = authority.self_signed(&authority_key)?.pem();
    let key = KeyPair::generate()?;
    let mut certificate = CertificateParams::new(Vec::new())?;
    certificate.distinguished_name.push(rcgen::DnType::CommonName, "Podium rig registry");
    certificate.subject_alt_names =
        [gateway, Ipv4Addr::LOCALHOST].map(|address| SanType::IpAddress(address.into())).into();
    let certificate = certificate.signed_by(&key, &Issuer::new(authority, &authority_key))?;
    std::fs::write(folder.join("registry.key"), key.serialize_pem())?;
    std::fs::write(folder.join("registry.crt"), certificate.pem())?;
    // Last: its presence says that the others are whole.
    std::fs::write(&authority_file, &authority_pem)?;
    Ok(authority_pem)
}
