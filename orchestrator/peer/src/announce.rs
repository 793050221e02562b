//! Announcements: one small datagram that says where a machine is to be found, sealed with the token.
//!
//! They are hints: whoever repeats one gains a connection attempt to an address that a machine with the token had. The seal
//! keeps strangers' packets from costing more than one MAC, and a look whether they are of our kind, so that somebody can say so.

use std::net::SocketAddr;

use podium_control::forming::Fingerprint;
use ring::hmac;
use serde::{Deserialize, Serialize};

/// IPv6's smallest MTU leaves more; nothing here is longer.
pub(crate) const DATAGRAM_BYTES: usize = 1024;
/// A machine with more addresses is found by these.
pub(crate) const ADDRESSES_MAX: usize = 8;
const SEAL_BYTES: usize = 32;

/// Where a machine is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Announcement {
    pub(crate) key: Fingerprint,
    pub(crate) addresses: Vec<SocketAddr>,
}

/// A further version is a further variant.
#[derive(Serialize, Deserialize)]
enum Datagram {
    V1(Announcement),
}

/// The bytes of an announcement.
pub(crate) fn seal(announcement: &Announcement, key: &hmac::Key) -> Option<Vec<u8>> {
    let mut bytes = postcard::to_allocvec(&Datagram::V1(announcement.clone())).ok()?;
    let seal = hmac::sign(key, &bytes);
    bytes.extend_from_slice(seal.as_ref());
    (bytes.len() <= DATAGRAM_BYTES).then_some(bytes)
}

/// What a datagram says, if somebody with the token made it.
pub(crate) fn open(datagram: &[u8], key: &hmac::Key) -> Option<Announcement> {
    let (bytes, seal) = datagram.split_at_checked(datagram.len().checked_sub(SEAL_BYTES)?)?;
    hmac::verify(key, bytes, seal).ok()?;
    let Datagram::V1(announcement) = postcard::from_bytes(bytes).ok()?;
    (announcement.addresses.len() <= ADDRESSES_MAX).then_some(announcement)
}

/// Whether a datagram that does not [`open`] is an announcement, sealed with another token.
pub(crate) fn is_foreign(datagram: &[u8]) -> bool {
    let body = datagram.len().checked_sub(SEAL_BYTES).and_then(|end| datagram.get(..end));
    body.is_some_and(|body| {
        matches!(postcard::take_from_bytes::<Datagram>(body), Ok((Datagram::V1(_), [])))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::TokenKeys;

    #[test]
    fn only_the_tokens_holders_announce() {
        let keys = TokenKeys::new(&[7; 16]).announcement;
        let address: SocketAddr = "10.77.0.11:6444".parse().expect("an address");
        let said = Announcement { key: Fingerprint([9; 32]), addresses: vec![address] };
        let sealed = seal(&said, &keys).expect("it fits");
        assert_eq!(open(&sealed, &keys), Some(said.clone()));
        assert_eq!(open(&sealed, &TokenKeys::new(&[8; 16]).announcement), None);
        assert!(is_foreign(&sealed));
        for noise in [&[][..], &[0; SEAL_BYTES], &[0xa5; 100], &sealed[..sealed.len() - 1]] {
            assert!(!is_foreign(noise), "{noise:?}");
        }
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(open(&changed, &keys), None, "byte {at}");
            assert_eq!(open(&sealed[..at], &keys), None, "cut at {at}");
        }
        let many = Announcement { addresses: vec![address; ADDRESSES_MAX + 1], ..said };
        assert!(seal(&many, &keys).is_none_or(|bytes| open(&bytes, &keys).is_none()));
    }
}
