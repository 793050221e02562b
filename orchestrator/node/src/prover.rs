//! Answers who asks for the cluster's authority with the token alone; see `podium_init::authority`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use podium_init::authority;
use ring::{digest, hmac};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

/// What an answer is made from.
pub(crate) struct Prover {
    key: hmac::Key,
    authority_pem: String,
    authority_digest: [u8; 32],
    server: Box<dyn Fn() -> CertificateDer<'static> + Send + Sync>,
}

impl Prover {
    /// `token` proves; `server` tells the certificate that this node shows.
    pub(crate) fn new(
        token: &[u8],
        authority_pem: &str,
        authority: &CertificateDer<'_>,
        server: impl Fn() -> CertificateDer<'static> + Send + Sync + 'static,
    ) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, token),
            authority_pem: authority_pem.to_owned(),
            authority_digest: sha256(authority),
            server: Box::new(server),
        }
    }

    /// The answer to a nonce, given as in the query; `None` if it is none.
    pub(crate) fn answer(&self, nonce: &str) -> Option<Value> {
        let nonce = URL_SAFE_NO_PAD.decode(nonce).ok()?.try_into().ok()?;
        let server = sha256(&(self.server)());
        let statement = authority::statement(&nonce, &server, &self.authority_digest);
        let proof = hmac::sign(&self.key, &statement);
        Some(json!({
            authority::CERTIFICATE_FIELD: self.authority_pem,
            authority::PROOF_FIELD: URL_SAFE_NO_PAD.encode(proof),
        }))
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prover(token: &[u8], server: &'static [u8]) -> Prover {
        Prover::new(token, "pem", &CertificateDer::from(b"ca".as_slice()), move || {
            CertificateDer::from(server)
        })
    }

    #[test]
    fn the_proof_depends_on_the_token_the_server_and_the_nonce() {
        let nonce = |fill: u8| URL_SAFE_NO_PAD.encode([fill; authority::NONCE_BYTES]);
        let proof = |prover: Prover, nonce: &str| {
            prover.answer(nonce).expect("an answer")[authority::PROOF_FIELD].clone()
        };
        let one = proof(prover(b"token", b"server"), &nonce(1));
        assert_eq!(one, proof(prover(b"token", b"server"), &nonce(1)));
        assert_ne!(one, proof(prover(b"other", b"server"), &nonce(1)));
        assert_ne!(one, proof(prover(b"token", b"relay"), &nonce(1)));
        assert_ne!(one, proof(prover(b"token", b"server"), &nonce(2)));
    }

    #[test]
    fn a_nonce_of_another_length_gets_no_answer() {
        for bad in ["", "AAAA", "!", &URL_SAFE_NO_PAD.encode([0; 33])] {
            assert_eq!(prover(b"token", b"server").answer(bad), None, "{bad:?}");
        }
    }
}
