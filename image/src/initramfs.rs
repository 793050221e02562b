//! The initramfs: the machine's whole root file system.
//!
//! | path | what |
//! |---|---|
//! | `/init`, `/node`, `/shim` | the three programs, and the only executables |
//! | `/lib/modules/NAME.ko`, `/lib/modules/index` | kernel modules (see [`crate::modules`]) |
//! | `/lib/podium/state.template` | the empty STATE file system (see [`crate::template`]) |
//! | `/etc/ssl/certs/ca-certificates.crt` | the public certificate authorities |
//! | `/etc/os-release`, `/etc/podium-release` | names and versions; the second has the kernel's and the build's time |
//! | `/etc/resolv.conf` | a link to `/run/podium/resolv.conf`, which `init` keeps |
//! | `/dev /proc /sys /run /tmp /var /newroot` | mount points |

use std::io::{self, Write};

use crate::modules::Modules;
use crate::newc::{self, Node, Tree};

/// What goes into the initramfs.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// PID 1.
    pub init: &'a [u8],
    /// The node program.
    pub node: &'a [u8],
    /// The pods' shim.
    pub shim: &'a [u8],
    /// Kernel modules and their index.
    pub modules: &'a Modules,
    /// The STATE template.
    pub template: &'a [u8],
    /// PEM certificates of the public authorities.
    pub certificates: &'a [u8],
    /// Text of os-release(5).
    pub os_release: &'a str,
    /// Text of `/etc/podium-release`.
    pub podium_release: &'a str,
}

const FOLDERS: &[&str] = &[
    "dev",
    "etc",
    "etc/ssl",
    "etc/ssl/certs",
    "lib",
    "lib/modules",
    "lib/podium",
    "newroot",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "var",
];

/// zstd's level: 19 takes seconds and saves a megabyte over the default; the kernel unpacks both at the same speed.
const LEVEL: i32 = 19;

/// The tree, before it is packed.
pub fn tree(contents: &Contents<'_>) -> Tree {
    let mut tree = Tree::new();
    for folder in FOLDERS {
        tree.insert(
            (*folder).to_owned(),
            Node::Folder(if *folder == "root" { 0o700 } else { 0o755 }),
        );
    }
    for (name, program) in
        [("init", contents.init), ("node", contents.node), ("shim", contents.shim)]
    {
        tree.insert(name.to_owned(), Node::File(0o755, program.to_vec()));
    }
    // The kernel opens it for PID 1 before any devtmpfs is mounted.
    tree.insert("dev/console".to_owned(), Node::Device(0o600, 5, 1));
    tree.insert("dev/null".to_owned(), Node::Device(0o666, 1, 3));
    let mut file = |path: &str, bytes: &[u8]| {
        tree.insert(path.to_owned(), Node::File(0o644, bytes.to_vec()));
    };
    for (name, bytes) in &contents.modules.files {
        file(&format!("lib/modules/{name}.ko"), bytes);
    }
    file("lib/modules/index", contents.modules.index.as_bytes());
    file("lib/podium/state.template", contents.template);
    file("etc/ssl/certs/ca-certificates.crt", contents.certificates);
    file("etc/os-release", contents.os_release.as_bytes());
    file("etc/podium-release", contents.podium_release.as_bytes());
    file("etc/hosts", b"127.0.0.1 localhost\n::1 localhost\n");
    file("etc/nsswitch.conf", b"hosts: files dns\n");
    file("etc/passwd", b"root:x:0:0:root:/root:/\n");
    file("etc/group", b"root:x:0:\n");
    tree.insert("etc/resolv.conf".to_owned(), Node::Link("/run/podium/resolv.conf".to_owned()));
    tree
}

/// The compressed archive.
///
/// # Errors
/// Those of the compressor; memory is the only one that happens.
pub fn pack(tree: &Tree) -> io::Result<Vec<u8>> {
    let archive = newc::write(tree);
    let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL)?;
    encoder.include_checksum(false)?;
    encoder.set_pledged_src_size(u64::try_from(archive.len()).ok())?;
    encoder.write_all(&archive)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_three_executables_and_no_shell() {
        let modules =
            Modules { files: [("overlay".to_owned(), vec![1])].into(), index: String::new() };
        let tree = tree(&Contents {
            init: b"i",
            node: b"n",
            shim: b"s",
            modules: &modules,
            template: b"t",
            certificates: b"c",
            os_release: "",
            podium_release: "",
        });
        let executables: Vec<&str> = tree
            .iter()
            .filter(|(_, node)| matches!(node, Node::File(mode, _) if mode & 0o111 != 0))
            .map(|(path, _)| path.as_str())
            .collect();
        assert_eq!(executables, ["init", "node", "shim"]);
        for path in tree.keys() {
            if let Some((folder, _)) = path.rsplit_once('/') {
                assert!(matches!(tree.get(folder), Some(Node::Folder(_))), "{folder} is missing");
            }
        }
    }
}
