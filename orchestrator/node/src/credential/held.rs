//! What a credential is: a certificate of the cluster's authority for this node, and its key. Pure.

use podium_api::auth;
use rcgen::{KeyPair, PublicKeyData as _};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{AUTHORITY, PAIR};

/// A credential that was looked at.
#[derive(Debug)]
pub(crate) struct Held {
    /// When the certificate ends.
    pub(crate) until: OffsetDateTime,
}

/// Why something is no credential of this node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("it has no certificate that can be read")]
    Certificate,
    #[error("it has no key that can be read")]
    Key(#[source] rcgen::Error),
    #[error("its key is another than the certificate's")]
    AnotherKey,
    #[error("it is of another node: {0}")]
    AnotherNode(String),
    #[error("it is of another cluster's authority")]
    AnotherAuthority,
}

impl Held {
    /// Looks at a certificate and key in PEM, which should be of this node and this authority.
    pub(crate) fn parse(pem: &str, node: &str, authority_pem: &str) -> Result<Self, Unfit> {
        let der = |pem: &str| {
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| Unfit::Certificate)
        };
        let (der, authority) = (der(pem)?, der(authority_pem)?);
        let parse =
            |der| X509Certificate::from_der(der).map(|(_, it)| it).map_err(|_| Unfit::Certificate);
        let (certificate, authority) = (parse(&der)?, parse(&authority)?);
        let begin = pem.find("-----BEGIN PRIVATE KEY-----").unwrap_or(pem.len());
        let key = KeyPair::from_pem(&pem[begin..]).map_err(Unfit::Key)?;
        if certificate.public_key().raw != key.subject_public_key_info() {
            return Err(Unfit::AnotherKey);
        }
        let name = certificate.subject().iter_common_name().next();
        let name = name.and_then(|name| name.as_str().ok()).unwrap_or_default();
        if name.strip_prefix(auth::NODE_PREFIX) != Some(node) {
            return Err(Unfit::AnotherNode(name.to_owned()));
        }
        if certificate.verify_signature(Some(authority.public_key())).is_err() {
            return Err(Unfit::AnotherAuthority);
        }
        Ok(Self { until: certificate.validity().not_after.to_datetime() })
    }
}

/// For kubectl; the files that it names are beside it. On a worker the API's port leads to a voter.
pub(super) fn kubeconfig(node: &str) -> String {
    let user = format!("{}{node}", auth::NODE_PREFIX);
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: podium\n\
         clusters:\n- name: podium\n  cluster: {{server: \"https://127.0.0.1:6443\", certificate-authority: {AUTHORITY}}}\n\
         users:\n- name: \"{user}\"\n  user: {{client-certificate: {PAIR}, client-key: {PAIR}}}\n\
         contexts:\n- name: podium\n  context: {{cluster: podium, user: \"{user}\"}}\n"
    )
}
