//! How somebody who holds a cluster's token, and nothing else, learns the cluster's authority.
//!
//! A client connects to any node's API without being able to trust its certificate yet, sends a fresh nonce, and gets the
//! authority's certificate with a proof: an HMAC-SHA256 under the token over [`statement`]. The statement names the very
//! certificate that the server showed in this TLS connection (the channel binding `tls-server-end-point` of RFC 5929), so a
//! relay in between, which must show another one, cannot pass a real node's proof on. The token itself is never sent.
//!
//! Here is what both ends must agree on; computing the HMAC is theirs.

/// The path that a node answers without a client certificate.
pub const PATH: &str = "/podium/v1/authority";
/// The query parameter that carries the nonce, in base64url without padding.
pub const NONCE_PARAMETER: &str = "nonce";
/// A nonce's length.
pub const NONCE_BYTES: usize = 32;
/// The answer's JSON field with the authority's certificate in PEM.
pub const CERTIFICATE_FIELD: &str = "certificate";
/// The answer's JSON field with the proof in base64url without padding.
pub const PROOF_FIELD: &str = "proof";

/// What the proof proves: that whoever holds the token vouches, in answer to `nonce`, for this authority and this server.
/// The digests are SHA-256 of the certificates in DER.
pub fn statement(
    nonce: &[u8; NONCE_BYTES],
    server_digest: &[u8; 32],
    authority_digest: &[u8; 32],
) -> Vec<u8> {
    [b"podium authority v1\0".as_slice(), nonce, server_digest, authority_digest].concat()
}
