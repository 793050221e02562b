//! The form of one log entry.

use podium_shim_protocol::WallTime;

use crate::time::append_rfc3339;

/// A longer line is written in pieces of this size, as log collectors expect of CRI runtimes.
const PIECE_BYTES: usize = 16 << 10;

/// Where a container wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output, or its terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Appends the entries for `bytes` to `out`.
pub(super) fn append(out: &mut Vec<u8>, stream: Stream, bytes: &[u8], now: WallTime) {
    let mut head = Vec::with_capacity(48);
    append_rfc3339(&mut head, now);
    head.extend_from_slice(match stream {
        Stream::Stdout => b" stdout ",
        Stream::Stderr => b" stderr ",
    });
    let mut rest = bytes;
    while !rest.is_empty() {
        // A newline right behind a full piece ends it, so that no empty entry follows.
        let window = &rest[..rest.len().min(PIECE_BYTES + 1)];
        let (text, used, tag) = match window.iter().position(|byte| *byte == b'\n') {
            Some(end) => (&rest[..end], end + 1, b"F "),
            None => {
                let end = window.len().min(PIECE_BYTES);
                (&rest[..end], end, b"P ")
            }
        };
        out.extend_from_slice(&head);
        out.extend_from_slice(tag);
        out.extend_from_slice(text);
        out.push(b'\n');
        rest = &rest[used..];
    }
}

/// How many bytes of a container's output are in these entries.
pub(super) fn text_bytes(entries: &[u8]) -> u64 {
    let of = |entry: &[u8]| {
        let mut fields = entry.splitn(4, |byte| *byte == b' ').skip(2);
        let newline = usize::from(fields.next() == Some(b"F"));
        (fields.next().map_or(0, <[u8]>::len) + newline) as u64
    };
    entries.split(|byte| *byte == b'\n').map(of).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_back(log: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for line in log.split_inclusive(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap();
            let mut fields = line.splitn(4, |byte| *byte == b' ');
            assert_eq!(fields.next().unwrap().len(), 30);
            assert_eq!(fields.next().unwrap(), b"stdout");
            let tag = fields.next().unwrap();
            let text = fields.next().unwrap();
            assert!(text.len() <= PIECE_BYTES);
            bytes.extend_from_slice(text);
            match tag {
                b"F" => bytes.push(b'\n'),
                b"P" => {}
                other => panic!("tag {other:?}"),
            }
        }
        bytes
    }

    fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let piece = prop_oneof![
            prop::collection::vec(prop_oneof![Just(b'\n'), Just(b' '), any::<u8>()], 0..60),
            (0usize..40_000, any::<bool>()).prop_map(|(length, end)| {
                let mut line = vec![b'x'; length];
                if end {
                    line.push(b'\n');
                }
                line
            }),
        ];
        prop::collection::vec(piece, 0..6)
    }

    proptest! {
        #[test]
        fn log_gives_back_every_byte_in_whatever_pieces_it_came(pieces in pieces()) {
            let mut log = Vec::new();
            for piece in &pieces {
                append(&mut log, Stream::Stdout, piece, WallTime { seconds: 1, nanoseconds: 2 });
            }
            prop_assert_eq!(read_back(&log), pieces.concat());
            prop_assert_eq!(text_bytes(&log), pieces.concat().len() as u64);
        }
    }

    #[test]
    fn line_of_exactly_one_piece_is_one_entry() {
        let mut log = Vec::new();
        let mut line = vec![b'x'; PIECE_BYTES];
        line.push(b'\n');
        append(&mut log, Stream::Stdout, &line, WallTime::default());
        assert_eq!(log.iter().filter(|byte| **byte == b'\n').count(), 1);
    }
}
