//! Numbers out of and into binary formats, with errors instead of panics.

/// The bytes end before the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the data ends before byte {0}")]
pub struct Truncated(pub usize);

/// `length` bytes at `at`.
///
/// # Errors
/// [`Truncated`] when they are not all there.
pub fn slice(bytes: &[u8], at: usize, length: usize) -> Result<&[u8], Truncated> {
    let end = at.checked_add(length).ok_or(Truncated(usize::MAX))?;
    bytes.get(at..end).ok_or(Truncated(end))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Truncated> {
    slice(bytes, at, N)?.try_into().map_err(|_| Truncated(at))
}

/// A little-endian number at `at`.
///
/// # Errors
/// [`Truncated`].
pub fn u16_le(bytes: &[u8], at: usize) -> Result<u16, Truncated> {
    array(bytes, at).map(u16::from_le_bytes)
}

/// A little-endian number at `at`.
///
/// # Errors
/// [`Truncated`].
pub fn u32_le(bytes: &[u8], at: usize) -> Result<u32, Truncated> {
    array(bytes, at).map(u32::from_le_bytes)
}

/// A little-endian number at `at`.
///
/// # Errors
/// [`Truncated`].
pub fn u64_le(bytes: &[u8], at: usize) -> Result<u64, Truncated> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// Overwrites the bytes at `at`.
///
/// # Errors
/// [`Truncated`] when they are not all there.
pub fn put(bytes: &mut [u8], at: usize, value: &[u8]) -> Result<(), Truncated> {
    let end = at.checked_add(value.len()).ok_or(Truncated(usize::MAX))?;
    bytes.get_mut(at..end).ok_or(Truncated(end))?.copy_from_slice(value);
    Ok(())
}

/// The next multiple of `alignment` (a power of two).
pub fn align(value: usize, alignment: usize) -> usize {
    value.div_ceil(alignment.max(1)) * alignment.max(1)
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 as lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex(&sha2::Sha256::digest(bytes))
}
