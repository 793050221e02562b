//! Netlink's bytes: headers, attributes, and the messages of nf_tables.

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const REQUEST: u16 = 0x01;
const ACK: u16 = 0x04;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
/// Marks an attribute that holds attributes.
const NESTED: u16 = 0x8000;
/// `NFPROTO_IPV4`: the only family of our table.
pub(crate) const FAMILY_IPV4: u8 = 2;

/// `nf_tables_msg_types`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Kind {
    NewTable = 0,
    NewChain = 3,
    DeleteChain = 5,
    NewRule = 6,
    DeleteRule = 8,
    NewSet = 9,
    DeleteSet = 11,
    NewElement = 12,
    GetElement = 13,
    DeleteElement = 14,
}

/// Attributes being written; a nest is written in place.
#[derive(Debug, Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        // A single attribute never comes near 64 KiB here: the largest is a nest, and those are measured below.
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// A NUL-terminated string, as the kernel's `nla_strscpy` wants.
    pub(crate) fn string(&mut self, kind: u16, value: &str) -> &mut Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// nf_tables' numbers are in network order.
    pub(crate) fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(kind | NESTED, &inner.0)
    }
}

/// One transaction being written.
#[derive(Debug)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
    last: Option<usize>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        let mut batch = Self { bytes: Vec::new(), sequence: 0, last: None };
        batch.header(BATCH_BEGIN, REQUEST, 0, SUBSYSTEM, &[]);
        batch
    }

    /// Adds something, or changes nothing if it is there.
    pub(crate) fn create(&mut self, kind: Kind, fill: impl FnOnce(&mut Attributes)) {
        self.message(kind, CREATE, fill);
    }

    /// Adds a rule at its chain's end.
    pub(crate) fn append(&mut self, kind: Kind, fill: impl FnOnce(&mut Attributes)) {
        self.message(kind, CREATE | APPEND, fill);
    }

    /// Removes something that is there.
    pub(crate) fn delete(&mut self, kind: Kind, fill: impl FnOnce(&mut Attributes)) {
        self.message(kind, 0, fill);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// The whole transaction, and the sequence number of its last message, the only one that is acknowledged when all is
    /// well.
    pub(crate) fn finish(mut self) -> (Vec<u8>, u32) {
        let answered = self.sequence;
        if let Some(flags) = self.last.and_then(|at| self.bytes.get_mut(at + 6..at + 8)) {
            flags.copy_from_slice(&(u16::from_ne_bytes([flags[0], flags[1]]) | ACK).to_ne_bytes());
        }
        self.header(BATCH_END, REQUEST, 0, SUBSYSTEM, &[]);
        (self.bytes, answered)
    }

    fn message(&mut self, kind: Kind, flags: u16, fill: impl FnOnce(&mut Attributes)) {
        let mut attributes = Attributes::default();
        fill(&mut attributes);
        self.last = Some(self.bytes.len());
        self.header((SUBSYSTEM << 8) | kind as u16, REQUEST | flags, FAMILY_IPV4, 0, &attributes.0);
    }

    fn header(&mut self, kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8]) {
        self.sequence += 1;
        write(&mut self.bytes, kind, flags, self.sequence, (family, resource), attributes);
    }
}

/// A request for everything of a kind.
pub(crate) fn dump(kind: Kind, fill: impl FnOnce(&mut Attributes)) -> Vec<u8> {
    let mut attributes = Attributes::default();
    fill(&mut attributes);
    let mut bytes = Vec::new();
    write(
        &mut bytes,
        (SUBSYSTEM << 8) | kind as u16,
        REQUEST | DUMP,
        1,
        (FAMILY_IPV4, 0),
        &attributes.0,
    );
    bytes
}

fn write(
    bytes: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    (family, resource): (u8, u16),
    attributes: &[u8],
) {
    // nlmsghdr (16 bytes), nfgenmsg (4 bytes), attributes. No message here reaches 4 GiB.
    let length = u32::try_from(20 + attributes.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&0u32.to_ne_bytes());
    bytes.extend_from_slice(&[family, 0]);
    bytes.extend_from_slice(&resource.to_be_bytes());
    bytes.extend_from_slice(attributes);
}

/// A received message's parts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) sequence: u32,
    /// What follows the nlmsghdr.
    pub(crate) payload: &'a [u8],
}

/// The messages of one datagram; what is malformed ends it.
pub(crate) fn received(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
        let message = bytes.get(..length).filter(|message| message.len() >= 16)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Received {
            kind: u16::from_ne_bytes(message[4..6].try_into().ok()?),
            sequence: u32::from_ne_bytes(message[8..12].try_into().ok()?),
            payload: &message[16..],
        })
    })
}

/// The attributes in `bytes`, with the flags of their kinds removed.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let attribute = bytes.get(..length).filter(|attribute| attribute.len() >= 4)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        let kind = u16::from_ne_bytes(attribute[2..4].try_into().ok()?) & 0x3fff;
        Some((kind, &attribute[4..]))
    })
}

/// The first attribute of a kind.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut batch = Batch::new();
        batch.create(Kind::NewTable, |it| {
            it.string(1, "podium").nest(2, |it| {
                it.number(7, 0x0102_0304);
            });
        });
        let (bytes, answered) = batch.finish();
        let messages: Vec<_> = received(&bytes).collect();
        assert_eq!(messages.len(), 3);
        assert_eq!((messages[1].kind, messages[1].sequence), (0x0a00, answered));
        let body = &messages[1].payload[4..];
        assert_eq!(attribute(body, 1), Some(&b"podium\0"[..]));
        let nest = attribute(body, 2).expect("the nest");
        assert_eq!(attribute(nest, 7), Some(&[1, 2, 3, 4][..]));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(0u8.., 0..100)) {
            for message in received(&bytes) {
                let _ = attributes(message.payload).count();
            }
            let _ = attributes(&bytes).count();
        }
    }
}
