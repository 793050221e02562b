//! A registry's pull side (OCI distribution specification): manifests and blobs by HTTPS, anonymous, with a token, or with basic
//! authentication.
//!
//! Written on reqwest: of the ready-made client, little would remain once mirrors have certificate authorities of their own, broken
//! downloads are taken up again, and errors name what failed at which place.

mod auth;
mod endpoint;
mod error;
mod tls;

pub(crate) use endpoint::Endpoint;
pub use error::RegistryError;

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Config, Credential};
use crate::reference::Reference;

/// A registry that does not answer a connection in this time is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// A registry that sends nothing for this long has hung. Slow links still send something.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// The places to ask for a reference's content, in order: its registry's mirrors, then the registry itself with the caller's
/// credential.
pub(crate) fn endpoints(
    config: &Config,
    reference: &Reference,
    credential: Option<&Credential>,
) -> Result<Vec<Arc<Endpoint>>, RegistryError> {
    let mirrors = config
        .registries
        .get(reference.host())
        .map(|registry| registry.mirrors.as_slice())
        .unwrap_or_default();
    let mut endpoints = Vec::with_capacity(mirrors.len() + 1);
    for mirror in mirrors {
        let credential = mirror.username.as_ref().map(|username| Credential {
            username: username.clone(),
            password: mirror.password.clone().unwrap_or_default(),
        });
        let tls = tls::config(mirror.ca.as_deref(), &config.authorities)
            .map_err(|reason| RegistryError::Configuration { place: mirror.url.clone(), reason })?;
        endpoints.push(Arc::new(Endpoint::new(&mirror.url, tls, credential)?));
    }
    let host = match reference.host() {
        "docker.io" => "registry-1.docker.io",
        host => host,
    };
    let url = format!("https://{host}");
    let tls = tls::config(None, &config.authorities)
        .map_err(|reason| RegistryError::Configuration { place: url.clone(), reason })?;
    endpoints.push(Arc::new(Endpoint::new(&url, tls, credential.cloned())?));
    Ok(endpoints)
}
