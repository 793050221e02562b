//! Kernel modules: by the modalias of a device, or by a list.
//!
//! The index and the modules' files are made at image build (see the image crate's `modules`). There is no modprobe,
//! and the kernel is told not to look for one. A module's file is deleted once it is loaded while the root is still
//! writable: the initramfs is memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) mod child;

/// When a listed module is loaded; the words of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum When {
    /// Before the machine config is read.
    Early,
    /// Before `node` starts.
    Data,
    /// While `node` starts: what only other machines make necessary.
    Late,
    /// Before an EFI system partition is mounted.
    Esp,
}

/// Buses whose devices are looked at.
const BUSES: &[&str] = &["pci", "virtio", "acpi", "vmbus", "xen", "scsi"];

/// What the image knows about its modules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    /// Each module's dependencies, in loading order.
    dependencies: BTreeMap<String, Vec<String>>,
    /// Globs on modaliases, and the module for each.
    aliases: Vec<(String, String)>,
    /// Modules to be loaded by name.
    listed: Vec<(When, String)>,
}

impl Index {
    /// Reads the text of the index; lines of an unknown kind are passed over, as a newer image may have them.
    pub(crate) fn parse(text: &str) -> Self {
        let mut index = Self::default();
        for line in text.lines() {
            let mut words = line.split(' ').map(str::to_owned);
            match (words.next().as_deref(), words.next(), words.next()) {
                (Some("module"), Some(name), first) => {
                    index.dependencies.insert(name, first.into_iter().chain(words).collect());
                }
                (Some("alias"), Some(pattern), Some(name)) => index.aliases.push((pattern, name)),
                (Some("load"), Some(when), Some(name)) => {
                    let when = match when.as_str() {
                        "early" => When::Early,
                        "data" => When::Data,
                        "late" => When::Late,
                        "esp" => When::Esp,
                        _ => continue,
                    };
                    index.listed.push((when, name));
                }
                _ => {}
            }
        }
        index
    }

    /// The modules for a device.
    fn for_modalias(&self, modalias: &str) -> impl Iterator<Item = &str> {
        self.aliases
            .iter()
            .filter(move |(pattern, _)| matches(pattern, modalias))
            .map(|(_, name)| name.as_str())
    }

    fn listed(&self, wanted: When) -> impl Iterator<Item = &str> {
        self.listed.iter().filter(move |(when, _)| *when == wanted).map(|(_, name)| name.as_str())
    }
}

/// Loads modules and remembers which.
#[derive(Debug)]
pub(crate) struct Loader {
    folder: PathBuf,
    index: Index,
    done: BTreeSet<String>,
}

/// A module that the kernel did not take.
#[derive(Debug, thiserror::Error)]
#[error("loading the module {name}")]
pub(crate) struct LoadError {
    name: String,
    #[source]
    source: io::Error,
}

impl Loader {
    /// Reads the index of `folder`; without one there is nothing to load.
    pub(crate) fn open(folder: &Path) -> Self {
        let text = fs::read_to_string(folder.join("index")).unwrap_or_default();
        Self { folder: folder.to_owned(), index: Index::parse(&text), done: BTreeSet::new() }
    }

    /// How many modules were loaded.
    pub(crate) fn count(&self) -> usize {
        self.done.len()
    }

    /// Takes note of what another process has loaded.
    pub(crate) fn remember(&mut self, name: String) {
        self.done.insert(name);
    }

    /// Loads the listed modules; those that fail are returned, after all were tried.
    pub(crate) fn load_listed(&mut self, when: When) -> Vec<LoadError> {
        let names: Vec<String> = self.index.listed(when).map(str::to_owned).collect();
        names.iter().filter_map(|name| self.load(name).err()).collect()
    }

    /// Loads what the present devices need, and then what the devices behind those need, until nothing is new.
    pub(crate) fn load_for_devices(&mut self) -> Vec<LoadError> {
        let mut failed = Vec::new();
        let mut seen = BTreeSet::new();
        loop {
            let fresh: Vec<String> =
                modaliases().into_iter().filter(|alias| seen.insert(alias.clone())).collect();
            if fresh.is_empty() {
                return failed;
            }
            for modalias in fresh {
                failed.extend(self.load_for_modalias(&modalias));
            }
        }
    }

    /// Loads what one device needs.
    pub(crate) fn load_for_modalias(&mut self, modalias: &str) -> Vec<LoadError> {
        let names: Vec<String> = self.index.for_modalias(modalias).map(str::to_owned).collect();
        names.iter().filter_map(|name| self.load(name).err()).collect()
    }

    fn load(&mut self, name: &str) -> Result<(), LoadError> {
        if self.done.contains(name) {
            return Ok(());
        }
        let needed = self.index.dependencies.get(name).cloned().unwrap_or_default();
        for module in needed.iter().map(String::as_str).chain([name]) {
            if self.done.contains(module) {
                continue;
            }
            self.insert(module).map_err(|source| LoadError { name: module.to_owned(), source })?;
            self.done.insert(module.to_owned());
        }
        Ok(())
    }

    fn insert(&self, module: &str) -> io::Result<()> {
        let path = self.folder.join(format!("{module}.ko"));
        let file = match fs::File::open(&path) {
            // Another process of ours has loaded it and deleted the file; the kernel shows those that it has.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && Path::new("/sys/module").join(module).exists() =>
            {
                return Ok(());
            }
            opened => opened?,
        };
        match rustix::system::finit_module(file.as_fd(), c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {
                let _ = fs::remove_file(&path);
                Ok(())
            }
            // The driver found nothing to drive, which is no fault of anybody.
            Err(rustix::io::Errno::NODEV) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The modaliases of all devices of the buses we know.
fn modaliases() -> BTreeSet<String> {
    let devices = BUSES
        .iter()
        .filter_map(|bus| fs::read_dir(format!("/sys/bus/{bus}/devices")).ok())
        .flatten()
        .flatten();
    devices
        .filter_map(|device| fs::read_to_string(device.path().join("modalias")).ok())
        .map(|text| text.trim().to_owned())
        .collect()
}

/// A shell glob with `*`, `?` and `[…]`, as the kernel writes them into aliases.
fn matches(pattern: &str, text: &str) -> bool {
    fn go(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                go(rest, text) || text.split_first().is_some_and(|(_, later)| go(pattern, later))
            }
            (Some((b'?', rest)), Some((_, later))) => go(rest, later),
            (Some((b'[', rest)), Some((byte, later))) => {
                let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
                let (set, rest) = rest.split_at(end);
                in_set(set, *byte) && go(rest.get(1..).unwrap_or_default(), later)
            }
            (Some((wanted, rest)), Some((byte, later))) => wanted == byte && go(rest, later),
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
    fn in_set(set: &[u8], byte: u8) -> bool {
        let range = set
            .windows(3)
            .any(|window| matches!(window, [from, b'-', to] if (*from..=*to).contains(&byte)));
        range || set.contains(&byte)
    }
    go(pattern.as_bytes(), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "module failover\nmodule net_failover failover\nmodule virtio_net failover net_failover\n\
        alias virtio:d00000001v* virtio_net\nload early virtio_net\nload esp vfat\nfuture x y\n";

    #[test]
    fn the_index_is_read_as_the_image_writes_it() {
        let index = Index::parse(TEXT);
        assert_eq!(
            index.dependencies.get("virtio_net"),
            Some(&vec!["failover".to_owned(), "net_failover".to_owned()])
        );
        assert_eq!(index.dependencies.get("failover"), Some(&Vec::new()));
        assert_eq!(
            index.for_modalias("virtio:d00000001v00001AF4").collect::<Vec<_>>(),
            ["virtio_net"]
        );
        assert_eq!(index.for_modalias("virtio:d00000002v00001AF4").count(), 0);
        assert_eq!(index.listed(When::Esp).collect::<Vec<_>>(), ["vfat"]);
    }

    #[test]
    fn globs_are_the_kernels() {
        assert!(matches("pci:v00001AF4d*sv*", "pci:v00001AF4d00001000sv00001AF4"));
        assert!(!matches("pci:v00001AF4d*sv*", "pci:v00008086d00001000"));
        assert!(matches("acpi*:PNP0C0C:*", "acpi:PNP0C0C:"));
        assert!(matches("scsi:t-0x0[07e]*", "scsi:t-0x07"));
        assert!(matches("x[0-3]", "x2") && !matches("x[0-3]", "x4"));
        assert!(!matches("x[0-3", "x2"));
    }

    #[test]
    fn a_module_that_is_missing_is_named_and_the_rest_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(
            folder.path().join("index"),
            "module a\nmodule b a\nload early b\nload early c\n",
        )
        .expect("written");
        let mut loader = Loader::open(folder.path());
        let failed: Vec<String> =
            loader.load_listed(When::Early).iter().map(ToString::to_string).collect();
        assert_eq!(failed, ["loading the module a", "loading the module c"]);
        assert_eq!(loader.count(), 0);
    }
}
