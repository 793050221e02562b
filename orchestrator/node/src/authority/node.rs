//! Certificates by which nodes are clients of the API, for keys that never leave them.
//!
//! The certificate names the machine's identity key too, so that the API knows it from a later machine of that name.
//!
//! A node asks with a PKCS#10 request (RFC 2986), which proves that it has the key; all else that the request says is passed over:
//! who it is was proven by its identity key, on the session on which it asks. The certificate is a client's and no server's,
//! so that a node which was taken over cannot be taken for the API.

use podium_api::auth;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use time::OffsetDateTime;

use super::{Authority, beginning, subject};

/// Of a node's certificate. A machine that was removed keeps its certificate until then, so it is not long; a node that slept
/// for longer gets the next one by its identity key.
pub(crate) const LIFE: time::Duration = time::Duration::days(30);
/// A request for a P-256 key has some 200 bytes.
const REQUEST_BYTES_MAX: usize = 4096;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertifyError {
    #[error("the request has {0} bytes; {REQUEST_BYTES_MAX} are the most")]
    Large(usize),
    #[error("the request is none, or is not signed with its key")]
    Request(#[source] rcgen::Error),
    #[error("the key is not of ECDSA P-256")]
    Algorithm,
    #[error("sign the certificate")]
    Sign(#[source] rcgen::Error),
    #[error("no date for the certificate")]
    Date(#[source] anyhow::Error),
}

impl Authority {
    /// A certificate for the node of this name, which has proven to be it by `identity`, its public key; in PEM.
    pub(crate) fn certify(
        &self,
        node: &str,
        identity: &[u8],
        request: &[u8],
    ) -> Result<String, CertifyError> {
        self.certify_until(node, identity, request, OffsetDateTime::now_utc() + LIFE)
    }

    /// The same with another end.
    pub(crate) fn certify_until(
        &self,
        node: &str,
        identity: &[u8],
        request: &[u8],
        until: OffsetDateTime,
    ) -> Result<String, CertifyError> {
        if request.len() > REQUEST_BYTES_MAX {
            return Err(CertifyError::Large(request.len()));
        }
        let request = CertificateSigningRequestParams::from_der(&request.into())
            .map_err(CertifyError::Request)?;
        if *request.public_key.algorithm() != PKCS_ECDSA_P256_SHA256 {
            return Err(CertifyError::Algorithm);
        }
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = subject(node);
        let uid = DnType::CustomDnType(auth::UID_ATTRIBUTE.to_vec());
        parameters.distinguished_name.push(uid, auth::identity(identity));
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        parameters.not_before = beginning().map_err(CertifyError::Date)?;
        parameters.not_after = until;
        let issuer = self.issuer().map_err(CertifyError::Sign)?;
        let certificate = parameters.signed_by(&request.public_key, &issuer);
        Ok(certificate.map_err(CertifyError::Sign)?.pem())
    }
}

#[cfg(test)]
mod tests {
    use podium_api::User;
    use podium_api::auth::certificate::AdminKey;
    use rcgen::{IsCa, KeyPair, PublicKeyData as _, SanType};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    use super::*;

    fn greedy(key: &KeyPair) -> Vec<u8> {
        let mut wanted = CertificateParams::default();
        wanted.distinguished_name.push(DnType::CommonName, "admin");
        wanted.distinguished_name.push(DnType::OrganizationName, "system:masters");
        wanted.subject_alt_names = vec![SanType::IpAddress([10, 77, 0, 11].into())];
        wanted.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        wanted.is_ca = IsCa::ExplicitNoCa;
        wanted.serialize_request(key).expect("a request").der().to_vec()
    }

    #[test]
    fn a_node_gets_no_more_than_to_be_itself() {
        let (authority, key) =
            (Authority::make().expect("made"), KeyPair::generate().expect("a key"));
        let pem = authority.certify("n4", &[4], &greedy(&key)).expect("certified");
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        let (_, certificate) = X509Certificate::from_der(&der).expect("a certificate");
        let user = auth::certificate::user_of(Some(std::slice::from_ref(&der)), &AdminKey(vec![1]));
        let node = User::node("n4", None);
        assert_eq!(user, User { uid: Some(auth::identity(&[4])), ..node });
        assert_eq!(certificate.public_key().raw, key.subject_public_key_info());
        assert!(certificate.subject_alternative_name().expect("readable").is_none());
        assert!(!certificate.is_ca());
        let usage = certificate.extended_key_usage().expect("readable").expect("there").value;
        assert!(usage.client_auth && !usage.server_auth && !usage.any);
        let der = authority.der().expect("a certificate");
        let (_, issuer) = X509Certificate::from_der(&der).expect("a certificate");
        assert!(certificate.verify_signature(Some(issuer.public_key())).is_ok());
        let until = certificate.validity().not_after.to_datetime();
        let left = until - OffsetDateTime::now_utc();
        assert!(left > LIFE - time::Duration::HOUR && left <= LIFE, "{left}");
    }

    #[test]
    fn a_request_proves_its_key() {
        let (authority, key) =
            (Authority::make().expect("made"), KeyPair::generate().expect("a key"));
        let mut forged = greedy(&key);
        let last = forged.len() - 1;
        forged[last] ^= 1;
        assert!(matches!(authority.certify("n4", &[4], &forged), Err(CertifyError::Request(_))));
        assert!(matches!(
            authority.certify("n4", &[4], b"nonsense"),
            Err(CertifyError::Request(_))
        ));
        assert!(matches!(
            authority.certify("n4", &[4], &[0; 5000]),
            Err(CertifyError::Large(5000))
        ));
        let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        assert!(matches!(
            authority.certify("n4", &[4], &greedy(&other)),
            Err(CertifyError::Algorithm)
        ));
    }
}
