//! One section of a 64-bit little-endian ELF file, by name: all that a kernel module is asked for.

use crate::bytes::{self, Truncated};

/// Why a file has no such section.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// Another kind of file.
    #[error("the file is no 64-bit little-endian ELF")]
    Magic,
    /// The file ends early or an offset points outside it.
    #[error("reading the ELF headers")]
    Truncated(#[from] Truncated),
    /// No section of that name.
    #[error("the file has no section {0}")]
    NoSection(String),
}

/// The contents of the section `name`.
///
/// # Errors
/// [`ElfError`].
pub fn section<'a>(file: &'a [u8], name: &str) -> Result<&'a [u8], ElfError> {
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return Err(ElfError::Magic);
    }
    let offset =
        |at| bytes::u64_le(file, at).map(|value| usize::try_from(value).unwrap_or(usize::MAX));
    let table = offset(0x28)?;
    let entry_bytes = usize::from(bytes::u16_le(file, 0x3a)?);
    let count = usize::from(bytes::u16_le(file, 0x3c)?);
    let names = usize::from(bytes::u16_le(file, 0x3e)?);
    let header = |index: usize| table.saturating_add(index.saturating_mul(entry_bytes));
    let contents = |at: usize| -> Result<&'a [u8], Truncated> {
        bytes::slice(file, offset(at.saturating_add(0x18))?, offset(at.saturating_add(0x20))?)
    };
    let strings = contents(header(names))?;
    for index in 0..count {
        let at = header(index);
        let from = usize::try_from(bytes::u32_le(file, at)?).unwrap_or(usize::MAX);
        let text = strings.get(from..).unwrap_or_default();
        if text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0)) {
            return Ok(contents(at)?);
        }
    }
    Err(ElfError::NoSection(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_program_has_text_and_no_modinfo() {
        let program = std::fs::read(std::env::current_exe().expect("a path")).expect("readable");
        assert!(!section(&program, ".text").expect("code").is_empty());
        assert_eq!(section(&program, ".modinfo"), Err(ElfError::NoSection(".modinfo".to_owned())));
    }

    #[test]
    fn rubbish_is_an_error() {
        assert_eq!(section(b"#!/bin/sh", ".text"), Err(ElfError::Magic));
        let mut header = b"\x7fELF\x02\x01".to_vec();
        header.resize(64, 0xff);
        assert!(matches!(section(&header, ".text"), Err(ElfError::Truncated(_))));
    }
}
