//! Which certificate authorities a registry is trusted by.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// TLS settings that trust the authorities in `own` (PEM) alone or, without any, those in the file `system`. A missing system file trusts
/// nobody, which is only an error once somebody is to be trusted.
pub(super) fn config(own: Option<&str>, system: &Path) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = own {
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate =
                certificate.map_err(|error| format!("its ca cannot be read: {error}"))?;
            roots.add(certificate).map_err(|error| format!("its ca cannot be used: {error}"))?;
        }
        if roots.is_empty() {
            return Err("its ca holds no certificate".to_owned());
        }
    } else if let Ok(pem) = std::fs::read(system) {
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}
