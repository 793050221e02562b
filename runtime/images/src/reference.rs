//! Image references as people write them, `[host/]path[:tag][@digest]`, with the field's defaults filled in: no host means `docker.io`,
//! there a single word means `library/<word>`, and no tag or digest means `latest`.
//!
//! Grammar: the distribution project's reference specification.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A complete image reference. Displays in full: `docker.io/library/busybox:latest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A SHA-256 digest; displays as `sha256:<64 hexadecimal digits>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// Why a text is no reference (`InvalidImageName`).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReferenceError {
    /// It names nothing.
    #[error("couldn't parse image name {0:?}: invalid reference format")]
    Format(String),
    /// Repositories are written in lower case.
    #[error("couldn't parse image name {0:?}: repository name must be lowercase")]
    Uppercase(String),
    /// Host and repository are too long together.
    #[error(
        "couldn't parse image name {0:?}: repository name must not be more than 255 characters"
    )]
    Length(String),
    /// Not a digest that we can check.
    #[error("{0:?} is not a sha256 digest")]
    Digest(String),
}

impl Reference {
    /// The registry's host, with a port if it was written: `docker.io`, `10.0.2.2:5000`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path below the host: `library/busybox`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag. Meaningless beside a digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What to ask a registry for: the digest if there is one, else the tag.
    #[must_use]
    pub fn selector(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }
}

impl Digest {
    /// The whole text, `sha256:…`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 hexadecimal digits; safe as a file name.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.0.strip_prefix("sha256:").unwrap_or(&self.0)
    }

    /// The digest with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        use fmt::Write as _;
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in bytes {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    /// The digest of `content`.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        use sha2::Digest as _;
        Self::from_bytes(&sha2::Sha256::digest(content))
    }
}

impl FromStr for Digest {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        match text.strip_prefix("sha256:") {
            Some(hex) if hex.len() == 64 && hex.bytes().all(is_hex) => Ok(Self(text.to_owned())),
            _ => Err(ReferenceError::Digest(text.to_owned())),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let format = || ReferenceError::Format(text.to_owned());
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest.parse()?)),
            None => (text, None),
        };
        // A colon after the last slash begins a tag; before it, a port.
        let (name, tag) = match named.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (named, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(format());
        }
        let (host, path) = match name.split_once('/') {
            Some((first, rest)) if is_host(first) => (first, rest),
            _ => ("docker.io", name),
        };
        if !path.split('/').all(is_path_component) {
            let lower = path.to_ascii_lowercase();
            let only_case = lower != path && lower.split('/').all(is_path_component);
            return Err(if only_case {
                ReferenceError::Uppercase(text.to_owned())
            } else {
                format()
            });
        }
        if !is_valid_host(host) {
            return Err(format());
        }
        let host = if host == "index.docker.io" { "docker.io" } else { host };
        let official = host == "docker.io" && !path.contains('/');
        let repository = if official { format!("library/{path}") } else { path.to_owned() };
        if host.len() + 1 + repository.len() > 255 {
            return Err(ReferenceError::Length(text.to_owned()));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { host: host.to_owned(), repository, tag, digest })
    }
}

fn is_host(first: &str) -> bool {
    first.contains(['.', ':'])
        || first == "localhost"
        || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// A name, an IPv4 address or an IPv6 address in brackets, with or without a port.
fn is_valid_host(host: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if let Some((address, rest)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let port = rest.strip_prefix(':');
        return address.parse::<std::net::Ipv6Addr>().is_ok()
            && (rest.is_empty() || port.is_some_and(is_port));
    }
    match host.split_once(':') {
        Some((name, port)) => name.split('.').all(is_label) && is_port(port),
        None => host.split('.').all(is_label),
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || b".-".contains(&byte))
}

/// Runs of lower-case letters and digits, joined by one dot, one or two underscores, or any number of hyphens.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    if !bytes.first().is_some_and(|byte| alphanumeric(*byte))
        || !bytes.last().is_some_and(|byte| alphanumeric(*byte))
    {
        return false;
    }
    component
        .split(|character: char| character.is_ascii_lowercase() || character.is_ascii_digit())
        .filter(|joint| !joint.is_empty())
        .all(|joint| matches!(joint, "." | "_" | "__") || joint.bytes().all(|byte| byte == b'-'))
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(formatter, "@{digest}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn references_are_completed_as_docker_does() {
        let with_digest = format!("busybox@sha256:{HEX}");
        let full = format!("docker.io/library/busybox@sha256:{HEX}");
        let both = format!("ghcr.io/a/b:v1@sha256:{HEX}");
        for (written, complete) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("grafana/loki", "docker.io/grafana/loki:latest"),
            ("k8s.gcr.io/redis:e2e", "k8s.gcr.io/redis:e2e"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/a/b_c/d--e:T.1-2", "localhost:5000/a/b_c/d--e:T.1-2"),
            ("10.0.2.2:5000/x", "10.0.2.2:5000/x:latest"),
            ("[fd00::1]:5000/x", "[fd00::1]:5000/x:latest"),
            ("index.docker.io/library/redis", "docker.io/library/redis:latest"),
            (with_digest.as_str(), full.as_str()),
            (both.as_str(), both.as_str()),
        ] {
            assert_eq!(written.parse::<Reference>().unwrap().to_string(), complete, "{written}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let long = format!("x.io/{}", "a".repeat(256));
        for text in [
            "",
            ":",
            "/",
            "a//b",
            "a/",
            "-a",
            "a:",
            "a:b c",
            "a@",
            "a@sha256:12",
            "a@md5:0",
            "a..b",
            "a___b",
            "../x",
            "x.io/../y",
            "a b",
            "Foo",
            "x.io/Foo",
            long.as_str(),
            "a\n",
            "x.io/%2e%2e/a",
            "a?b",
            "ex ample.io/x",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?} was accepted");
        }
        assert!(matches!("x.io/Foo".parse::<Reference>(), Err(ReferenceError::Uppercase(_))));
    }

    proptest! {
        #[test]
        fn what_is_accepted_reads_back_and_is_safe_in_a_url(text in "[a-zA-Z0-9./:@_% -]{0,60}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(&reference.to_string().parse::<Reference>().unwrap(), &reference);
                prop_assert!(!reference.repository().contains("..") && !reference.repository().contains(['%', ' ', '?', ':', '@']));
                prop_assert!(!reference.selector().contains(['/', '%', ' ']));
            }
        }
    }
}
