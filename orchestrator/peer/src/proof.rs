//! Proving the token without sending it.
//!
//! A proof is a MAC under the token over: which side proves, what only the two ends of this TLS session can compute, and
//! both keys. A relay that speaks TLS with both sides has two sessions, and a proof for one is none for the other; a proof
//! sent back to where it came from is one for the wrong side.

use podium_control::forming::Fingerprint;
use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::frame::{self, FrameError};
use crate::pace::Pace;
use crate::tls::Secured;

/// Before the proof, nobody is owed more memory than this.
const PROOF_FRAME_BYTES: usize = 256;
/// RFC 1123: no host name is longer.
const NAME_BYTES_MAX: usize = 63;

/// What the token is used for. Each use has a key of its own, so that what is made for one is nothing for the other.
#[derive(Clone)]
pub(crate) struct TokenKeys {
    proof: hmac::Key,
    pub(crate) announcement: hmac::Key,
}

impl TokenKeys {
    pub(crate) fn new(token: &[u8]) -> Self {
        let token = hmac::Key::new(hmac::HMAC_SHA256, token);
        let derive =
            |label: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&token, label).as_ref());
        Self {
            proof: derive(b"podium peer 1: proof"),
            announcement: derive(b"podium peer 1: announcement"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// The first thing that each side of a meeting says.
#[derive(Serialize, Deserialize)]
enum Opening {
    V1 { name: String, proof: [u8; 32] },
}

/// Why somebody is not met.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProofError {
    /// Its name, as it says.
    #[error("({name}): proves another token")]
    AnotherToken { name: String },
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Proves the token to the other end, and wants to see its proof. The other's name, as it says.
pub(crate) async fn exchange(
    secured: &mut Secured,
    side: Side,
    keys: &TokenKeys,
    (mine, name): (Fingerprint, &str),
    pace: &Pace,
) -> Result<String, ProofError> {
    let statement = |prover: Side| {
        let (client, server) = match side {
            Side::Client => (mine, secured.fingerprint),
            Side::Server => (secured.fingerprint, mine),
        };
        let role: &[u8] = match prover {
            Side::Client => b"client",
            Side::Server => b"server",
        };
        [role, &secured.exported, &client.0, &server.0].concat()
    };
    let own = hmac::sign(&keys.proof, &statement(side));
    let expected = statement(side.other());
    let proof = own.as_ref().try_into().unwrap_or([0; 32]);
    let opening = Opening::V1 { name: name.to_owned(), proof };
    frame::say(&mut secured.stream, &opening, pace.connect).await?;
    let heard = frame::hear(&mut secured.stream, PROOF_FRAME_BYTES, pace.connect).await?;
    let Opening::V1 { name, proof } = heard;
    let name = printable(&name);
    match hmac::verify(&keys.proof, &expected, &proof) {
        Ok(()) => Ok(name),
        Err(_) => Err(ProofError::AnotherToken { name }),
    }
}

/// A stranger's word goes to a console: only what a host may be called is shown.
pub(crate) fn printable(name: &str) -> String {
    let plain = |it: &char| it.is_ascii_alphanumeric() || matches!(it, '-' | '.');
    name.chars().filter(plain).take(NAME_BYTES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_name_cannot_write_to_the_console() {
        assert_eq!(printable("n1"), "n1");
        assert_eq!(printable("\u{1b}[2Jn1\nok"), "2Jn1ok");
        assert_eq!(printable(&"x".repeat(500)).len(), NAME_BYTES_MAX);
    }
}
