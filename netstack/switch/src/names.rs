//! The gateway's DNS server (RFC 1035): a handful of fixed names; the rest is relayed or does not exist.
//!
//! Pure: a query in, an [`Answer`] out. It is not a name server for anything but the rig, so it answers one A question per
//! query and says "no such name" (NXDOMAIN) or "no such record" to everything else.

use std::net::Ipv4Addr;

const HEADER_BYTES: usize = 12;
const TYPE_A: u16 = 1;
const NO_SUCH_NAME: u8 = 3;
/// Short: a rig that is taken down and up again may give a name another address.
const TTL_SECONDS: u32 = 5;

/// What to do with a query.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Send this back.
    Reply(Vec<u8>),
    /// The name is none of the rig's: ask elsewhere, or refuse with [`refuse`].
    Elsewhere,
    /// Not a query: say nothing.
    Nothing,
}

pub(crate) fn answer(query: &[u8], names: &[(String, Ipv4Addr)]) -> Answer {
    let Some((name, kind, question_end)) = question(query) else { return Answer::Nothing };
    let Some((_, address)) = names.iter().find(|(known, _)| *known == name) else {
        return Answer::Elsewhere;
    };
    let mut reply = head(query, question_end, 0, u16::from(kind == TYPE_A));
    if kind == TYPE_A {
        // A pointer to the question's name, type A, class IN.
        reply.extend_from_slice(&[0xc0, 0x0c, 0, 1, 0, 1]);
        reply.extend_from_slice(&TTL_SECONDS.to_be_bytes());
        reply.extend_from_slice(&[0, 4]);
        reply.extend_from_slice(&address.octets());
    }
    Answer::Reply(reply)
}

/// "No such name", for a query that [`answer`] called [`Answer::Elsewhere`] when there is no elsewhere.
pub(crate) fn refuse(query: &[u8]) -> Option<Vec<u8>> {
    let (_, _, question_end) = question(query)?;
    Some(head(query, question_end, NO_SUCH_NAME, 0))
}

fn head(query: &[u8], question_end: usize, code: u8, answers: u16) -> Vec<u8> {
    let mut reply = query.get(..question_end).unwrap_or_default().to_vec();
    if let Some(flags) = reply.get_mut(2..HEADER_BYTES) {
        // Response, authoritative, recursion as asked and available; one question.
        flags[0] = 0x84 | (flags[0] & 0x01);
        flags[1] = 0x80 | code;
        flags[2..4].copy_from_slice(&1u16.to_be_bytes());
        flags[4..6].copy_from_slice(&answers.to_be_bytes());
        flags[6..].fill(0);
    }
    reply
}

/// The first question's name (lower case, dotted), type, and where it ends.
fn question(query: &[u8]) -> Option<(String, u16, usize)> {
    let is_query = query.get(2)? & 0xf8 == 0;
    let count = u16::from_be_bytes(query.get(4..6)?.try_into().ok()?);
    if !is_query || count == 0 {
        return None;
    }
    let mut name = String::new();
    let mut at = HEADER_BYTES;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        // Compression has no place in a first question (RFC 1035, 4.1.4: pointers point backwards).
        if length > 63 {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        let label = query.get(at..at + length)?;
        name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        at += length;
    }
    let kind = u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?);
    query.get(at + 2..at + 4)?;
    Some((name, kind, at + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            bytes.push(u8::try_from(label.len()).expect("a short label"));
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&1u16.to_be_bytes());
        bytes
    }

    fn names() -> Vec<(String, Ipv4Addr)> {
        vec![("registry.test".to_owned(), Ipv4Addr::new(10, 77, 0, 1))]
    }

    #[test]
    fn a_known_name_gets_its_address_whatever_its_case() {
        let Answer::Reply(reply) = answer(&query("Registry.TEST", TYPE_A), &names()) else {
            panic!("no reply")
        };
        assert_eq!(&reply[..2], [0xab, 0xcd]);
        assert_eq!(reply[3] & 0x0f, 0);
        assert_eq!(reply[6..8], [0, 1]);
        assert_eq!(reply[reply.len() - 4..], [10, 77, 0, 1]);
    }

    #[test]
    fn a_known_name_has_no_other_records() {
        let Answer::Reply(reply) = answer(&query("registry.test", 28), &names()) else {
            panic!("no reply")
        };
        assert_eq!((reply[3] & 0x0f, &reply[6..8]), (0, &[0u8, 0][..]));
    }

    #[test]
    fn an_unknown_name_is_asked_elsewhere_or_refused() {
        let unknown = query("example.org", TYPE_A);
        assert_eq!(answer(&unknown, &names()), Answer::Elsewhere);
        assert_eq!(refuse(&unknown).map(|reply| reply[3] & 0x0f), Some(NO_SUCH_NAME));
    }

    proptest::proptest! {
        #[test]
        fn no_datagram_makes_it_panic(bytes in proptest::collection::vec(0u8.., 0..80)) {
            let _ = (answer(&bytes, &names()), refuse(&bytes));
        }
    }
}
