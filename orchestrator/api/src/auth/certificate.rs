//! From a client's certificate to a user.
//!
//! Two sorts of certificates count: those signed by the cluster's CA (common name: user, organizations: groups, the attribute
//! that Kubernetes has for it: uid), and any certificate whose key is the administrator's, which the machine config pins. The pinned one says nothing but its
//! key, and its dates do not bind. [`ClientVerifier`] lets a client without a certificate in: it is anonymous.
//!
//! The TLS session proves that the client holds the key (its CertificateVerify is checked here too).

use std::sync::Arc;

use tokio_rustls::rustls;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use x509_parser::asn1_rs::Oid;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use super::{INTERNAL, UID_ATTRIBUTE, User};

/// Why a verifier cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The CA's certificate is not one.
    #[error("the certificate of the cluster's CA cannot be used")]
    Authority(#[source] rustls::Error),
    /// No verifier can be made of the CA's certificate.
    #[error("no client verifier can be made")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// The administrator's public key: SubjectPublicKeyInfo in DER, as in the machine config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminKey(pub Vec<u8>);

impl AdminKey {
    /// Whether a certificate is for this key.
    #[must_use]
    pub fn is_of(&self, certificate: &CertificateDer<'_>) -> bool {
        X509Certificate::from_der(certificate)
            .is_ok_and(|(_, certificate)| certificate.public_key().raw == self.0.as_slice())
    }
}

/// Whom a verified chain of certificates names; anonymous if there is none.
///
/// Call it only with chains that [`ClientVerifier`] has let through.
#[must_use]
pub fn user_of(chain: Option<&[CertificateDer<'_>]>, admin: &AdminKey) -> User {
    let Some(leaf) = chain.and_then(<[_]>::first) else { return User::anonymous() };
    if admin.is_of(leaf) {
        return User::admin();
    }
    let Ok((_, certificate)) = X509Certificate::from_der(leaf) else { return User::anonymous() };
    let subject = certificate.subject();
    let name = subject.iter_common_name().next().and_then(|name| name.as_str().ok());
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok());
    match name {
        Some(name) if !name.is_empty() => {
            // Only this program's own parts are in that group.
            let groups = groups.filter(|group| *group != INTERNAL).map(str::to_owned);
            User { uid: uid(subject), ..User::authenticated(name, groups) }
        }
        Some(_) | None => User::anonymous(),
    }
}

fn uid(subject: &X509Name<'_>) -> Option<String> {
    let attribute = Oid::from(&UID_ATTRIBUTE).ok()?;
    let uid = subject.iter_by_oid(&attribute).next()?;
    // One that cannot be read is nobody's.
    Some(uid.as_str().unwrap_or_default().to_owned())
}

/// Lets in the cluster's own certificates, the administrator's key, and clients without a certificate.
#[derive(Debug)]
pub struct ClientVerifier {
    cluster: Arc<dyn ClientCertVerifier>,
    admin: AdminKey,
    provider: Arc<CryptoProvider>,
}

impl ClientVerifier {
    /// A verifier for one CA (its certificate in DER) and one pinned key.
    ///
    /// # Errors
    /// When the certificate cannot be an authority.
    pub fn new(
        authority: CertificateDer<'static>,
        admin: AdminKey,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<Self>, CertificateError> {
        let mut roots = RootCertStore::empty();
        roots.add(authority).map_err(CertificateError::Authority)?;
        let cluster =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(CertificateError::Verifier)?;
        Ok(Arc::new(Self { cluster, admin, provider }))
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: clients leave out a certificate whose issuer is not hinted at, and the administrator's is its own issuer.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if self.admin.is_of(end_entity) {
            return Ok(ClientCertVerified::assertion());
        }
        self.cluster.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
