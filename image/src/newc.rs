//! The cpio "newc" format of an initramfs (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Entries are written sorted by path with time 0, owner root and inode numbers counted from 1, so that equal trees
//! give equal bytes. A folder must be listed before what it holds; sorting sees to that.

use std::collections::BTreeMap;

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A folder with its permissions.
    Folder(u32),
    /// A file with its permissions and contents.
    File(u32, Vec<u8>),
    /// A symbolic link to a path.
    Link(String),
    /// A character device with its permissions and its major and minor number.
    Device(u32, u32, u32),
}

/// A tree by path, without a leading slash.
pub type Tree = BTreeMap<String, Node>;

const TRAILER: &str = "TRAILER!!!";

/// The archive of a tree.
///
/// # Panics
/// Never for trees under 4 GiB; a larger file is cut in its header, which no initramfs can hold anyway.
pub fn write(tree: &Tree) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, (path, node)) in tree.iter().enumerate() {
        let inode = u32::try_from(number + 1).unwrap_or(u32::MAX);
        match node {
            Node::Folder(mode) => entry(&mut out, [inode, 0o040_000 | mode, 2, 0, 0], path, &[]),
            Node::File(mode, bytes) => {
                entry(&mut out, [inode, 0o100_000 | mode, 1, 0, 0], path, bytes);
            }
            Node::Link(target) => {
                entry(&mut out, [inode, 0o120_777, 1, 0, 0], path, target.as_bytes());
            }
            Node::Device(mode, major, minor) => {
                entry(&mut out, [inode, 0o020_000 | mode, 1, *major, *minor], path, &[]);
            }
        }
    }
    entry(&mut out, [0, 0, 1, 0, 0], TRAILER, &[]);
    // Archives come in blocks; loaders that concatenate them rely on the alignment.
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

/// `numbers` are inode, mode, link count, and the device's major and minor number.
fn entry(out: &mut Vec<u8>, numbers: [u32; 5], path: &str, data: &[u8]) {
    let [inode, mode, links, major, minor] = numbers;
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let fields = [
        inode,
        mode,
        0,
        0,
        links,
        0,
        length(data.len()),
        0,
        0,
        major,
        minor,
        length(path.len() + 1),
        0,
    ];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpio_reads_what_we_write() {
        let mut tree = Tree::new();
        tree.insert("dev".to_owned(), Node::Folder(0o755));
        tree.insert("init".to_owned(), Node::File(0o755, b"program".to_vec()));
        tree.insert("etc/x".to_owned(), Node::Link("../init".to_owned()));
        let archive = write(&tree);
        let mut child = std::process::Command::new("cpio")
            .args(["--list", "--verbose", "--numeric-uid-gid", "--quiet"])
            .env("TZ", "UTC")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("cpio runs");
        std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), &archive)
            .expect("written");
        let listing =
            String::from_utf8(child.wait_with_output().expect("ends").stdout).expect("text");
        let lines: Vec<Vec<&str>> =
            listing.lines().map(|line| line.split_whitespace().collect()).collect();
        let ends: Vec<(&str, &str)> = lines
            .iter()
            .map(|words| {
                (
                    words.first().copied().unwrap_or_default(),
                    words.last().copied().unwrap_or_default(),
                )
            })
            .collect();
        assert_eq!(
            ends,
            [("drwxr-xr-x", "dev"), ("lrwxrwxrwx", "../init"), ("-rwxr-xr-x", "init")]
        );
    }

    #[test]
    fn equal_trees_give_equal_bytes_whatever_the_order() {
        let nodes = [
            ("a", Node::Folder(0o755)),
            ("a/b", Node::File(0o644, vec![1])),
            ("c", Node::Device(0o600, 5, 1)),
        ];
        let forward: Tree =
            nodes.iter().map(|(path, node)| ((*path).to_owned(), node.clone())).collect();
        let backward: Tree =
            nodes.iter().rev().map(|(path, node)| ((*path).to_owned(), node.clone())).collect();
        assert_eq!(write(&forward), write(&backward));
        assert_eq!(write(&forward).len() % 512, 0);
    }
}
