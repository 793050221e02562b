//! Names of objects that controllers create.
//!
//! A name is a function of the decision that it comes from. Making the same decision twice, on a world that does not yet
//! hold the first one's result, asks for the same name twice, and the API refuses the second.

use sha2::{Digest as _, Sha256};

/// The letters Kubernetes makes suffixes of: no vowels, so no words; nothing that looks like something else.
const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The longest name of an object that becomes a host name or a label.
const LONGEST: usize = 63;

/// A hash of the parts, as letters of a name. Parts are kept apart: `["a", "bc"]` and `["ab", "c"]` differ.
#[must_use]
pub fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize()
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]))
        .collect()
}

/// `base`, cut so that the whole is at most 63 bytes, then `separator`, then the first `length` letters of `digest`.
#[must_use]
pub fn join(base: &str, separator: char, digest: &str, length: usize) -> String {
    let suffix: String = digest.chars().take(length).collect();
    let room = LONGEST.saturating_sub(suffix.len() + separator.len_utf8());
    let base: String = base.chars().take(room).collect();
    let base = base.trim_end_matches(['.', '-']);
    format!("{base}{separator}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::{digest, join};

    #[test]
    fn parts_are_kept_apart() {
        assert_ne!(digest(&["a", "bc"]), digest(&["ab", "c"]));
        assert_eq!(digest(&["a", "bc"]), digest(&["a", "bc"]));
    }

    #[test]
    fn long_names_are_cut_before_the_suffix() {
        let name = join(&"a".repeat(100), '-', &digest(&["x"]), 5);
        assert_eq!(name.len(), 63);
        assert!(name.ends_with(&digest(&["x"])[..5]));
        assert_eq!(join("web", '-', "bcdfghj", 5), "web-bcdfg");
    }
}
