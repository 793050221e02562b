//! The empty ext4 file system that `init` writes to a fresh STATE partition and then grows.
//!
//! There is no mkfs in the image, so the file system is made here, by mke2fs in a sparse file, with everything random
//! or dated pinned down: UUID, hash seed and time. `init` gives it a UUID of its own.
//!
//! Format: the magic, the file system's size in blocks (u32), the number of blocks that follow (u32), then each
//! non-zero block of 4096 bytes after its number (u32); all little endian.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The first bytes of a template.
pub const MAGIC: &[u8; 8] = b"PODEXT4\x01";
/// ext4's block, which is also a page: smaller ones cost more metadata.
pub const BLOCK_BYTES: usize = 4096;
/// The file system before it is grown. mke2fs sizes the journal by it: 16 MiB would be cramped for a Raft log that is
/// synced all the time, and 512 MiB gives 64 MiB, while any disk that is of use is larger.
pub const SIZE_MIB: u32 = 512;

/// Our own, so that the machine's mke2fs.conf has no say.
const CONFIG: &str = "\
[defaults]
    base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
    blocksize = 4096
    inode_size = 256
    inode_ratio = 16384
[fs_types]
    ext4 = {
        features = has_journal,extent,huge_file,flex_bg,metadata_csum,metadata_csum_seed,64bit,dir_nlink,extra_isize
    }
";
/// Fixed, because it is replaced on the machine.
const UUID: &str = "706f6469-756d-4e5f-8374-617465000001";
const HASH_SEED: &str = "706f6469-756d-4e5f-8374-617465000002";

/// Why there is no template.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// mke2fs could not be run.
    #[error("running mke2fs (package e2fsprogs)")]
    Run(#[source] io::Error),
    /// mke2fs refused.
    #[error("mke2fs failed: {0}")]
    Failed(String),
    /// The scratch file could not be used.
    #[error("using the scratch file {path}")]
    Scratch {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Makes the template, with a scratch file in `folder`.
///
/// # Errors
/// [`TemplateError`].
pub fn make(folder: &Path) -> Result<Vec<u8>, TemplateError> {
    let path = folder.join(format!("state-template-{}.ext4", std::process::id()));
    let failed = |source| TemplateError::Scratch { path: path.clone(), source };
    let bytes = {
        let file = fs::File::create(&path).map_err(failed)?;
        file.set_len(u64::from(SIZE_MIB) << 20).map_err(failed)?;
        mke2fs(&path).and_then(|()| fs::read(&path).map_err(failed))
    };
    fs::remove_file(&path).map_err(failed)?;
    Ok(pack(&bytes?))
}

fn mke2fs(path: &Path) -> Result<(), TemplateError> {
    let config = path.with_extension("conf");
    fs::write(&config, CONFIG)
        .map_err(|source| TemplateError::Scratch { path: config.clone(), source })?;
    let options = format!(
        "hash_seed={HASH_SEED},lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0"
    );
    let output = Command::new("mke2fs")
        .args([
            "-q",
            "-F",
            "-t",
            "ext4",
            "-b",
            "4096",
            "-L",
            "PODIUM-STATE",
            // Of the template's 512 MiB; of what is added by growing, the kernel reserves whole percents, rounded down.
            "-m",
            "2",
            "-U",
            UUID,
            "-E",
            &options,
        ])
        .arg(path)
        .env("E2FSPROGS_FAKE_TIME", "1")
        .env("MKE2FS_CONFIG", &config)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .map_err(TemplateError::Run);
    fs::remove_file(&config)
        .map_err(|source| TemplateError::Scratch { path: config.clone(), source })?;
    let output = output?;
    if output.status.success() {
        return Ok(());
    }
    Err(TemplateError::Failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Keeps only the blocks that hold something.
fn pack(image: &[u8]) -> Vec<u8> {
    let zero = [0u8; BLOCK_BYTES];
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
    let used: Vec<(usize, &[u8])> =
        image.chunks_exact(BLOCK_BYTES).enumerate().filter(|(_, block)| **block != zero).collect();
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&number(image.len() / BLOCK_BYTES));
    out.extend_from_slice(&number(used.len()));
    for (at, block) in used {
        out.extend_from_slice(&number(at));
        out.extend_from_slice(block);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_templates_are_equal_and_small() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = make(folder.path()).expect("mke2fs is installed");
        let second = make(folder.path()).expect("mke2fs is installed");
        assert_eq!(first, second);
        assert!(first.len() < 1 << 20, "{} bytes", first.len());
    }
}
