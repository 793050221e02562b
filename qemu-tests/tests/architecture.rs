//! ARCHITECTURE.md's rules that a program can check: who may use whom, and what a file looks like.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Who may depend on which crates of ours. Tests may use more.
const EDGES: &[(&str, &[&str])] = &[
    ("podium-types", &[]),
    ("podium-link", &[]),
    ("podium-dns", &[]),
    ("podium-switch", &[]),
    ("podium-images", &[]),
    ("podium-shim-protocol", &[]),
    ("podium-dataplane", &["podium-link"]),
    ("podium-shim", &["podium-shim-protocol"]),
    ("podium-init", &["podium-link"]),
    ("podium-store", &["podium-types"]),
    ("podium-control", &["podium-types"]),
    ("podium-api", &["podium-store", "podium-types"]),
    ("podium-lead", &["podium-api", "podium-control", "podium-store", "podium-types"]),
    (
        "podium-form",
        &["podium-api", "podium-control", "podium-lead", "podium-store", "podium-types"],
    ),
    ("podium-peer", &["podium-control", "podium-store"]),
    (
        "podium-agent",
        &[
            "podium-control",
            "podium-dataplane",
            "podium-images",
            "podium-shim-protocol",
            "podium-types",
        ],
    ),
    (
        "podium-node",
        &[
            "podium-agent",
            "podium-api",
            "podium-control",
            "podium-dataplane",
            "podium-dns",
            "podium-form",
            "podium-images",
            "podium-init",
            "podium-lead",
            "podium-link",
            "podium-peer",
            "podium-store",
            "podium-types",
        ],
    ),
    (
        "podium-sim",
        &[
            "podium-api",
            "podium-control",
            "podium-form",
            "podium-lead",
            "podium-store",
            "podium-types",
        ],
    ),
    ("podium-image", &[]),
    ("podium-qemu-tests", &["podium-image", "podium-init", "podium-switch"]),
    ("podium", &["podium-image", "podium-init", "podium-peer", "podium-qemu-tests"]),
];

/// Everything else is synchronous.
const MAY_USE_TOKIO: &[&str] = &[
    "podium",
    "podium-agent",
    "podium-api",
    "podium-dataplane",
    "podium-dns",
    "podium-images",
    "podium-node",
    "podium-peer",
    "podium-qemu-tests",
    "podium-store",
];

/// Past this, a file has two things in it.
const LINES_MAX: usize = 700;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace")
}

/// What each crate of ours needs to be built, by name.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("run cargo metadata");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo's answer");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let packages = metadata["packages"].as_array().expect("packages");
    let needs = |package: &Value| {
        let all = package["dependencies"].as_array().expect("dependencies");
        all.iter().filter(|it| it["kind"] != "dev").map(|it| text(&it["name"])).collect()
    };
    packages.iter().map(|package| (text(&package["name"]), needs(package))).collect()
}

fn sources() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.rs"])
        .current_dir(root())
        .output()
        .expect("run git");
    let names = String::from_utf8(listed.stdout).expect("names");
    // What stands under third_party has another house's rules.
    let ours = |name: &&str| !name.is_empty() && !name.starts_with("third_party/");
    let files = names.split('\0').filter(ours).map(|name| root().join(name));
    files.filter(|file| file.exists()).collect()
}

#[test]
fn crates_use_only_what_they_may() {
    let allowed: BTreeMap<_, _> = EDGES.iter().copied().collect();
    let all = dependencies();
    assert_eq!(
        all.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        allowed.keys().copied().collect::<BTreeSet<_>>(),
        "every crate of the workspace has a row"
    );
    for (name, needs) in &all {
        let ours = needs.iter().filter(|need| all.contains_key(*need));
        let wrong: Vec<_> =
            ours.filter(|need| !allowed[name.as_str()].contains(&need.as_str())).collect();
        assert!(wrong.is_empty(), "{name} must not use {wrong:?}");
    }
}

#[test]
fn only_those_that_may_use_tokio_do() {
    for (name, needs) in dependencies() {
        let uses = needs.iter().any(|need| need.starts_with("tokio"));
        assert!(!uses || MAY_USE_TOKIO.contains(&name.as_str()), "{name} must not use tokio");
    }
}

#[test]
fn files_say_what_they_are_and_hold_one_thing() {
    let mut wrong = Vec::new();
    for file in sources() {
        let text = std::fs::read_to_string(&file).expect("a source file");
        let name = file.strip_prefix(root()).expect("inside").display().to_string();
        if name.ends_with("/mod.rs") {
            wrong.push(format!("{name}: a module is foo.rs with foo/, never mod.rs"));
        }
        if text.lines().count() > LINES_MAX {
            wrong.push(format!("{name}: more than {LINES_MAX} lines"));
        }
        let is_test = name.contains("/tests/") || name.ends_with("tests.rs");
        if !is_test && !text.starts_with("//!") {
            wrong.push(format!("{name}: does not begin with its job (//!)"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_for_later_or_skipped() {
    // Written apart, so that this file does not name them.
    let forbidden = ["#[ign", "to", "unimpl"].map(str::to_owned);
    let endings = ["ore", "do!(", "emented!("];
    let needles: Vec<String> =
        forbidden.iter().zip(endings).map(|(start, end)| format!("{start}{end}")).collect();
    let mut wrong = Vec::new();
    for file in sources() {
        let text = std::fs::read_to_string(&file).expect("a source file");
        wrong.extend(
            needles
                .iter()
                .filter(|it| text.contains(*it))
                .map(|it| format!("{}: {it}", file.display())),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
