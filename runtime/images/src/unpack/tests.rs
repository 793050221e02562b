//! Honest layers come out as archived; hostile ones do not come out at all.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ::tar::{Builder, EntryType, Header};
use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    layer_download_bytes: u64::MAX,
    layer_bytes: 64 << 20,
    ratio: 100,
    ratio_from_bytes: 1 << 20,
    layer_entries: 1_000,
};

/// A layer being written. Names are put into headers as they are, which no honest tool would do.
struct Layer(Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn entry(
        mut self,
        kind: EntryType,
        path: &str,
        link: &str,
        content: &[u8],
        change: impl Fn(&mut Header),
    ) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_size(content.len() as u64);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        change(&mut header);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, path, "", content.as_bytes(), |_| {})
    }

    fn folder(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path, "", b"", |_| {})
    }

    fn link(self, kind: EntryType, path: &str, target: &str) -> Self {
        self.entry(kind, path, target, b"", |_| {})
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.link(EntryType::Symlink, path, target)
    }

    fn pax(self, records: &[u8]) -> Self {
        self.entry(EntryType::XHeader, "pax", "", records, |_| {})
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let mut length = key.len() + value.len() + 3;
    while length != key.len() + value.len() + 3 + length.to_string().len() {
        length = key.len() + value.len() + 3 + length.to_string().len();
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

/// A folder for the layer, with a neighbour that nothing may touch.
struct Sandbox(tempfile::TempDir);

impl Sandbox {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("layer")).unwrap();
        fs::create_dir(folder.path().join("outside")).unwrap();
        fs::write(folder.path().join("outside/secret"), "secret").unwrap();
        Self(folder)
    }

    fn layer(&self) -> PathBuf {
        self.0.path().join("layer")
    }

    fn unpack(&self, bytes: &[u8]) -> Result<Unpacked, UnpackError> {
        let result = unpack(bytes, bytes.len() as u64, &self.layer(), &LIMITS);
        let outside: Vec<_> = fs::read_dir(self.0.path().join("outside"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(outside, ["secret"], "the layer wrote outside");
        assert_eq!(fs::read_to_string(self.0.path().join("outside/secret")).unwrap(), "secret");
        assert_eq!(fs::read_dir(self.0.path()).unwrap().count(), 2);
        result
    }
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = rustix::fs::getxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

#[test]
fn everything_about_a_file_is_kept() {
    let capability =
        b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let mut records = pax_record("SCHILY.xattr.user.note", b"two\nlines");
    records.extend(pax_record("SCHILY.xattr.security.capability", capability));
    records.extend(pax_record("SCHILY.xattr.trusted.overlay.redirect", b"/etc"));
    records.extend(pax_record("mtime", b"1234567890.987654321"));
    let layer = Layer::new()
        .folder("./")
        .entry(EntryType::Directory, "usr/", "", b"", |header| header.set_mode(0o1777))
        .entry(EntryType::Regular, "usr/su", "", b"setuid", |header| {
            header.set_mode(0o4755);
            header.set_uid(1001);
            header.set_gid(1002);
        })
        .link(EntryType::Link, "usr/su2", "./usr/su")
        .symlink("bin", "usr")
        .symlink("absolute", "/etc/passwd")
        .pax(&records)
        .file("usr/noted", "x")
        .link(EntryType::Fifo, "usr/pipe", "");
    let sandbox = Sandbox::new();
    let bytes = layer.bytes();
    let unpacked = sandbox.unpack(&bytes).unwrap();
    assert_eq!(unpacked, Unpacked { diff_id: Digest::of(&bytes), bytes: bytes.len() as u64 });
    let root = sandbox.layer();
    let su = fs::metadata(root.join("usr/su")).unwrap();
    assert_eq!(
        (su.mode() & 0o7777, su.uid(), su.gid(), su.mtime(), su.nlink()),
        (0o4755, 1001, 1002, 1_000_000_000, 2)
    );
    assert_eq!(fs::metadata(root.join("usr/su2")).unwrap().ino(), su.ino());
    let folder = fs::metadata(root.join("usr")).unwrap();
    assert_eq!((folder.mode() & 0o7777, folder.mtime()), (0o1777, 1_000_000_000));
    assert_eq!(fs::read_link(root.join("bin")).unwrap(), Path::new("usr"));
    assert_eq!(fs::read_link(root.join("absolute")).unwrap(), Path::new("/etc/passwd"));
    let noted = root.join("usr/noted");
    assert_eq!(attribute(&noted, "user.note").as_deref(), Some(&b"two\nlines"[..]));
    assert_eq!(attribute(&noted, "security.capability").as_deref(), Some(&capability[..]));
    assert_eq!(attribute(&noted, "trusted.overlay.redirect"), None);
    let noted = fs::metadata(noted).unwrap();
    assert_eq!((noted.mtime(), noted.mtime_nsec()), (1_234_567_890, 987_654_321));
    assert!(fs::metadata(root.join("usr/pipe")).unwrap().file_type().is_fifo());
}

#[test]
fn whiteouts_become_overlayfs_s() {
    let layer = Layer::new()
        .file("a/.wh.gone", "")
        .file("b/.wh..wh..opq", "")
        .file("b/new", "x")
        .file(".wh.folder", "")
        .file("folder/inside", "made again")
        .file("again/x", "")
        .file(".wh.again", "")
        .file(".wh.late", "")
        .folder("late/")
        .file("kept", "this layer's own")
        .file(".wh.kept", "")
        .file(".wh..wh.plnk", "")
        .folder(".wh..wh.orph/");
    let sandbox = Sandbox::new();
    sandbox.unpack(&layer.bytes()).unwrap_err();
    // A file cannot be made through a whiteout; the folder's own entry has to come first, as tools write it.
    let layer = Layer::new()
        .file("a/.wh.gone", "")
        .file("b/.wh..wh..opq", "")
        .file("b/new", "x")
        .file("again/x", "")
        .file(".wh.again", "")
        .file(".wh.late", "")
        .folder("late/")
        .file("kept", "this layer's own")
        .file(".wh.kept", "")
        .file(".wh..wh.plnk", "")
        .folder(".wh..wh.orph/");
    let sandbox = Sandbox::new();
    sandbox.unpack(&layer.bytes()).unwrap();
    let root = sandbox.layer();
    let gone = fs::symlink_metadata(root.join("a/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    for folder in ["b", "again", "late"] {
        assert_eq!(
            attribute(&root.join(folder), "trusted.overlay.opaque").as_deref(),
            Some(&b"y"[..]),
            "{folder}"
        );
    }
    assert_eq!(attribute(&root.join("a"), "trusted.overlay.opaque"), None);
    assert_eq!(fs::read_to_string(root.join("kept")).unwrap(), "this layer's own");
    let mut names: Vec<_> = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["a", "again", "b", "kept", "late"]);
}

#[test]
fn later_entry_replaces_an_earlier_one_of_any_kind() {
    let layer = Layer::new()
        .folder("x/")
        .file("x/deep/er", "old")
        .file("x", "now a file")
        .symlink("y", "x")
        .file("y", "own content")
        .file("z", "old")
        .folder("z/")
        .file("z/new", "new");
    let sandbox = Sandbox::new();
    sandbox.unpack(&layer.bytes()).unwrap();
    let root = sandbox.layer();
    assert_eq!(fs::read_to_string(root.join("x")).unwrap(), "now a file");
    assert_eq!(fs::read_to_string(root.join("y")).unwrap(), "own content");
    assert_eq!(fs::read_to_string(root.join("z/new")).unwrap(), "new");
}

#[test]
fn every_way_out_is_refused_by_name() {
    let escapes: Vec<(&str, Layer)> = vec![
        ("absolute path", Layer::new().file("/outside/x", "")),
        ("climbing path", Layer::new().file("../outside/x", "")),
        ("hidden climb", Layer::new().file("a/../../outside/x", "")),
        ("climb as a folder", Layer::new().folder("..")),
        ("relative link, then through it", Layer::new().symlink("l", "../outside").file("l/x", "")),
        (
            "absolute link, then through it",
            Layer::new().symlink("l", "/tmp").file("l/podium-escape", ""),
        ),
        (
            "link to a link",
            Layer::new().symlink("a", "..").symlink("b", "a/outside").file("b/x", ""),
        ),
        ("link to itself", Layer::new().symlink("a", "a").file("a/x", "")),
        ("folder over a link", Layer::new().symlink("l", "../outside").folder("l/inner/")),
        ("hard link to outside", Layer::new().link(EntryType::Link, "x", "../outside/secret")),
        ("hard link to an absolute path", Layer::new().link(EntryType::Link, "x", "/etc/passwd")),
        (
            "hard link through a link",
            Layer::new().symlink("l", "../outside").link(EntryType::Link, "x", "l/secret"),
        ),
        (
            "whiteout through a link",
            Layer::new().symlink("l", "../outside").file("l/.wh.secret", ""),
        ),
        (
            "opaque through a link",
            Layer::new().symlink("l", "../outside").file("l/.wh..wh..opq", ""),
        ),
        ("whiteout of nothing", Layer::new().file("a/.wh.", "")),
        ("whiteout of the parent", Layer::new().file("a/.wh...", "")),
        ("empty path", Layer::new().pax(&pax_record("path", b"")).file("x", "")),
        ("pax path", Layer::new().pax(&pax_record("path", b"../outside/x")).file("x", "")),
        (
            "pax link path",
            Layer::new().pax(&pax_record("linkpath", b"/etc/passwd")).link(
                EntryType::Link,
                "x",
                "y",
            ),
        ),
        (
            "long name",
            Layer::new()
                .entry(EntryType::GNULongName, "l", "", b"../outside/x\0", |_| {})
                .file("x", ""),
        ),
        ("zero in the path", Layer::new().pax(&pax_record("path", b"a\0b")).file("x", "")),
    ];
    for (name, layer) in escapes {
        let result = Sandbox::new().unpack(&layer.bytes());
        assert!(matches!(result, Err(UnpackError::Escape { .. })), "{name}: {result:?}");
    }
    assert!(!Path::new("/tmp/podium-escape").exists());
}

#[test]
fn file_takes_a_links_place_instead_of_following_it() {
    let sandbox = Sandbox::new();
    sandbox
        .unpack(&Layer::new().symlink("x", "../outside/secret").file("x", "own").bytes())
        .unwrap();
    assert_eq!(fs::read_to_string(sandbox.layer().join("x")).unwrap(), "own");
}

#[test]
fn devices_and_sparse_and_unknown_entries_are_refused() {
    for kind in [EntryType::Char, EntryType::Block] {
        let device = Layer::new().entry(kind, "dev/mem", "", b"", |header| {
            header.set_device_major(1).unwrap();
            header.set_device_minor(1).unwrap();
        });
        let error = Sandbox::new().unpack(&device.bytes()).unwrap_err();
        assert_eq!(error.to_string(), "\"dev/mem\" is a device, which images may not contain");
    }
    // Character device 0:0 would be a whiteout that the layer's digest does not show.
    let hidden = Layer::new().entry(EntryType::Char, "etc", "", b"", |_| {});
    assert!(matches!(Sandbox::new().unpack(&hidden.bytes()), Err(UnpackError::Device { .. })));
    let sparse = Layer::new().pax(&pax_record("GNU.sparse.major", b"1")).file("x", "");
    assert!(matches!(Sandbox::new().unpack(&sparse.bytes()), Err(UnpackError::Archive(_))));
    let unknown = Layer::new().entry(EntryType::new(b'Z'), "x", "", b"", |_| {});
    assert!(matches!(Sandbox::new().unpack(&unknown.bytes()), Err(UnpackError::Archive(_))));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn all_compressions_give_the_same_layer() {
    let plain = Layer::new().file("x", &"content ".repeat(1000)).bytes();
    let (first, second) = plain.split_at(1000);
    let members = [gzip(first), gzip(second)].concat();
    for packed in [plain.clone(), gzip(&plain), members, zstd::encode_all(&plain[..], 3).unwrap()] {
        let sandbox = Sandbox::new();
        assert_eq!(sandbox.unpack(&packed).unwrap().diff_id, Digest::of(&plain));
        assert_eq!(fs::read_to_string(sandbox.layer().join("x")).unwrap().len(), 8000);
    }
}

#[test]
fn bombs_are_stopped_early() {
    let zeros = vec![0; 2 << 20];
    let bomb = Layer::new().entry(EntryType::Regular, "zeros", "", &zeros, |_| {}).bytes();
    for packed in [gzip(&bomb), zstd::encode_all(&bomb[..], 3).unwrap()] {
        let error = Sandbox::new().unpack(&packed).unwrap_err();
        assert!(
            matches!(&error, UnpackError::TooLarge(text) if text.contains("compressed size")),
            "{error}"
        );
    }
    // The same behind the archive's end, where nothing is unpacked but much is hashed.
    let trailing = [Layer::new().file("x", "").bytes(), zeros].concat();
    assert!(matches!(Sandbox::new().unpack(&gzip(&trailing)), Err(UnpackError::TooLarge(_))));
    let mut many = Layer::new();
    for number in 0..1_001 {
        many = many.file(&format!("f{number}"), "");
    }
    assert!(
        matches!(Sandbox::new().unpack(&many.bytes()), Err(UnpackError::TooLarge(text)) if text.contains("1000 entries"))
    );
    // A header that claims a name of gigabytes.
    let long = Layer::new()
        .entry(EntryType::GNULongName, "l", "", b"", |header| header.set_size(4 << 30))
        .bytes();
    assert!(matches!(Sandbox::new().unpack(&long), Err(UnpackError::Archive(_))));
}

#[test]
fn damaged_archives_are_errors() {
    let whole = Layer::new().file("x", &"y".repeat(3000)).bytes();
    for cut in [100, 600, 2000] {
        let result = Sandbox::new().unpack(&whole[..cut]);
        assert!(matches!(result, Err(UnpackError::Archive(_))), "{cut}: {result:?}");
    }
    let packed = gzip(&whole);
    assert!(matches!(
        Sandbox::new().unpack(&packed[..packed.len() / 2]),
        Err(UnpackError::Archive(_))
    ));
    let mut flipped = whole.clone();
    flipped[0] ^= 1;
    assert!(matches!(Sandbox::new().unpack(&flipped), Err(UnpackError::Archive(_))));
}

#[test]
fn file_modes_never_depend_on_the_umask() {
    let sandbox = Sandbox::new();
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let layer = Layer::new()
        .entry(EntryType::Regular, "x", "", b"", |header| header.set_mode(0o666))
        .folder("d/");
    let result = sandbox.unpack(&layer.bytes());
    rustix::process::umask(before);
    result.unwrap();
    assert_eq!(
        fs::metadata(sandbox.layer().join("x")).unwrap().permissions().mode() & 0o7777,
        0o666
    );
    assert_eq!(
        fs::metadata(sandbox.layer().join("d")).unwrap().permissions().mode() & 0o7777,
        0o755
    );
}

fn hostile_name() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("..".to_owned()),
        Just(".".to_owned()),
        Just("a".to_owned()),
        Just("b".to_owned()),
        Just("outside".to_owned()),
        Just("secret".to_owned()),
        Just(".wh.a".to_owned()),
        Just(".wh.secret".to_owned()),
        Just(".wh..wh..opq".to_owned()),
        Just(String::new()),
    ];
    prop::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever a layer does, the neighbour is as it was (`Sandbox::unpack` looks) and nothing panics.
    #[test]
    fn no_sequence_of_entries_leaves_the_layer(entries in prop::collection::vec((0u8..6, hostile_name(), hostile_name()), 1..12)) {
        let mut layer = Layer::new();
        for (kind, path, target) in entries {
            layer = match kind {
                0 | 1 => layer.file(&path, "content"),
                2 => layer.folder(&path),
                3 => layer.link(EntryType::Link, &path, &target),
                4 => layer.symlink(&path, &target),
                _ => layer.symlink(&path, "../outside"),
            };
        }
        let _ = Sandbox::new().unpack(&layer.bytes());
    }

    #[test]
    fn damaged_bytes_never_panic(position in 0usize..4096, value: u8) {
        let mut bytes = Layer::new().folder("d/").file("d/x", "content").pax(&pax_record("path", b"y")).file("x", "").symlink("l", "d").bytes();
        let at = position % bytes.len();
        bytes[at] = value;
        let _ = Sandbox::new().unpack(&bytes);
    }
}
