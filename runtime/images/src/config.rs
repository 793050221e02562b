//! Where images may come from, and how large they may be.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How images are got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Registries with settings of their own, by host as in references (`k8s.gcr.io`, `docker.io`, `10.0.2.2:5000`).
    pub registries: BTreeMap<String, Registry>,
    /// PEM file of the certificate authorities that registries are trusted by unless they have one of their own.
    pub authorities: PathBuf,
    /// What an image may at most be.
    pub limits: Limits,
    /// Layers of one image that are downloaded and unpacked at a time. Three keep a disk and a processor busy; more only take
    /// memory.
    pub parallel_layers: usize,
    /// How often a broken download is taken up again, and how long to wait before the first time; doubled each time.
    pub retries: Retries,
}

/// How often a broken download is taken up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Attempts after the first.
    pub count: u32,
    /// Wait before the first of them.
    pub wait: Duration,
}

/// Settings of one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    /// Asked in this order, before the registry itself.
    pub mirrors: Vec<Mirror>,
}

/// Another place that has a registry's images, under the same repository names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// `https://host[:port][/prefix]`. Plain `http` is taken for what it says.
    pub url: String,
    /// PEM certificates of the only authorities that this mirror is trusted by.
    pub ca: Option<String>,
    /// For basic authentication, together with `password`.
    pub username: Option<String>,
    /// See `username`.
    pub password: Option<String>,
}

/// Name and password for a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The name.
    pub username: String,
    /// The password or token.
    pub password: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Credential")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// What an image may at most be. The defaults let every image pass that people run, and keep a hostile one from filling a disk
/// out of a small download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Compressed bytes of one layer.
    pub layer_download_bytes: u64,
    /// Unpacked bytes of one layer.
    pub layer_bytes: u64,
    /// Unpacked bytes per compressed byte, for layers that unpack to more than `ratio_from_bytes`. gzip reaches 1,032 at most; real layers
    /// stay below 20.
    pub ratio: u64,
    /// See `ratio`.
    pub ratio_from_bytes: u64,
    /// Entries of one layer.
    pub layer_entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            layer_download_bytes: 16 << 30,
            layer_bytes: 64 << 30,
            ratio: 100,
            ratio_from_bytes: 512 << 20,
            layer_entries: 2_000_000,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            registries: BTreeMap::new(),
            authorities: PathBuf::from("/etc/ssl/certs/ca-certificates.crt"),
            limits: Limits::default(),
            parallel_layers: 3,
            retries: Retries { count: 4, wait: Duration::from_secs(1) },
        }
    }
}

/// Which variant of an image to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: String,
    /// `v8` and the like. Compared only if an image names one and this is set.
    pub variant: Option<String>,
}

impl Platform {
    /// The machine that this program was built for.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(formatter, "/{variant}"))
    }
}
