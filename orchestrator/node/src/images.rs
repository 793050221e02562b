//! The agent's view of this machine's images.

use podium_agent::{BoxFuture, ImageError, ImageStore, PulledImage};
use podium_images::{ContainerImage, Credential, Images, Platform, PullError, Reference};
use serde_json::Value;

/// The images of this machine.
pub(crate) struct LocalImages {
    images: Images,
}

impl LocalImages {
    pub(crate) fn new(images: Images) -> Self {
        Self { images }
    }
}

impl ImageStore for LocalImages {
    fn get<'a>(
        &'a self,
        reference: &'a str,
    ) -> BoxFuture<'a, Result<Option<PulledImage>, ImageError>> {
        Box::pin(async move { Ok(self.images.get(&parse(reference)?).map(pulled)) })
    }

    fn pull<'a>(
        &'a self,
        reference: &'a str,
        credentials: &'a [String],
    ) -> BoxFuture<'a, Result<PulledImage, ImageError>> {
        Box::pin(async move {
            let reference = parse(reference)?;
            let found: Vec<Credential> = credentials
                .iter()
                .filter_map(|document| credential(document, reference.host()))
                .collect();
            let attempts =
                if found.is_empty() { vec![None] } else { found.iter().map(Some).collect() };
            let mut last: Option<PullError> = None;
            for attempt in attempts {
                match self.images.pull(&reference, &Platform::host(), attempt).await {
                    Ok(image) => return Ok(pulled(image)),
                    Err(error) => last = Some(error),
                }
            }
            let why =
                last.map_or_else(String::new, |error| format!("{:#}", anyhow::Error::from(error)));
            Err(ImageError::Failed(why))
        })
    }

    fn list(&self) -> BoxFuture<'_, Vec<(Vec<String>, u64)>> {
        let images = self.images.clone();
        Box::pin(async move {
            let listed = tokio::task::spawn_blocking(move || images.list()).await;
            let images = match listed {
                Ok(Ok(images)) => images,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "cannot list the images");
                    Vec::new()
                }
                Err(_) => Vec::new(),
            };
            images
                .into_iter()
                .map(|image| (vec![image.reference.to_string()], image.size_bytes))
                .collect()
        })
    }
}

fn parse(reference: &str) -> Result<Reference, ImageError> {
    reference.parse::<Reference>().map_err(|error| ImageError::InvalidReference(error.to_string()))
}

fn pulled(image: ContainerImage) -> PulledImage {
    let defaults = image.defaults;
    PulledImage {
        reference: image.reference.to_string(),
        digest: image.digest.to_string(),
        entrypoint: defaults.entrypoint,
        cmd: defaults.cmd,
        env: defaults.env,
        user: defaults.user,
        working_dir: defaults.working_dir,
        stop_signal: Some(defaults.stop_signal).filter(|signal| !signal.is_empty()),
        volumes: defaults.volumes.into_keys().collect(),
        layers: image.layers,
        size_bytes: image.size_bytes,
    }
}

/// The entry for a registry in a `.dockerconfigjson` document: `auths.<host>`, with `username` and `password`, or both in
/// `auth`, joined by a colon and in base64. Hosts may be written as URLs.
fn credential(document: &str, registry: &str) -> Option<Credential> {
    use base64::Engine as _;
    let document: Value = serde_json::from_str(document).ok()?;
    let entry = document.get("auths")?.as_object()?.iter().find_map(|(host, entry)| {
        let host = host.trim_start_matches("https://").trim_start_matches("http://");
        let host = host.split('/').next().unwrap_or_default();
        let known = if host == "index.docker.io" { "docker.io" } else { host };
        (known == registry).then_some(entry)
    })?;
    let text = |field: &str| entry.get(field).and_then(Value::as_str).map(str::to_owned);
    if let (Some(username), Some(password)) = (text("username"), text("password")) {
        return Some(Credential { username, password });
    }
    let joined = base64::engine::general_purpose::STANDARD.decode(text("auth")?).ok()?;
    let (username, password) = std::str::from_utf8(&joined).ok()?.split_once(':')?;
    Some(Credential { username: username.to_owned(), password: password.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(document: &Value, registry: &str) -> Option<(String, String)> {
        credential(&document.to_string(), registry).map(|it| (it.username, it.password))
    }

    #[test]
    fn credentials_are_found_by_host_however_it_is_written() {
        let document = json!({"auths": {
            "https://index.docker.io/v1/": {"auth": "YWRhOmFiOmM="},
            "registry.test:5000": {"username": "bob", "password": "b"},
        }});
        assert_eq!(found(&document, "docker.io"), Some(("ada".to_owned(), "ab:c".to_owned())));
        assert_eq!(
            found(&document, "registry.test:5000"),
            Some(("bob".to_owned(), "b".to_owned()))
        );
        assert_eq!(found(&document, "registry.test"), None);
    }

    #[test]
    fn a_malformed_document_is_no_credential() {
        for bad in ["", "{}", r#"{"auths":{"docker.io":{"auth":"!"}}}"#] {
            assert!(credential(bad, "docker.io").is_none(), "{bad}");
        }
    }
}
