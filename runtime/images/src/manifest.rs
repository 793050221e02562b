//! The documents of an image: index, manifest, configuration. Only what is needed is read, and leniently, since Docker's and the OCI's
//! forms differ in details; what decides anything is checked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::Platform;
use crate::reference::Digest;

/// What manifests may be asked for.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// One of the two documents that a reference can lead to.
#[derive(Debug)]
pub(crate) enum Document {
    Index(Index),
    Manifest(Manifest),
}

/// A choice of manifests, one per platform.
#[derive(Debug, Deserialize)]
pub(crate) struct Index {
    manifests: Vec<IndexEntry>,
}

#[derive(Debug, Deserialize)]
struct IndexEntry {
    digest: Digest,
    platform: Option<EntryPlatform>,
}

#[derive(Debug, Deserialize)]
struct EntryPlatform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

/// One image for one platform.
#[derive(Debug, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// A piece of content, by digest.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Descriptor {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(rename = "mediaType", default)]
    pub(crate) media_type: String,
}

/// The part of an image's configuration that matters here.
#[derive(Debug, Deserialize)]
pub(crate) struct Configuration {
    #[serde(default)]
    pub(crate) config: Option<ImageDefaults>,
    pub(crate) rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RootFs {
    pub(crate) diff_ids: Vec<Digest>,
}

/// What an image wants for its containers unless their specification says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageDefaults {
    /// The program and its first arguments.
    #[serde(deserialize_with = "null_is_empty")]
    pub entrypoint: Vec<String>,
    /// Further arguments, or the whole command if there is no entry point.
    #[serde(deserialize_with = "null_is_empty")]
    pub cmd: Vec<String>,
    /// `NAME=value` each.
    #[serde(deserialize_with = "null_is_empty")]
    pub env: Vec<String>,
    /// `user[:group]`, names or numbers; empty means root.
    pub user: String,
    /// Empty means `/`.
    pub working_dir: String,
    /// `SIGTERM`, `TERM` or a number; empty means SIGTERM.
    pub stop_signal: String,
    /// Paths that are meant to be volumes.
    #[serde(deserialize_with = "null_is_empty")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// `port/protocol` each.
    #[serde(deserialize_with = "null_is_empty")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
}

/// Go writes an empty list as `null`.
fn null_is_empty<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Document {
    /// Reads a document by its content; a registry's word for its type is not needed. The error is for people.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Shape {
            #[serde(rename = "schemaVersion")]
            schema: u32,
            manifests: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
        }
        let shape: Shape =
            serde_json::from_slice(bytes).map_err(|error| format!("it is no manifest: {error}"))?;
        let cannot_read = |error: serde_json::Error| format!("it cannot be read: {error}");
        match (shape.schema, shape.manifests, shape.layers) {
            (2, Some(_), None) => {
                serde_json::from_slice(bytes).map(Self::Index).map_err(cannot_read)
            }
            (2, None, Some(_)) => {
                serde_json::from_slice(bytes).map(Self::Manifest).map_err(cannot_read)
            }
            // Read both ways by different programs, a document is not what somebody signed.
            (2, Some(_), Some(_)) => Err("it is both an index and a manifest".to_owned()),
            (2, None, None) => Err("it has neither manifests nor layers".to_owned()),
            (schema, ..) => Err(format!("its schema version is {schema}, only 2 is understood")),
        }
    }
}

impl Index {
    /// The manifest for `platform`: the first that matches, an exact variant before any other.
    pub(crate) fn select(&self, platform: &Platform) -> Option<&Digest> {
        let fits = |entry: &&IndexEntry| {
            entry
                .platform
                .as_ref()
                .is_some_and(|of| of.os == platform.os && of.architecture == platform.architecture)
        };
        let exact = |entry: &&IndexEntry| {
            entry.platform.as_ref().is_some_and(|of| of.variant == platform.variant)
        };
        let fitting = || self.manifests.iter().filter(fits);
        fitting().find(exact).or_else(|| fitting().next()).map(|entry| &entry.digest)
    }

    /// What there is to choose from.
    pub(crate) fn platforms(&self) -> Vec<String> {
        self.manifests
            .iter()
            .filter_map(|entry| entry.platform.as_ref())
            .filter(|platform| platform.os != "unknown")
            .map(|platform| format!("{}/{}", platform.os, platform.architecture))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(letter: char) -> String {
        format!("sha256:{}", letter.to_string().repeat(64))
    }

    fn index(entries: &[(&str, &str, Option<&str>, char)]) -> Index {
        let manifests: Vec<_> = entries
            .iter()
            .map(|(os, architecture, variant, letter)| {
                let platform = serde_json::json!({ "os": os, "architecture": architecture, "variant": variant });
                serde_json::json!({ "digest": digest(*letter), "size": 1, "platform": platform })
            })
            .collect();
        let bytes =
            serde_json::to_vec(&serde_json::json!({ "schemaVersion": 2, "manifests": manifests }))
                .unwrap();
        let Document::Index(index) = Document::read(&bytes).unwrap() else { panic!() };
        index
    }

    #[test]
    fn platform_selects_os_architecture_and_the_nearest_variant() {
        let index = index(&[
            ("linux", "arm64", Some("v8"), 'a'),
            ("windows", "amd64", None, 'b'),
            ("linux", "amd64", Some("v3"), 'c'),
            ("linux", "amd64", None, 'd'),
        ]);
        let platform = |architecture: &str| Platform {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: None,
        };
        assert_eq!(index.select(&platform("amd64")).unwrap().as_str(), digest('d'));
        assert_eq!(index.select(&platform("arm64")).unwrap().as_str(), digest('a'));
        assert_eq!(index.select(&platform("riscv64")), None);
        assert_eq!(
            index.platforms(),
            ["linux/arm64", "windows/amd64", "linux/amd64", "linux/amd64"]
        );
    }

    #[test]
    fn ambiguous_old_and_foreign_documents_are_refused() {
        for (text, reason) in [
            (r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#, "both"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, "schema version is 1"),
            (r#"{"schemaVersion":2}"#, "neither"),
            ("<html>", "no manifest"),
            (
                r#"{"schemaVersion":2,"layers":[{"digest":"sha256:../../etc","size":1}],"config":{}}"#,
                "cannot be read",
            ),
        ] {
            let error = Document::read(text.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn configuration_written_by_docker_is_understood() {
        let text = r#"{"architecture":"amd64","config":{"Entrypoint":null,"Cmd":["sh"],"Env":["A=b"],"User":"","WorkingDir":"",
            "Volumes":{"/data":{}},"ExposedPorts":{"6379/tcp":{}},"StopSignal":"SIGINT","OnBuild":null},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let configuration: Configuration = serde_json::from_str(text).unwrap();
        let defaults = configuration.config.unwrap();
        assert_eq!((defaults.entrypoint.len(), defaults.cmd.len()), (0, 1));
        assert_eq!(defaults.stop_signal, "SIGINT");
        assert!(
            defaults.volumes.contains_key("/data")
                && defaults.exposed_ports.contains_key("6379/tcp")
        );
    }
}
