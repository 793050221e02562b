//! The whole build on the locked packages, twice, in two folders.
//!
//! The programs are stand-ins (this test itself, which is as static as they are): what is shown here does not depend
//! on what they do. Packages come from apt the first time and from the cache afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use podium_image::{Artifacts, BuildOptions, build, checksum};

fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages")
}

fn lock() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("podium-image.lock")
}

fn programs(folder: &Path) -> PathBuf {
    let programs = folder.join("programs");
    std::fs::create_dir_all(&programs).expect("a folder");
    let this = std::fs::read(std::env::current_exe().expect("a path")).expect("readable");
    // The test's own debug information would only be compressed at length.
    let small = this.get(..1 << 20).expect("a test is larger than that");
    for name in ["init", "node", "shim"] {
        std::fs::write(programs.join(name), [small, name.as_bytes()].concat()).expect("written");
    }
    programs
}

fn build_in(folder: &Path) -> Artifacts {
    build(&BuildOptions {
        programs: programs(folder),
        lock: lock(),
        cache: cache(),
        out: folder.join("out"),
        version: "1.2.3".to_owned(),
        allow_newer: false,
    })
    .unwrap_or_else(|error| panic!("{error:#}"))
}

/// `mode path` of every entry, by way of zstd and cpio.
fn listing(initramfs: &Path) -> Vec<(String, String)> {
    let zstd = Command::new("zstd")
        .args(["--decompress", "--stdout"])
        .arg(initramfs)
        .stdout(Stdio::piped())
        .spawn();
    let pipe = zstd.expect("zstd runs").stdout.take().expect("a pipe");
    let output = Command::new("cpio")
        .args(["--list", "--verbose", "--quiet"])
        .stdin(pipe)
        .output()
        .expect("cpio runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let words = |line: &str| -> Option<(String, String)> {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.nth(7).unwrap_or_default().to_owned()))
    };
    text.lines().filter_map(words).collect()
}

#[test]
fn two_builds_in_two_folders_are_equal_and_hold_three_executables() {
    let (one, two) =
        (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let first = build_in(one.path());
    let second = build_in(two.path());
    let sums = |artifacts: &Artifacts| -> BTreeMap<&str, String> {
        [
            ("uki", &artifacts.uki),
            ("kernel", &artifacts.kernel),
            ("initramfs", &artifacts.initramfs),
            ("disk", &artifacts.disk),
        ]
        .into_iter()
        .map(|(name, path)| (name, checksum(path).expect("readable")))
        .collect()
    };
    assert_eq!(sums(&first), sums(&second));

    let entries = listing(&first.initramfs);
    let executables: BTreeSet<&str> = entries
        .iter()
        .filter(|(mode, _)| mode.starts_with('-') && mode.contains('x'))
        .map(|(_, path)| path.as_str())
        .collect();
    assert_eq!(executables, ["init", "node", "shim"].into());
    for module in ["virtio_blk", "virtio_net", "overlay", "nf_tables", "wireguard", "vfat"] {
        let path = format!("lib/modules/{module}.ko");
        assert!(entries.iter().any(|(_, entry)| *entry == path), "{path} is missing");
    }
    let uki = std::fs::metadata(&first.uki).expect("there").len();
    assert!(uki < 40 << 20, "the UKI without programs has {uki} bytes");
}

#[test]
fn an_input_that_left_the_archive_is_an_error_that_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = std::fs::read_to_string(lock()).expect("readable");
    let gone: String = text
        .lines()
        .map(|line| match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["boot", package, ..] => format!("boot {package} 1.2.3-gone {} 1\n", "0".repeat(64)),
            _ => format!("{line}\n"),
        })
        .collect();
    let path = folder.path().join("lock");
    std::fs::write(&path, gone).expect("written");
    let options = BuildOptions {
        programs: programs(folder.path()),
        lock: path,
        cache: cache(),
        out: folder.path().join("out"),
        version: "1.2.3".to_owned(),
        allow_newer: false,
    };
    let error = build(&options).expect_err("the input is gone");
    let said = format!("{error:#}");
    assert!(said.contains("has left the archive") && said.contains("podium image pin"), "{said}");
}
