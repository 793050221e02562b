//! Learning a cluster's authority from a node, with the token alone (see `podium_init::authority`).

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use podium_init::authority;
use ring::{digest, hmac};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

use super::{Https, builder};

/// PEM of the authority of the cluster that `token` belongs to, from the node at `address`.
///
/// # Errors
/// There is no node, or it does not hold the token.
pub fn cluster_authority(address: SocketAddr, token: &[u8]) -> anyhow::Result<String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = builder()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        .with_no_client_auth();
    let https = Https::with_config(address, "podium", config)?;
    let mut nonce = [0; authority::NONCE_BYTES];
    getrandom::fill(&mut nonce)?;
    let path = format!(
        "{}?{}={}",
        authority::PATH,
        authority::NONCE_PARAMETER,
        URL_SAFE_NO_PAD.encode(nonce)
    );
    let (shown, answer) = https.exchange(&path)?;
    let answer = answer.json()?;
    let field = |name: &str| {
        answer.get(name).and_then(|it| it.as_str()).with_context(|| format!("no {name}"))
    };
    let pem = field(authority::CERTIFICATE_FIELD)?;
    let certificate =
        CertificateDer::from_pem_slice(pem.as_bytes()).context("the authority's certificate")?;
    let proof = URL_SAFE_NO_PAD.decode(field(authority::PROOF_FIELD)?).context("the proof")?;
    let statement = authority::statement(&nonce, &sha256(&shown)?, &sha256(&certificate)?);
    if hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, token), &statement, &proof).is_err() {
        bail!(
            "{address} does not hold this cluster's token: it is another cluster's node, or somebody in between"
        );
    }
    Ok(pem.to_owned())
}

fn sha256(bytes: &[u8]) -> anyhow::Result<[u8; 32]> {
    Ok(digest::digest(&digest::SHA256, bytes).as_ref().try_into()?)
}

/// Takes any certificate, but only from a server that holds its key: who that server is, the proof tells.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
