//! A machine's identity: one ECDSA P-256 key, made once, kept on its disk as PKCS#8.

use std::fmt;
use std::sync::Arc;

use podium_control::forming::Fingerprint;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key could not be made.
    #[error("make an identity key")]
    Make,
    /// What was read is no key.
    #[error("not a P-256 key in PKCS#8")]
    Read(#[source] rustls::Error),
}

/// An identity key.
#[derive(Clone)]
pub struct NodeKey {
    certified: Arc<CertifiedKey>,
    fingerprint: Fingerprint,
}

impl NodeKey {
    /// Makes a key: its PKCS#8 form, to be kept.
    ///
    /// # Errors
    /// Without randomness.
    pub fn generate() -> Result<Vec<u8>, IdentityError> {
        let random = SystemRandom::new();
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random);
        made.map(|document| document.as_ref().to_vec()).map_err(|_| IdentityError::Make)
    }

    /// Reads a key as [`NodeKey::generate`] made it.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, IdentityError> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.to_vec()));
        let key = any_ecdsa_type(&der).map_err(IdentityError::Read)?;
        let no_key = || IdentityError::Read(rustls::Error::General("it has no public half".into()));
        let public = key.public_key().ok_or_else(no_key)?.to_vec();
        let fingerprint = Fingerprint::of(&public);
        let certified = Arc::new(CertifiedKey::new(vec![CertificateDer::from(public)], key));
        Ok(Self { certified, fingerprint })
    }

    /// The public half: SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        self.certified.cert.first().map(AsRef::as_ref).unwrap_or_default()
    }

    /// The public half's name.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "NodeKey({})", self.fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_after_it_was_kept() {
        let kept = NodeKey::generate().expect("a key");
        let (one, two) = (NodeKey::from_pkcs8(&kept), NodeKey::from_pkcs8(&kept));
        let (one, two) = (one.expect("a key"), two.expect("a key"));
        assert_eq!(one.public(), two.public());
        assert_eq!(one.public().len(), 91);
        assert_eq!(one.fingerprint(), Fingerprint::of(two.public()));
        assert!(NodeKey::from_pkcs8(b"nonsense").is_err());
        assert!(!format!("{one:?}").contains("["));
    }
}
