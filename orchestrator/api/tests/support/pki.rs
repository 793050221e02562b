//! Certificates for one server, and a kubeconfig for its administrator.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use podium_api::auth::certificate::AdminKey;
use podium_api::http::{TlsParts, tls_config};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};
use tokio_rustls::rustls;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

/// An authority, and what it has made.
pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    authority: rcgen::Certificate,
    admin: KeyPair,
}

/// A certificate and its key.
pub struct Identity {
    pub certificate: CertificateDer<'static>,
    pub certificate_pem: String,
    pub key: KeyPair,
}

impl Identity {
    /// The key as rustls takes it.
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }
}

impl Pki {
    /// A new authority and a new administrator.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "podium test authority");
        let key = KeyPair::generate().expect("a key");
        let authority = params.self_signed(&key).expect("a certificate");
        let admin = KeyPair::generate().expect("a key");
        Self { issuer: Issuer::new(params, key), authority, admin }
    }

    /// The authority's certificate.
    pub fn authority(&self) -> CertificateDer<'static> {
        self.authority.der().clone()
    }

    /// What a machine config would pin.
    pub fn admin_key(&self) -> AdminKey {
        AdminKey(self.admin.subject_public_key_info())
    }

    /// A certificate of the authority.
    pub fn identity(&self, name: &str, groups: &[&str]) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity { certificate: certificate.der().clone(), certificate_pem: certificate.pem(), key }
    }

    /// A certificate that a key has signed for itself; of the administrator's key, or of any other.
    pub fn self_signed(&self, admin: bool) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "whoever");
        params.distinguished_name.push(DnType::OrganizationName, "system:masters");
        let pem = self.admin.serialize_pem();
        let key = if admin { KeyPair::from_pem(&pem) } else { KeyPair::generate() }.expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Identity { certificate: certificate.der().clone(), certificate_pem: certificate.pem(), key }
    }

    /// TLS for a server on 127.0.0.1.
    pub fn server_config(&self) -> rustls::ServerConfig {
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut params = CertificateParams::new(names).expect("good names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let key = rustls::crypto::ring::sign::any_ecdsa_type(&key).expect("a key");
        let certified = CertifiedKey::new(vec![certificate.der().clone()], key);
        let parts = TlsParts {
            authority: self.authority(),
            certificate: Arc::new(SingleCertAndKey::from(certified)),
            admin: self.admin_key(),
        };
        tls_config(parts).expect("good certificates")
    }

    /// For kubectl.
    pub fn kubeconfig(&self, server: &str) -> String {
        let admin = self.self_signed(true);
        let text = |text: &str| STANDARD.encode(text);
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: podium\n\
             clusters:\n- name: podium\n  cluster: {{server: \"{server}\", certificate-authority-data: {}}}\n\
             users:\n- name: admin\n  user: {{client-certificate-data: {}, client-key-data: {}}}\n\
             contexts:\n- name: podium\n  context: {{cluster: podium, user: admin}}\n",
            text(&self.authority.pem()),
            text(&admin.certificate_pem),
            text(&admin.key.serialize_pem()),
        )
    }
}
