//! Keys of Curve25519 (RFC 7748), by which WireGuard's peers know each other.
//!
//! Written in base64, as WireGuard's own tools write them. What uses the keys is in the kernel: here a public key is
//! computed once, from a private one.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The length of both keys.
const KEY_BYTES: usize = 32;

/// A secret scalar. Its `Debug` form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey([u8; KEY_BYTES]);

impl PrivateKey {
    /// The key that 32 random bytes give: some of their bits are fixed (RFC 7748, section 5).
    #[must_use]
    pub fn new(mut random: [u8; KEY_BYTES]) -> Self {
        random[0] &= 0b1111_1000;
        random[31] &= 0b0111_1111;
        random[31] |= 0b0100_0000;
        Self(random)
    }

    /// The key that others may know.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519_dalek::x25519(self.0, x25519_dalek::X25519_BASEPOINT_BYTES))
    }

    /// The secret in base64, for a file that nobody else reads.
    #[must_use]
    pub fn to_text(&self) -> String {
        STANDARD.encode(self.0)
    }

    pub(super) fn bytes(&self) -> [u8; KEY_BYTES] {
        self.0
    }
}

impl FromStr for PrivateKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self::new)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "PrivateKey(of {})", self.public())
    }
}

/// A public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_BYTES]);

impl PublicKey {
    pub(super) fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(self) -> [u8; KEY_BYTES] {
        self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

/// A text that is no key. It does not repeat the text, which may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not the base64 form of a key of 32 bytes")]
pub struct KeyError;

fn decode(text: &str) -> Result<[u8; KEY_BYTES], KeyError> {
    let bytes = STANDARD.decode(text.trim()).map_err(|_| KeyError)?;
    bytes.try_into().map_err(|_| KeyError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_is_that_of_the_specification() {
        // RFC 7748, section 5.2: the first iteration multiplies the base point by the scalar 9.
        let mut nine = [0; 32];
        nine[0] = 9;
        let hex: String = PrivateKey::new(nine)
            .public()
            .bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(hex, "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079");
    }

    #[test]
    fn keys_survive_their_text_form() {
        let key = PrivateKey::new([7; 32]);
        assert_eq!(key.to_text().parse::<PrivateKey>(), Ok(key.clone()));
        assert_eq!(key.public().to_string().parse::<PublicKey>(), Ok(key.public()));
        for bad in ["", "AAAA", "!", &"A".repeat(60)] {
            assert_eq!(bad.parse::<PublicKey>(), Err(KeyError), "{bad}");
        }
    }

    #[test]
    fn the_secret_does_not_show_in_debug_output() {
        let key = PrivateKey::new([7; 32]);
        let shown = format!("{key:?}");
        assert!(!shown.contains(&key.to_text()) && shown.contains(&key.public().to_string()));
    }
}
