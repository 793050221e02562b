//! Appends sections to a PE file (an EFI program), as a unified kernel image needs: nothing is moved, no code changes.
//!
//! Microsoft's "PE Format": the section table follows the optional header and must stay inside SizeOfHeaders, so the
//! stub must have been linked with room to spare; systemd's is. Sections get the next free addresses, aligned as the
//! file says, and SizeOfImage grows accordingly.

use crate::bytes::{self, Truncated, align};

/// Why sections could not be appended.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeError {
    /// Another kind of file.
    #[error("the file is no 64-bit PE program")]
    Magic,
    /// The file ends early.
    #[error("reading the PE headers")]
    Truncated(#[from] Truncated),
    /// Names are at most eight bytes.
    #[error("section name {0:?} is longer than 8 bytes")]
    Name(String),
    /// The headers have no room left.
    #[error("the headers have room for {room} more sections, {wanted} are wanted")]
    Room {
        /// Free entries.
        room: usize,
        /// Wanted entries.
        wanted: usize,
    },
    /// The result would be beyond 4 GiB.
    #[error("the program would exceed 4 GiB")]
    Size,
}

const SECTION_HEADER_BYTES: usize = 40;
/// Initialised data, readable.
const CHARACTERISTICS: u32 = 0x4000_0040;

/// Where the fields of the headers are.
struct Layout {
    pe: usize,
    sections: usize,
    table: usize,
    section_alignment: usize,
    file_alignment: usize,
    headers_bytes: usize,
}

fn layout(file: &[u8]) -> Result<Layout, PeError> {
    let pe = number(bytes::u32_le(file, 0x3c)?);
    if !file.starts_with(b"MZ") || bytes::slice(file, pe, 4)? != b"PE\0\0" {
        return Err(PeError::Magic);
    }
    let optional = pe + 24;
    if bytes::u16_le(file, optional)? != 0x20b {
        return Err(PeError::Magic);
    }
    Ok(Layout {
        pe,
        sections: usize::from(bytes::u16_le(file, pe + 6)?),
        table: optional + usize::from(bytes::u16_le(file, pe + 20)?),
        section_alignment: number(bytes::u32_le(file, optional + 32)?),
        file_alignment: number(bytes::u32_le(file, optional + 36)?),
        headers_bytes: number(bytes::u32_le(file, optional + 60)?),
    })
}

/// The file with `sections` (name, contents) appended in order.
///
/// # Errors
/// [`PeError`].
pub fn append(file: &[u8], sections: &[(&str, &[u8])]) -> Result<Vec<u8>, PeError> {
    let layout = layout(file)?;
    let used = layout.table + layout.sections * SECTION_HEADER_BYTES;
    let room = layout.headers_bytes.saturating_sub(used) / SECTION_HEADER_BYTES;
    if room < sections.len() {
        return Err(PeError::Room { room, wanted: sections.len() });
    }
    let mut out = file.to_vec();
    let mut address = end_of_image(file, &layout)?;
    for (number_of_new, (name, contents)) in sections.iter().enumerate() {
        if name.len() > 8 {
            return Err(PeError::Name((*name).to_owned()));
        }
        let virtual_address = align(address, layout.section_alignment);
        out.resize(align(out.len(), layout.file_alignment), 0);
        let at = used + number_of_new * SECTION_HEADER_BYTES;
        let raw_bytes = align(contents.len(), layout.file_alignment);
        let mut header = [0u8; SECTION_HEADER_BYTES];
        bytes::put(&mut header, 0, name.as_bytes())?;
        bytes::put(&mut header, 8, &field(contents.len())?)?;
        bytes::put(&mut header, 12, &field(virtual_address)?)?;
        bytes::put(&mut header, 16, &field(raw_bytes)?)?;
        bytes::put(&mut header, 20, &field(out.len())?)?;
        bytes::put(&mut header, 36, &CHARACTERISTICS.to_le_bytes())?;
        bytes::put(&mut out, at, &header)?;
        out.extend_from_slice(contents);
        out.resize(align(out.len(), layout.file_alignment), 0);
        address = virtual_address + contents.len();
    }
    let count = u16::try_from(layout.sections + sections.len()).map_err(|_| PeError::Size)?;
    bytes::put(&mut out, layout.pe + 6, &count.to_le_bytes())?;
    bytes::put(&mut out, layout.pe + 24 + 56, &field(align(address, layout.section_alignment))?)?;
    Ok(out)
}

/// One section of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// As `.linux`.
    pub name: String,
    /// Where it is in memory, from the image's beginning.
    pub address: usize,
    /// What the file holds of it.
    pub contents: &'a [u8],
}

/// The sections of a file.
///
/// # Errors
/// [`PeError`].
pub fn sections(file: &[u8]) -> Result<Vec<Section<'_>>, PeError> {
    let layout = layout(file)?;
    let mut found = Vec::new();
    for index in 0..layout.sections {
        let at = layout.table + index * SECTION_HEADER_BYTES;
        let name =
            String::from_utf8_lossy(bytes::slice(file, at, 8)?).trim_end_matches('\0').to_owned();
        let (size, address) =
            (number(bytes::u32_le(file, at + 8)?), number(bytes::u32_le(file, at + 12)?));
        let (raw, offset) =
            (number(bytes::u32_le(file, at + 16)?), number(bytes::u32_le(file, at + 20)?));
        found.push(Section { name, address, contents: bytes::slice(file, offset, size.min(raw))? });
    }
    Ok(found)
}

fn end_of_image(file: &[u8], layout: &Layout) -> Result<usize, PeError> {
    let mut end = layout.headers_bytes;
    for index in 0..layout.sections {
        let at = layout.table + index * SECTION_HEADER_BYTES;
        end = end.max(
            number(bytes::u32_le(file, at + 8)?)
                .saturating_add(number(bytes::u32_le(file, at + 12)?)),
        );
    }
    Ok(end)
}

fn number(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn field(value: usize) -> Result<[u8; 4], PeError> {
    u32::try_from(value).map(u32::to_le_bytes).map_err(|_| PeError::Size)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

    /// The smallest headers that [`append`] accepts, with one section of code.
    fn program(headers_bytes: u32) -> Vec<u8> {
        let mut file = vec![0u8; 0x600];
        let mut put = |at: usize, value: &[u8]| bytes::put(&mut file, at, value).expect("inside");
        put(0, b"MZ");
        put(0x3c, &0x80u32.to_le_bytes());
        put(0x80, b"PE\0\0");
        put(0x86, &1u16.to_le_bytes());
        put(0x94, &112u16.to_le_bytes());
        put(0x98, &0x20bu16.to_le_bytes());
        put(0x98 + 32, &0x1000u32.to_le_bytes());
        put(0x98 + 36, &0x200u32.to_le_bytes());
        put(0x98 + 60, &headers_bytes.to_le_bytes());
        put(0x108, b".text\0\0\0");
        put(0x108 + 8, &0x1234u32.to_le_bytes());
        put(0x108 + 12, &0x1000u32.to_le_bytes());
        put(0x108 + 16, &0x200u32.to_le_bytes());
        put(0x108 + 20, &0x400u32.to_le_bytes());
        file
    }

    #[test]
    fn appended_sections_do_not_overlap_and_read_back() {
        let extended =
            append(&program(0x400), &[(".a", b"first"), (".b", &[7; 5000]), (".c", b"")])
                .expect("room");
        let found = sections(&extended).expect("headers");
        let summary: Vec<_> =
            found.iter().map(|one| (one.name.as_str(), one.address, one.contents.len())).collect();
        assert_eq!(
            summary,
            [(".text", 0x1000, 0x200), (".a", 0x3000, 5), (".b", 0x4000, 5000), (".c", 0x6000, 0)]
        );
        assert_eq!(bytes::u32_le(&extended, 0x98 + 56), Ok(0x6000));
        assert_eq!(extended.len() % 0x200, 0);
    }

    #[test]
    fn full_headers_are_refused() {
        assert_eq!(
            append(&program(0x140), &[(".a", b"")]),
            Err(PeError::Room { room: 0, wanted: 1 })
        );
        assert_eq!(
            append(&program(0x400), &[(".ninechars", b"")]),
            Err(PeError::Name(".ninechars".to_owned()))
        );
    }

    #[test]
    fn the_real_stub_has_room_for_a_uki() {
        let stub = std::fs::read(STUB).expect("systemd-boot-efi is installed");
        let new: [(&str, &[u8]); 5] = [
            (".osrel", b"a"),
            (".cmdline", b"b"),
            (".uname", b"c"),
            (".initrd", b"d"),
            (".linux", b"e"),
        ];
        let uki = append(&stub, &new).expect("room");
        assert_eq!(
            sections(&uki).expect("headers").len(),
            sections(&stub).expect("headers").len() + 5
        );
    }
}
