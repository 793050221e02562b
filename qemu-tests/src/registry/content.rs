//! The rig's container images, made from Debian's programs: small, and the same wherever the packages are.
//!
//! An image is one layer, written as an OCI layout (image-spec 1.1, image-layout.md) for a tool that pushes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::debian;

/// The one tag inside a layout.
pub const LAYOUT_TAG: &str = "image";

/// Redis and every library that it loads; nothing is left to what a package pulls in.
const REDIS_PACKAGES: [&str; 17] = [
    "redis-server",
    "redis-tools",
    "libatomic1",
    "libc6",
    "libcap2",
    "libgcc-s1",
    "libgcrypt20",
    "libgpg-error0",
    "libjemalloc2",
    "liblz4-1",
    "liblzf1",
    "liblzma5",
    "libssl3",
    "libstdc++6",
    "libsystemd0",
    "libzstd1",
    "zlib1g",
];

enum Node {
    Folder { mode: u32 },
    File { from: PathBuf, mode: u32 },
    Text { text: String },
    Link { to: String },
}

/// An image to be.
pub struct Image {
    /// The repository, without a registry.
    pub name: &'static str,
    /// Its tags.
    pub tags: &'static [&'static str],
    command: Vec<&'static str>,
    folder: &'static str,
    nodes: BTreeMap<String, Node>,
}

/// What the connections of a scenario need besides busybox: its own netcat knows TCP only.
const NETCAT_PACKAGES: [&str; 4] = ["netcat-openbsd", "libbsd0", "libc6", "libmd0"];
/// busybox's ping cannot forbid fragments.
const PING_PACKAGES: [&str; 5] = ["iputils-ping", "libc6", "libcap2", "libidn2-0", "libunistring2"];
const IPERF_PACKAGES: [&str; 5] = ["iperf3", "libiperf0", "libsctp1", "libssl3", "libc6"];

/// All images of the rig.
///
/// # Errors
/// A package cannot be had.
pub fn images(cache: &Path) -> anyhow::Result<Vec<Image>> {
    Ok(vec![busybox(cache)?, redis(cache)?])
}

fn busybox(cache: &Path) -> anyhow::Result<Image> {
    let tree = debian::unpack(cache, "busybox-static", &["busybox-static"])?;
    let program = debian::resolve(&tree, "bin/busybox")?;
    let mut list = Command::new(&program);
    list.arg("--list");
    let applets = String::from_utf8(debian::run(list)?)?;
    let mut nodes = skeleton();
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        nodes.insert(format!("bin/{applet}"), Node::Link { to: "busybox".to_owned() });
    }
    nodes.insert("bin/busybox".to_owned(), Node::File { from: program, mode: 0o755 });
    Ok(Image {
        name: "library/busybox",
        tags: &["latest", "1.35"],
        command: vec!["sh"],
        folder: "/",
        nodes,
    })
}

/// busybox, and OpenBSD's netcat as `netcat`, for scenarios: the rig does not load it by itself.
///
/// # Errors
/// A package cannot be had.
pub fn netcat(cache: &Path) -> anyhow::Result<Image> {
    busybox_with(cache, "library/netcat", &NETCAT_PACKAGES, ("bin/nc.openbsd", "bin/netcat"))
}

/// busybox, and iputils' ping as `iputils-ping`, for scenarios: the rig does not load it by itself.
///
/// # Errors
/// A package cannot be had.
pub fn ping(cache: &Path) -> anyhow::Result<Image> {
    busybox_with(cache, "library/ping", &PING_PACKAGES, ("bin/ping", "bin/iputils-ping"))
}

/// busybox, and iperf3, for benchmarks: the rig does not load it by itself.
///
/// # Errors
/// A package cannot be had.
pub fn iperf(cache: &Path) -> anyhow::Result<Image> {
    busybox_with(cache, "library/iperf3", &IPERF_PACKAGES, ("usr/bin/iperf3", "usr/bin/iperf3"))
}

/// busybox, and one program of these packages with what it loads.
fn busybox_with(
    cache: &Path,
    name: &'static str,
    packages: &[&str],
    (from, to): (&str, &str),
) -> anyhow::Result<Image> {
    let folder = name.rsplit('/').next().unwrap_or(name);
    let tree = debian::unpack(cache, folder, packages)?;
    let mut image = busybox(cache)?;
    for folder in ["lib64", "lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"] {
        add_libraries(&tree, folder, &mut image.nodes)?;
    }
    let from = debian::resolve(&tree, from)?;
    image.nodes.insert(to.to_owned(), Node::File { from, mode: 0o755 });
    (image.name, image.tags) = (name, &["latest"]);
    Ok(image)
}

/// busybox under another name, with `/etc/label`: its layer is like no other if the label is.
///
/// # Errors
/// A package cannot be had.
pub fn labelled(cache: &Path, name: &'static str, label: &str) -> anyhow::Result<Image> {
    let mut image = busybox(cache)?;
    image.nodes.insert("etc/label".to_owned(), Node::Text { text: label.to_owned() });
    (image.name, image.tags) = (name, &["latest"]);
    Ok(image)
}

fn redis(cache: &Path) -> anyhow::Result<Image> {
    let tree = debian::unpack(cache, "redis", &REDIS_PACKAGES)?;
    let mut nodes = skeleton();
    for folder in ["lib64", "lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"] {
        add_libraries(&tree, folder, &mut nodes)?;
    }
    for name in ["redis-server", "redis-cli", "redis-benchmark"] {
        let from = debian::resolve(&tree, &format!("usr/bin/{name}"))?;
        nodes.insert(format!("usr/bin/{name}"), Node::File { from, mode: 0o755 });
    }
    nodes.insert("data".to_owned(), Node::Folder { mode: 0o755 });
    Ok(Image {
        name: "redis",
        tags: &["e2e", "7"],
        // The server refuses strangers unless it is told that its network is a private one, which a pod's is.
        command: vec!["redis-server", "--protected-mode", "no", "--save", ""],
        folder: "/data",
        nodes,
    })
}

fn skeleton() -> BTreeMap<String, Node> {
    let text = |text: &str| Node::Text { text: text.to_owned() };
    BTreeMap::from([
        (
            "etc/passwd".to_owned(),
            text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
        ),
        ("etc/group".to_owned(), text("root:x:0:\nnobody:x:65534:\n")),
        ("root".to_owned(), Node::Folder { mode: 0o700 }),
        ("tmp".to_owned(), Node::Folder { mode: 0o1777 }),
    ])
}

/// The shared objects directly in `folder`, with their links.
fn add_libraries(
    tree: &Path,
    folder: &str,
    nodes: &mut BTreeMap<String, Node>,
) -> anyhow::Result<()> {
    let Ok(entries) = fs::read_dir(tree.join(folder)) else { return Ok(()) };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.contains(".so") {
            continue;
        }
        let inside = format!("{folder}/{name}");
        let node = match fs::read_link(tree.join(&inside)) {
            // Inside the container, an absolute link starts at the container's root.
            Ok(to) => Node::Link { to: to.display().to_string() },
            Err(_) => Node::File { from: debian::resolve(tree, &inside)?, mode: 0o755 },
        };
        nodes.insert(inside, node);
    }
    Ok(())
}

impl Image {
    /// Writes the image as an OCI layout into `folder`, which is replaced.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn write_layout(&self, folder: &Path) -> anyhow::Result<()> {
        let blobs = folder.join("blobs/sha256");
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(&blobs).with_context(|| blobs.display().to_string())?;
        let put = |bytes: &[u8]| -> anyhow::Result<String> {
            let digest = sha256_hex(bytes);
            fs::write(blobs.join(&digest), bytes)?;
            Ok(format!("sha256:{digest}"))
        };
        let descriptor = |kind: &str, digest: &str, size: usize| json!({ "mediaType": kind, "digest": digest, "size": size });
        let layer = self.layer()?;
        // Uncompressed: the digest of the layer is its diff id.
        let layer_digest = put(&layer)?;
        let config = self.config(&layer_digest).to_string();
        let config_digest = put(config.as_bytes())?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config_digest, config.len()),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer_digest, layer.len())],
        })
        .to_string();
        let manifest_digest = put(manifest.as_bytes())?;
        let mut entry = descriptor(
            "application/vnd.oci.image.manifest.v1+json",
            &manifest_digest,
            manifest.len(),
        );
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": LAYOUT_TAG });
        fs::write(
            folder.join("index.json"),
            json!({ "schemaVersion": 2, "manifests": [entry] }).to_string(),
        )?;
        fs::write(folder.join("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }).to_string())?;
        Ok(())
    }

    fn config(&self, diff_id: &str) -> Value {
        json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Cmd": self.command,
                "WorkingDir": self.folder,
            },
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        })
    }

    fn layer(&self) -> anyhow::Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        for folder in self.parents() {
            append(&mut archive, &format!("{folder}/"), &Node::Folder { mode: 0o755 })?;
        }
        for (path, node) in &self.nodes {
            append(&mut archive, path, node).with_context(|| path.clone())?;
        }
        Ok(archive.into_inner()?)
    }

    fn parents(&self) -> BTreeSet<String> {
        let ancestors = |path: &String| {
            Path::new(path)
                .ancestors()
                .skip(1)
                .map(|it| it.display().to_string())
                .collect::<Vec<_>>()
        };
        self.nodes.keys().flat_map(ancestors).filter(|path| !path.is_empty()).collect()
    }
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, node: &Node) -> anyhow::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    match node {
        Node::Folder { mode } => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(*mode);
            archive.append_data(&mut header, path, std::io::empty())?;
        }
        Node::File { from, mode } => {
            let bytes = fs::read(from).with_context(|| from.display().to_string())?;
            header.set_mode(*mode);
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, path, bytes.as_slice())?;
        }
        Node::Text { text } => {
            header.set_mode(0o644);
            header.set_size(text.len() as u64);
            archive.append_data(&mut header, path, text.as_bytes())?;
        }
        Node::Link { to } => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            archive.append_link(&mut header, path, to)?;
        }
    }
    Ok(())
}

fn sha256_hex(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
